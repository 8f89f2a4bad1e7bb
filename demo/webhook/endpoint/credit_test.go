package endpoint

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

func client(t *testing.T, ledger http.HandlerFunc) *ledgerClient {
	t.Helper()
	server := httptest.NewServer(ledger)
	t.Cleanup(server.Close)
	cfg := testConfig()
	cfg.LedgerURL = server.URL
	return newLedgerClient(&cfg)
}

func answers(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// Only what surely did nothing is retried as if nothing had happened.
func TestCreditTellsErrorsApart(t *testing.T) {
	gone := httptest.NewServer(answers(http.StatusOK))
	gone.Close()
	hangUp := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	const retryable, unclear, final = "retryable", "unclear", "final"
	for _, tt := range []struct {
		name   string
		ledger http.HandlerFunc
		want   string
	}{
		{"it cannot be reached", nil, retryable},
		{"it is unavailable", answers(http.StatusServiceUnavailable), retryable},
		{"it does not know the order", answers(http.StatusUnprocessableEntity), final},
		{"it fails", answers(http.StatusInternalServerError), unclear},
		{"it hangs up", hangUp, unclear},
		{"its answer is cut short", answers(http.StatusOK), unclear},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := client(t, tt.ledger)
			if tt.ledger == nil {
				l.url = gone.URL
			}
			_, err := l.credit(t.Context(), task{})
			require.Error(t, err)
			_, isUnclear := errors.AsType[*unclearError](err)
			assert.Equal(t, tt.want == unclear, isUnclear, "%v", err)
			assert.Equal(t, tt.want == retryable, idempotent.IsRetryable(err), "%v", err)
		})
	}
}

// The second execution asks until it is told, and makes the credit only if there is none.
func TestCreditAsksFirst(t *testing.T) {
	for _, found := range []bool{true, false} {
		var made, asked int
		l := client(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				made++
			} else if asked++; asked == 1 {
				w.WriteHeader(http.StatusBadGateway)
				return
			} else if !found {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			_ = json.NewEncoder(w).Encode(Change{Credit: "cr_1"})
		})
		_, err := l.credit(t.Context(), task{Again: true})
		require.True(t, isUnclear(err), "no answer is no reason to credit: %v", err)
		require.Zero(t, made)
		change, err := l.credit(t.Context(), task{Again: true})
		require.NoError(t, err)
		assert.Equal(t, "cr_1", change.Credit)
		assert.Equal(t, 2, asked)
		assert.Equal(t, !found, made == 1)
	}
}
