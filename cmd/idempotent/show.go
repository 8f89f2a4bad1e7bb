package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

func (a *app) show() *cobra.Command {
	var withPayload bool
	c := &cobra.Command{
		Use:   "show NAMESPACE KEY",
		Short: "Show what is known of one operation",
		Args:  exactly("NAMESPACE", "KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			e, err := a.inspector.Inspect(c.Context(), args[0], present.Unquote(args[1]))
			if err != nil {
				return err
			}
			var p *payload
			if withPayload {
				if p, err = a.payloadOf(c.Context(), &e); err != nil {
					return err
				}
			}
			if err := a.print(&e, p); err != nil || e.State != idempotent.StateAbsent {
				return err
			}
			return idempotent.ErrNotFound
		},
	}
	c.Flags().BoolVar(&withPayload, "payload", false, "with the recorded value or error, which may hold personal data")
	return c
}

// print writes one entry with its story.
func (a *app) print(e *idempotent.Entry, p *payload) error {
	if a.output == outputJSON {
		j := asJSON(e)
		j.Payload = p
		return json.NewEncoder(a.out).Encode(j)
	}
	_, err := fmt.Fprint(a.out, a.story(e, p))
	return err
}

func (a *app) story(e *idempotent.Entry, p *payload) string {
	text := bold.Render(present.Text(e.Namespace)+"  "+present.Text(e.Key)) + "\n"
	line := func(name, value string) {
		if value != "" {
			text += fmt.Sprintf("%-12s %s\n", name, value)
		}
	}
	line("state", coloured(e.State, e.State.String()))
	meaning := e.State.Meaning()
	if a.width > 0 {
		meaning = lipgloss.Wrap(meaning, a.width-storyIndent, " ")
	}
	line("", strings.ReplaceAll(meaning, "\n", "\n"+strings.Repeat(" ", storyIndent)))
	if e.Err != nil {
		line("error", present.Text(present.Error(e.Err)))
	}
	line("attempt", number(e.Attempt))
	line("owner", owner(e))
	if !e.RecordedAt.IsZero() {
		line(recordedName(e.State), fmt.Sprintf("%s, %s ago", e.RecordedAt.UTC().Format(time.RFC3339), span(max(e.Age, 1))))
	}
	line("lease left", span(e.LeaseLeft))
	line("expires in", span(e.TTLLeft))
	if e.Size > 0 {
		line("size", present.Size(int64(e.Size)))
	}
	line("codec", e.Codec)
	line("trace", e.TraceID)
	line("fingerprint", hex.EncodeToString(e.Fingerprint))
	if p != nil {
		line("payload", p.String())
	}
	return text
}

const storyIndent = 13

func recordedName(s idempotent.State) string {
	if s == idempotent.StateRunning || s == idempotent.StateAbandoned {
		return "began"
	}
	return "recorded"
}
