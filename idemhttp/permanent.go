package idemhttp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
)

// permanent reports whether an error of a round trip cannot pass: the request cannot be sent as it is,
// or the two sides do not speak the same protocol.
func permanent(r *http.Request, err error) bool {
	return !sendable(r) || asAny(err) || saysSo(err)
}

// sendable checks what net/http refuses without sending, with errors that have no type.
func sendable(r *http.Request) bool {
	if r.URL == nil || r.URL.Host == "" || !isToken(r.Method) && r.Method != "" {
		return false
	}
	for name, values := range r.Header {
		if !isToken(name) || strings.ContainsFunc(strings.Join(values, ""), notInFields) {
			return false
		}
	}
	return true
}

// notInFields are the control characters that a field value must not have, RFC 9110 section 5.5.
func notInFields(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// asAny reports whether an error has a type that stands for what cannot pass.
func asAny(err error) bool {
	return as[*tls.CertificateVerificationError](err) || as[x509.UnknownAuthorityError](err) || as[x509.HostnameError](err) ||
		as[x509.CertificateInvalidError](err) || as[tls.RecordHeaderError](err) || as[tls.AlertError](err) ||
		as[*net.AddrError](err) || as[*net.ParseError](err) || as[net.UnknownNetworkError](err)
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// finalTexts are parts of errors of net/http and crypto/tls that have no type. A test makes each one, so
// that it shows when a new version says it otherwise.
var finalTexts = []string{
	"unsupported protocol scheme",
	"server gave HTTP response to HTTPS client",
	"remote error: tls: ",
	"tls: server selected unsupported protocol version",
	"malformed HTTP ",
	"http: ContentLength=",
}

func saysSo(err error) bool {
	text := err.Error()
	for _, part := range finalTexts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
