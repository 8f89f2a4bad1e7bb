package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

func (a *app) watch() *cobra.Command {
	var interval time.Duration
	c := &cobra.Command{
		Use:   "watch",
		Short: "Show live what runs, and what ended without an outcome",
		Long: "Show live what runs and who holds it, and what waits for an operator, the oldest first. Each look is a scan of\n" +
			"all keys, with the pauses of list.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if a.width == 0 {
				return usagef("watch needs a terminal; list -o json is for programs")
			}
			filter, err := a.filter.filter()
			if err != nil {
				return err
			}
			if filter.States == nil {
				filter.States = unfinished
			}
			m := &watching{ctx: c.Context(), app: a, filter: filter, interval: interval, width: a.width}
			_, err = tea.NewProgram(m, tea.WithContext(c.Context()), tea.WithEnvironment(a.env)).Run()
			return err
		},
	}
	a.filter.add(c)
	c.Flags().DurationVar(&interval, "interval", time.Second, "time between two looks")
	return c
}

// unfinished are the states that an outcome has yet to follow.
var unfinished = []idempotent.State{
	idempotent.StateRunning, idempotent.StateAbandoned, idempotent.StateInterrupted, idempotent.StateValueNotKept, idempotent.StateUnreadable,
}

// watching is the model of the live table.
type watching struct {
	ctx           context.Context
	app           *app
	filter        idempotent.Filter
	interval      time.Duration
	width, height int
	seen          *look
}

// A look is what one scan has found.
type look struct {
	entries []idempotent.Entry // the oldest, kept entries of them
	counts  map[idempotent.State]int
	at      time.Time
	took    time.Duration
	err     error
}

// kept bounds the rows of the live table, and its memory.
const kept = 500

func (m *watching) look() tea.Msg {
	l := &look{counts: make(map[idempotent.State]int), at: time.Now()}
	for e, err := range m.app.inspector.List(m.ctx, m.filter) {
		if err != nil {
			l.err = err
			break
		}
		l.counts[e.State]++
		if l.entries = append(l.entries, e); len(l.entries) >= 2*kept {
			l.oldest()
		}
	}
	l.oldest()
	l.took = time.Since(l.at)
	return l
}

func (l *look) oldest() {
	slices.SortStableFunc(l.entries, func(x, y idempotent.Entry) int { return int(min(max(y.Age-x.Age, -1), 1)) })
	l.entries = slices.Clip(l.entries[:min(len(l.entries), kept)])
}

type tick struct{}

// Init starts the first look.
func (m *watching) Init() tea.Cmd { return m.look }

// Update handles keys, the size of the terminal and looks.
func (m *watching) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		if key := msg.String(); key == "q" || key == "esc" || key == "ctrl+c" {
			return m, tea.Quit
		}
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case *look:
		m.seen = msg
		return m, tea.Tick(m.interval, func(time.Time) tea.Msg { return tick{} })
	case tick:
		return m, m.look
	}
	return m, nil
}

// View draws the table.
func (m *watching) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen = true
	return v
}

func (m *watching) text() string {
	if m.seen == nil {
		return "looking …   q quits"
	}
	var parts []string
	for _, s := range states {
		if n := m.seen.counts[s]; n > 0 {
			parts = append(parts, coloured(s, fmt.Sprintf("%d %s", n, s)))
		}
	}
	if parts == nil {
		parts = []string{"nothing runs, and nothing waits for an operator"}
	}
	text := strings.Join(parts, "   ") + "   q quits\n"
	if m.seen.err != nil {
		text += present.Text(present.Error(m.seen.err)) + "\n"
	}
	const around = 4 // lines beyond the rows
	rows := m.seen.entries
	if room := m.height - around; m.height > 0 && len(rows) > room {
		rows = rows[:max(0, room)]
	}
	if len(rows) > 0 {
		text += "\n" + table(rows, m.width)
	}
	return text
}
