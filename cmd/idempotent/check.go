package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemcheck"
)

func (a *app) check() *cobra.Command {
	namespace := ""
	c := &cobra.Command{
		Use:   "check",
		Short: "Examine the servers, as Executor.Check does",
		Long:  "Examine every server for settings that make it a bad place for records: eviction, persistence, missing rights,\nand so on (docs/redis.md). The exit code is 4 if something is unsafe. Nothing is changed.",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			x, err := idempotent.New[any](a.client, namespace)
			if err != nil {
				return err
			}
			defer x.Close()
			findings, err := x.Check(c.Context())
			for _, f := range findings {
				if err := a.finding(f); err != nil {
					return err
				}
			}
			switch {
			case err != nil:
				return err
			case len(findings) > 0 && findings[0].Severity >= idemcheck.SeverityUnsafe:
				return errUnsafe
			case len(findings) == 0 && a.output == outputTable:
				fmt.Fprintln(a.out, "all was examined, and nothing found")
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "check", "whose rights to examine")
	return c
}

var severityColours = map[idemcheck.Severity]idempotent.State{
	idemcheck.SeverityUnsafe: idempotent.StateFailed, idemcheck.SeverityWarning: idempotent.StateAbandoned, idemcheck.SeverityNotice: idempotent.StateRunning,
}

func (a *app) finding(f idemcheck.Finding) error {
	if a.output == outputJSON {
		return json.NewEncoder(a.out).Encode(map[string]string{
			"code": string(f.Code), "severity": f.Severity.String(), "server": f.Server, "detail": f.Detail, "advice": f.Advice,
		})
	}
	server := ""
	if f.Server != "" {
		server = " at " + f.Server
	}
	_, err := fmt.Fprintf(a.out, "%s  %s%s\n    %s.\n    %s.\n", coloured(severityColours[f.Severity], f.Severity.String()), f.Code, server, f.Detail, f.Advice)
	return err
}
