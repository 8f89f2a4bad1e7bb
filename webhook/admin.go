package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An AdminAction is what a user of the admin handler wants to do.
type AdminAction string

// Actions of the admin handler.
const (
	// AdminView: see events, without their payloads.
	AdminView AdminAction = "view"
	// AdminPayload: see the header and body of an event, or the headers of refused requests.
	AdminPayload AdminAction = "payload"
	// AdminRedrive: redrive events.
	AdminRedrive AdminAction = "redrive"
	// AdminErase: erase payloads.
	AdminErase AdminAction = "erase"
)

// AdminConfig configures an admin handler.
type AdminConfig struct {
	// Authorize returns the name of the user, for trails, or an error if the user may not do this: then the response is
	// 403. It is required.
	Authorize func(r *http.Request, a AdminAction) (user string, err error)
	// ReadOnly refuses AdminRedrive and AdminErase.
	ReadOnly bool
}

// Admin returns a handler with a page and a JSON API for operators: was an event received, was it processed, what did it
// change. Mount it behind http.StripPrefix, and not for the public. Requests that change something are refused if a
// browser sent them from another origin (http.CrossOriginProtection).
//
//	GET  /                            the page
//	GET  /api/events?FILTER           events, {"events": […], "next": "cursor"}; also cursor= and limit=
//	GET  /api/events/{source}/{id}    one event, by the provider's id
//	GET  /api/keys/{key}              one event, by its own key
//	GET  /api/keys/{key}/header       its header, as JSON
//	GET  /api/keys/{key}/body         its body, byte by byte
//	GET  /api/dead?FILTER             dead letters in groups
//	GET  /api/backlog                 events by state
//	GET  /api/refusals                the last refused requests of this process
//	POST /api/redrive?FILTER          also name=, per_second=, dry_run=true; {"found": 1, "queued": 1}
//	POST /api/erase?FILTER            {"erased": 1}
//
// FILTER is source, type ("charge.*"), object, state (repeatable), from, to (RFC 3339), cause, reason, or key for one
// event. A redrive or an erasure needs at least one of them.
func (in *Inbox) Admin(cfg AdminConfig) (http.Handler, error) {
	if cfg.Authorize == nil {
		return nil, errors.New("webhook: Admin: Authorize is nil; allowed: a function")
	}
	a := &admin{in, cfg}
	mux := http.NewServeMux()
	handle := func(pattern string, action AdminAction, h func(http.ResponseWriter, *http.Request, string) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, action, h) })
	}
	handle("GET /{$}", AdminView, a.index)
	handle("GET /event/{key}", AdminView, a.event)
	handle("GET /api/events", AdminView, a.find)
	handle("GET /api/events/{source}/{id...}", AdminView, a.byID)
	handle("GET /api/keys/{key}", AdminView, a.byKey)
	handle("GET /api/keys/{key}/header", AdminPayload, a.header)
	handle("GET /api/keys/{key}/body", AdminPayload, a.body)
	handle("GET /api/dead", AdminView, a.dead)
	handle("GET /api/backlog", AdminView, a.backlog)
	handle("GET /api/refusals", AdminPayload, a.refused)
	handle("POST /api/redrive", AdminRedrive, a.redrive)
	handle("POST /api/erase", AdminErase, a.erase)
	return http.NewCrossOriginProtection().Handler(mux), nil
}

// An admin serves operators.
type admin struct {
	*Inbox
	cfg AdminConfig
}

// errBadRequest marks errors whose text the operator may see.
var errBadRequest = errors.New("bad request")

// serve authorizes a request, runs its handler, and answers its error.
func (a *admin) serve(w http.ResponseWriter, r *http.Request, action AdminAction, h func(http.ResponseWriter, *http.Request, string) error) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	user, err := a.cfg.Authorize(r, action)
	if err != nil || a.cfg.ReadOnly && (action == AdminRedrive || action == AdminErase) {
		http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
		return
	}
	switch err := h(w, r, user); {
	case err == nil:
	case errors.Is(err, ErrNotFound):
		http.Error(w, "never received, or past its retention", http.StatusNotFound)
	case errors.Is(err, errBadRequest):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		a.report.logger.ErrorContext(r.Context(), "webhook: admin request failed", "error", storeErrorText(err))
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
	}
}

// filter reads a filter from the query. key selects one event, and is returned apart.
func filter(q url.Values) (f Filter, key string, err error) {
	f = Filter{Source: q.Get("source"), Type: q.Get("type"), Object: q.Get("object"), Cause: Cause(q.Get("cause")), Reason: q.Get("reason")}
	for _, s := range q["state"] {
		if s != "" {
			f.States = append(f.States, State(s))
		}
	}
	for _, t := range []struct {
		name string
		to   *time.Time
	}{{"from", &f.From}, {"to", &f.To}} {
		if text := q.Get(t.name); text != "" {
			if *t.to, err = time.Parse(time.RFC3339, text); err != nil {
				return f, "", fmt.Errorf("%w: %s is %.40q; allowed: a time as in RFC 3339", errBadRequest, t.name, text)
			}
		}
	}
	if f.Object != "" && f.Source == "" {
		return f, "", fmt.Errorf("%w: object without source; allowed: both", errBadRequest)
	}
	return f, q.Get("key"), nil
}

// selective reports whether a filter leaves out any event.
func (f *Filter) selective() bool {
	return f.Source != "" || f.Type != "" || f.Object != "" || len(f.States) > 0 || !f.From.IsZero() || !f.To.IsZero() || f.Cause != "" || f.Reason != ""
}

const maxPage = 500

func (a *admin) find(w http.ResponseWriter, r *http.Request, _ string) error {
	q := r.URL.Query()
	f, _, err := filter(q)
	if err != nil {
		return err
	}
	limit := 50
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return fmt.Errorf("%w: limit is %.20q; allowed: 1 to %d", errBadRequest, text, maxPage)
		}
	}
	page, next, err := a.store.Find(r.Context(), f, q.Get("cursor"), limit)
	if err != nil {
		return err
	}
	for i := range page {
		a.redacted(&page[i])
	}
	return writeJSON(w, struct {
		Events []Record `json:"events"`
		Next   string   `json:"next,omitempty"`
	}{append([]Record{}, page...), next})
}

// redacted applies WithRedact to a record that is about to be shown.
func (a *admin) redacted(r *Record) {
	if a.Inbox.cfg.redact != nil {
		a.Inbox.cfg.redact(r)
	}
}

func (a *admin) byID(w http.ResponseWriter, r *http.Request, _ string) error {
	return a.one(w, r, Lookup{Source: r.PathValue("source"), ID: r.PathValue("id")})
}

func (a *admin) byKey(w http.ResponseWriter, r *http.Request, _ string) error {
	return a.one(w, r, Lookup{Key: r.PathValue("key")})
}

func (a *admin) one(w http.ResponseWriter, r *http.Request, l Lookup) error {
	found, err := a.get(r.Context(), l)
	if err != nil && !errors.Is(err, errUnsealed) {
		return err
	}
	a.redacted(&found)
	return writeJSON(w, found)
}

// payload returns the payload of the event in the path, as it may be shown.
func (a *admin) payload(r *http.Request) (*Payload, error) {
	found, err := a.get(r.Context(), Lookup{Key: r.PathValue("key")})
	if err != nil {
		return nil, err
	}
	if a.redacted(&found); found.Payload == nil {
		return nil, ErrNotFound
	}
	return found.Payload, nil
}

func (a *admin) header(w http.ResponseWriter, r *http.Request, _ string) error {
	p, err := a.payload(r)
	if err != nil {
		return err
	}
	return writeJSON(w, p.Header)
}

// body sends the bytes as a download, so that no browser takes them for a page.
func (a *admin) body(w http.ResponseWriter, r *http.Request, _ string) error {
	p, err := a.payload(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="body"`)
	_, _ = w.Write(p.Body) // a client that is gone does not need it
	return nil
}

func (a *admin) dead(w http.ResponseWriter, r *http.Request, _ string) error {
	f, _, err := filter(r.URL.Query())
	if err != nil {
		return err
	}
	groups, err := a.DeadLetters(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, groups)
}

func (a *admin) backlog(w http.ResponseWriter, r *http.Request, _ string) error {
	b, err := a.store.Backlog(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, b)
}

func (a *admin) refused(w http.ResponseWriter, _ *http.Request, _ string) error {
	last, count := a.Refusals()
	return writeJSON(w, struct {
		Count map[string]map[Reason]int64 `json:"count"`
		Last  []Refusal                   `json:"last"`
	}{count, append([]Refusal{}, last...)})
}

func (a *admin) redrive(w http.ResponseWriter, r *http.Request, user string) error {
	f, key, err := selection(r)
	if err != nil {
		return err
	}
	o := RedriveOptions{Name: r.FormValue("name"), DryRun: r.FormValue("dry_run") == "true", By: user}
	if text := r.FormValue("per_second"); text != "" {
		if o.PerSecond, err = strconv.ParseFloat(text, 64); err != nil || !(o.PerSecond > 0) {
			return fmt.Errorf("%w: per_second is %.20q; allowed: a number above 0", errBadRequest, text)
		}
	}
	if o.Name == "" || len(o.Name) > maxKey {
		return fmt.Errorf("%w: name has %d bytes; allowed: 1 to %d", errBadRequest, len(o.Name), maxKey)
	}
	var done Redriven
	if key != "" {
		done, err = a.RedriveKey(r.Context(), key, o)
	} else {
		done, err = a.Redrive(r.Context(), f, o)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, done)
}

func (a *admin) erase(w http.ResponseWriter, r *http.Request, user string) error {
	f, key, err := selection(r)
	if err != nil {
		return err
	}
	var n int
	if key != "" {
		n, err = a.EraseKey(r.Context(), key, user)
	} else {
		n, err = a.Erase(r.Context(), f, user)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, struct {
		Erased int `json:"erased"`
	}{n})
}

// selection reads the filter of a request that changes something. It must leave out some event, and select settled ones.
func selection(r *http.Request) (Filter, string, error) {
	if err := r.ParseForm(); err != nil {
		return Filter{}, "", fmt.Errorf("%w: the form cannot be read", errBadRequest)
	}
	f, key, err := filter(r.Form)
	if err != nil {
		return f, key, err
	}
	if key == "" && !f.selective() {
		return f, "", fmt.Errorf("%w: the filter is empty; allowed: a key or one or more conditions", errBadRequest)
	}
	for _, s := range f.States {
		if !s.Settled() {
			return f, "", fmt.Errorf("%w: state is %.20q; allowed: done, stale, skipped and dead", errBadRequest, s)
		}
	}
	return f, key, nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n')) // a client that is gone does not need it
	return nil
}
