package main

import (
	"runtime"
	"sync"
	"time"
)

// A contender performs n operations, however it likes.
type contender func(n int) error

// alternate has the contenders take turns: in each round, each of them for about a slice. It returns
// the nanoseconds of an operation by contender and round. What else the machine does then
// disturbs all of them alike.
func alternate(rounds int, slice time.Duration, contenders ...contender) ([][]float64, error) {
	sizes := make([]int, len(contenders))
	for i, c := range contenders {
		n, err := calibrate(slice, c)
		if err != nil {
			return nil, err
		}
		sizes[i] = n
	}
	times := make([][]float64, len(contenders))
	for range rounds {
		for i, c := range contenders {
			runtime.GC()                               // nobody cleans up after the one before
			if err := c(sizes[i]/10 + 1); err != nil { // nor pays for cold caches
				return nil, err
			}
			began := time.Now()
			if err := c(sizes[i]); err != nil {
				return nil, err
			}
			times[i] = append(times[i], float64(time.Since(began))/float64(sizes[i]))
		}
	}
	return times, nil
}

// interleave has the operations take turns one by one, and returns the median nanoseconds of an
// operation by contender and round. A single call waits for the scheduler to wake it, for longer or
// shorter spells; so close together, all meet the same one.
func interleave(rounds int, slice time.Duration, ops ...func() error) ([][]float64, error) {
	n, err := calibrate(slice, serial(ops[0]))
	if err != nil {
		return nil, err
	}
	times := make([][]float64, len(ops))
	for range rounds {
		runtime.GC()
		single := make([][]float64, len(ops))
		for range n {
			for i, op := range ops {
				began := time.Now()
				if err := op(); err != nil {
					return nil, err
				}
				single[i] = append(single[i], float64(time.Since(began)))
			}
		}
		for i := range ops {
			times[i] = append(times[i], median(single[i]))
		}
	}
	return times, nil
}

// calibrate finds how many operations fill a slice. It also warms up connections and scripts. A
// machine that stalls makes a contender look slow, never fast, so the best of some tries counts.
func calibrate(slice time.Duration, c contender) (best int, err error) {
	for range 3 {
		for n := 1; ; n *= 4 {
			began := time.Now()
			if err := c(n); err != nil {
				return 0, err
			}
			if took := time.Since(began); took >= slice/4 {
				best = max(best, 1, int(float64(n)*float64(slice)/float64(took)))
				break
			}
		}
	}
	return best, nil
}

// spread makes a contender of a function that many goroutines call at once. worker tells them
// apart.
func spread(goroutines int, op func(worker int) error) contender {
	return func(n int) error {
		errs := make(chan error, goroutines)
		var wg sync.WaitGroup
		for worker := range goroutines {
			share := n / goroutines
			if worker < n%goroutines {
				share++
			}
			wg.Go(func() {
				for range share {
					if err := op(worker); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		return <-errs
	}
}

// serial makes a contender of a function that one goroutine calls.
func serial(op func() error) contender {
	return func(n int) error {
		for range n {
			if err := op(); err != nil {
				return err
			}
		}
		return nil
	}
}
