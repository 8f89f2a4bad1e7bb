package idemecho_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemhttp/idemecho"
	"github.com/idempotent-go/idempotent/idemhttp/internal/suite"
	"github.com/idempotent-go/idempotent/idemtest"
)

func newEcho() *echo.Echo {
	e := echo.New()
	e.Logger = slog.New(slog.DiscardHandler)
	return e
}

type paramKey struct{}

// The behaviour suite, as a middleware of a route and of a group.
func TestSuite(t *testing.T) {
	handler := func(handle http.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			ctx := context.WithValue(c.Request().Context(), paramKey{}, c)
			handle(c.Response(), c.Request().WithContext(ctx))
			return nil
		}
	}
	param := func(r *http.Request) string { return r.Context().Value(paramKey{}).(*echo.Context).Param("id") }
	suite.Run(t, suite.Framework{
		Name: "route", Param: param,
		Mount: func(mw *idemhttp.Middleware, method, path string, handle http.HandlerFunc, opts ...idemhttp.RouteOption) http.Handler {
			e := newEcho()
			e.Add(method, strings.Replace(path, "{id}", ":id", 1), handler(handle), idemecho.New(mw, opts...))
			return e
		},
	})
	suite.Run(t, suite.Framework{
		Name: "group", Param: param, HTTP2: true,
		Mount: func(mw *idemhttp.Middleware, method, path string, handle http.HandlerFunc, opts ...idemhttp.RouteOption) http.Handler {
			e := newEcho()
			e.Group("", idemecho.New(mw, opts...)).Add(method, strings.Replace(path, "{id}", ":id", 1), handler(handle))
			return e
		},
	})
}

func post(t *testing.T, h http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(`{"amount":42}`))
	r.Header.Set(idemhttp.KeyHeader, "k")
	r.Header.Set("Content-Type", "application/json")
	maps.Copy(r.Header, header)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func newMiddleware(t *testing.T, opts ...idemhttp.Option) *idemhttp.Middleware {
	t.Helper()
	mw, err := idemhttp.New(idemtest.NewRedis(t), "echo", idemhttp.SingleTenant, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = mw.Close() })
	return mw
}

func replayed(rec *httptest.ResponseRecorder) bool {
	return rec.Header().Get(idemhttp.ReplayedHeader) == "true"
}

// echo's own helpers and errors do what they do without the middleware: errors are rendered inside.
func TestHelpers(t *testing.T) {
	for name, handle := range map[string]echo.HandlerFunc{
		"JSON": func(c *echo.Context) error {
			var in struct {
				Amount int `json:"amount"`
			}
			if err := c.Bind(&in); err != nil {
				return err
			}
			return c.JSON(http.StatusCreated, in)
		},
		"NoContent":   func(c *echo.Context) error { return c.NoContent(http.StatusNoContent) },
		"HTTPError":   func(*echo.Context) error { return echo.NewHTTPError(http.StatusUnprocessableEntity, "declined") },
		"other error": func(*echo.Context) error { return io.ErrUnexpectedEOF },
		"Stream": func(c *echo.Context) error {
			return c.Stream(http.StatusOK, "text/plain", strings.NewReader("streamed"))
		},
		"Redirect": func(c *echo.Context) error { return c.Redirect(http.StatusSeeOther, "/x") },
	} {
		t.Run(name, func(t *testing.T) {
			plain := newEcho()
			plain.POST("/", handle)
			want := post(t, plain, "/", nil)
			runs := 0
			guarded := newEcho()
			guarded.POST("/", func(c *echo.Context) error { runs++; return handle(c) }, idemecho.New(newMiddleware(t)))
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

// Behind the authentication, a token that was revoked gets no replay, and a 401 is not recorded.
func TestBehindAuthentication(t *testing.T) {
	revoked := false
	authenticate := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if revoked || c.Request().Header.Get("Authorization") == "" {
				return echo.ErrUnauthorized
			}
			return next(c)
		}
	}
	e := newEcho()
	group := e.Group("/v1", authenticate, idemecho.New(newMiddleware(t)))
	group.POST("/pay", func(c *echo.Context) error {
		info, ok := idempotent.RunInfoFromContext(c.Request().Context())
		assert.True(t, ok)
		assert.Equal(t, 1, info.Attempt)
		return c.String(http.StatusCreated, "paid")
	})
	token := http.Header{"Authorization": {"Bearer a"}}
	assert.Equal(t, http.StatusUnauthorized, post(t, e, "/v1/pay", nil).Code)
	assert.Equal(t, http.StatusCreated, post(t, e, "/v1/pay", token).Code)
	assert.True(t, replayed(post(t, e, "/v1/pay", token)))
	revoked = true
	assert.Equal(t, http.StatusUnauthorized, post(t, e, "/v1/pay", token).Code)
}

// An error without a key is echo's to render, once.
func TestErrorsWithoutAKey(t *testing.T) {
	e := newEcho()
	rendered := 0
	e.HTTPErrorHandler = func(c *echo.Context, _ error) { rendered++; _ = c.NoContent(http.StatusTeapot) }
	e.POST("/", func(*echo.Context) error { return io.EOF }, idemecho.New(newMiddleware(t)))
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
	assert.Equal(t, http.StatusTeapot, rec.Code)
	assert.Equal(t, 1, rendered)
}

// echo.WrapMiddleware would record an empty response instead of an error: it is refused.
func TestWrapMiddlewareIsRefused(t *testing.T) {
	mw, runs := newMiddleware(t), 0
	fail := func(*echo.Context) error {
		runs++
		return echo.NewHTTPError(http.StatusUnprocessableEntity, "declined")
	}
	e := newEcho()
	e.POST("/", fail, echo.WrapMiddleware(mw.With()))
	got := post(t, e, "/", nil)
	assert.Equal(t, http.StatusInternalServerError, got.Code)
	assert.Contains(t, got.Body.String(), idemhttp.TypeMisconfigured)
	assert.Zero(t, runs)

	// Other middlewares may come that way, and guarded http.Handlers by echo.WrapHandler.
	other := func(next http.Handler) http.Handler { return next }
	e.POST("/fine", func(c *echo.Context) error { return c.NoContent(http.StatusCreated) }, echo.WrapMiddleware(other), idemecho.New(mw))
	e.POST("/handler", echo.WrapHandler(mw.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	}))), echo.WrapMiddleware(other))
	for _, path := range []string{"/fine", "/handler"} {
		for i := range 2 {
			got := post(t, e, path, nil)
			assert.Equal(t, http.StatusCreated, got.Code, path)
			assert.Equal(t, i == 1, replayed(got), path)
		}
	}
}
