// Package idemui is a page on which operators list, show and settle the operations of package idempotent: an http.Handler
// to mount behind the login of a program. It needs no script, and no files but its own.
package idemui

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
)

// An Action is what a request is to do.
type Action string

const (
	// ActionView lists and shows operations, without payloads.
	ActionView Action = "view"
	// ActionPayload shows a recorded value or error, which may hold personal data.
	ActionPayload Action = "payload"
	// ActionForget removes what is stored under a key.
	ActionForget Action = "forget"
	// ActionResolve records a value for a key.
	ActionResolve Action = "resolve"
)

// An Event is what an audit hook gets: who did what to which key, what was there before, and what is there after.
type Event struct {
	Actor          string
	Action         Action
	Namespace, Key string
	Before, After  idempotent.Entry
	// Err is nil if it was done.
	Err error
}

// An Authorize says who sends a request, or refuses the action with an error, whose text the page does not show.
type Authorize func(r *http.Request, action Action) (actor string, err error)

// An Option is an option of Handler.
type Option func(*ui)

// WithReadOnly refuses ActionForget and ActionResolve, whatever Authorize says. By default they are its decision.
func WithReadOnly() Option { return func(u *ui) { u.readOnly = true } }

// WithAudit has a function called for each payload before it is shown, and for each forget and resolve after it, also
// if that failed. By default there is none, and payloads are refused.
func WithAudit(audit func(context.Context, Event)) Option { return func(u *ui) { u.audit = audit } }

// A Decoder turns a recorded value into text. It may be called by many goroutines at once.
type Decoder func(payload []byte) (string, error)

// WithDecoder has the values of a namespace shown by a function. By default, msgpack and JSON are shown as JSON, records
// of package idemhttp as HTTP responses, and other bytes in hexadecimal digits.
func WithDecoder(namespace string, decode Decoder) Option {
	return func(u *ui) { u.decoders[namespace] = decode }
}

type ui struct {
	inspector *idempotent.Inspector
	authorize Authorize
	readOnly  bool
	audit     func(context.Context, Event)
	decoders  map[string]Decoder
}

// Handler returns the page, for a path that ends in a slash: mux.Handle("/idempotent/", h). The client stays the
// caller's. Without authorize, everything is refused. A request from another origin that would change or reveal something
// is refused, too (http.CrossOriginProtection).
func Handler(client redis.UniversalClient, authorize Authorize, opts ...Option) (http.Handler, error) {
	inspector, err := idempotent.NewInspector(client)
	if err != nil {
		return nil, err
	}
	u := &ui{inspector: inspector, authorize: authorize, decoders: make(map[string]Decoder)}
	for _, o := range opts {
		if o == nil {
			return nil, fmt.Errorf("%w: Handler: option is nil; allowed: an Option", idempotent.ErrInvalidOption)
		}
		o(u)
	}
	return http.NewCrossOriginProtection().Handler(u), nil
}

// A route is one page: what its requests are to do, and how.
type route struct {
	action Action
	method string
	serve  func(*ui, http.ResponseWriter, *http.Request, string)
}

// routes are by the last element of the path, so that the handler works at any path, stripped or not.
var routes = map[string]route{
	"":        {ActionView, http.MethodGet, (*ui).overview},
	"list":    {ActionView, http.MethodGet, (*ui).list},
	"key":     {ActionView, http.MethodGet, (*ui).key},
	"payload": {ActionPayload, http.MethodPost, (*ui).payload},
	"forget":  {ActionForget, http.MethodPost, (*ui).forget},
	"resolve": {ActionResolve, http.MethodPost, (*ui).resolve},
}

// maxForm is the size of a form at most, and so of a value that is resolved.
const maxForm = 4 << 20

// ServeHTTP checks who may do what.
func (u *ui) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nonce := rand.Text()
	secure(w.Header(), nonce)
	route, found := routes[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
	switch {
	case !found:
		u.render(w, http.StatusNotFound, nonce, view{Problem: "There is no such page."})
		return
	case r.Method != route.method && (route.method != http.MethodGet || r.Method != http.MethodHead):
		w.Header().Set("Allow", route.method)
		u.render(w, http.StatusMethodNotAllowed, nonce, view{Problem: "This page does not take the method."})
		return
	}
	actor, err := u.allowed(r, route.action)
	if err != nil {
		u.render(w, http.StatusForbidden, nonce, view{Problem: "You may not do this."})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		u.render(w, http.StatusBadRequest, nonce, view{Problem: "The form cannot be read."})
		return
	}
	route.serve(u, w, r.WithContext(context.WithValue(r.Context(), nonceKey{}, nonce)), actor)
}

var errRefused = errors.New("refused")

func (u *ui) allowed(r *http.Request, action Action) (actor string, err error) {
	switch {
	case u.authorize == nil,
		u.readOnly && (action == ActionForget || action == ActionResolve),
		u.audit == nil && action == ActionPayload:
		return "", errRefused
	}
	return u.authorize(r, action)
}

type nonceKey struct{}

func secure(h http.Header, nonce string) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+nonce+"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Type", "text/html; charset=utf-8")
}

//go:embed page.html
var files embed.FS

var page = template.Must(template.New("page.html").Funcs(functions).ParseFS(files, "page.html"))

func (u *ui) render(w http.ResponseWriter, status int, nonce string, v view) {
	v.Nonce, v.States = nonce, states
	w.WriteHeader(status)
	_ = page.Execute(w, v) // the client may have gone
}

func (u *ui) show(w http.ResponseWriter, r *http.Request, status int, v view) {
	nonce, _ := r.Context().Value(nonceKey{}).(string)
	for action, may := range map[Action]*bool{ActionPayload: &v.MayPayload, ActionForget: &v.MayForget, ActionResolve: &v.MayResolve} {
		_, err := u.allowed(r, action)
		*may = err == nil
	}
	u.render(w, status, nonce, v)
}
