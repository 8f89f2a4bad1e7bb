package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// A report is what a run has found: the table of targets, and sections of a document by name.
type report struct {
	machine   string
	rows      []row
	sections  map[string]table
	peerTimes []peerTimes
	curves    [2][]curve // replays, first runs
	wakes     wakes
}

func (r *report) targets() table {
	t := table{head: targetHead}
	for _, row := range r.rows {
		t.add(row.cells()...)
	}
	return t
}

// sectionOrder is how sections are printed.
var sectionOrder = []string{"peers", "autopipeliner", "throughput", "many", "callers", "keys", "nodes", "payload", "stored", "sizing", "webhooks"}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n%s", r.machine, new(r.targets()).text())
	for _, name := range sectionOrder {
		if t, ok := r.sections[name]; ok {
			fmt.Fprintf(w, "\n%s\n", t.text())
		}
	}
	fmt.Fprintln(w, legend)
}

const legend = `commands: what clients sent for an operation (+ what scripts called for it).
ratio and spread: this / floor by time, or by rate where operations a second are given; the median
and the middle half of the rounds.`

// markdown are the sections of a document, by the name of their markers.
func (r *report) markdown() map[string]string {
	sections := map[string]string{}
	if len(r.rows) > 0 {
		sections["machine"] = r.machine + "\n"
		sections["targets"] = new(r.targets()).markdown()
	}
	for name, t := range r.sections {
		sections[name] = t.markdown()
	}
	return sections
}

// rewrite replaces, in a document, what stands between the markers of each section. A document
// without them stays as it is.
func rewrite(document string, sections map[string]string) (string, error) {
	for name, text := range sections {
		begin, end := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
		head, rest, found := strings.Cut(document, begin)
		if !found {
			continue
		}
		_, tail, found := strings.Cut(rest, end)
		if !found {
			return "", fmt.Errorf("the document has %q without %q", strings.TrimSpace(begin), end)
		}
		document = head + begin + "\n" + text + "\n" + end + tail
	}
	return document, nil
}

func (r *report) writeDocument(file string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := rewrite(string(old), r.markdown())
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
