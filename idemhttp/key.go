package idemhttp

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/dunglas/httpsfv"
	"github.com/google/uuid"
)

// KeyHeader is the name of the field that carries the key.
const KeyHeader = "Idempotency-Key"

// UUIDKey is a format for WithKeyFormat: a UUID in its usual form, 36 characters, of any version.
func UUIDKey(key string) error {
	if _, err := uuid.Parse(key); err != nil || len(key) != 36 {
		return errors.New("the key must be a UUID, such as 8e03978e-40d5-43e8-bc93-6894a57f9324")
	}
	return nil
}

// keyOf returns the key of a request, and whether it has one.
func (c *config) keyOf(header http.Header) (key string, present bool, err error) {
	values := header.Values(KeyHeader)
	if len(values) == 0 {
		return "", false, nil
	}
	if c.strict && len(values) > 1 {
		return "", true, errors.New("the field is there more than once")
	}
	for i, value := range values {
		k, err := parseKey(value, c.strict)
		if err != nil {
			return "", true, err
		}
		if i > 0 && k != key {
			return "", true, errors.New("the field is there more than once, with different values")
		}
		key = k
	}
	return key, true, c.keyFormat(key)
}

// parseKey reads one field value: a structured-field String or, unless strict, a bare value.
func parseKey(value string, strict bool) (string, error) {
	value = strings.Trim(value, " \t")
	key := value
	var err error
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
	case len(key) > MaxKeyLength:
		return "", fmt.Errorf("the key is %d characters long; allowed are %d", len(key), MaxKeyLength)
	}
	return key, nil
}

// parseString reads a structured-field String. Parameters mean nothing here and are ignored, as
// RFC 9651 would have it.
func parseString(value string) (string, error) {
	item, err := httpsfv.UnmarshalItem([]string{value})
	key, ok := item.Value.(string)
	if err != nil || !ok {
		return "", errors.New("the key is not a well-formed structured-field String: check its quotes, and that it has printable ASCII characters only")
	}
	return key, nil
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
