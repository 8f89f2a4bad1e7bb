package campaign

import (
	"time"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// holdToxic holds everything back for a time and then lets it pass, in order: late renewals, late
// commits, late replies. Toxiproxy's own toxic for latency cannot be taken away for as long as there is
// something that it cannot deliver, because the worker was killed.
type holdToxic struct {
	// Hold is in milliseconds.
	Hold int64 `json:"hold"`
}

const (
	holdType = "hold"
	// flushLimit is how long to try to deliver what is held when the toxic goes away.
	flushLimit = 200 * time.Millisecond
)

func init() { toxics.Register(holdType, new(holdToxic)) }

// Pipe implements toxics.Toxic.
func (t *holdToxic) Pipe(stub *toxics.ToxicStub) {
	var held []*stream.StreamChunk
	for {
		var out chan<- *stream.StreamChunk
		var first *stream.StreamChunk
		var due <-chan time.Time
		if len(held) > 0 {
			first = held[0]
			if wait := time.Until(first.Timestamp.Add(time.Duration(t.Hold) * time.Millisecond)); wait > 0 {
				due = time.After(wait)
			} else {
				out = stub.Output
			}
		}
		select {
		case <-stub.Interrupt:
			flush(stub, held)
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				flush(stub, held)
				stub.Close()
				return
			}
			held = append(held, chunk)
		case out <- first:
			held = held[1:]
		case <-due:
		}
	}
}

func flush(stub *toxics.ToxicStub, held []*stream.StreamChunk) {
	limit := time.After(flushLimit)
	for _, chunk := range held {
		select {
		case stub.Output <- chunk:
		case <-limit:
			return
		}
	}
}
