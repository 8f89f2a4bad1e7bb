package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strconv"
	"time"
)

// A rejection is a response other than 2xx.
type rejection struct {
	status     int
	retryAfter time.Duration // of a 503
	err        error
}

func (r *rejection) Error() string { return fmt.Sprintf("status %d: %v", r.status, r.err) }
func (r *rejection) Unwrap() error { return r.err }

func reject(status int, err error) error { return &rejection{status: status, err: err} }

func unavailable(after time.Duration, err error) error {
	return &rejection{http.StatusServiceUnavailable, after, err}
}

var (
	errBodyMemory = errors.New("webhook: too many bytes of bodies at once (WithBodyMemory)")
	errNoAnswer   = errors.New("webhook: the store did not answer within WithAnswerWithin")
	errClosed     = errors.New("webhook: the inbox is closed")
)

// A delivery is one request on its way in.
type delivery struct {
	source      *Source
	header      http.Header // as it is stored
	peer        string
	at          time.Time
	traceparent string
	read        time.Time // when the body was complete
}

// ServeHTTP receives a request of the source whose name is the path value "source" or, if the pattern has none, the last
// part of the path. It answers once the events are stored: with 2xx, or what the scheme wants; with 400 if the request is
// refused, without a reason; with 503 and Retry-After if the events could not be stored in time. Mount it for all methods
// or for POST.
func (in *Inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	name := r.PathValue("source")
	if name == "" {
		name = path.Base(r.URL.Path)
	}
	source := in.sources[name]
	if source == nil {
		http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
		return
	}
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		peer = r.RemoteAddr
	}
	ctx, traceparent := in.cfg.tracer.StartDelivery(r.Context(), name, r.Header)
	d := &delivery{source: source, header: storedHeader(r.Header), peer: peer, at: at, traceparent: validTraceparent(traceparent)}
	answer, err := in.receive(ctx, w, r, d)
	status := in.respond(w, answer, err)
	in.cfg.tracer.EndDelivery(ctx, status, err)
	in.reportRejection(ctx, d, err)
}

// receive verifies and stores the events of a request. Nothing is parsed before the signature was verified, and nothing is
// answered with 2xx before it is stored.
func (in *Inbox) receive(ctx context.Context, w http.ResponseWriter, r *http.Request, d *delivery) (*Answer, error) {
	if r.Method != http.MethodPost {
		return nil, reject(http.StatusMethodNotAllowed, fmt.Errorf("webhook: method is %.10q; allowed: POST", r.Method))
	}
	if in.closed.Load() {
		return nil, unavailable(time.Second, errClosed)
	}
	body, release, err := in.readBody(w, r, d.source.MaxBody)
	if err != nil {
		release()
		return nil, err
	}
	d.read = time.Now()
	content, err := in.verify(r, d, body)
	var arrivals []Arrival
	if err == nil {
		arrivals, err = in.arrivals(ctx, d, content, body)
	}
	if _, sealing := errors.AsType[*sealError](err); sealing {
		release()
		return nil, unavailable(retrySoon, err)
	}
	if err != nil {
		release()
		in.refusals.add(Refusal{At: d.at, Source: d.source.Name, Peer: d.peer, Reason: ReasonOf(err), Detail: detail(err), Size: len(body), Header: d.header})
		return nil, reject(http.StatusBadRequest, err)
	}
	return content.Answer, in.acceptAll(ctx, d, arrivals, release)
}

// verify calls the scheme. A panic of a custom scheme is a refusal.
func (in *Inbox) verify(r *http.Request, d *delivery, body []byte) (content Content, err error) {
	defer func() {
		if p := recover(); p != nil {
			in.report.logger.Error("webhook: scheme panicked", "source", d.source.Name, "panic", fmt.Sprintf("a %T", p))
			err = Refuse(ReasonOther, "the scheme panicked")
		}
	}()
	return d.source.Scheme.Verify(&Request{Method: r.Method, URL: r.URL.String(), Header: r.Header, Body: body, ReceivedAt: d.at})
}

// detail is the detail of a refusal. Errors of custom schemes may hold a payload, so their text is not used.
func detail(err error) string {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused.Detail
	}
	return fmt.Sprintf("a %T", err)
}

// arrivals returns the events of a request that are to be stored.
func (in *Inbox) arrivals(ctx context.Context, d *delivery, content Content, body []byte) ([]Arrival, error) {
	backlog := in.cfg.backlog
	if d.source.Scheme.Provider().NeverRedelivers {
		backlog *= 4
	}
	var all []Arrival
	for _, e := range content.Events {
		if d.source.Describe != nil {
			if err := d.source.Describe(&e); err != nil {
				return nil, Refuse(ReasonBadBody, "Source.Describe returned an error")
			}
		}
		if d.source.Accept != nil && !d.source.Accept(e) {
			in.report.observe(ctx, Observation{Kind: ObservedDropped, Source: d.source.Name, Type: e.Type, ID: e.ID, Object: e.Object})
			continue
		}
		key, err := d.source.key(e)
		if err != nil {
			return nil, Refuse(ReasonNoEventID, "Source.Key returned an error")
		}
		if e.Unsigned {
			key = unsignedKey(key, e.Body)
		}
		payload := Payload{Header: d.header, Body: body}
		if len(e.Body) != len(body) {
			payload.Part = e.Body
		}
		if in.cfg.seal != nil {
			if payload, err = sealPayload(in.cfg.seal, key, payload); err != nil {
				return nil, err
			}
		}
		e.Body = nil
		all = append(all, Arrival{
			Key: key, Source: d.source.Name, Event: e, Payload: payload, Receipt: Receipt{At: d.at, Peer: d.peer},
			TraceParent: d.traceparent, Retention: in.cfg.retention, Backlog: backlog,
			Step: in.step(Queued, d.traceparent, 0, ""),
		})
	}
	return all, nil
}

// acceptAll stores events and waits for the store until the request must be answered. The store may go on after that: an
// event that was answered with 503 can be stored all the same, and its next delivery is a duplicate. Only then are the
// bytes of the body released.
func (in *Inbox) acceptAll(ctx context.Context, d *delivery, arrivals []Arrival, release func()) error {
	if len(arrivals) == 0 { // a challenge, or nothing that Source.Accept wants
		release()
		return nil
	}
	within := in.cfg.answerWithin
	if limit := d.source.Scheme.Provider().AnswerWithin; limit > 0 {
		within = min(within, limit)
	}
	// Not cancelled with the request: a provider that hangs up delivers again, and finds the event stored.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), within-time.Since(d.read), errNoAnswer)
	stored := make(chan error, 1) // a goroutine, because a client of Redis may ignore ctx until its own timeout
	go func() {
		defer cancel()
		defer release()
		stored <- in.accept(ctx, d, arrivals)
	}()
	select {
	case err := <-stored:
		return err
	case <-ctx.Done():
		select {
		case err := <-stored: // both at once
			return err
		default:
			return unavailable(retrySoon, context.Cause(ctx))
		}
	}
}

// What Retry-After says: providers have schedules of their own, and few read it.
const (
	retrySoon = 5 * time.Second
	retryFull = 30 * time.Second
)

func (in *Inbox) accept(ctx context.Context, d *delivery, arrivals []Arrival) error {
	for i := range arrivals {
		a := &arrivals[i]
		n, err := in.store.Accept(ctx, *a)
		switch {
		case errors.Is(err, ErrBacklogFull):
			return unavailable(retryFull, err)
		case err != nil:
			return unavailable(retrySoon, &storeError{err})
		}
		about := Record{Key: a.Key, Source: a.Source, ID: a.Event.ID, Type: a.Event.Type}
		in.report.event(ctx, slog.LevelInfo, "webhook: accepted", &about, 0, traceID(a.TraceParent), slog.Int("deliveries", n))
		in.report.observe(ctx, Observation{
			Kind: ObservedAccepted, Source: a.Source, Type: a.Event.Type, ID: a.Event.ID, Key: a.Key, Object: a.Event.Object,
			Deliveries: n, Duration: time.Since(d.at), Size: len(a.Payload.Body),
		})
		if n == 1 {
			in.signal()
		}
	}
	return nil
}

// respond writes the response and returns its status.
func (in *Inbox) respond(w http.ResponseWriter, answer *Answer, err error) (status int) {
	if rejected, ok := errors.AsType[*rejection](err); ok {
		if rejected.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(rejected.retryAfter.Seconds())))
		}
		http.Error(w, http.StatusText(rejected.status), rejected.status) // the reason would help a forger
		return rejected.status
	}
	if answer == nil {
		w.WriteHeader(http.StatusOK)
		return http.StatusOK
	}
	if answer.ContentType != "" {
		w.Header().Set("Content-Type", answer.ContentType)
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	status = answer.Status
	if status == 0 {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer.Body) //nolint:gosec // the scheme's text, with nosniff; a sender that is gone delivers again
	return status
}

// reportRejection reports a request that was not accepted. The events in it are not known, unless it was authentic; then
// their next delivery shows them.
func (in *Inbox) reportRejection(ctx context.Context, d *delivery, err error) {
	rejected, ok := errors.AsType[*rejection](err)
	if !ok {
		return
	}
	o := Observation{Source: d.source.Name, Duration: time.Since(d.at)}
	switch rejected.status {
	case http.StatusServiceUnavailable:
		o.Kind, o.Err = ObservedUnavailable, rejected.err
		in.report.logger.WarnContext(ctx, "webhook: not accepted", "source", d.source.Name, "status", rejected.status, "trace_id", traceID(d.traceparent), "error", rejected.err.Error())
	default:
		o.Kind, o.Reason = ObservedRefused, ReasonOf(rejected.err)
		in.report.logger.WarnContext(ctx, "webhook: refused", "source", d.source.Name, "status", rejected.status, "trace_id", traceID(d.traceparent), "reason", string(o.Reason), "detail", detail(rejected.err))
	}
	in.report.observe(ctx, o)
}

// step returns a step of this process.
func (in *Inbox) step(state State, traceparent string, attempt int, note string) Step {
	return Step{At: time.Now(), State: state, By: in.cfg.process, TraceID: traceID(traceparent), Attempt: attempt, Note: note}
}
