package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
)

// An entryJSON is an entry as --output json and export write it.
type entryJSON struct {
	Namespace   string     `json:"namespace"`
	Key         string     `json:"key"`
	State       string     `json:"state"`
	Error       string     `json:"error,omitempty"`
	Attempt     int        `json:"attempt,omitempty"`
	Owner       string     `json:"owner,omitempty"`
	RecordedAt  *time.Time `json:"recordedAt,omitempty"`
	AgeSeconds  float64    `json:"ageSeconds"`
	LeaseLeft   float64    `json:"leaseLeftSeconds,omitempty"`
	TTLLeft     float64    `json:"ttlLeftSeconds,omitempty"`
	Size        int        `json:"sizeBytes"`
	Codec       string     `json:"codec,omitempty"`
	TraceID     string     `json:"traceId,omitempty"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	Server      string     `json:"server,omitempty"`
	Payload     *payload   `json:"payload,omitempty"`
}

func asJSON(e *idempotent.Entry) entryJSON {
	j := entryJSON{
		Namespace: e.Namespace, Key: e.Key, State: e.State.String(), Attempt: e.Attempt, Owner: e.Owner,
		AgeSeconds: e.Age.Seconds(), LeaseLeft: e.LeaseLeft.Seconds(), TTLLeft: e.TTLLeft.Seconds(), Size: e.Size,
		Codec: e.Codec, TraceID: e.TraceID, Fingerprint: hex.EncodeToString(e.Fingerprint), Server: e.Server,
	}
	if e.Err != nil {
		j.Error = e.Err.Error()
	}
	if !e.RecordedAt.IsZero() {
		j.RecordedAt = &e.RecordedAt
	}
	return j
}

// page is how many rows a table has whose columns are of one width.
const page = 1000

func (a *app) list() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List operations",
		Long: "List operations. SCAN lists keys in no order; an entry that is written or moves to another server\n" +
			"meanwhile may come twice or not at all. No payload is read.",
		Example: `  idempotent list --namespace payments --state interrupted
  idempotent list --state running --older-than 5m -o json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := a.filter.filter()
			if err != nil {
				return err
			}
			return a.listed(c, filter, limit)
		},
	}
	a.filter.add(c)
	c.Flags().IntVar(&limit, "limit", 100, "stop after so many; 0 for all")
	return c
}

// errEnough ends a scan.
var errEnough = errors.New("enough")

func (a *app) listed(c *cobra.Command, filter idempotent.Filter, limit int) error {
	var rows []idempotent.Entry
	encoder, n := json.NewEncoder(a.out), 0
	flush := func() error {
		slices.SortFunc(rows, byName)
		text := ""
		if len(rows) > 0 {
			text = table(rows, a.width)
		}
		rows = rows[:0]
		_, err := fmt.Fprint(a.out, text)
		return err
	}
	err := a.scan(c, filter, func(e *idempotent.Entry) error {
		if limit > 0 && n == limit {
			return errEnough
		}
		n++
		if a.output == outputJSON {
			return encoder.Encode(asJSON(e))
		}
		if rows = append(rows, *e); len(rows) == page {
			return flush()
		}
		return nil
	})
	if failed := flush(); err == nil {
		err = failed
	}
	switch {
	case errors.Is(err, errEnough):
		fmt.Fprintf(a.err, "the first %d; --limit 0 lists all\n", limit)
		return nil
	case err == nil && n == 0 && a.output == outputTable:
		fmt.Fprintln(a.err, "no entries")
	}
	return err
}

func byName(x, y idempotent.Entry) int {
	if n := strings.Compare(x.Namespace, y.Namespace); n != 0 {
		return n
	}
	return strings.Compare(x.Key, y.Key)
}

func (a *app) export() *cobra.Command {
	var payloads bool
	c := &cobra.Command{
		Use:   "export",
		Short: "Write operations as JSON, one object a line",
		Long:  "Write operations as JSON, one object a line, for an incident's record. Payloads are left out without --payload.",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := a.filter.filter()
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(a.out)
			return a.scan(c, filter, func(e *idempotent.Entry) error {
				j := asJSON(e)
				if payloads {
					j.Payload, err = a.payloadOf(c.Context(), e)
					if err != nil {
						return err
					}
				}
				return encoder.Encode(j)
			})
		},
	}
	a.filter.add(c)
	c.Flags().BoolVar(&payloads, "payload", false, "with payloads, which may hold personal data")
	return c
}
