package idemhttp

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
)

// errConsumed: something in front of the middleware has read the body, in full or in part, so that a
// fingerprint would not tell one request from another.
var errConsumed = errors.New("idemhttp: the request body was read in front of the middleware")

// firstBuffer bounds what is set aside for a body because its length was announced, before any of
// it has arrived.
const firstBuffer = 64 << 10

// A bodyBuffer is the body of a request for a KeyFunc: it keeps what is read of it.
type bodyBuffer struct {
	in     io.Reader // with its limit
	length int64     // announced, -1 if it was not
	read   bytes.Buffer
	err    error // that a KeyFunc met, other than io.EOF
}

func (b *bodyBuffer) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.in.Read(p)
	b.read.Write(p[:n])
	if err == io.EOF && int64(b.read.Len()) < b.length || errors.Is(err, http.ErrBodyReadAfterClose) { //nolint:errorlint // a Reader returns it bare
		err = errConsumed
	}
	if err != io.EOF { //nolint:errorlint // see above
		b.err = err
	}
	return n, err
}

func (b *bodyBuffer) Close() error { return nil } // the body is net/http's

// A rest is a body of which something has been read already.
type rest struct {
	io.Reader
	io.Closer
}

// buffered returns r with a body that a KeyFunc may read.
func (c *route) buffered(w http.ResponseWriter, r *http.Request, touched bool) (*http.Request, *bodyBuffer) {
	b := &bodyBuffer{in: http.NoBody, length: r.ContentLength}
	empty := r.Body == nil || r.Body == http.NoBody
	if !empty {
		b.in = http.MaxBytesReader(w, r.Body, c.requestLimit)
	}
	if touched || empty && r.ContentLength != 0 {
		b.err = errConsumed
	}
	peeked := new(http.Request)
	*peeked = *r
	peeked.Body = b
	return peeked, b
}

// unread gives the body of r back what a KeyFunc has read of it.
func (b *bodyBuffer) unread(r *http.Request) {
	if b.read.Len() > 0 {
		r.Body = rest{io.MultiReader(&b.read, r.Body), r.Body}
	}
}

// readBody reads the body of a request to its end.
func (c *route) readBody(w http.ResponseWriter, r *http.Request, touched bool) ([]byte, error) {
	switch {
	case r.ContentLength > c.requestLimit:
		return nil, &http.MaxBytesError{Limit: c.requestLimit}
	case touched:
		return nil, errConsumed
	case r.Body == nil || r.Body == http.NoBody:
		if r.ContentLength != 0 { // net/http's own is NoBody only when nothing was announced
			return nil, errConsumed
		}
		return nil, nil
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, firstBuffer)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, c.requestLimit))
	switch {
	case errors.Is(err, http.ErrBodyReadAfterClose):
		err = errConsumed
	case err == nil && n < r.ContentLength, err == nil && n == 0 && parsed(r):
		err = errConsumed
	}
	return buf.Bytes(), err
}

// parsed reports whether something has parsed the body as a form.
func parsed(r *http.Request) bool { return len(r.PostForm) > 0 || r.MultipartForm != nil }

// touched reports whether something has read from a body of net/http's server whose length was not
// announced. It looks at the fields of the readers by their names, as net/http does not tell: a body of
// another make, or of a net/http that has other names, is taken for untouched.
//
// Where the length was announced, readBody counts. Of HTTP/2 without a length, a body that was read
// in part cannot be told.
func touched(body io.ReadCloser) (yes bool) {
	defer func() { _ = recover() }() // a body of another make may have fields with these names
	for v := reflect.ValueOf(body); ; {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return false
		}
		switch v.Type().PkgPath() + "." + v.Type().Name() {
		case "net/http.maxBytesReader":
			if v.FieldByName("n").Int() != v.FieldByName("i").Int() {
				return true
			}
			v = v.FieldByName("r")
		case "net/http.expectContinueReader":
			v = v.FieldByName("readCloser")
		case "net/http.body":
			if v.FieldByName("sawEOF").Bool() {
				return true
			}
			v = v.FieldByName("src")
		case "net/http/internal.chunkedReader":
			// buf gets the end of line of the first chunk.
			return v.FieldByName("n").Uint() != 0 || v.FieldByName("checkEnd").Bool() || !v.FieldByName("err").IsNil() || v.FieldByName("buf").Index(0).Uint() != 0
		case "net/http.http2requestBody":
			return v.FieldByName("sawEOF").Bool()
		default:
			return false
		}
	}
}
