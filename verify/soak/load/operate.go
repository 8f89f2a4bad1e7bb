package load

import (
	"context"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// operate does what operators do, once for a key: each worker to its share of the keys that come up while
// it lives, so that none is operated on twice. A key whose worker dies meanwhile may be left out. The
// others call for the key at about the same time, and all of them do later, when no replay cache may know
// anything else any more.
func (w *worker) operate(stop <-chan struct{}) {
	if w.Operators == 0 {
		return
	}
	began := int(time.Since(w.Began).Seconds()*w.NewKeys) + 1
	for key := began; ; key++ {
		due := w.Began.Add(time.Duration(float64(key) / w.NewKeys * float64(time.Second)))
		if !pass(time.Until(due), stop) {
			return
		}
		t, age := w.turn(key)
		act := map[turn]func(string){forgotten: w.forget, resolved: w.resolve}[t]
		if act == nil {
			continue
		}
		r := randomFor(w.Seed, w.Proc+" operator", key)
		if key%w.Operators == w.Operator {
			age += w.Lease / 8
		} else {
			age += upTo(r, w.Lease/4)
			act = func(string) { w.call(key, r) }
		}
		w.calls.Go(func() {
			if pass(age, stop) {
				act(keyName(key))
			}
			if pass(4*w.Lease, stop) {
				w.call(key, r)
			}
		})
	}
}

// pass lets time pass, and reports false when stop is closed before.
func pass(d time.Duration, stop <-chan struct{}) bool {
	select {
	case <-time.After(d):
		return true
	case <-stop:
		return false
	}
}

func (w *worker) forget(key string) {
	w.settle(key, history.Forget, func(string) error { return w.exec.Forget(context.Background(), key) })
}

// resolve puts a value in that names the call, as fn's name theirs.
func (w *worker) resolve(key string) {
	w.settle(key, history.Resolve, func(id string) error {
		_, err := w.exec.Resolve(context.Background(), key, newCharge(id, 20), idempotent.WithAbsent())
		return err
	})
}

// settle tells the provider of an operator's call, before and after.
func (w *worker) settle(key string, op history.Op, do func(id string) error) {
	id := w.id()
	w.invoke(id, key, op, &history.Ask{})
	called := time.Now()
	e := history.Event{Kind: history.Return, Result: history.Done}
	if err := do(id); err != nil {
		e = describe(charge{}, err, nil, 0)
	}
	e.Took = time.Since(called)
	w.returned(&caller{}, id, key, e, new(idempotent.Report))
}
