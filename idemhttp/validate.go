package idemhttp

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/idempotent-go/idempotent"
)

// validate checks what idempotent.New does not.
func (c *config) validate() error {
	var err error
	if c.observed && isNil(c.observer) {
		err = invalid("WithObserver", "observer", "nil", "an observer")
	}
	return errors.Join(err, c.route.validate())
}

func (c *route) validate() error {
	errs := []error{validateMethods(c.methods), validateNames(c.unrecorded), c.fingerprint.err, c.validateNumbers()}
	for _, f := range []struct {
		option  string
		missing bool
	}{
		{"WithKey", c.keySet && c.keyFunc == nil},
		{"WithKeyFormat", c.keyFormat == nil},
		{"scope", c.scope == nil},
		{"WithRoute", c.routeOf == nil},
		{"WithShouldRecord", c.shouldRecord == nil},
		{"WithRedact", c.redactSet && c.redact == nil},
		{"WithProblemRenderer", c.render == nil},
	} {
		if f.missing {
			errs = append(errs, invalid(f.option, "function", "nil", "a function"))
		}
	}
	if c.fingerprint.hash == nil && c.fingerprint.err == nil {
		errs = append(errs, invalid("WithFingerprint", "fingerprint", "the zero value", "FingerprintParts, FingerprintJSON or FingerprintFunc"))
	}
	if c.strict && c.keySet {
		errs = append(errs, invalid("WithStrictKey", "key", "that of WithKey", "the Idempotency-Key field: WithKey decides what a key is"))
	}
	if c.documented && !validLink(c.documentation) {
		errs = append(errs, invalid("WithDocumentation", "url", fmt.Sprintf("%q", c.documentation), "a URL, absolute or with a path"))
	}
	return errors.Join(errs...)
}

func (c *route) validateNumbers() error {
	var errs []error
	if c.keyLimit < 1 {
		errs = append(errs, invalid("WithKeyLimit", "limit", fmt.Sprint(c.keyLimit), "1 or more bytes"))
	}
	if c.requestLimit < 0 {
		errs = append(errs, invalid("WithRequestLimit", "limit", fmt.Sprint(c.requestLimit), "0 or more bytes"))
	}
	if c.responseLimit < 0 {
		errs = append(errs, invalid("WithResponseLimit", "limit", fmt.Sprint(c.responseLimit), "0 or more bytes"))
	}
	return errors.Join(errs...)
}

// prepare derives what requests need from the options.
func (c *route) prepare() {
	c.methods = slices.Clone(c.methods)
	c.private = make(map[string]bool, len(hopByHop)+len(c.unrecorded))
	for _, name := range slices.Concat(hopByHop, c.unrecorded) {
		c.private[http.CanonicalHeaderKey(name)] = true
	}
	c.executorOptions = []idempotent.RunOption{
		idempotent.WithTTL(c.ttl),
		idempotent.WithWaitTimeout(c.waitTimeout),
		idempotent.WithInterrupted(c.interrupted),
		idempotent.WithCommitWait(c.commitWait),
	}
	if c.noWait {
		c.executorOptions = append(c.executorOptions, idempotent.WithNoWait())
	}
}

func validateMethods(methods []string) error {
	if len(methods) == 0 {
		return invalid("WithMethods", "list", "empty", "one method or more")
	}
	for _, m := range methods {
		if !isToken(m) || m != strings.ToUpper(m) {
			return invalid("WithMethods", "method", fmt.Sprintf("%q", m), "a method in capitals, such as POST")
		}
	}
	return nil
}

func validateNames(names []string) error {
	for _, name := range names {
		if !isToken(name) {
			return invalid("WithUnrecordedHeaders", "name", fmt.Sprintf("%q", name), "a field name")
		}
	}
	return nil
}

// validLink keeps out what would end the Link field's target early.
func validLink(link string) bool {
	u, err := url.Parse(link)
	return err == nil && link != "" && (u.IsAbs() || strings.HasPrefix(link, "/")) && !strings.ContainsAny(link, "<>\" ")
}

// isToken reports whether s is a token as RFC 9110 defines it.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isNil reports whether an interface is nil or holds a nil.
func isNil(v any) bool {
	value := reflect.ValueOf(v)
	switch value.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return value.IsNil()
	}
	return false
}
