package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/webhook"
)

// A desk is an operator's view of an inbox: one event done, two dead letters.
type desk struct {
	*office
	admin   http.Handler
	actions []webhook.AdminAction
	deny    webhook.AdminAction
}

func newDesk(t *testing.T, readOnly bool, opts ...webhook.Option) *desk {
	t.Helper()
	router := webhook.NewRouter()
	router.Handle("stripe", "charge.*", func(_ context.Context, j *webhook.Job) error { return j.Changed(map[string]string{"order": "<1>"}) })
	router.Handle("stripe", "payout.*", func(context.Context, *webhook.Job) error { return webhook.Permanent(errors.New("unknown <order>")) })
	d := &desk{office: newOffice(t, idemtest.NewRedis(t), router, opts...)}
	stop := d.work()
	require.Equal(t, http.StatusOK, d.post(stripeBody("evt_a", "charge.captured", "ch_1", "canary")).Code)
	d.accept("evt_b", "payout.paid", "po_1")
	d.accept("evt_c", "payout.failed", "po_2")
	d.wait(3, webhook.Done, webhook.Dead)
	stop()
	var err error
	d.admin, err = d.Admin(webhook.AdminConfig{ReadOnly: readOnly, Authorize: func(_ *http.Request, a webhook.AdminAction) (string, error) {
		d.actions = append(d.actions, a)
		if a == d.deny {
			return "", errors.New("no")
		}
		return "operator", nil
	}})
	require.NoError(t, err)
	return d
}

func (d *desk) do(method, target string, form url.Values, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(d.t.Context(), method, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	d.admin.ServeHTTP(w, r)
	return w
}

// json expects a 200 and decodes it.
func (d *desk) json(method, target string, form url.Values) (v map[string]any) {
	d.t.Helper()
	w := d.do(method, target, form)
	require.Equal(d.t, http.StatusOK, w.Code, w.Body.String())
	require.NoError(d.t, json.Unmarshal(w.Body.Bytes(), &v))
	return v
}

func TestAdminAnswersTheThreeQuestions(t *testing.T) {
	d := newDesk(t, false)
	v := d.json("GET", "/api/events/stripe/evt_a", nil)
	assert.NotEmpty(t, v["received_at"])
	assert.Equal(t, "done", v["state"])
	assert.Equal(t, map[string]any{"order": "<1>"}, v["changed"])
	assert.Len(t, v["trail"], 3)
	key, _ := v["key"].(string)
	assert.Equal(t, v, d.json("GET", "/api/keys/"+key, nil))
	list := d.json("GET", "/api/events?source=stripe&object=ch_1", nil)
	assert.Len(t, list["events"], 1)
	first := d.json("GET", "/api/events?state=dead&state=done&limit=2", nil)
	assert.Len(t, first["events"], 2)
	next, _ := first["next"].(string)
	assert.Len(t, d.json("GET", "/api/events?state=dead&state=done&limit=2&cursor="+next, nil)["events"], 1)
	assert.InDelta(t, 2, d.json("GET", "/api/backlog", nil)["dead"], 0)
	body := d.do("GET", "/api/keys/"+key+"/body", nil)
	assert.Equal(t, string(stripeBody("evt_a", "charge.captured", "ch_1", "canary")), body.Body.String())
	assert.Equal(t, "application/octet-stream", body.Header().Get("Content-Type"))
	assert.Contains(t, body.Header().Get("Content-Disposition"), "attachment")
	assert.Contains(t, d.do("GET", "/api/keys/"+key+"/header", nil).Body.String(), "Stripe-Signature")
	assert.Contains(t, d.do("GET", "/api/dead?source=stripe", nil).Body.String(), `"count":1`)
	for _, page := range []string{"/", "/?source=stripe", "/event/" + key} {
		w := d.do("GET", page, nil)
		assert.Equal(t, http.StatusOK, w.Code, page)
		assert.Contains(t, w.Body.String(), "evt_a", page)
		assert.NotContains(t, w.Body.String(), "<1>", page)
		assert.NotContains(t, w.Body.String(), "<order>", page)
		assert.NotContains(t, w.Body.String(), "canary", page)
	}
	assert.Equal(t, "event/"+key, strings.TrimPrefix(d.do("GET", "/?source=stripe&id=evt_a", nil).Header().Get("Location"), "/"))
	for target, status := range map[string]int{
		"/api/events/stripe/evt_unknown": http.StatusNotFound,
		"/api/keys/unknown":              http.StatusNotFound,
		"/event/unknown":                 http.StatusNotFound,
		"/api/events?object=ch_1":        http.StatusBadRequest,
		"/api/events?from=yesterday":     http.StatusBadRequest,
		"/api/events?limit=0":            http.StatusBadRequest,
		"/nothing":                       http.StatusNotFound,
	} {
		assert.Equal(t, status, d.do("GET", target, nil).Code, target)
	}
}

func TestAdminRedrivesAndErases(t *testing.T) {
	d := newDesk(t, false)
	filter := url.Values{"type": {"payout.*"}, "name": {"fix-1"}}
	dry := url.Values{"type": {"payout.*"}, "name": {"fix-1"}, "dry_run": {"true"}}
	assert.Equal(t, map[string]any{"found": 2.0, "queued": 0.0}, d.json("POST", "/api/redrive", dry))
	assert.Equal(t, map[string]any{"found": 2.0, "queued": 2.0}, d.json("POST", "/api/redrive", filter))
	assert.Equal(t, webhook.Queued, d.get("evt_b").State)
	assert.Equal(t, "operator", d.get("evt_b").Trail[3].By)
	key := d.get("evt_a").Key
	assert.Equal(t, map[string]any{"found": 1.0, "queued": 1.0}, d.json("POST", "/api/redrive", url.Values{"key": {key}, "name": {"fix-2"}}))
	d.work()
	d.wait(3, webhook.Done, webhook.Dead)
	assert.Equal(t, map[string]any{"erased": 1.0}, d.json("POST", "/api/erase", url.Values{"key": {key}}))
	assert.Nil(t, d.get("evt_a").Payload)
	assert.Equal(t, http.StatusNotFound, d.do("GET", "/api/keys/"+key+"/body", nil).Code)
	assert.Equal(t, map[string]any{"erased": 1.0}, d.json("POST", "/api/erase", url.Values{"source": {"stripe"}, "object": {"po_1"}}))
	for target, form := range map[string]url.Values{
		"/api/redrive":         {"name": {"all"}},
		"/api/redrive?state=x": {"name": {"all"}},
		"/api/redrive?key=x":   {},
		"/api/erase":           {},
		"/api/erase?from=now":  {},
	} {
		assert.Equal(t, http.StatusBadRequest, d.do("POST", target, form).Code, target)
	}
}

func TestAdminAuthorizesEachAction(t *testing.T) {
	d := newDesk(t, false)
	for target, action := range map[string]webhook.AdminAction{
		"GET /":                    webhook.AdminView,
		"GET /api/events":          webhook.AdminView,
		"GET /api/keys/x/body":     webhook.AdminPayload,
		"GET /api/keys/x/header":   webhook.AdminPayload,
		"GET /api/refusals":        webhook.AdminPayload,
		"POST /api/redrive?type=x": webhook.AdminRedrive,
		"POST /api/erase?type=x":   webhook.AdminErase,
	} {
		d.deny, d.actions = action, nil
		method, path, _ := strings.Cut(target, " ")
		assert.Equal(t, http.StatusForbidden, d.do(method, path, nil).Code, target)
		assert.Equal(t, []webhook.AdminAction{action}, d.actions, target)
	}
	readOnly := newDesk(t, true)
	form := url.Values{"type": {"payout.*"}, "name": {"fix-1"}}
	assert.Equal(t, http.StatusForbidden, readOnly.do("POST", "/api/redrive", form).Code)
	assert.Equal(t, http.StatusForbidden, readOnly.do("POST", "/api/erase", form).Code)
	assert.Equal(t, webhook.Dead, readOnly.get("evt_b").State)
	assert.NotContains(t, readOnly.do("GET", "/event/"+readOnly.get("evt_b").Key, nil).Body.String(), "<form")
	_, err := d.Admin(webhook.AdminConfig{})
	require.ErrorContains(t, err, "Authorize is nil")
}

func TestAdminRefusesOtherOrigins(t *testing.T) {
	d := newDesk(t, false)
	form := url.Values{"type": {"payout.*"}, "name": {"fix-1"}}
	other := d.do("POST", "/api/redrive", form, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
	assert.Equal(t, http.StatusForbidden, other.Code)
	assert.Equal(t, webhook.Dead, d.get("evt_b").State)
	own := d.do("POST", "/api/redrive", form, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") })
	assert.Equal(t, http.StatusOK, own.Code)
}

func TestAdminRedacts(t *testing.T) {
	d := newDesk(t, false, webhook.WithRedact(func(r *webhook.Record) {
		r.Object = "redacted"
		if r.Payload != nil {
			r.Payload.Body = []byte("redacted body")
		}
	}))
	v := d.json("GET", "/api/events/stripe/evt_a", nil)
	assert.Equal(t, "redacted", v["object"])
	key, _ := v["key"].(string)
	assert.Equal(t, "redacted body", d.do("GET", "/api/keys/"+key+"/body", nil).Body.String())
	assert.Equal(t, "ch_1", d.get("evt_a").Object, "the store is not affected")
}

func TestProbes(t *testing.T) {
	rdb := idemtest.NewRedis(t)
	o := newOffice(t, rdb, webhook.NewRouter())
	probe := func(path string) int {
		w := httptest.NewRecorder()
		o.Probes().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return w.Code
	}
	assert.Equal(t, http.StatusOK, probe("/livez"))
	assert.Equal(t, http.StatusOK, probe("/readyz"))
	rdb.Fail("LOADING Redis is loading the dataset in memory")
	assert.Equal(t, http.StatusOK, probe("/livez"))
	assert.Equal(t, http.StatusServiceUnavailable, probe("/readyz"))
	rdb.Fail("")
	assert.Equal(t, http.StatusOK, probe("/readyz"))
}
