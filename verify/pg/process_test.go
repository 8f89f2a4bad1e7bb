package pg_test

import (
	"flag"
	"fmt"
	"syscall"
	"testing"

	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

var (
	kills  = flag.Int("kills", 80, "SIGKILLs inside fn")
	pauses = flag.Int("pauses", 30, "pauses inside fn, longer than the lease")
	cuts   = flag.Int("cuts", 100, "answers to COMMIT that are cut off")
)

// harms are done to a worker inside fn; another worker then runs the key.
var harms = map[string]struct {
	times *int
	harm  func(t testing.TB, w *worker, other func())
}{
	"SIGKILL": {kills, func(_ testing.TB, w *worker, other func()) {
		w.signal(syscall.SIGKILL)
		other()
	}},
	"pause beyond the lease": {pauses, func(t testing.TB, w *worker, other func()) {
		w.signal(syscall.SIGSTOP)
		other()
		w.signal(syscall.SIGCONT)
		w.awaitDone(t)
	}},
}

func TestWorkersHarmedInsideFn(t *testing.T) {
	for name, h := range harms {
		for _, kind := range []string{"pg", "redis"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				world := newHarness(t, pgtest.Database(t))
				database, addr := world.pool.Config().ConnString(), redisAddr(t)
				var keys []string
				start := func() *worker { return startWorker(t, kind, database, addr) }
				first, second := start(), start()
				defer func() { first.end(true); second.end(true) }()
				harmed := 0
				for i := range *h.times {
					key := fmt.Sprint(t.Name(), i)
					keys = append(keys, key)
					if !first.do(t, key) {
						t.Fatalf("%s was done already", key)
					}
					harmed++
					h.harm(t, first, func() {
						if second.do(t, key) {
							second.awaitDone(t)
						}
					})
					if name == "SIGKILL" {
						first.end(true)
						first = start()
					}
				}
				twice, missing := world.count(keys)
				t.Logf("%d harmed: effects twice %d, missing %d", harmed, twice, missing)
				if missing > 0 || kind == "pg" && twice > 0 || kind == "redis" && twice == 0 {
					t.Errorf("want none missing; none twice with the record in Postgres, and some in the control")
				}
			})
		}
	}
}

func redisAddr(t testing.TB) string { return redistest.Start(t).Addr() }
