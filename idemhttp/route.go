package idemhttp

import (
	"net/http"
	"strings"

	"github.com/idempotent-go/idempotent"
)

// instance is the operation that a request's key belongs to: a caller, a route of this API and the
// key. It is the only place that says so. All of it is hashed, each part with its length, so that no
// two operations have one name and nothing of the caller's can be read in Redis.
//
// The method, the URL and the body are not in it: they are compared (WithFingerprint), so that a key
// that comes again with others is refused.
func instance(scope, route, key string) string {
	return idempotent.HashKey(scope, routeName(route), key)
}

// PatternRoute is the default of WithRoute: Request.Pattern, which http.ServeMux and chi set. Without
// a pattern it is empty: then all requests of the middleware are of one route, and a key that comes
// at another URL is answered with 422.
func PatternRoute(r *http.Request) string { return r.Pattern }

// routeName takes out of a pattern what may change while the route stays the same: the method, so
// that a key that comes again with another one is refused, and the names of wildcards, so that
// renaming one does not turn the retries of a whole day into new requests.
func routeName(pattern string) string {
	if i := strings.IndexAny(pattern, " \t"); i > 0 && isToken(pattern[:i]) {
		pattern = strings.TrimLeft(pattern[i:], " \t")
	}
	if !strings.ContainsAny(pattern, "{:*") {
		return pattern
	}
	segments := strings.Split(pattern, "/")
	for i, segment := range segments {
		segments[i] = wildcard(segment)
	}
	return strings.Join(segments, "/")
}

// wildcard takes the name out of a segment: {name}, {name...} and, of chi, {name:expression}; :name
// and *name of gin and echo.
func wildcard(segment string) string {
	if strings.HasPrefix(segment, ":") || strings.HasPrefix(segment, "*") {
		return segment[:1]
	}
	var b strings.Builder
	for {
		open := strings.IndexByte(segment, '{')
		if open < 0 {
			b.WriteString(segment)
			return b.String()
		}
		b.WriteString(segment[:open+1])
		segment = segment[open+1:]
		end := strings.IndexAny(segment, ":.}")
		if end < 0 || strings.HasPrefix(segment, "$}") {
			end = 0
		}
		segment = segment[end:]
		end = strings.IndexByte(segment, '}')
		b.WriteString(segment[:end+1])
		segment = segment[end+1:]
	}
}
