package webhook_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

const (
	tossPayment = `{"eventType":"PAYMENT_STATUS_CHANGED","createdAt":"2026-01-02T14:46:59.65327","data":` +
		`{"paymentKey":"pk_1","orderId":"order_1","status":"DONE","lastTransactionKey":"tx_1","totalAmount":37400}}`
	tossDeposit = `{"createdAt":"2026-01-02T14:46:59.653","secret":"ps_1","status":"DONE","transactionKey":"tx_1","orderId":"order_1"}`
	tossPayout  = `{"eventType":"payout.changed","eventId":"ev_1","entityBody":{"id":"FPA_1"}}`
)

func unsignedToss(t testing.TB, s webhook.Scheme, body string) (webhook.Event, error) {
	header, _, err := webhooktest.Unsigned()(nil, signedAt)
	require.NoError(t, err)
	content, err := s.Verify(&webhook.Request{Header: header, Body: []byte(body), ReceivedAt: signedAt})
	if err != nil {
		return webhook.Event{}, err
	}
	require.Len(t, content.Events, 1)
	return content.Events[0], nil
}

func tossSchemes(t testing.TB) map[string]webhook.Scheme {
	withKey, err := webhook.TossPayments([]string{"secret"})
	require.NoError(t, err)
	return map[string]webhook.Scheme{"with a security key": withKey, "without": webhook.TossPaymentsUnsigned()}
}

func TestTossPaymentsAreUnsigned(t *testing.T) {
	for name, s := range tossSchemes(t) {
		t.Run(name, func(t *testing.T) {
			assert.True(t, s.Provider().SendsUnsigned)
			e, err := unsignedToss(t, s, tossPayment)
			require.NoError(t, err)
			assert.Equal(t, webhook.Event{
				ID: "PAYMENT_STATUS_CHANGED:pk_1:DONE:tx_1", Type: "PAYMENT_STATUS_CHANGED", Object: "order_1",
				OccurredAt: time.Date(2026, 1, 2, 14, 46, 59, 653270000, time.FixedZone("KST", 9*60*60)),
				Body:       []byte(tossPayment), Unsigned: true,
			}, e)

			e, err = unsignedToss(t, s, tossDeposit)
			require.NoError(t, err)
			assert.Equal(t, "DEPOSIT_CALLBACK:order_1:DONE:tx_1", e.ID)
			assert.Equal(t, "order_1", e.Object)
			assert.True(t, e.Unsigned)

			billing := `{"eventType":"BILLING_DELETED","data":{"billingKey":"b_1"}}`
			first, err := unsignedToss(t, s, billing)
			require.NoError(t, err)
			again, err := unsignedToss(t, s, billing)
			require.NoError(t, err)
			other, err := unsignedToss(t, s, strings.Replace(billing, "b_1", "b_2", 1))
			require.NoError(t, err)
			assert.Equal(t, first.ID, again.ID)
			assert.NotEqual(t, first.ID, other.ID)
			assert.True(t, first.Unsigned)
		})
	}
}

// An attacker leaves the signature out, and writes the type in another case.
func TestTossSignatureCannotBeLeftOut(t *testing.T) {
	for name, s := range tossSchemes(t) {
		for _, body := range []string{tossPayout, strings.Replace(tossPayout, "payout", "seller", 1), strings.Replace(tossPayout, "payout", "PayOut", 1)} {
			_, err := unsignedToss(t, s, body)
			assert.Equal(t, webhook.ReasonNoSignature, webhook.ReasonOf(err), "%s: %s", name, body)
		}
	}
	header, body, err := webhooktest.TossPayments("secret")([]byte(tossPayout), signedAt)
	require.NoError(t, err)
	_, err = webhook.TossPaymentsUnsigned().Verify(&webhook.Request{Header: header, Body: body, ReceivedAt: signedAt})
	assert.Equal(t, webhook.ReasonNoSignature, webhook.ReasonOf(err), "without a security key")
	for _, value := range []string{"", "v1:", "v2:" + header.Get("Tosspayments-Webhook-Signature")[3:]} {
		h := header.Clone()
		h.Set("Tosspayments-Webhook-Signature", value)
		_, err = tossSchemes(t)["with a security key"].Verify(&webhook.Request{Header: h, Body: body, ReceivedAt: signedAt})
		assert.False(t, verified(err), value)
	}
}

// A tossAPI answers as the API of Toss Payments does.
type tossAPI func(path string) (status int, body string)

func (f tossAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "api.tosspayments.com" || r.URL.Scheme != "https" ||
		r.Header.Get("Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("sk_test:")) {
		return nil, errors.New("not the API, or not authorized")
	}
	status, body := f(r.URL.EscapedPath())
	if status == 0 {
		return nil, errors.New("no connection")
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}, nil
}

func confirmToss(t testing.TB, body string, api tossAPI) (webhook.Event, error) {
	e, err := unsignedToss(t, webhook.TossPaymentsUnsigned(), body)
	require.NoError(t, err)
	confirm, err := webhook.TossConfirm(&http.Client{Transport: api}, "sk_test")
	require.NoError(t, err)
	return confirm(t.Context(), e)
}

func answers(status int, body string) tossAPI {
	return func(string) (int, string) { return status, body }
}

const tossTruth = `{"paymentKey":"pk_1","orderId":"order_1","status":"DONE","lastTransactionKey":"tx_1","secret":"ps_1","totalAmount":100}`

func TestTossConfirmReturnsWhatTheAPISays(t *testing.T) {
	for body, want := range map[string]string{tossPayment: "/v1/payments/pk_1", tossDeposit: "/v1/payments/orders/order_1"} {
		var asked string
		e, err := confirmToss(t, body, func(path string) (int, string) {
			asked = path
			return http.StatusOK, tossTruth
		})
		require.NoError(t, err)
		assert.Equal(t, want, asked)
		assert.False(t, e.Unsigned)
		assert.Equal(t, "order_1", e.Object)
		assert.True(t, e.OccurredAt.IsZero(), "createdAt is not confirmed")
		assert.JSONEq(t, `{"eventType":"`+e.Type+`","data":`+tossTruth+`}`, string(e.Body), "the amount is the API's")
		before, err := unsignedToss(t, webhook.TossPaymentsUnsigned(), body)
		require.NoError(t, err)
		assert.Equal(t, before.ID, e.ID)
	}
}

func TestTossConfirmRefusesWhatIsNotTrue(t *testing.T) {
	for name, c := range map[string]struct{ body, truth string }{
		"another status":          {tossPayment, strings.Replace(tossTruth, "DONE", "CANCELED", 1)},
		"another transaction":     {tossPayment, strings.Replace(tossTruth, "tx_1", "tx_2", 1)},
		"another payment":         {tossPayment, strings.Replace(tossTruth, "pk_1", "pk_2", 1)},
		"deposit, another secret": {tossDeposit, strings.Replace(tossTruth, "ps_1", "ps_2", 1)},
		"deposit, no secret":      {strings.Replace(tossDeposit, "ps_1", "", 1), strings.Replace(tossTruth, "ps_1", "", 1)},
		"deposit, another status": {tossDeposit, strings.Replace(tossTruth, "DONE", "WAITING_FOR_DEPOSIT", 1)},
		"deposit, another order":  {tossDeposit, strings.Replace(tossTruth, "order_1", "order_2", 1)},
		"billing":                 {`{"eventType":"BILLING_DELETED"}`, tossTruth},
		"a path":                  {strings.Replace(tossPayment, "pk_1", "..", 1), tossTruth},
	} {
		_, err := confirmToss(t, c.body, answers(http.StatusOK, c.truth))
		assert.Equal(t, webhook.ReasonNotConfirmed, webhook.ReasonOf(err), "%s: %v", name, err)
	}
	for _, status := range []int{http.StatusNotFound, http.StatusBadRequest} {
		_, err := confirmToss(t, tossPayment, answers(status, `{"code":"NOT_FOUND_PAYMENT"}`))
		assert.Equal(t, webhook.ReasonNotConfirmed, webhook.ReasonOf(err))
	}
}

// A payment's key cannot lead to another part of the API.
func TestTossConfirmEscapesKeys(t *testing.T) {
	for _, body := range []string{
		strings.Replace(tossPayment, "pk_1", "..", 1), strings.Replace(tossPayment, "pk_1", ".", 1),
		strings.Replace(tossDeposit, "order_1", "..", 1), strings.Replace(tossDeposit, "order_1", ".", 1),
	} {
		_, err := confirmToss(t, body, func(path string) (int, string) {
			t.Errorf("the API was asked for %s", path)
			return http.StatusOK, tossTruth
		})
		assert.Equal(t, webhook.ReasonNotConfirmed, webhook.ReasonOf(err))
	}
	_, err := confirmToss(t, strings.Replace(tossPayment, "pk_1", "../keys?x=1#", 1), func(path string) (int, string) {
		assert.Equal(t, "/v1/payments/..%2Fkeys%3Fx=1%23", path)
		return http.StatusNotFound, ""
	})
	assert.Equal(t, webhook.ReasonNotConfirmed, webhook.ReasonOf(err))
}

// When Toss could not be asked, nothing is known: the error is no refusal, and names no payment.
func TestTossConfirmIsTriedAgain(t *testing.T) {
	for _, api := range []tossAPI{
		answers(http.StatusInternalServerError, "pk_1"), answers(http.StatusUnauthorized, "pk_1"),
		answers(http.StatusTooManyRequests, ""), answers(http.StatusOK, "<html>pk_1"), answers(http.StatusOK, ""),
		answers(http.StatusOK, `[]`), answers(0, ""), answers(http.StatusOK, strings.Repeat(" ", 1<<20)+tossTruth),
	} {
		_, err := confirmToss(t, tossPayment, api)
		require.Error(t, err)
		assert.NotErrorIs(t, err, webhook.ErrRefused)
		assert.NotContains(t, err.Error(), "pk_1")
		assert.NotContains(t, err.Error(), "sk_test")
	}
}

func TestTossConfirmBoundsTheResponse(t *testing.T) {
	_, err := confirmToss(t, tossPayment, answers(http.StatusOK, tossTruth+strings.Repeat(" ", 1<<20)))
	assert.ErrorContains(t, err, "more than 1048576 bytes")
}

func TestTossConfirmEndsWithItsContext(t *testing.T) {
	confirm, err := webhook.TossConfirm(nil, "sk_test")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err := unsignedToss(t, webhook.TossPaymentsUnsigned(), tossPayment)
	require.NoError(t, err)
	_, err = confirm(ctx, e)
	assert.ErrorIs(t, err, context.Canceled)

	_, err = webhook.TossConfirm(nil, "")
	assert.ErrorIs(t, err, webhook.ErrInvalidScheme)
}
