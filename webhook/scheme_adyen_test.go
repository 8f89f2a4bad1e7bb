package webhook_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

const adyenItem = `{"NotificationRequestItem":{"pspReference":"psp1","originalReference":"orig1",` +
	`"merchantAccountCode":"acct","merchantReference":"order-1","amount":{"value":1130,"currency":"EUR"},` +
	`"eventCode":"REFUND","success":"true","eventDate":"2019-05-06T17:15:34+02:00","reason":"free text"}}`

func adyenBody(items ...string) string {
	return `{"live":"false","notificationItems":[` + strings.Join(items, ",") + `]}`
}

func adyenScheme(t testing.TB) webhook.Scheme {
	s, err := webhook.Adyen([]string{"00FF"}) // upper case, as Adyen shows keys
	require.NoError(t, err)
	return s
}

// signedAdyen returns the body with the signatures of "00ff" in its items.
func signedAdyen(t testing.TB, items ...string) string {
	_, body, err := webhooktest.Adyen("00ff")([]byte(adyenBody(items...)), signedAt)
	require.NoError(t, err)
	return string(body)
}

func verifyAdyen(t testing.TB, body string) (webhook.Content, error) {
	return adyenScheme(t).Verify(&webhook.Request{Body: []byte(body), ReceivedAt: signedAt})
}

func TestAdyenItemsAreEvents(t *testing.T) {
	payment := strings.NewReplacer("REFUND", "AUTHORISATION", "orig1", "", "psp1", "orig1").Replace(adyenItem)
	content, err := verifyAdyen(t, signedAdyen(t, adyenItem, payment))
	require.NoError(t, err)
	require.Len(t, content.Events, 2)
	assert.Equal(t, "[accepted]", string(content.Answer.Body))
	assert.Equal(t, "REFUND:psp1:true", content.Events[0].ID)
	assert.Equal(t, "AUTHORISATION:orig1:true", content.Events[1].ID)
	for _, e := range content.Events {
		assert.Equal(t, "orig1", e.Object, "a payment and its refunds are one object")
		assert.Equal(t, time.Date(2019, 5, 6, 15, 15, 34, 0, time.UTC), e.OccurredAt.UTC())
		assert.True(t, json.Valid(e.Body))
	}
	assert.Contains(t, string(content.Events[0].Body), `"REFUND"`)
	assert.NotContains(t, string(content.Events[0].Body), "AUTHORISATION")
}

func TestAdyenOneForgedItemRefusesAll(t *testing.T) {
	body := signedAdyen(t, adyenItem, strings.Replace(adyenItem, "psp1", "psp2", 1))
	for _, change := range [][2]string{{"psp1", "psp3"}, {"psp2", "psp3"}} {
		content, err := verifyAdyen(t, strings.Replace(body, change[0], change[1], 1))
		assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
		assert.Empty(t, content.Events)
	}
}

// Each byte of each of the eight signed fields, and of the signature.
func TestAdyenFlippedFields(t *testing.T) {
	body := signedAdyen(t, adyenItem)
	flippedBytes := 0
	for _, field := range []string{"psp1", "orig1", "acct", "order-1", "1130", "EUR", "REFUND", `"success":"true`} {
		start := strings.Index(body, field)
		require.Positive(t, start, field)
		for i := start; i < start+len(field); i++ {
			for _, mask := range flips {
				_, err := verifyAdyen(t, flipped(body, i, mask))
				require.False(t, verified(err) && webhook.ReasonOf(err) != webhook.ReasonBadBody, "%s, byte %d, %x", field, i, mask)
				flippedBytes++
			}
		}
	}
	start := strings.Index(body, `"hmacSignature":"`) + len(`"hmacSignature":"`)
	for i := start; i < start+44; i++ {
		for _, mask := range flips {
			_, err := verifyAdyen(t, flipped(body, i, mask))
			require.Error(t, err, "byte %d, %x", i, mask)
			flippedBytes++
		}
	}
	assert.Greater(t, flippedBytes, 200)
}

// What is not signed can be changed. It is documented, and this shows that the list of signed fields is complete.
func TestAdyenUnsignedFields(t *testing.T) {
	body := signedAdyen(t, adyenItem)
	for _, change := range [][2]string{{"free text", "other text"}, {"2019-05-06", "2020-05-06"}, {`"live":"false"`, `"live":"true"`}} {
		changed := strings.Replace(body, change[0], change[1], 1)
		require.NotEqual(t, body, changed)
		_, err := verifyAdyen(t, changed)
		assert.NoError(t, err, change[0])
	}
}

// Colons are not escaped, so one field's end could become the next one's beginning.
func TestAdyenFieldsCannotMove(t *testing.T) {
	item := strings.Replace(adyenItem, `"merchantReference":"order-1"`, `"merchantReference":"order-1:7"`, 1)
	body := signedAdyen(t, item)
	_, err := verifyAdyen(t, body)
	require.NoError(t, err, "merchantReference may have a colon")
	for _, move := range [][]string{
		{`"merchantAccountCode":"acct"`, `"merchantAccountCode":"acct:order-1"`, `"merchantReference":"order-1:7"`, `"merchantReference":"7"`},
		{`"originalReference":"orig1"`, `"originalReference":"orig1:acct"`, `"merchantAccountCode":"acct"`,
			`"merchantAccountCode":"order-1"`, `"merchantReference":"order-1:7"`, `"merchantReference":"7"`},
	} {
		moved := strings.NewReplacer(move...).Replace(body)
		require.NotEqual(t, body, moved)
		_, err := verifyAdyen(t, moved)
		assert.Equal(t, webhook.ReasonBadBody, webhook.ReasonOf(err))
	}
}

// A parser that takes the first of two fields would act on another value than the verified one.
func TestAdyenRepeatedFields(t *testing.T) {
	body := signedAdyen(t, adyenItem)
	for _, double := range []string{`"success":"false","success":"true"`, `"SUCCESS":"false","success":"true"`, `"ſuccess":"false","success":"true"`,
		`"Success":"true"`} {
		_, err := verifyAdyen(t, strings.Replace(body, `"success":"true"`, double, 1))
		assert.Equal(t, webhook.ReasonBadBody, webhook.ReasonOf(err), double)
	}
	_, err := verifyAdyen(t, strings.Replace(body, `"value":1130`, `"value":1,"value":1130`, 1))
	assert.Equal(t, webhook.ReasonBadBody, webhook.ReasonOf(err))
}

func TestAdyenBodies(t *testing.T) {
	for body, want := range map[string]webhook.Reason{
		``:                                     webhook.ReasonBadBody,
		`{}`:                                   webhook.ReasonBadBody,
		adyenBody():                            webhook.ReasonBadBody,
		adyenBody(`{}`):                        webhook.ReasonBadBody,
		adyenBody(`7`):                         webhook.ReasonBadBody,
		adyenBody(`null`):                      webhook.ReasonBadBody,
		adyenBody(adyenItem):                   webhook.ReasonNoSignature,
		strings.Repeat(`[`, 20000):             webhook.ReasonBadBody,
		adyenBody(manyAdyenItems(101)...):      webhook.ReasonBadBody,
		signedAdyen(t, manyAdyenItems(100)...): "",
		signedAdyen(t, strings.Replace(adyenItem, "psp1", "", 1)):                                webhook.ReasonNoEventID,
		strings.Replace(signedAdyen(t, adyenItem), `"hmacSignature":"`, `"hmacSignature":"A`, 1): webhook.ReasonMalformed,
	} {
		_, err := verifyAdyen(t, body)
		assert.Equal(t, want, webhook.ReasonOf(err), "%.80s: %v", body, err)
	}
}

func manyAdyenItems(n int) (items []string) {
	for i := range n {
		items = append(items, strings.Replace(adyenItem, "psp1", fmt.Sprintf("psp%d", i), 1))
	}
	return items
}

// Events of Adyen's platforms sign the body, in a header.
func TestAdyenPlatforms(t *testing.T) {
	s, err := webhook.HMAC(webhook.HMACConfig{
		Provider: webhook.Provider{Name: "adyenplatforms"}, SignatureHeader: "HmacSignature", Encoding: webhook.Base64,
		Key: decodeHexKey, Content: func(r *webhook.Request) (webhook.Content, error) {
			return webhook.Content{Events: []webhook.Event{{ID: "1", Body: r.Body}}}, nil
		},
	}, []string{"DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00"})
	require.NoError(t, err)
	// The vector of the Adyen Go library's test of payloads as strings.
	body := "{\n    \"type\": \"merchant.created\",\n    \"environment\": \"test\",\n    \"createdAt\": \"01-01-2024\",\n" +
		"    \"data\": {\n        \"capabilities\": {\n            \"sendToTransferInstrument\": {\n" +
		"                \"requested\": true,\n                \"requestedLevel\": \"notApplicable\"\n            }\n        },\n" +
		"        \"companyId\": \"YOUR_COMPANY_ID\",\n        \"merchantId\": YOUR_MERCHANT_ACCOUNT\",\n" +
		"        \"status\": \"PreActive\"\n    }\n}"
	r := &webhook.Request{Body: []byte(body), Header: map[string][]string{
		"Hmacsignature": {"yitBTPnDGtbAMG9rTxUa1e6lFGpa4PnrD6rErOmEhJ8="},
	}}
	_, err = s.Verify(r)
	assert.NoError(t, err)
	r.Body[0] ^= 1
	_, err = s.Verify(r)
	assert.Equal(t, webhook.ReasonMismatch, webhook.ReasonOf(err))
}
