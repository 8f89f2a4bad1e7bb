package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A testProxy has a stand-in for stripe-mock behind it, which needs seconds to start.
type testProxy struct {
	*proxy
	refuses atomic.Int32 // the status of every answer, if not 0
}

func newTestProxy(t *testing.T) *testProxy {
	t.Helper()
	p := &testProxy{}
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := p.refuses.Load(); status != 0 {
			w.WriteHeader(int(status))
			_, _ = io.WriteString(w, `{"error":{"type":"invalid_request_error","message":"refused"}}`)
			return
		}
		if r.URL.Path == "/v1/customers" {
			_, _ = io.WriteString(w, `{"object":"customer","id":"`+stage.Namespace("cus")+`"}`)
			return
		}
		_, _ = io.WriteString(w, `{"object":"payment_intent"}`)
	}))
	t.Cleanup(behind.Close)
	var err error
	p.proxy, err = startProxy(behind.URL, func(string, ...any) {})
	require.NoError(t, err)
	t.Cleanup(p.stop)
	return p
}

// post asks for money, as stripe-go does.
func (p *testProxy) post(t *testing.T, key string, form url.Values) (status int, body string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/payment_intents", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(raw), resp.Header
}

func formOf(customer, card string) url.Values {
	return url.Values{"customer": {customer}, "payment_method": {card}, "amount": {"4999"}, "currency": {"eur"}, "metadata[order_id]": {"o"}}
}

// The first answer for a key is the only one, a decline as well as a charge.
func TestLedgerRepeatsItsAnswer(t *testing.T) {
	for card, want := range map[string]int{cardGood: 200, cardDeclined: 402} {
		p := newTestProxy(t)
		status, first, header := p.post(t, "k", formOf("cus", card))
		assert.Equal(t, want, status)
		assert.Empty(t, header.Get("Idempotent-Replayed"))
		again, second, header2 := p.post(t, "k", formOf("cus", card))
		assert.Equal(t, want, again)
		assert.Equal(t, first, second)
		assert.Equal(t, header.Get("Request-Id"), header2.Get("Request-Id"))
		assert.Equal(t, "true", header2.Get("Idempotent-Replayed"))
		b := p.ledger.read(p.ledger.account("cus"))
		assert.Equal(t, 1, len(b.Charges)+b.Declines)
		assert.Equal(t, map[string]int{"k": 2}, b.Keys)
		assert.Equal(t, 1, b.Replayed)
	}
}

// It can see the thing that must not happen.
func TestLedgerChargesTwiceUnderTwoKeys(t *testing.T) {
	p := newTestProxy(t)
	p.post(t, "a", formOf("cus", cardGood))
	p.post(t, "b", formOf("cus", cardGood))
	b := p.ledger.read(p.ledger.account("cus"))
	assert.Len(t, b.Charges, 2)
	assert.NotEqual(t, b.Charges[0], b.Charges[1])
}

func TestLedgerRefusesOtherParametersUnderAKey(t *testing.T) {
	p := newTestProxy(t)
	p.post(t, "k", formOf("cus", cardGood))
	other := formOf("cus", cardGood)
	other.Set("amount", "1")
	status, body, _ := p.post(t, "k", other)
	assert.Equal(t, 400, status)
	assert.Contains(t, body, "idempotency_error")
	assert.Len(t, p.ledger.read(p.ledger.account("cus")).Charges, 1)
}

func TestLedgerRefusesAKeyInUse(t *testing.T) {
	l := newLedger()
	a := l.account("cus")
	answer, _ := l.admit(a, "k", "p")
	require.Nil(t, answer, "it is to be begun")
	answer, _ = l.admit(a, "k", "p")
	require.NotNil(t, answer)
	assert.Equal(t, 409, answer.status)
	assert.Contains(t, string(answer.body), "idempotency_key_in_use")
}

// What was refused before it began is not remembered.
func TestLedgerForgetsWhatDidNotBegin(t *testing.T) {
	p := newTestProxy(t)
	p.ledger.open("cus", manner{limits: 1})
	status, _, _ := p.post(t, "k", formOf("cus", cardGood))
	assert.Equal(t, 429, status)
	p.refuses.Store(400)
	status, _, _ = p.post(t, "k", formOf("cus", cardGood))
	assert.Equal(t, 400, status)
	p.refuses.Store(0)
	status, _, _ = p.post(t, "k", formOf("cus", cardGood))
	assert.Equal(t, 200, status)
}

// What becomes of a charge does not depend on whether its caller hears of it.
func TestLedgerBooksBeforeItCuts(t *testing.T) {
	p := newTestProxy(t)
	a := p.ledger.open("cus", manner{cuts: true})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/payment_intents", strings.NewReader(formOf("cus", cardGood).Encode()))
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.Error(t, err)
	<-a.answered
	assert.Len(t, p.ledger.read(a).Charges, 1)
}
