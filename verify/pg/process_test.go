package pg_test

import (
	"flag"
	"fmt"
	"syscall"
	"testing"

	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// full makes the tests inject as many faults as docs/postgres.md reports, in minutes instead of seconds.
var full = flag.Bool("full", false, "80 SIGKILLs, 30 pauses, 100 cut commits and 10,000 pruned records")

// times is how often a fault is injected.
func times(short, long int) int {
	if *full {
		return long
	}
	return short
}

// harms are done to a worker inside fn; another worker then runs the key.
var harms = map[string]struct {
	times [2]int // in short, in full
	harm  func(t testing.TB, w *worker, other func())
}{
	"SIGKILL": {[2]int{6, 80}, func(_ testing.TB, w *worker, other func()) {
		w.signal(syscall.SIGKILL)
		other()
	}},
	"pause beyond the lease": {[2]int{4, 30}, func(t testing.TB, w *worker, other func()) {
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
				for i := range times(h.times[0], h.times[1]) {
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
