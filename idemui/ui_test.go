package idemui_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemui"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/sample"
)

func TestMain(m *testing.M) {
	code := m.Run()
	redistest.Cleanup()
	os.Exit(code)
}

// A site is the page on a server of its own, mounted below a path, and what its hooks were told.
type site struct {
	*httptest.Server
	client *redis.Client
	audits chan idemui.Event
}

func everybody(*http.Request, idemui.Action) (string, error) { return "carol", nil }

func serve(t *testing.T, authorize idemui.Authorize, opts ...idemui.Option) *site {
	t.Helper()
	s := &site{client: redistest.Start(t).Client(t), audits: make(chan idemui.Event, 100)}
	require.NoError(t, sample.Store(t.Context(), s.client))
	opts = append([]idemui.Option{idemui.WithAudit(func(_ context.Context, e idemui.Event) { s.audits <- e })}, opts...)
	h, err := idemui.Handler(s.client, authorize, opts...)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/ops/idempotent/", h)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", h))
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *site) send(t *testing.T, method, path string, form url.Values, header ...string) (status int, body string, h http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text), response.Header
}

func about(namespace, key string, more ...string) url.Values {
	v := url.Values{"namespace": {namespace}, "id": {base64.RawURLEncoding.EncodeToString([]byte(key))}}
	for i := 0; i+1 < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v
}

func (s *site) stored(t *testing.T, key string) bool {
	t.Helper()
	return s.client.Exists(t.Context(), "idempotent:payments:"+key).Val() == 1
}

const base = "/ops/idempotent/"

func TestPages(t *testing.T) {
	s := serve(t, everybody)
	for _, base := range []string{base, "/stripped/"} {
		for path, want := range map[string]string{
			"": "8 operations", "list": "order-45", "list?namespace=payments&state=interrupted": "web-7:4211",
			"key?" + about("payments", "order-42").Encode(): "every Run is refused", "key?namespace=payments&key=order-42": "web-7:4211",
			"key?" + about("payments", "none").Encode(): "Nothing is stored", "list?owner=web-3%3A977": "order-43",
		} {
			status, body, header := s.send(t, http.MethodGet, base+path, nil)
			assert.Equal(t, http.StatusOK, status, path)
			assert.Contains(t, body, want, path)
			assert.NotContains(t, body, sample.Secret, path)
			assert.NotContains(t, body, "declined", path)
			assert.NotContains(t, body, "<script", path)
			assert.NotContains(t, body, `style="`, path)
			assert.Equal(t, "no-store", header.Get("Cache-Control"))
			assert.Regexp(t, `^default-src 'none'; style-src 'nonce-\w{26}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'$`, header.Get("Content-Security-Policy"))
		}
	}
	_, one, first := s.send(t, http.MethodGet, base, nil)
	_, _, second := s.send(t, http.MethodGet, base, nil)
	assert.NotEqual(t, first.Get("Content-Security-Policy"), second.Get("Content-Security-Policy"))
	assert.Contains(t, first.Get("Content-Security-Policy"), regexp.MustCompile(`<style nonce="(\w+)">`).FindStringSubmatch(one)[1])
	assert.Empty(t, s.audits)
}

func TestBadRequests(t *testing.T) {
	s := serve(t, everybody)
	for request, want := range map[string]int{
		"GET nothing": 404, "POST list": 405, "GET forget": 405, "GET payload?" + about("payments", "order-41").Encode(): 405,
		"GET list?namespace=a:b": 400, "GET list?state=gone": 400, "GET list?older=soon": 400, "GET list?prefix=x": 400,
		"GET key?namespace=payments&id=%21": 400, "GET key?namespace=payments": 400, "DELETE ": 405, "HEAD list": 200,
	} {
		method, path, _ := strings.Cut(request, " ")
		status, _, _ := s.send(t, method, base+path, nil)
		assert.Equal(t, want, status, request)
	}
	s.client.Close()
	status, body, _ := s.send(t, http.MethodGet, base, nil)
	assert.Equal(t, http.StatusBadGateway, status)
	assert.Contains(t, body, "Redis unavailable")
}

func TestNothingWithoutRights(t *testing.T) {
	none := func(*http.Request, idemui.Action) (string, error) { return "", errors.New("secret reason") }
	only := func(allowed idemui.Action) idemui.Authorize {
		return func(_ *http.Request, a idemui.Action) (string, error) {
			if a == allowed {
				return "carol", nil
			}
			return "", errors.New("no")
		}
	}
	for name, refused := range map[string]*site{
		"no hook": serve(t, nil), "refused": serve(t, none), "view alone": serve(t, only(idemui.ActionView)),
		"read-only": serve(t, everybody, idemui.WithReadOnly()), "no audit": serve(t, everybody, idemui.WithAudit(nil), idemui.WithReadOnly()),
	} {
		t.Run(name, func(t *testing.T) {
			for action, form := range map[string]url.Values{
				"forget":  about("payments", "order-42", "confirm", "order-42"),
				"resolve": about("payments", "order-42", "confirm", "order-42", "value", "{}", "codec", "msgpack"),
				"payload": about("payments", "order-41"),
			} {
				if name == "read-only" && action == "payload" {
					continue
				}
				status, body, _ := refused.send(t, http.MethodPost, base+action, form)
				assert.Equal(t, http.StatusForbidden, status, action)
				assert.NotContains(t, body, "secret")
			}
			status, body, _ := refused.send(t, http.MethodGet, base+"key?"+about("payments", "order-42").Encode(), nil)
			assert.Equal(t, name == "no hook" || name == "refused", status == http.StatusForbidden)
			assert.NotContains(t, body, "<button", "a form for what is refused")
			e, err := mustInspect(t, refused).Inspect(t.Context(), "payments", "order-42")
			require.NoError(t, err)
			assert.Equal(t, idempotent.StateInterrupted, e.State)
			assert.Empty(t, refused.audits)
		})
	}
}

func mustInspect(t *testing.T, s *site) *idempotent.Inspector {
	t.Helper()
	i, err := idempotent.NewInspector(s.client)
	require.NoError(t, err)
	return i
}

func TestPayloadIsAudited(t *testing.T) {
	s := serve(t, everybody, idemui.WithDecoder("reports", func([]byte) (string, error) { return "decoded", nil }))
	for key, want := range map[string]string{
		"payments order-41": sample.Secret, "payments order-44": "card declined", "api " + sample.HTTPKey: "HTTP 201 Created\nContent-Type: application/json\n\n{&#34;id&#34;:&#34;pay_1&#34;}",
	} {
		namespace, key, _ := strings.Cut(key, " ")
		status, body, _ := s.send(t, http.MethodPost, base+"payload", about(namespace, key))
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, body, want)
		e := <-s.audits
		assert.Equal(t, []any{"carol", idemui.ActionPayload, namespace, key, nil}, []any{e.Actor, e.Action, e.Namespace, e.Key, e.Err})
		assert.NotEqual(t, idempotent.StateAbsent, e.Before.State)
	}
	status, _, _ := s.send(t, http.MethodPost, base+"payload", about("reports", "2026-11"))
	assert.Equal(t, http.StatusConflict, status, "nothing is kept")
	require.ErrorIs(t, (<-s.audits).Err, idempotent.ErrNotFound)
}

func TestSettle(t *testing.T) {
	s := serve(t, everybody)
	status, body, _ := s.send(t, http.MethodPost, base+"forget", about("payments", "order-42", "confirm", "order-4"))
	assert.Equal(t, http.StatusUnprocessableEntity, status)
	assert.Contains(t, body, "nothing was done")
	assert.True(t, s.stored(t, "order-42"))
	assert.Empty(t, s.audits)

	status, _, header := s.send(t, http.MethodPost, base+"forget", about("payments", "order-42", "confirm", "order-42"))
	assert.Equal(t, http.StatusSeeOther, status)
	assert.Equal(t, "key?"+about("payments", "order-42").Encode()+"&done=forget", header.Get("Location"))
	assert.False(t, s.stored(t, "order-42"))
	e := <-s.audits
	assert.Equal(t, []any{"carol", idemui.ActionForget, idempotent.StateInterrupted, idempotent.StateAbsent, nil}, []any{e.Actor, e.Action, e.Before.State, e.After.State, e.Err})

	for value, codec := range map[string]string{"{": "msgpack", "[": "JSON", "{}": "gob"} {
		status, _, _ = s.send(t, http.MethodPost, base+"resolve", about("payments", "order-45", "confirm", "order-45", "value", value, "codec", codec))
		assert.Equal(t, http.StatusConflict, status)
		require.ErrorIs(t, (<-s.audits).Err, idempotent.ErrInvalidOption)
	}
	status, _, _ = s.send(t, http.MethodPost, base+"resolve", about("payments", "order-45", "confirm", "order-45", "value", `{"ID":"ch_9"}`, "codec", "msgpack"))
	assert.Equal(t, http.StatusSeeOther, status)
	e = <-s.audits
	assert.Equal(t, []any{idemui.ActionResolve, idempotent.StateAbandoned, idempotent.StateSucceeded, nil}, []any{e.Action, e.Before.State, e.After.State, e.Err})
	x, err := idempotent.New[struct{ ID string }](s.client, "payments")
	require.NoError(t, err)
	defer x.Close()
	got, err := x.Get(t.Context(), "order-45")
	require.NoError(t, err)
	assert.Equal(t, "ch_9", got.ID)
	status, _, _ = s.send(t, http.MethodPost, base+"resolve", about("payments", "order-41", "confirm", "order-41", "value", "{}", "codec", "msgpack"))
	assert.Equal(t, http.StatusConflict, status)
	require.ErrorIs(t, (<-s.audits).Err, idempotent.ErrAlreadyRecorded)
}

func TestCrossSiteRequestsAreRefused(t *testing.T) {
	s := serve(t, everybody)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://attacker.example"}} {
		for _, action := range []string{"forget", "payload", "resolve"} {
			status, _, _ := s.send(t, http.MethodPost, base+action, about("payments", "order-42", "confirm", "order-42"), header...)
			assert.Equal(t, http.StatusForbidden, status, "%v", header)
		}
	}
	assert.True(t, s.stored(t, "order-42"))
	assert.Empty(t, s.audits)
}

func TestHandlerRefuses(t *testing.T) {
	_, err := idemui.Handler(nil, everybody)
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	_, err = idemui.Handler(redis.NewClient(&redis.Options{}), everybody, nil)
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
}
