package idemhttp

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/idempotent-go/idempotent"
)

// A Scope says whose key a request carries: a tenant, an account, a user. Equal keys of different
// scopes never meet, so a scope must be something that the caller cannot choose freely, and that
// is the same for a request and its retry.
//
// An empty scope is answered with 500 (TypeMisconfigured), and so is an error, unless it is or wraps
// a *Problem; the handler is not run. Put the middleware behind the one that authenticates.
type Scope func(*http.Request) (string, error)

// SingleTenant is the scope of an API that has one caller, or whose keys only its own clients make.
// Where callers do not trust each other, it shows each the responses of the others.
func SingleTenant(*http.Request) (string, error) { return "single tenant", nil }

// ScopeAuthorization tells callers apart by a hash of the Authorization field. It is for API keys
// and passwords. A token that may be renewed between a request and its retry makes the retry another
// caller's request, which runs: use ScopeBearerSubject there.
func ScopeAuthorization(r *http.Request) (string, error) {
	value, err := single(r, "Authorization")
	if err != nil || value == "" {
		return "", err
	}
	return idempotent.HashKey(value), nil
}

// ScopeHeader tells callers apart by a header field which the authentication in front sets, such as
// X-Tenant-Id. It must be removed from the requests of clients: whoever can set it reads the
// responses of others.
func ScopeHeader(name string) Scope {
	return func(r *http.Request) (string, error) { return single(r, name) }
}

// ScopeBasicUser tells callers apart by the user name of Basic authentication, which something in
// front has verified.
func ScopeBasicUser(r *http.Request) (string, error) {
	if _, err := single(r, "Authorization"); err != nil {
		return "", err
	}
	user, _, _ := r.BasicAuth()
	return user, nil
}

// ScopeBearerSubject tells callers apart by the issuer and the subject of a JSON Web Token (claims
// iss and sub, RFC 7519) in the Authorization field. It does not verify the token: something in front
// must have done so. A renewed token of the same subject is the same caller.
func ScopeBearerSubject(r *http.Request) (string, error) {
	value, err := single(r, "Authorization")
	if err != nil {
		return "", err
	}
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("the Authorization field has no bearer token")
	}
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		return "", errors.New("the bearer token is not a signed JSON Web Token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", errors.New("the claims of the bearer token are not base64url")
	}
	var claims struct {
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
	}
	// This package matches names exactly and refuses a name that is there twice.
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", errors.New("the claims of the bearer token are not well-formed")
	}
	if claims.Subject == "" {
		return "", nil
	}
	return idempotent.HashKey(claims.Issuer, claims.Subject), nil
}

// single returns the value of a field that must not be there twice: two readers could choose
// different ones.
func single(r *http.Request, name string) (string, error) {
	values := r.Header.Values(name)
	if len(values) > 1 {
		return "", fmt.Errorf("the request has %d %s fields, where one is allowed", len(values), http.CanonicalHeaderKey(name))
	}
	return strings.TrimSpace(r.Header.Get(name)), nil
}
