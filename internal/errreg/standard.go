package errreg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"syscall"

	"github.com/idempotent-go/idempotent/internal/errtree"
)

// Standard defines the errors of the standard library that carry data.
func Standard() []Def {
	defs := []Def{
		standardError("std/url", func(e *url.Error) carried { return carried{A: e.Op, B: e.URL, Err: textOf(e.Err)} },
			func(c carried) *url.Error { return &url.Error{Op: c.A, URL: c.B, Err: c.inner()} }),
		standardError("std/net", func(e *net.OpError) carried {
			return carried{A: e.Op, B: e.Net, C: addrText(e.Source), D: addrText(e.Addr), Err: textOf(e.Err), Timeout: e.Timeout()}
		}, func(c carried) *net.OpError {
			return &net.OpError{Op: c.A, Net: c.B, Source: addrOf(c.B, c.C), Addr: addrOf(c.B, c.D), Err: c.inner()}
		}),
		standardError("std/dns", func(e *net.DNSError) carried {
			return carried{A: e.Err, B: e.Name, C: e.Server, Timeout: e.IsTimeout, Temporary: e.IsTemporary, NotFound: e.IsNotFound}
		}, func(c carried) *net.DNSError {
			return &net.DNSError{Err: c.A, Name: c.B, Server: c.C, IsTimeout: c.Timeout, IsTemporary: c.Temporary, IsNotFound: c.NotFound}
		}),
		standardError("std/path", func(e *fs.PathError) carried { return carried{A: e.Op, B: e.Path, Err: textOf(e.Err)} },
			func(c carried) *fs.PathError { return &fs.PathError{Op: c.A, Path: c.B, Err: c.inner()} }),
		standardError("std/link", func(e *os.LinkError) carried { return carried{A: e.Op, B: e.Old, C: e.New, Err: textOf(e.Err)} },
			func(c carried) *os.LinkError { return &os.LinkError{Op: c.A, Old: c.B, New: c.C, Err: c.inner()} }),
		standardError("std/syscall", func(e *os.SyscallError) carried { return carried{A: e.Syscall, Err: textOf(e.Err)} },
			func(c carried) *os.SyscallError { return &os.SyscallError{Syscall: c.A, Err: c.inner()} }),
		standardError("std/num", func(e *strconv.NumError) carried { return carried{A: e.Func, B: e.Num, Err: textOf(e.Err)} },
			func(c carried) *strconv.NumError { return &strconv.NumError{Func: c.A, Num: c.B, Err: c.inner()} }),
	}
	errno := Custom("std/errno", func(err error) ([]byte, bool) {
		e, ok := err.(syscall.Errno) //nolint:errorlint // one node of the tree that Walk visits
		return strconv.AppendUint(nil, uint64(e), 10), ok
	}, func(data []byte) (error, error) {
		n, err := strconv.ParseUint(string(data), 10, 32)
		return syscall.Errno(n), err
	})
	errno.Foreign = true
	return append(defs, errno)
}

// carried is what is stored of an error of the standard library.
type carried struct {
	A         string  `json:"a,omitempty"`
	B         string  `json:"b,omitempty"`
	C         string  `json:"c,omitempty"`
	D         string  `json:"d,omitempty"`
	Err       *string `json:"e,omitempty"` // the text of the wrapped error, nil if there is none
	Timeout   bool    `json:"t,omitempty"`
	Temporary bool    `json:"p,omitempty"`
	NotFound  bool    `json:"f,omitempty"`
}

func textOf(err error) *string {
	if err == nil {
		return nil
	}
	text := errtree.Text(err)
	return &text
}

// inner is the wrapped error, by its text.
func (c carried) inner() error {
	if c.Err == nil {
		return nil
	}
	if c.Timeout {
		return timeoutText(*c.Err)
	}
	return errors.New(*c.Err)
}

// timeoutText is the text of an error that was a timeout.
type timeoutText string

func (e timeoutText) Error() string { return string(e) }
func (e timeoutText) Timeout() bool { return true }

func standardError[E error](code string, carry func(E) carried, restore func(carried) E) Def {
	d := Custom(code, func(err error) ([]byte, bool) {
		e, ok := err.(E) //nolint:errorlint // one node of the tree that Walk visits
		if !ok {
			return nil, false
		}
		data, failed := json.Marshal(carry(e))
		return data, failed == nil
	}, func(data []byte) (error, error) {
		var c carried
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, fmt.Errorf("%s: %w", code, err)
		}
		return restore(c), nil
	})
	d.Foreign = true
	return d
}

// carriedAddr is a network address by its texts.
type carriedAddr struct{ network, text string }

func (a carriedAddr) Network() string { return a.network }
func (a carriedAddr) String() string  { return a.text }

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func addrOf(network, text string) net.Addr {
	if text == "" {
		return nil
	}
	return carriedAddr{network, text}
}
