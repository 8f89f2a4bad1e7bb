package idemhttp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dunglas/httpsfv"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// KeyHeader is the name of the field that carries the key.
const KeyHeader = "Idempotency-Key"

// A KeyFunc returns the key of a request and whether it has one. It may read the body: what it reads is
// still there for the handler. An error is answered with 400 (TypeKeyInvalid) and its text, or with
// the *Problem that it is or wraps. Whatever it returns, a key is 1 to WithKeyLimit bytes long and
// passes WithKeyFormat.
type KeyFunc func(*http.Request) (key string, ok bool, err error)

// KeyFromHeader takes the key from another field, by the rules for Idempotency-Key: a
// structured-field String, or a bare value.
func KeyFromHeader(name string) KeyFunc {
	return func(r *http.Request) (string, bool, error) { return keyOf(r.Header.Values(name), false) }
}

// KeyFromJSON takes the key from the string that a JSON Pointer (RFC 6901) names in a JSON body, such as
// "/idempotency_key". A body of another Content-Type, or without that value, has no key. A body that
// is not well-formed or has a name twice is an error, since the handler could read another key than
// this function; so is a value that is not a string, and a body with a Content-Encoding.
func KeyFromJSON(pointer string) KeyFunc {
	want := jsontext.Pointer(pointer)
	return func(r *http.Request) (string, bool, error) {
		if !isJSON(r.Header) || r.Body == nil {
			return "", false, nil
		}
		if r.Header.Get("Content-Encoding") != "" {
			return "", true, errors.New("the key cannot be read in a body with a Content-Encoding")
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return "", true, err
		}
		return keyInJSON(body, want)
	}
}

// keyInJSON reads the whole document, since a name could come again behind the first one.
func keyInJSON(body []byte, want jsontext.Pointer) (key string, found bool, err error) {
	in := jsontext.NewDecoder(bytes.NewReader(body))
	for first := true; first || in.StackDepth() > 0; first = false {
		token, err := in.ReadToken()
		if err == io.EOF && first { //nolint:errorlint // the decoder returns it bare
			return "", false, nil // no body
		}
		if err != nil {
			return "", true, errors.New("the body, which may have the key, is not well-formed JSON, or has a name twice")
		}
		if in.StackPointer() != want || isName(in) {
			continue
		}
		if token.Kind() != jsontext.KindString {
			return "", true, fmt.Errorf("the key at %q in the body is not a string", string(want))
		}
		key, found = token.String(), true
	}
	if _, err := in.ReadToken(); err != io.EOF { //nolint:errorlint // the decoder returns it bare
		return "", true, errors.New("the body has data after its JSON document")
	}
	return key, found, nil
}

// isName reports whether the last token was the name of an object's member.
func isName(in *jsontext.Decoder) bool {
	kind, n := in.StackIndex(in.StackDepth())
	return kind == jsontext.KindBeginObject && n%2 == 1
}

// UUIDKey is a format for WithKeyFormat: a UUID in its usual form, 36 characters, of any version.
func UUIDKey(key string) error {
	if _, err := uuid.Parse(key); err != nil || len(key) != 36 {
		return errors.New("the key must be a UUID, such as 8e03978e-40d5-43e8-bc93-6894a57f9324")
	}
	return nil
}

// ULIDKey is a format for WithKeyFormat: a ULID, 26 characters of Crockford's base 32, the first one
// at most 7.
func ULIDKey(key string) error {
	valid := len(key) == 26 && key[0] <= '7'
	for i := range len(key) {
		valid = valid && strings.IndexByte("0123456789ABCDEFGHJKMNPQRSTVWXYZ", key[i]&^lowercase(key[i])) >= 0
	}
	if !valid {
		return errors.New("the key must be a ULID, such as 01ARZ3NDEKTSV4RRFFQ69G5FAV")
	}
	return nil
}

// lowercase is the bit by which a small letter differs from a capital one, 0 for other bytes.
func lowercase(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return 'a' - 'A'
	}
	return 0
}

// key returns the key of a request, and whether it has one.
func (c *route) key(r *http.Request) (key string, present bool, err error) {
	if c.keyFunc == nil {
		key, present, err = keyOf(r.Header.Values(KeyHeader), c.strict)
	} else {
		key, present, err = c.keyFunc(r)
	}
	switch {
	case err != nil || !present:
		return "", present, err
	case key == "":
		return "", true, errors.New("the key is empty")
	case len(key) > c.keyLimit:
		return "", true, fmt.Errorf("the key is %d characters long; allowed are %d", len(key), c.keyLimit)
	}
	return key, true, c.keyFormat(key)
}

// keyOf returns the key in the values of a field, and whether there are any.
func keyOf(values []string, strict bool) (key string, present bool, err error) {
	if len(values) == 0 {
		return "", false, nil
	}
	if strict && len(values) > 1 {
		return "", true, errors.New("the field is there more than once")
	}
	for i, value := range values {
		k, err := parseKey(value, strict)
		if err != nil {
			return "", true, err
		}
		if i > 0 && k != key {
			return "", true, errors.New("the field is there more than once, with different values")
		}
		key = k
	}
	return key, true, nil
}

// parseKey reads one field value: a structured-field String or, unless strict, a bare value.
func parseKey(value string, strict bool) (key string, err error) {
	value = strings.Trim(value, " \t")
	key = value
	switch {
	case strings.HasPrefix(value, `"`):
		key, err = parseString(value)
	case strict && value != "":
		err = errors.New(`the key must be a structured-field String, in double quotes`)
	default:
		err = checkBare(value)
	}
	switch {
	case err != nil:
		return "", err
	case key == "":
		return "", errors.New("the key is empty")
	}
	return key, nil
}

// parseString reads a structured-field String. Parameters have no meaning here and are ignored, as
// RFC 9651 has it.
func parseString(value string) (string, error) {
	item, err := httpsfv.UnmarshalItem([]string{value})
	key, ok := item.Value.(string)
	if err != nil || !ok {
		return "", errors.New("the key is not a well-formed structured-field String: check its quotes, and that it has printable ASCII characters only")
	}
	return key, nil
}

// quoteKey writes a key as a structured-field String, if it can be one.
func quoteKey(key string) (value string, ok bool) {
	value, err := httpsfv.Marshal(httpsfv.NewItem(key))
	return value, err == nil
}

// checkBare refuses what is no bare value, or could be read in more than one way: a comma may come
// from an intermediary that joined two fields, a semicolon begins parameters.
func checkBare(value string) error {
	for i := range len(value) {
		switch c := value[i]; {
		case c <= ' ' || c > '~':
			return errors.New("the key has a character that is not allowed: without quotes, visible ASCII characters are")
		case strings.IndexByte("\"\\,;", c) >= 0:
			return fmt.Errorf("the key has the character %q, which is not allowed without quotes around the key", c)
		}
	}
	return nil
}
