package idemhttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// grace is what the executor waits beyond its bound for the error of the last try.
const grace = 100 * time.Millisecond

// commitFails serves one request in fake time, whose handler ends when Redis has gone away, and returns
// the answer and how long the client waited for it.
func commitFails(t *testing.T, handle http.HandlerFunc, test func(rdb *idemtest.Redis, rec *httptest.ResponseRecorder, waited time.Duration, send func() *httptest.ResponseRecorder), opts ...idemhttp.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		began := time.Time{}
		guarded := middleware(t, rdb, opts...).Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if began.IsZero() {
				rdb.Fail("LOADING")
				began = time.Now()
			}
			handle(rw, r)
		}))
		send := func() *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set(idemhttp.KeyHeader, "k")
			rec := httptest.NewRecorder()
			guarded.ServeHTTP(rec, r)
			return rec
		}
		rec := send()
		test(rdb, rec, time.Since(began), send)
	})
}

// The client has its response after a bound of its own, and the commit goes on.
func TestClientDoesNotWaitForTheCommit(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]time.Duration{"by default": 0, "by option": 700 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			want, opts := idemhttp.DefaultCommitWait, []idemhttp.Option(nil)
			if wait > 0 {
				want, opts = wait, []idemhttp.Option{idemhttp.WithCommitWait(wait)}
			}
			for _, attached := range []bool{false, true} {
				opts := opts
				if attached {
					opts = append(opts, idemhttp.WithCancelOnDisconnect())
				}
				commitFails(t, created, func(rdb *idemtest.Redis, rec *httptest.ResponseRecorder, waited time.Duration, send func() *httptest.ResponseRecorder) {
					assert.InDelta(t, want, waited, float64(grace))
					assert.Equal(t, http.StatusCreated, rec.Code)
					assert.Equal(t, `{"id":"ch_1"}`, rec.Body.String())
					assert.Equal(t, "true", rec.Header().Get(idemhttp.UnrecordedHeader))
					assert.Empty(t, rec.Header().Get(idemhttp.ReplayedHeader))
					rdb.Fail("")
					again := send()
					assert.Equal(t, "true", again.Header().Get(idemhttp.ReplayedHeader), "the commit has gone on")
				}, opts...)
			}
		})
	}
}

// The same bound holds when a key is freed or left unknown, and the answer is that of the handler.
func TestClientDoesNotWaitForARelease(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
		commitFails(t, status(code), func(_ *idemtest.Redis, rec *httptest.ResponseRecorder, waited time.Duration, _ func() *httptest.ResponseRecorder) {
			assert.LessOrEqual(t, waited, idemhttp.DefaultCommitWait+grace)
			assert.Equal(t, code, rec.Code)
			assert.Equal(t, "x\n", rec.Body.String())
			assert.Equal(t, code == http.StatusGatewayTimeout, rec.Header().Get(idemhttp.UnrecordedHeader) == "true")
		})
	}
}

// A panic does not wait either, nor does it get lost.
func TestPanicDoesNotGetLostWithoutRedis(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		guarded := middleware(t, rdb).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			rdb.Fail("LOADING")
			panic("boom")
		}))
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set(idemhttp.KeyHeader, "k")
		began := time.Now()
		assert.PanicsWithValue(t, "boom", func() { guarded.ServeHTTP(httptest.NewRecorder(), r) })
		assert.LessOrEqual(t, time.Since(began), idemhttp.DefaultCommitWait+grace)
	})
}
