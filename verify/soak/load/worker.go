package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A worker makes calls until it is told to stop, killed, or left alone by the campaign.
type worker struct {
	Order
	rec    *history.Recorder
	client redis.UniversalClient
	exec   *idempotent.Executor[charge]

	pipelines pipelines

	calls   sync.WaitGroup
	counted atomic.Int64
	current sync.Map // key and attempt → the call whose fn runs, for what the renewer says
}

// Main is the worker process.
func Main(orderText string) error {
	var w worker
	if err := json.Unmarshal([]byte(orderText), &w.Order); err != nil {
		return err
	}
	var err error
	if w.rec, err = history.Dial(w.Provider, w.Topology, w.Proc); err != nil {
		return err
	}
	said := make(chan string, 2)
	go listen(said)
	stopWatch := history.Watch(func(took time.Duration) { w.rec.Record(history.Event{Kind: history.Stall, Took: took}) })
	before := goleak.IgnoreCurrent()
	w.client = w.Order.client()
	w.client.AddHook(&w.pipelines)
	w.client.AddHook(askers{})
	if w.exec, err = idempotent.New[charge](w.client, Namespace, w.options()...); err != nil {
		return err
	}
	w.rec.Record(history.Event{Kind: history.Start, Shares: w.Shares, Caches: w.Cache > 0})
	if w.Audit > 0 {
		w.audit()
	} else {
		w.load(said)
	}
	return w.end(before, stopWatch)
}

func (w *worker) options() []idempotent.Option {
	opts := []idempotent.Option{
		idempotent.WithLease(w.Lease), idempotent.WithErrors(registry()),
		idempotent.WithLogger(slog.New(&ear{Handler: slog.DiscardHandler, worker: w})),
		idempotent.WithObserver(idempotent.ObserverFunc(w.observe)),
		idempotent.WithShouldIgnoreError(func(err error) bool { return name(err, nil) == history.GotIgnored }),
	}
	if w.Acks > 0 {
		opts = append(opts, idempotent.WithReplicaAck(w.Acks, w.AckWait))
	}
	if w.Cache > 0 {
		opts = append(opts, idempotent.WithReplayCache(w.Cache))
	}
	return opts
}

// An ear tells the provider when the executor's log says that a subscription is lost. There is no
// event for that.
type ear struct {
	slog.Handler
	worker *worker
}

func (*ear) Enabled(context.Context, slog.Level) bool { return true }

func (h *ear) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "subscription lost") {
		h.worker.rec.Record(history.Event{Kind: history.Unheard})
	}
	return nil
}

// listen passes on what the campaign says, and ends the process when there is no campaign any
// more.
func listen(said chan<- string) {
	for in := bufio.NewReader(os.Stdin); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		said <- line
	}
}

// load makes calls at the order's rate, says when the last one is over, and waits to be told to
// close, while the campaign looks at what the idle worker holds.
func (w *worker) load(said <-chan string) {
	r := randomFor(w.Seed, w.Proc, 0)
	crowd := 1
	if w.Shares {
		crowd = crowdSize
	}
	stopped := make(chan struct{})
	w.calls.Go(func() { w.operate(stopped) })
	tick := time.NewTicker(time.Duration(float64(time.Second) / w.Rate * float64(crowd)))
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-said:
			running = false
		case <-tick.C:
			w.countShared()
			for range crowd {
				w.begin(r)
			}
		}
	}
	close(stopped)
	w.calls.Wait()
	w.countShared()
	w.rec.Record(history.Event{Kind: history.Idle})
	<-said
}

// crowdSize is how many keys are called for at once where commands are to share pipelines.
const crowdSize = 32

// begin makes the calls for one key or, now and then, for several at once.
func (w *worker) begin(r *rand.Rand) {
	key := w.pick(r)
	burst := 1 + r.IntN(4)/3*r.IntN(8) // now and then
	if burst > 1 && !w.Shares && r.IntN(2) == 0 {
		w.beginMany(key, burst, r)
		return
	}
	for range burst {
		seed := r.Uint64()
		w.calls.Go(func() { w.call(key, rand.New(rand.NewPCG(seed, 0))) }) //nolint:gosec // nothing is secret here
	}
}

// beginMany makes the calls of a burst in one RunMany, for other keys than the first as well. Workers
// that share pipelines are spared, so that it shows whether the pipelines are shared without it.
func (w *worker) beginMany(key, burst int, r *rand.Rand) {
	keys := []int{key}
	for range burst - 1 {
		next := w.pick(r)
		if t, _ := w.turn(next); t == forgotten && slices.Contains(keys, next) {
			continue // of two executions that both begin at attempt 1, nobody would know which one is meant
		}
		keys = append(keys, next)
	}
	seed := r.Uint64()
	w.calls.Go(func() { w.many(keys, rand.New(rand.NewPCG(seed, 0))) }) //nolint:gosec // nothing is secret here
}

// countShared tells the provider what has shared pipelines since it was last told.
func (w *worker) countShared() {
	if shared := w.pipelines.take(); w.Shares && shared != (history.Shared{}) {
		w.rec.Record(history.Event{Kind: history.Pipelined, Shared: &shared})
	}
}

// pick chooses a key: one of the newest most of the time, so that workers meet, and any older one now
// and then.
func (w *worker) pick(r *rand.Rand) int {
	newest := int(time.Since(w.Began).Seconds() * w.NewKeys)
	if w.Shares { // before the others, so that many executions are its own
		newest += int(crowdSize / w.Rate * w.NewKeys)
	}
	if r.IntN(6) == 0 {
		return r.IntN(newest + 1)
	}
	return max(0, newest-int(math.Abs(r.NormFloat64())*2*w.NewKeys))
}

// audit asks for every key that there can be.
func (w *worker) audit() {
	for key := range w.Audit {
		w.get(keyName(key), history.Ask{Wait: 4 * w.Lease})
	}
	w.rec.Record(history.Event{Kind: history.Audited, Count: w.Audit})
}

func keyName(n int) string { return "k" + strconv.Itoa(n) }

// end closes everything, and says whether a goroutine is left.
func (w *worker) end(before goleak.Option, stopWatch func()) error {
	if err := w.exec.Close(); err != nil {
		return err
	}
	if err := w.client.Close(); err != nil {
		return err
	}
	// A dial of go-redis goes on for a moment when its client is closed.
	dialing := goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial")
	if err := goleak.Find(before, dialing); err != nil {
		w.rec.Record(history.Event{Kind: history.Leftover, Text: err.Error()})
	}
	stopWatch()
	w.rec.Record(history.Event{Kind: history.Clean})
	return w.rec.Close()
}

func (w *worker) id() string {
	return fmt.Sprintf("%s-%d", w.Proc, w.counted.Add(1))
}

// observe tells the provider what the executor says.
func (w *worker) observe(ctx context.Context, e idempotent.Event) {
	out := history.Event{Key: e.Key, Attempt: e.Attempt}
	by := callerIn(ctx)
	out.Call = by.call(execution{e.Key, e.Attempt})
	switch e.Kind {
	case idempotent.EventJoined:
		by.joined.Store(e.Key, true)
		return
	case idempotent.EventRenewed, idempotent.EventLeaseLost: // heard in no call
		running, ok := w.current.Load(execution{e.Key, e.Attempt})
		if !ok {
			return
		}
		out.Kind, out.Call = history.Renewed, running.(string)
		if e.Kind == idempotent.EventLeaseLost {
			out.Kind = history.Lost
		}
	case idempotent.EventRecorded:
		out.Kind = history.Recorded
	case idempotent.EventReleased:
		out.Kind = history.Released
	case idempotent.EventInterrupted:
		out.Kind = history.Abandoned
		if e.Err == nil {
			out.Kind = history.TookOver
		}
	case idempotent.EventCommitRetried:
		out.Kind = history.CommitAgain
	case idempotent.EventCommitFailed:
		out.Kind, out.Text = history.Unrecorded, e.Err.Error()
	default:
		return
	}
	w.rec.Record(out)
}

type execution struct {
	key     string
	attempt int
}
