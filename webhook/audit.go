package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// pageSize is how many events are read at once, where all of them are wanted.
const pageSize = 500

// Get returns what is known of an event, by the provider's id. The payload is as it came, byte by byte; nil if it is past
// its retention or erased. ErrNotFound means that it was never received, or is past its retention.
func (in *Inbox) Get(ctx context.Context, source, id string) (Record, error) {
	return in.get(ctx, Lookup{Source: source, ID: id})
}

// GetByKey returns what is known of an event, by its own key.
func (in *Inbox) GetByKey(ctx context.Context, key string) (Record, error) {
	return in.get(ctx, Lookup{Key: key})
}

func (in *Inbox) get(ctx context.Context, l Lookup) (Record, error) {
	r, err := in.store.Get(ctx, l)
	if err != nil || r.Payload == nil {
		return r, err
	}
	open, err := openPayload(in.cfg.seal, r.Key, *r.Payload)
	if err != nil {
		return r, err
	}
	r.Payload = &open
	return r, nil
}

// Find returns the events that a filter selects, without payloads, the one received last first. It reads them in pages; an
// event whose state changes meanwhile can be missed or come twice. After an error it ends.
func (in *Inbox) Find(ctx context.Context, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for cursor := ""; ; {
			page, next, err := in.store.Find(ctx, f, cursor, pageSize)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if cursor = next; next == "" {
				return
			}
		}
	}
}

// FindPage returns one page of Find, of up to limit events. cursor is "" or what the last page returned; next is "" at the
// end.
func (in *Inbox) FindPage(ctx context.Context, f Filter, cursor string, limit int) (page []Record, next string, err error) {
	return in.store.Find(ctx, f, cursor, limit)
}

// Backlog counts events by state.
func (in *Inbox) Backlog(ctx context.Context) (Backlog, error) { return in.store.Backlog(ctx) }

// A DeadGroup are dead letters of one source, type and cause, and one example of them.
type DeadGroup struct {
	Source string    `json:"source"`
	Type   string    `json:"type"`
	Cause  Cause     `json:"cause"`
	Count  int       `json:"count"`
	First  time.Time `json:"first"` // received
	Last   time.Time `json:"last"`
	// Example is the reason of the one received last.
	Example string `json:"example"`
}

// DeadLetters returns the dead letters that a filter selects, grouped, the largest group first. Filter.States does not
// matter. It reads all of them.
func (in *Inbox) DeadLetters(ctx context.Context, f Filter) ([]DeadGroup, error) {
	type group struct {
		source, typ string
		cause       Cause
	}
	groups := map[group]*DeadGroup{}
	f.States = []State{Dead}
	for r, err := range in.Find(ctx, f) {
		if err != nil {
			return nil, err
		}
		of := group{r.Source, r.Type, r.Cause}
		g := groups[of]
		if g == nil {
			g = &DeadGroup{Source: r.Source, Type: r.Type, Cause: r.Cause, Last: r.ReceivedAt, Example: r.Reason}
			groups[of] = g
		}
		g.Count++
		g.First = r.ReceivedAt
	}
	all := []DeadGroup{}
	for _, g := range groups {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b DeadGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Cause, b.Cause))
	})
	return all, nil
}

// RedriveOptions describe a redrive.
type RedriveOptions struct {
	// Name identifies the redrive, 1 to 128 bytes: under one name, an event is redriven once, whoever repeats the call, at
	// the same time or after a crash in the middle of it. "deploy-4711" is a good name.
	Name string
	// PerSecond is how many events become due each second, 100 by default. All calls with one name share it.
	PerSecond float64
	// DryRun counts what would be redriven, and changes nothing.
	DryRun bool
	// By names who redrives, for the trail.
	By string
}

// Redriven is the result of a redrive.
type Redriven struct {
	// Found is how many settled events the filter selects.
	Found int `json:"found"`
	// Queued is how many of them this call queued. The others were redriven under this name before, or have no payload
	// any more.
	Queued int `json:"queued"`
}

// DefaultRedrivePerSecond is the rate of a redrive that sets none.
const DefaultRedrivePerSecond = 100

// Redrive queues the settled events that a filter selects, so that their handlers run again: dead letters, or with
// Filter.States also events that were done, stale or skipped, after a bug for instance. The handler sees an Attempt above 1
// and a Redrive of 1 or more. Redriven events come after all others. Redrive returns when all of them are queued; if it
// returns an error or is killed, call it again with the same name.
func (in *Inbox) Redrive(ctx context.Context, f Filter, o RedriveOptions) (Redriven, error) {
	var done Redriven
	redrive, err := in.redriver(ctx, o, &done)
	if err != nil {
		return done, err
	}
	err = in.eachSettled(ctx, f, []State{Dead}, redrive)
	return done, err
}

// RedriveKey is Redrive for one event, by its own key. ErrNotFound if there is none.
func (in *Inbox) RedriveKey(ctx context.Context, key string, o RedriveOptions) (Redriven, error) {
	var done Redriven
	redrive, err := in.redriver(ctx, o, &done)
	if err != nil {
		return done, err
	}
	r, err := in.store.Get(ctx, Lookup{Key: key})
	if err != nil || !r.State.Settled() {
		return done, err
	}
	err = redrive([]Ref{r.Ref()})
	return done, err
}

// redriver returns a function that redrives events and counts them in done.
func (in *Inbox) redriver(ctx context.Context, o RedriveOptions, done *Redriven) (func([]Ref) error, error) {
	o.PerSecond = cmp.Or(o.PerSecond, DefaultRedrivePerSecond)
	if o.Name == "" || len(o.Name) > maxKey || !(o.PerSecond > 0) {
		return nil, fmt.Errorf("webhook: Redrive: name of %d bytes, %g per second; allowed: 1 to %d bytes, more than 0", len(o.Name), o.PerSecond, maxKey)
	}
	requeue := Requeue{
		Name: o.Name, PerSecond: o.PerSecond, Retention: in.cfg.retention,
		Step: Step{At: time.Now(), State: Queued, By: cmp.Or(o.By, in.cfg.process), Note: "redrive " + o.Name},
	}
	return func(events []Ref) error {
		done.Found += len(events)
		if o.DryRun {
			return nil
		}
		n, err := in.store.Redrive(ctx, events, requeue)
		done.Queued += n
		if n > 0 {
			in.signal()
			in.report.logger.InfoContext(ctx, "webhook: redriven", "name", o.Name, "by", requeue.Step.By, "queued", n)
		}
		return err
	}, nil
}

// Erase deletes the headers and bodies of the settled events that a filter selects, and returns how many it deleted. What
// happened to them stays. Unsettled events are left alone: call Erase again when they are settled. by names who erases.
func (in *Inbox) Erase(ctx context.Context, f Filter, by string) (erased int, err error) {
	err = in.eachSettled(ctx, f, settledStates, func(events []Ref) error {
		n, err := in.eraseEvents(ctx, events, by)
		erased += n
		return err
	})
	return erased, err
}

// EraseKey is Erase for one event, by its own key. ErrNotFound if there is none.
func (in *Inbox) EraseKey(ctx context.Context, key, by string) (erased int, err error) {
	r, err := in.store.Get(ctx, Lookup{Key: key})
	if err != nil {
		return 0, err
	}
	return in.eraseEvents(ctx, []Ref{r.Ref()}, by)
}

func (in *Inbox) eraseEvents(ctx context.Context, events []Ref, by string) (erased int, err error) {
	step := Step{At: time.Now(), By: cmp.Or(by, in.cfg.process), Note: "erased"}
	erased, err = in.store.Erase(ctx, events, step)
	if erased > 0 {
		in.report.logger.InfoContext(ctx, "webhook: erased", "by", step.By, "events", erased)
	}
	return erased, err
}

var settledStates = []State{Done, Stale, Skipped, Dead}

// eachSettled calls do with the settled events that a filter selects, in pages. states is what a filter without states
// selects.
func (in *Inbox) eachSettled(ctx context.Context, f Filter, states []State, do func([]Ref) error) error {
	if len(f.States) == 0 {
		f.States = states
	}
	for _, s := range f.States {
		if !s.Settled() {
			return fmt.Errorf("webhook: the filter has state %q; allowed: settled states", s)
		}
	}
	if f.Object != "" && f.Source == "" {
		return errors.New("webhook: the filter has an object and no source; allowed: both")
	}
	for cursor := ""; ; {
		page, next, err := in.store.Find(ctx, f, cursor, pageSize)
		if err != nil {
			return err
		}
		events := make([]Ref, len(page))
		for i := range page {
			events[i] = page[i].Ref()
		}
		if err := do(events); err != nil {
			return err
		}
		if cursor = next; next == "" {
			return nil
		}
	}
}
