package main

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

// A column is one column of the table of entries. On a terminal that is too narrow, columns go in the order of drop.
type column struct {
	head string
	drop int // 0 stays
	cell func(*idempotent.Entry) string
}

var columns = []column{
	{"STATE", 0, func(e *idempotent.Entry) string { return e.State.String() }},
	{"NAMESPACE", 0, func(e *idempotent.Entry) string { return present.Text(e.Namespace) }},
	{"KEY", 0, func(e *idempotent.Entry) string { return present.Text(e.Key) }},
	{"TRY", 5, func(e *idempotent.Entry) string { return number(e.Attempt) }},
	{"AGE", 0, func(e *idempotent.Entry) string { return age(e) }},
	{"LEASE", 4, func(e *idempotent.Entry) string { return span(e.LeaseLeft) }},
	{"TTL", 3, func(e *idempotent.Entry) string { return span(e.TTLLeft) }},
	{"SIZE", 2, func(e *idempotent.Entry) string { return present.Size(int64(e.Size)) }},
	{"OWNER", 6, func(e *idempotent.Entry) string { return owner(e) }},
	{"SERVER", 1, func(e *idempotent.Entry) string { return e.Server }},
}

const keyColumn = 2

func owner(e *idempotent.Entry) string {
	if e.Owner == "" {
		return ""
	}
	return present.Text(e.Owner)
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func age(e *idempotent.Entry) string {
	if e.State == idempotent.StateUnreadable {
		return "?"
	}
	return span(max(e.Age, 1))
}

// span writes a duration, none if it is over.
func span(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return present.Span(d)
}

// colours are those of a terminal's palette, so that they suit its theme. The state's name says the same without them.
var colours = map[idempotent.State]string{
	idempotent.StateRunning: "4", idempotent.StateAbandoned: "3", idempotent.StateInterrupted: "5", idempotent.StateUnreadable: "1",
	idempotent.StateValueNotKept: "3", idempotent.StateFailed: "1", idempotent.StateSucceeded: "2",
}

func coloured(s idempotent.State, text string) string {
	return lipgloss.NewStyle().Foreground(lipgloss.Color(colours[s])).Render(text)
}

var bold = lipgloss.NewStyle().Bold(true)

// table returns entries as lines of at most width columns; 0 is no limit. With one server, its column is left out.
func table(entries []idempotent.Entry, width int) string {
	rows := [][]string{nil}
	for _, c := range columns {
		rows[0] = append(rows[0], c.head)
	}
	for i := range entries {
		var row []string
		for _, c := range columns {
			row = append(row, c.cell(&entries[i]))
		}
		rows = append(rows, row)
	}
	widths := widthsOf(rows)
	fit(rows, widths, width)
	var b strings.Builder
	for n, row := range rows {
		line := ""
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			padding := strings.Repeat(" ", max(0, widths[i]-lipgloss.Width(cell))+2)
			if n > 0 && i == 0 {
				cell = coloured(entries[n-1].State, cell)
			}
			line += cell + padding
		}
		if line = strings.TrimRight(line, " "); n == 0 {
			line = bold.Render(line)
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// widthsOf returns the width of each column, 0 of one without content.
func widthsOf(rows [][]string) []int {
	widths := make([]int, len(columns))
	for n, row := range rows[1:] {
		for i, cell := range row {
			if n == 0 || widths[i] > 0 || cell != "" {
				widths[i] = max(widths[i], lipgloss.Width(cell))
			}
		}
	}
	for i, w := range widths {
		if w > 0 {
			widths[i] = max(w, len(columns[i].head))
		}
	}
	return widths
}

// fit drops columns and shortens keys until a line has at most width columns.
func fit(rows [][]string, widths []int, width int) {
	total := func() (n int) {
		for _, w := range widths {
			if w > 0 {
				n += w + 2
			}
		}
		return n - 2
	}
	const least = 16 // of the key
	for drop := 1; width > 0 && total()-max(0, widths[keyColumn]-least) > width && drop <= len(columns); drop++ {
		for i, c := range columns {
			if c.drop == drop {
				widths[i] = 0
			}
		}
	}
	if over := total() - width; width > 0 && over > 0 {
		widths[keyColumn] = max(least, widths[keyColumn]-over)
		for _, row := range rows {
			row[keyColumn] = shorten(row[keyColumn], widths[keyColumn])
		}
	}
}

// shorten keeps both ends of a text, which tell keys apart.
func shorten(text string, width int) string {
	if lipgloss.Width(text) <= width {
		return text
	}
	runes := []rune(text)
	head, tail := (width-1)/2, width/2
	for head+tail < len(runes) && lipgloss.Width(string(runes[:head])+"…"+string(runes[len(runes)-tail:])) > width {
		head--
	}
	return string(runes[:max(0, head)]) + "…" + string(runes[len(runes)-tail:])
}
