package idemhttp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"net/http"
	"strings"
)

// A Fingerprint says which parts of a request make it another one.
type Fingerprint uint8

const (
	// FingerprintMethod is the method.
	FingerprintMethod Fingerprint = 1 << iota
	// FingerprintPath is the path, as the client sent it.
	FingerprintPath
	// FingerprintQuery is the query, as the client sent it.
	FingerprintQuery
	// FingerprintContentType is the Content-Type field.
	FingerprintContentType
	// FingerprintBody is the body, byte by byte.
	FingerprintBody

	// FingerprintAll is all of these.
	FingerprintAll = FingerprintMethod | FingerprintPath | FingerprintQuery | FingerprintContentType | FingerprintBody
)

var fingerprintNames = []string{"method", "path", "query", "content-type", "body"}

func (f Fingerprint) names() []string {
	var names []string
	for i, name := range fingerprintNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// errConsumed: somebody in front of the middleware read the body, so that a fingerprint would not
// tell one request from another.
var errConsumed = errors.New("idemhttp: the request body was read before the middleware got it")

// read reads the body of a request to its end, hashing what arrives. It returns the body and the
// fingerprint of the request.
func (c *config) read(w http.ResponseWriter, r *http.Request) (body, fingerprint []byte, err error) {
	if r.ContentLength > c.requestLimit {
		return nil, nil, &http.MaxBytesError{Limit: c.requestLimit}
	}
	h := sha256.New()
	c.hashHead(h, r)
	if r.Body == nil || r.Body == http.NoBody {
		return nil, h.Sum(nil), nil
	}
	in := io.Reader(http.MaxBytesReader(w, r.Body, c.requestLimit))
	if c.fingerprint&FingerprintBody != 0 {
		in = io.TeeReader(in, h)
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, firstBuffer)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(in)
	if err == nil && n == 0 && r.ContentLength > 0 {
		err = errConsumed
	}
	return buf.Bytes(), h.Sum(nil), err
}

// firstBuffer bounds what is set aside for a body because its length was announced, before any of
// it has arrived.
const firstBuffer = 64 << 10

// hashHead hashes all but the body, which follows and needs no length, being the last.
func (c *config) hashHead(h hash.Hash, r *http.Request) {
	h.Write([]byte{byte(c.fingerprint)})
	path, query := target(r)
	for _, part := range []struct {
		part  Fingerprint
		value string
	}{
		{FingerprintMethod, r.Method},
		{FingerprintPath, path},
		{FingerprintQuery, query},
		{FingerprintContentType, r.Header.Get("Content-Type")},
	} {
		if c.fingerprint&part.part != 0 {
			h.Write(binary.AppendUvarint(nil, uint64(len(part.value))))
			_, _ = io.WriteString(h, part.value) // a hash takes everything
		}
	}
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
