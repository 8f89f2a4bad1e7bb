package idemhttp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
)

// A Part is a part of a request that can make it another one.
type Part uint8

const (
	// PartPath is the path, as the client sent it.
	PartPath Part = 1 << iota
	// PartQuery is the query, as the client sent it.
	PartQuery
	// PartContentType is the Content-Type field.
	PartContentType
	// PartBody is the body, byte by byte.
	PartBody

	// AllParts is all of these.
	AllParts = PartPath | PartQuery | PartContentType | PartBody
)

var partNames = []string{"path", "query", "content-type", "body"}

// A Fingerprint tells one request from another under the same key. The method is part of every one.
// The zero Fingerprint is not allowed.
type Fingerprint struct {
	names []string // for Policy
	hash  func(h hash.Hash, r *http.Request, body []byte) error
	err   error // what New says
}

// FingerprintParts compares parts of the request, byte by byte: FingerprintParts(AllParts) is the
// default. Leave out what differs between a request and its retry, such as a query with a timestamp.
func FingerprintParts(parts Part) Fingerprint {
	f := Fingerprint{names: []string{"method"}, hash: parts.hash}
	for i, name := range partNames {
		if parts&(1<<i) != 0 {
			f.names = append(f.names, name)
		}
	}
	if parts == 0 || parts&^AllParts != 0 {
		f.err = invalid("FingerprintParts", "parts", fmt.Sprint(uint8(parts)), "one or more of the Part constants")
	}
	return f
}

// FingerprintFunc compares what f returns, of any length. name is what Policy publishes about it. The
// body is all there, and belongs to the handler: f must not change it. An error is answered with 500
// (TypeMisconfigured), or with the *Problem that it is or wraps; the handler is not run.
func FingerprintFunc(name string, f func(r *http.Request, body []byte) ([]byte, error)) Fingerprint {
	if f == nil {
		return Fingerprint{err: invalid("FingerprintFunc", "function", "nil", "a function")}
	}
	return Fingerprint{names: []string{"method", name}, hash: func(h hash.Hash, r *http.Request, body []byte) error {
		b, err := f(r, body)
		h.Write(b)
		return err
	}}
}

// of returns the fingerprint of a request.
func (f *Fingerprint) of(r *http.Request, body []byte) ([]byte, error) {
	h := sha256.New()
	writeText(h, r.Method)
	if err := f.hash(h, r, body); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// hash writes parts of a request. The body comes last and needs no length.
func (p Part) hash(h hash.Hash, r *http.Request, body []byte) error {
	h.Write([]byte{byte(p)})
	path, query := target(r)
	if p&PartPath != 0 {
		writeText(h, path)
	}
	if p&PartQuery != 0 {
		writeText(h, query)
	}
	if p&PartContentType != 0 {
		writeText(h, r.Header.Get("Content-Type"))
	}
	if p&PartBody != 0 {
		h.Write(body)
	}
	return nil
}

func writeText(h hash.Hash, text string) {
	var size [binary.MaxVarintLen64]byte
	h.Write(binary.AppendUvarint(size[:0], uint64(len(text))))
	_, _ = io.WriteString(h, text) // a hash takes everything
}

// target is the path and the query of a request as its client sent them: a router in front may
// have changed r.URL, as http.StripPrefix does.
func target(r *http.Request) (path, query string) {
	uri := r.RequestURI
	if !strings.HasPrefix(uri, "/") {
		uri = r.URL.RequestURI()
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, query
}
