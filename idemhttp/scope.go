package idemhttp

import (
	"net/http"

	"github.com/idempotent-go/idempotent"
)

// lookupKey is the executor's key for a request: hashed, with the length of each part, so that no
// two lists of parts give the same one and nothing of the caller's can be read in Redis.
func (c *config) lookupKey(r *http.Request, key string) (string, error) {
	scope, err := c.scope(r)
	if err != nil {
		return "", err
	}
	route := r.Pattern
	if route == "" {
		route = r.URL.EscapedPath()
	}
	return idempotent.HashKey(r.Method, route, scope, key), nil
}

// authorizationScope tells callers apart by their credentials. The hash is of all values of the
// field, so that no second one goes unseen.
func authorizationScope(r *http.Request) (string, error) {
	return idempotent.HashKey(r.Header.Values("Authorization")...), nil
}
