package idemhttp

import (
	"bytes"
	"errors"
	"hash"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// FingerprintJSON compares the path, the query, the media type and, instead of the bytes of a JSON
// body, its canonical form (RFC 8785): the order of names, blanks and ways to write a string or a
// number do not matter. ignore are JSON Pointers (RFC 6901), such as "/sent_at", to values that may
// differ between a request and its retry.
//
// Numbers that a float64 cannot hold, such as 9007199254740993, are compared as they are written,
// since RFC 8785 would make them equal to others. A body that is not JSON, not well-formed or that has a
// name twice is compared byte by byte.
func FingerprintJSON(ignore ...string) Fingerprint {
	f := Fingerprint{names: []string{"method", "path", "query", "media type", "canonical JSON"}}
	for _, pointer := range ignore {
		if p := jsontext.Pointer(pointer); pointer == "" || !p.IsValid() {
			f.err = invalid("FingerprintJSON", "pointer", strconv.Quote(pointer), `a JSON Pointer such as "/sent_at"`)
		}
		f.names = append(f.names, "without "+pointer)
	}
	ignore = slices.Clone(ignore)
	f.hash = func(h hash.Hash, r *http.Request, body []byte) error {
		path, query := target(r)
		writeText(h, path)
		writeText(h, query)
		if !isJSON(r.Header) {
			writeText(h, r.Header.Get("Content-Type"))
			h.Write(body)
			return nil
		}
		canonical, err := canonicalJSON(body, ignore)
		if err != nil {
			writeText(h, "not JSON")
			h.Write(body)
			return nil
		}
		writeText(h, "JSON")
		h.Write(canonical)
		return nil
	}
	return f
}

// isJSON reports whether the Content-Type is JSON: application/json, or anything that ends in +json
// (RFC 6839).
func isJSON(header http.Header) bool {
	name, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && (name == "application/json" || strings.HasSuffix(name, "+json"))
}

// canonicalJSON is the canonical form of a document without the values that ignore names.
func canonicalJSON(body []byte, ignore []string) ([]byte, error) {
	in := jsontext.NewDecoder(bytes.NewReader(body))
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	for first := true; first || in.StackDepth() > 0; first = false {
		if err := copyToken(in, enc, ignore); err != nil {
			return nil, err
		}
	}
	if _, err := in.ReadToken(); err != io.EOF { //nolint:errorlint // the decoder returns it bare
		return nil, errors.New("there is data after the document")
	}
	// RFC 8785 but for numbers, which copyToken has written.
	document := jsontext.Value(out.Bytes())
	err := document.Format(jsontext.ReorderRawObjects(true))
	return document, err
}

// copyToken copies one token or, if ignore names its value, reads past that.
func copyToken(in *jsontext.Decoder, out *jsontext.Encoder, ignore []string) error {
	if in.PeekKind() == jsontext.KindNumber {
		number, err := in.ReadValue()
		if err != nil || slices.Contains(ignore, string(in.StackPointer())) {
			return err
		}
		return out.WriteValue(canonicalNumber(number))
	}
	depth := in.StackDepth()
	token, err := in.ReadToken()
	switch {
	case err != nil:
		return err
	case in.StackDepth() < depth || !slices.Contains(ignore, string(in.StackPointer())):
		return out.WriteToken(token)
	case isName(in):
		return in.SkipValue()
	}
	for in.StackDepth() > depth { // an element of an array
		if _, err := in.ReadToken(); err != nil {
			return err
		}
	}
	return nil
}

// canonicalNumber is the canonical form of a number, or the number itself if that would be another
// one.
func canonicalNumber(number jsontext.Value) jsontext.Value {
	canonical := number.Clone()
	if err := canonical.Canonicalize(); err != nil || !sameNumber(string(number), string(canonical)) {
		return number
	}
	return canonical
}

// sameNumber reports whether two JSON numbers are equal.
func sameNumber(a, b string) bool {
	aDigits, aExponent := decimal(a)
	bDigits, bExponent := decimal(b)
	return aDigits == bDigits && aExponent == bExponent
}

// decimal splits a JSON number into its digits, with a sign and without zeros at either end, and the
// power of ten of the last one.
func decimal(number string) (digits string, exponent int) {
	text, negative := strings.CutPrefix(number, "-")
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(text[i+1:]); err != nil {
			return number, 0 // beyond every float64
		}
		text = text[:i]
	}
	whole, fraction, _ := strings.Cut(text, ".")
	exponent -= len(fraction)
	text = strings.TrimLeft(whole+fraction, "0")
	digits = strings.TrimRight(text, "0")
	exponent += len(text) - len(digits)
	switch {
	case digits == "":
		return "0", 0
	case negative:
		digits = "-" + digits
	}
	return digits, exponent
}
