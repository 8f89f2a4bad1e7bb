package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/redisproc"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/redis/go-redis/v9"
)

const (
	// simulatedLoad is how many events the load sends at most if there is only a simulated Redis.
	// Its times say nothing then, and are not judged.
	simulatedLoad = 1000

	sceneLimit = 30 * time.Second
	loadLimit  = 3 * time.Minute

	// What the endpoints of the demo are started with: shorter than in production, so that a demo is short.
	demoKeep     = 10 * time.Minute
	demoLease    = 2 * time.Second
	demoPoll     = 50 * time.Millisecond
	demoBackoff  = 200 * time.Millisecond
	demoAttempts = 4
)

// A demo plays scenes, one after the other.
type demo struct {
	out     *stage.Narrator
	patient bool // a slow machine is no failure
	load    load
	redis   *redisproc.Server
	token   string // separates the keys of this run from others
	played  int
}

// A play is a scene as it is written. Its act leaves evidence, which is judged afterwards.
type play struct {
	title string
	story string
	limit time.Duration
	act   func(ctx context.Context, st *set) (evidence, error)
}

// Evidence is what a scene left behind.
type evidence interface{ checks() []stage.Check }

// run plays the scenes, and has stopped everything when it returns.
func (d *demo) run(ctx context.Context, loadOnly bool) (t stage.Tally, err error) {
	if d.redis, err = redisproc.Start(ctx); err != nil {
		return t, err
	}
	defer d.redis.Stop()
	if strings.HasPrefix(d.redis.Description, "miniredis") {
		d.patient, d.load.sent, d.load.limit = true, min(d.load.sent, simulatedLoad), 0
	}
	d.token = stage.Namespace("webhook")
	d.introduce()
	plays := []play{signatures(), twentyTimes(), manyIDs(), failing(), killed(), d.loaded()}
	if loadOnly {
		plays = plays[len(plays)-1:]
	}
	for _, p := range plays {
		checks, err := d.perform(ctx, p)
		t.Add(checks)
		if err != nil {
			return t, fmt.Errorf("scene %d, %s: %w", d.played, p.title, err)
		}
		if t.Failed > 0 { // it should be the last thing on the screen
			break
		}
	}
	return t, nil
}

func (d *demo) introduce() {
	d.out.Print(`webhook: an endpoint in which each event has one effect

   Redis   %s
   ledger  in this process, over HTTP; asked twice, it credits twice
   The endpoint is a process of its own, and this one plays the providers.
`, d.redis.Description)
}

const row = "   %-54s %-16s %-16s %s\n"

// perform plays one scene on a set of its own, and judges it.
func (d *demo) perform(ctx context.Context, p play) (checks []stage.Check, err error) {
	ctx, cancel := stage.Limit(ctx, p.limit)
	defer cancel()
	d.played++
	d.out.Open(d.played, p.title, p.story)
	st, err := d.set()
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, st.strike())
		if err != nil && st.process != nil {
			d.out.Print("\n   the endpoint's last words:\n%s", st.process.said.text)
		}
	}()
	found, err := p.act(ctx, st)
	if err != nil {
		return nil, err
	}
	checks = found.checks()
	d.out.Table(row, checks)
	return checks, nil
}

// A set is where a scene is played: a ledger, secrets, and room in Redis.
type set struct {
	*demo
	namespace string
	ledger    *ledger
	secrets   map[string]string // by provider
	process   *process          // the last one that was started
	close     func()
}

func (d *demo) set() (st *set, err error) {
	st = &set{
		demo:      d,
		namespace: fmt.Sprintf("%s-%d", d.token, d.played),
		ledger:    newLedger(),
		secrets:   map[string]string{stripe: "whsec_" + rand.Text(), bank: "bank_" + rand.Text()},
	}
	st.close, err = st.ledger.start()
	return st, err
}

// strike stops everything, and removes the keys of the scene.
func (st *set) strike() error {
	if st.process != nil {
		st.process.Stop(2 * grace)
	}
	st.close()
	opts, err := redis.ParseURL(st.redis.URL)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for keys := rdb.Scan(ctx, 0, "*"+st.namespace+"*", 1000).Iterator(); ; {
		if !keys.Next(ctx) {
			return keys.Err()
		}
		if err := rdb.Unlink(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
}

// environment is what an endpoint's process must not be told in its arguments.
func (st *set) environment() []string {
	return []string{
		envRedis + "=" + st.redis.URL,
		envLedger + "=" + st.ledger.url,
		envStripeSecret + "=" + st.secrets[stripe],
		envBankSecret + "=" + st.secrets[bank],
	}
}

func (st *set) arguments(workers int) []string {
	answer := 80 * time.Millisecond
	if st.patient {
		answer = 10 * time.Second
	}
	return []string{
		"-namespace", st.namespace, "-workers", fmt.Sprint(workers), "-attempts", fmt.Sprint(demoAttempts),
		"-keep", demoKeep.String(), "-lease", demoLease.String(), "-poll", demoPoll.String(),
		"-backoff", demoBackoff.String(), "-answer", answer.String(), "-unsafe",
	}
}

// start starts an endpoint with so many workers.
func (st *set) start(ctx context.Context, workers int) (err error) {
	st.process, err = startProcess(ctx, st.environment(), st.arguments(workers))
	if err != nil {
		return err
	}
	st.out.Say("an endpoint with %d workers listens, pid %d", workers, st.process.PID())
	return nil
}

func (st *set) sender(provider string) *sender {
	return newSender(st.process.public+"/webhooks/"+provider, st.secrets[provider])
}

// paid is an event of the kind that most scenes use.
func paid(id, order string) []byte {
	return eventBody(id, "payment.succeeded", object{ID: order, Amount: 4999})
}
