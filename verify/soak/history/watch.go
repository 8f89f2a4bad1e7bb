package history

import "time"

// A process that had to wait for the processor is late, for its lease and for everything else, as
// one is that was stopped. Its watch tells when it did not run for longer than stallLimit.
const (
	stallTick  = 10 * time.Millisecond
	stallLimit = 50 * time.Millisecond
)

// Watch calls stalled, with how long it was, each time this process did not run for long, until
// stop is called.
func Watch(stalled func(took time.Duration)) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(stallTick)
		defer tick.Stop()
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if took := time.Since(last); took > stallLimit {
				stalled(took)
			}
		}
	}()
	return func() { close(done); <-ended }
}
