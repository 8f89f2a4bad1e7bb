package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/idempotent-go/idempotent"
)

// handle brings a taken event to its next state.
func (w *worker) handle(ctx context.Context, t *Taken) {
	started := time.Now()
	s := w.decide(ctx, t)
	s.Retention = w.cfg.retention
	s.Reason = cut(s.Reason)
	note := string(s.Cause)
	if s.Reason != "" {
		note += ": " + s.Reason
	}
	if s.Step.TraceID == "" {
		s.Step = w.step(s.State, t.Record.TraceParent, s.Attempts, note)
	} else {
		s.Step.Note = note
	}
	w.settle(ctx, t, s, time.Since(started))
}

// maxReason bounds the text of a handler's error that is stored.
const maxReason = 1 << 10

func cut(text string) string {
	if len(text) > maxReason {
		return text[:maxReason] + "…"
	}
	return text
}

// decide returns the settlement of a taken event, after running its handler if it is to run.
func (w *worker) decide(ctx context.Context, t *Taken) Settlement {
	r := &t.Record
	keep := Settlement{Attempts: r.Attempts} // what does not count as an attempt
	rt := w.router.find(r.Source, r.Type)
	if rt == nil {
		return keep.as(Skipped, CauseNoHandler, "no handler is registered for its source and type")
	}
	job, err := w.job(r)
	if err != nil {
		return keep.as(Dead, CauseUnreadable, err.Error())
	}
	if r.Unsigned {
		if s, ok := w.confirm(ctx, rt, r, job); !ok {
			return s
		}
	}
	x := execution{worker: w, taken: t, route: rt, job: job, handler: rt.handler}
	if rt.order != nil && (r.Redrives == 0 || !r.Applied) {
		if s, ok := x.orderly(); !ok {
			return s
		}
	}
	return x.run(ctx)
}

// as returns the settlement with a state, a cause and a reason.
func (s Settlement) as(state State, cause Cause, reason string) Settlement {
	s.State, s.Cause, s.Reason = state, cause, reason
	return s
}

// job reads the event of a record.
func (w *worker) job(r *Record) (*Job, error) {
	if r.Payload == nil {
		return nil, errors.New("its payload is past its retention")
	}
	p, err := openPayload(w.cfg.seal, r.Key, *r.Payload)
	if err != nil {
		return nil, err
	}
	body := p.Body
	if p.Part != nil {
		body = p.Part
	}
	return &Job{
		Event: Event{
			ID: r.ID, Type: r.Type, Object: r.Object, Version: r.Version, OccurredAt: r.OccurredAt, Body: body, Unsigned: r.Unsigned,
		},
		Source: r.Source, Key: r.Key, Reference: reference(r.Key), Redrive: r.Redrives, Header: p.Header, ReceivedAt: r.ReceivedAt,
	}, nil
}

func reference(key string) string { return idempotent.HashKey("webhook", key) }

// confirm asks the provider about an unsigned event, and replaces it by what the provider says. It returns false and a
// settlement if the event is not to be handled now.
func (w *worker) confirm(ctx context.Context, rt *route, r *Record, job *Job) (Settlement, bool) {
	s := Settlement{Attempts: r.Attempts + 1}
	source := w.sources[r.Source]
	if source == nil || source.Confirm == nil {
		return s.as(Dead, CauseNotConfirmed, "the event is not signed, and its source has no Confirm"), false
	}
	ctx, cancel := context.WithTimeout(ctx, rt.timeout)
	defer cancel()
	confirmed, err := callConfirm(ctx, source.Confirm, job.Event)
	switch {
	case errors.Is(err, ErrRefused):
		return s.as(Dead, CauseNotConfirmed, detail(err)), false
	case err != nil && s.Attempts-r.AttemptsBefore >= rt.attempts:
		return s.as(Dead, CauseUnconfirmed, "the provider could not be asked"), false
	case err != nil:
		s.After = rt.backoff.after(s.Attempts - r.AttemptsBefore)
		return s.as(Retrying, CauseUnconfirmed, "the provider could not be asked"), false
	case confirmed.ID != r.ID || confirmed.Object != r.Object:
		return s.as(Dead, CauseNotConfirmed, "the provider names another event or object"), false
	}
	key, err := source.key(confirmed)
	if err != nil {
		return s.as(Dead, CauseNotConfirmed, "Source.Key returned an error for the confirmed event"), false
	}
	// Two requests that the provider confirms as the same event have one effect.
	job.Event, job.Key, job.Reference = confirmed, key, reference(key)
	return s, true
}

func callConfirm(ctx context.Context, confirm Confirm, e Event) (_ Event, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("webhook: Confirm panicked with a %T", p)
		}
	}()
	return confirm(ctx, e)
}

// orderly decides whether the event is next for its object. It returns false and a settlement if not.
func (x *execution) orderly() (Settlement, bool) {
	r, o := &x.taken.Record, x.route.order
	s := Settlement{Attempts: r.Attempts}
	if r.Object == "" {
		return s.as(Dead, CauseConflict, "it names no object, so it cannot be ordered"), false
	}
	d := o.decide(x.job.Event, x.taken.Positions[o.name])
	if d.verdict == Apply || d.verdict == Ahead {
		if !d.unset {
			x.move = &Move{Order: o.name, Position: d.position}
		}
	}
	switch d.verdict {
	case Behind:
		return s.as(Stale, CauseBehind, d.reason), false
	case Conflict:
		return s.as(Dead, CauseConflict, d.reason), false
	case Ahead:
		now := time.Now()
		until := r.ParkedUntil
		if until.IsZero() {
			until = now.Add(o.parkFor)
		}
		s.WaitsFor = d.waitsFor
		switch {
		case now.Before(until):
			s.ParkedUntil, s.After = until, until.Sub(now)
			return s.as(Parked, CauseAhead, "waits for "+d.waitsFor), false
		case o.refetch == nil:
			return s.as(Dead, CauseMissing, fmt.Sprintf("waited %v for %s", o.parkFor, d.waitsFor)), false
		}
		x.handler = o.refetch
	}
	return s, true
}

// settle stores the settlement. It retries until the lease would have run out: then another worker has the event.
func (w *worker) settle(ctx context.Context, t *Taken, s Settlement, took time.Duration) {
	r := &t.Record
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.lease)
	defer cancel()
	pause := backoff{first: 20 * time.Millisecond, limit: time.Second}
	for failures := 1; ; failures++ {
		err := w.store.Settle(deadline, t.Ticket, s)
		if err == nil {
			break
		}
		if errors.Is(err, ErrTicketLost) || deadline.Err() != nil {
			w.report.event(ctx, slog.LevelWarn, "webhook: not settled, another worker continues", r, s.Attempts, s.Step.TraceID, slog.String("error", storeErrorText(err)))
			return
		}
		select {
		case <-deadline.Done():
		case <-time.After(pause.after(failures)):
		}
	}
	level := slog.LevelInfo
	if s.State == Dead {
		level = slog.LevelError
	}
	w.report.event(ctx, level, "webhook: "+string(s.State), r, s.Attempts, s.Step.TraceID, slog.String("cause", string(s.Cause)), slog.Duration("took", took))
	w.report.observe(ctx, Observation{
		Kind: ObservedSettled, Source: r.Source, Type: r.Type, ID: r.ID, Key: r.Key, Object: r.Object,
		State: s.State, Cause: s.Cause, Attempt: s.Attempts, Duration: took, Lag: time.Since(r.ReceivedAt),
	})
}
