package main

import (
	"github.com/spf13/cobra"
)

const (
	outputTable = "table"
	outputJSON  = "json"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "idempotent",
		Short: "List, show and settle idempotent operations in Redis",
		Long: `List, show and settle the operations of the Go library idempotent.

Redis is given by --url or IDEMPOTENT_REDIS_URL:
  redis://user:password@host:6379/0
  redis+cluster://host:6379?addr=other:6379
  redis+sentinel://host:26379/0?master_name=main

A KEY is given as list shows it: one in quotes, as a quoted Go string.

` + exitHelp,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: a.connect,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVarP(&a.url, "url", "u", "", "`URL` of Redis (default IDEMPOTENT_REDIS_URL, else "+defaultURL+")")
	flags.BoolVar(&a.cluster, "cluster", false, "the URL is a node of a Cluster")
	flags.StringVarP(&a.output, "output", "o", outputTable, "table, or json: one object a line")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(a.list(), a.show(), a.watch(), a.stats(), a.forget(), a.resolve(), a.check(), a.export(), a.serve())
	return root
}

// exactly is cobra.ExactArgs whose error is the caller's mistake.
func exactly(args ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, given []string) error {
		if len(given) != len(args) {
			return usagef("%d arguments are given; allowed: %d %v", len(given), len(args), args)
		}
		return nil
	}
}
