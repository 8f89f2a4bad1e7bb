package idemgin_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemhttp/idemgin"
	"github.com/idempotent-go/idempotent/idemhttp/internal/suite"
	"github.com/idempotent-go/idempotent/idemtest"
)

func init() { gin.SetMode(gin.ReleaseMode) }

type paramKey struct{}

// The behaviour suite, as a middleware of a route and of a group.
func TestSuite(t *testing.T) {
	handler := func(handle http.HandlerFunc) gin.HandlerFunc {
		return func(c *gin.Context) {
			ctx := context.WithValue(c.Request.Context(), paramKey{}, c)
			handle(c.Writer, c.Request.WithContext(ctx))
		}
	}
	param := func(r *http.Request) string { return r.Context().Value(paramKey{}).(*gin.Context).Param("id") }
	suite.Run(t, suite.Framework{
		Name: "route", Param: param,
		Mount: func(mw *idemhttp.Middleware, method, path string, handle http.HandlerFunc, opts ...idemhttp.RouteOption) http.Handler {
			engine := gin.New()
			engine.Handle(method, strings.Replace(path, "{id}", ":id", 1), idemgin.New(mw, opts...), handler(handle))
			return engine
		},
	})
	suite.Run(t, suite.Framework{
		Name: "group", Param: param, HTTP2: true,
		Mount: func(mw *idemhttp.Middleware, method, path string, handle http.HandlerFunc, opts ...idemhttp.RouteOption) http.Handler {
			engine := gin.New()
			engine.Group("/", idemgin.New(mw, opts...)).Handle(method, strings.Replace(path, "{id}", ":id", 1), handler(handle))
			return engine
		},
	})
}

// post sends a request with a key and fields.
func post(t *testing.T, h http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(`{"amount":42}`))
	r.Header.Set(idemhttp.KeyHeader, "k")
	r.Header.Set("Content-Type", "application/json")
	maps.Copy(r.Header, header)
	rec := recorder{httptest.NewRecorder()}
	h.ServeHTTP(rec, r)
	return rec.ResponseRecorder
}

// A recorder is a CloseNotifier, as net/http's writers are: gin's Stream panics without one.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) CloseNotify() <-chan bool { return make(chan bool) }

func newMiddleware(t *testing.T, opts ...idemhttp.Option) *idemhttp.Middleware {
	t.Helper()
	mw, err := idemhttp.New(idemtest.NewRedis(t), "gin", idemhttp.SingleTenant, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = mw.Close() })
	return mw
}

func replayed(rec *httptest.ResponseRecorder) bool {
	return rec.Header().Get(idemhttp.ReplayedHeader) == "true"
}

// gin's own helpers do what they do without the middleware.
func TestHelpers(t *testing.T) {
	for name, handle := range map[string]gin.HandlerFunc{
		"JSON": func(c *gin.Context) {
			var in struct {
				Amount int `json:"amount" binding:"required"`
			}
			require.NoError(t, c.ShouldBindJSON(&in))
			c.JSON(http.StatusCreated, gin.H{"amount": in.Amount})
		},
		"Status":              func(c *gin.Context) { c.Status(http.StatusNoContent) },
		"AbortWithStatus":     func(c *gin.Context) { c.AbortWithStatus(http.StatusConflict) },
		"AbortWithStatusJSON": func(c *gin.Context) { c.AbortWithStatusJSON(http.StatusPaymentRequired, gin.H{"error": "declined"}) },
		"Redirect":            func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/x") },
		"Stream": func(c *gin.Context) {
			n := 0
			c.Stream(func(w io.Writer) bool {
				n++
				_, _ = io.WriteString(w, "part")
				return n < 3
			})
		},
		"SSEvent": func(c *gin.Context) { c.SSEvent("message", "hello") },
		"headers late": func(c *gin.Context) {
			c.Status(http.StatusAccepted)
			c.Header("X-Late", "1")
			c.Writer.WriteHeaderNow()
			c.Status(http.StatusTeapot)
		},
	} {
		t.Run(name, func(t *testing.T) {
			plain := gin.New()
			plain.POST("/", handle)
			want := post(t, plain, "/", nil)
			runs := 0
			guarded := gin.New()
			guarded.POST("/", idemgin.New(newMiddleware(t)), func(c *gin.Context) { runs++; handle(c) })
			for i := range 2 {
				got := post(t, guarded, "/", nil)
				assert.Equal(t, want.Code, got.Code)
				assert.Equal(t, want.Body.String(), got.Body.String())
				assert.Equal(t, i == 1, replayed(got))
				for header, values := range want.Header() {
					assert.Equal(t, values, got.Header()[header], header)
				}
			}
			assert.Equal(t, 1, runs)
		})
	}
}

// The run is found from gin's own context.
func TestContextOfGin(t *testing.T) {
	engine := gin.New()
	mw := newMiddleware(t, idemhttp.WithInterrupted(idempotent.Refuse))
	engine.POST("/run", idemgin.New(mw), func(c *gin.Context) {
		info, ok := idempotent.RunInfoFromContext(c)
		assert.True(t, ok)
		assert.Equal(t, 1, info.Attempt)
		assert.Equal(t, "gin", info.Namespace)
	})
	engine.POST("/unknown", idemgin.New(mw), func(c *gin.Context) { idemhttp.OutcomeUnknown(c) })
	engine.POST("/none", idemgin.New(mw), func(c *gin.Context) {
		idemhttp.NoEffect(c)
		c.Status(http.StatusInternalServerError)
	})
	post(t, engine, "/run", nil)
	post(t, engine, "/unknown", nil)
	assert.Contains(t, post(t, engine, "/unknown", nil).Body.String(), idemhttp.TypeInterrupted)
	for range 2 {
		assert.False(t, replayed(post(t, engine, "/none", nil)))
	}
}

// Behind the authentication, a token that was revoked gets no replay, and a 401 is not recorded.
func TestBehindAuthentication(t *testing.T) {
	revoked := false
	authenticate := func(c *gin.Context) {
		if revoked || c.GetHeader("Authorization") == "" {
			c.AbortWithStatus(http.StatusUnauthorized)
		}
	}
	after := 0
	engine := gin.New()
	group := engine.Group("/v1", authenticate, func(c *gin.Context) { c.Next(); after = c.Writer.Status() }, idemgin.New(newMiddleware(t)))
	group.POST("/pay", func(c *gin.Context) { c.String(http.StatusCreated, "paid") })
	token := http.Header{"Authorization": {"Bearer a"}}
	assert.Equal(t, http.StatusUnauthorized, post(t, engine, "/v1/pay", nil).Code)
	assert.Equal(t, http.StatusCreated, post(t, engine, "/v1/pay", token).Code)
	assert.True(t, replayed(post(t, engine, "/v1/pay", token)))
	assert.Equal(t, http.StatusCreated, after, "a middleware in front sees the status of the replay")
	revoked = true
	assert.Equal(t, http.StatusUnauthorized, post(t, engine, "/v1/pay", token).Code)
}

// Errors are rendered inside; where they are not, the response is not recorded without them.
func TestErrors(t *testing.T) {
	render := func(c *gin.Context) {
		c.Next()
		if len(c.Errors) > 0 && !c.Writer.Written() {
			c.JSON(http.StatusUnprocessableEntity, gin.H{"error": c.Errors.Last().Error()})
		}
	}
	fail := func(c *gin.Context) { _ = c.Error(errors.New("declined")) }
	inside := gin.New()
	inside.POST("/", idemgin.New(newMiddleware(t)), render, fail)
	for i := range 2 {
		got := post(t, inside, "/", nil)
		assert.Equal(t, http.StatusUnprocessableEntity, got.Code)
		assert.JSONEq(t, `{"error":"declined"}`, got.Body.String())
		assert.Equal(t, i == 1, replayed(got))
	}
	infront := gin.New()
	infront.POST("/", render, idemgin.New(newMiddleware(t, idemhttp.WithInterrupted(idempotent.Refuse))), fail)
	post(t, infront, "/", nil)
	assert.Contains(t, post(t, infront, "/", nil).Body.String(), idemhttp.TypeInterrupted, "it was not recorded as a 200")
}

// gin.Recovery in front and inside.
func TestRecovery(t *testing.T) {
	boom := func(*gin.Context) { panic("boom") }
	quiet := gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(http.StatusInternalServerError) })
	front, inside := gin.New(), gin.New()
	front.POST("/", quiet, idemgin.New(newMiddleware(t)), boom)
	inside.POST("/", idemgin.New(newMiddleware(t)), quiet, boom)
	assert.Equal(t, http.StatusInternalServerError, post(t, front, "/", nil).Code)
	assert.Contains(t, post(t, front, "/", nil).Body.String(), idemhttp.TypePanicked)
	assert.Equal(t, http.StatusInternalServerError, post(t, inside, "/", nil).Code)
	assert.True(t, replayed(post(t, inside, "/", nil)))
}

func TestHijackFails(t *testing.T) {
	engine := gin.New()
	engine.POST("/", idemgin.New(newMiddleware(t)), func(c *gin.Context) {
		_, _, err := c.Writer.Hijack()
		assert.ErrorIs(t, err, http.ErrNotSupported)
		assert.Nil(t, c.Writer.Pusher())
	})
	assert.Equal(t, http.StatusOK, post(t, engine, "/", nil).Code)
}

// A wrapper of another make lets the handler write to gin's own writer: that is not recorded as an
// empty response.
func TestAroundTheMiddleware(t *testing.T) {
	mw := newMiddleware(t)
	runs := 0
	engine := gin.New()
	engine.POST("/", func(c *gin.Context) {
		mw.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		c.Abort()
	}, func(c *gin.Context) {
		runs++
		info, _ := idempotent.RunInfoFromContext(c.Request.Context())
		c.String(http.StatusCreated, "attempt %d", info.Attempt)
	})
	assert.Equal(t, "attempt 1", post(t, engine, "/", nil).Body.String())
	assert.Equal(t, "attempt 2", post(t, engine, "/", nil).Body.String())
	assert.Equal(t, 2, runs)
}

// gin.WrapH around a guarded http.Handler is fine.
func TestWrapH(t *testing.T) {
	engine := gin.New()
	engine.POST("/", gin.WrapH(newMiddleware(t).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	}))))
	for i := range 2 {
		got := post(t, engine, "/", nil)
		assert.Equal(t, http.StatusCreated, got.Code)
		assert.Equal(t, i == 1, replayed(got))
	}
}
