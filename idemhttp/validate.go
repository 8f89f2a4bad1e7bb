package idemhttp

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
)

// validate checks what idempotent.New does not.
func (c *config) validate() error {
	errs := []error{validateMethods(c.methods), validateNames(c.unrecorded)}
	for _, f := range []struct {
		option  string
		missing bool
	}{
		{"WithKeyFormat", c.keyFormat == nil},
		{"WithScope", c.scope == nil},
		{"WithShouldRecord", c.shouldRecord == nil},
		{"WithProblemRenderer", c.render == nil},
	} {
		if f.missing {
			errs = append(errs, invalid(f.option, "function", "nil", "a function"))
		}
	}
	if c.observed && isNil(c.observer) {
		errs = append(errs, invalid("WithObserver", "observer", "nil", "an observer"))
	}
	if c.fingerprint == 0 || c.fingerprint&^FingerprintAll != 0 {
		errs = append(errs, invalid("WithFingerprint", "parts", fmt.Sprint(uint8(c.fingerprint)), "one or more of the Fingerprint constants"))
	}
	if c.requestLimit < 0 {
		errs = append(errs, invalid("WithRequestLimit", "limit", fmt.Sprint(c.requestLimit), "0 or more bytes"))
	}
	if c.responseLimit < 0 {
		errs = append(errs, invalid("WithResponseLimit", "limit", fmt.Sprint(c.responseLimit), "0 or more bytes"))
	}
	if c.documented && !validLink(c.documentation) {
		errs = append(errs, invalid("WithDocumentation", "url", fmt.Sprintf("%q", c.documentation), "a URL, absolute or with a path"))
	}
	return errors.Join(errs...)
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
