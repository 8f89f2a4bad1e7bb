package main

import (
	"bufio"
	"io"
	"strings"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/term"
)

// streams are where the program reads and writes. What it writes has no colour without a terminal or with NO_COLOR.
type streams struct {
	in       *bufio.Reader
	out, err io.Writer
	width    int  // columns of the terminal, 0 without one
	progress bool // stderr is a terminal
	env      []string
}

type file interface {
	io.ReadWriter
	Fd() uintptr
}

func newStreams(in io.Reader, out, errs file, env []string) *streams {
	s := &streams{in: bufio.NewReader(in), out: colorprofile.NewWriter(out, env), err: colorprofile.NewWriter(errs, env), env: env}
	if term.IsTerminal(out.Fd()) {
		s.width = defaultWidth
		if width, _, err := term.GetSize(out.Fd()); err == nil && width > 0 {
			s.width = width
		}
	}
	s.progress = term.IsTerminal(errs.Fd())
	return s
}

const defaultWidth = 80

// getenv returns the last value that the environment has for a name.
func (s *streams) getenv(name string) (value string) {
	for _, pair := range s.env {
		if v, is := strings.CutPrefix(pair, name+"="); is {
			value = v
		}
	}
	return value
}

// typed reads one line.
func (s *streams) typed() (string, error) {
	line, err := s.in.ReadString('\n')
	if err != nil && line == "" {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
