package acceptance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A load is two executors, as of two processes, that run new keys all the time, each key both at
// once.
type load struct {
	w       *world
	done    chan struct{}
	workers sync.WaitGroup
	through chan struct{} // a key is done, if anybody wants to know

	mu   sync.Mutex
	keys map[string]*loaded
}

// loaded is what became of a key.
type loaded struct {
	runs   int
	values []string // that callers got
	errs   []error
}

func (w *world) load(executors ...*executor) *load {
	l := &load{w: w, done: make(chan struct{}), through: make(chan struct{}), keys: make(map[string]*loaded)}
	for i := range 8 {
		l.workers.Go(func() {
			for n := 0; !l.over(); n++ {
				l.run(fmt.Sprintf("load-%d-%d", i, n), executors)
			}
		})
	}
	w.Cleanup(l.stop)
	return l
}

func (l *load) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (l *load) run(key string, executors []*executor) {
	k := &loaded{}
	l.mu.Lock()
	l.keys[key] = k
	l.mu.Unlock()
	var callers sync.WaitGroup
	for _, x := range executors {
		callers.Go(func() {
			value, err := x.Run(context.Background(), key, func(context.Context) (string, error) {
				l.mu.Lock()
				defer l.mu.Unlock()
				k.runs++
				return fmt.Sprint("charge ", k.runs), nil
			})
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				k.errs = append(k.errs, err)
			} else {
				k.values = append(k.values, value)
			}
		})
	}
	callers.Wait()
	select {
	case l.through <- struct{}{}:
	default:
	}
}

// progress returns when n more keys are done.
func (l *load) progress(n int) {
	l.w.Helper()
	limit := time.After(time.Minute)
	for range n {
		select {
		case <-l.through:
		case <-limit:
			l.w.Fatal("the load stands still")
		}
	}
}

// stop returns when all callers have.
func (l *load) stop() {
	if !l.over() {
		close(l.done)
	}
	l.workers.Wait()
}

// check looks at what became of a key that ran so often at most.
func (l *load) check(key string, runs int) {
	l.w.Helper()
	k := l.keys[key]
	require.LessOrEqual(l.w, k.runs, runs, key)
	for _, err := range k.errs {
		named := errors.Is(err, idempotent.ErrUnavailable) || errors.Is(err, idempotent.ErrNotRecorded) || errors.Is(err, idempotent.ErrLeaseLost)
		require.True(l.w, named, "%s: %v", key, err)
	}
	if k.runs <= 1 {
		for _, value := range k.values {
			assert.Equal(l.w, "charge 1", value, key)
		}
	}
}
