package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

// A settled is what forget and resolve report.
type settled struct {
	Done string    `json:"done"`
	Was  entryJSON `json:"was"`
}

func (a *app) forget() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "forget NAMESPACE KEY",
		Short: "Remove what is stored, so that the next Run runs fn",
		Long: "Remove what is stored under a key, so that the next Run runs fn at attempt 1. A running fn is not stopped\n" +
			"at once: it loses its lease at its next renewal, and another may run meanwhile.",
		Args: exactly("NAMESPACE", "KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			namespace, key := args[0], present.Unquote(args[1])
			if err := a.confirm(c, namespace, key, "Forgetting it makes the next Run run fn again.", yes); err != nil {
				return err
			}
			was, err := a.inspector.Forget(c.Context(), namespace, key)
			if err != nil {
				return err
			}
			return a.report("forgotten", &was)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask for the key to be typed")
	return c
}

func (a *app) resolve() *cobra.Command {
	var yes, absent bool
	var value, codec string
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "resolve NAMESPACE KEY --value JSON",
		Short: "Record a value for an operation without an outcome",
		Long: "Record a value for an operation whose execution ended without an outcome, after you found out what it did.\n" +
			"Every later Run returns the value, so it must be one of the executor's type, and --codec that of the executor.\n" +
			"JSON has no times and no bytes: a type that has them under msgpack is resolved in Go, by Executor.Resolve.\n" +
			"An outcome that is recorded already stays.",
		Example: `  idempotent resolve payments order-42 --value '{"ID":"ch_1"}'
  idempotent resolve payments order-42 --value @charge.json --codec JSON`,
		Args: exactly("NAMESPACE", "KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			bytes, err := a.value(c, value, codec)
			if err != nil {
				return err
			}
			namespace, key := args[0], present.Unquote(args[1])
			if err := a.confirm(c, namespace, key, "Resolving it makes every later Run return the value.", yes); err != nil {
				return err
			}
			before, err := a.inspector.Inspect(c.Context(), namespace, key)
			if err != nil {
				return err
			}
			opts := []idempotent.RunOption{idempotent.WithTTL(ttl)}
			if absent {
				opts = append(opts, idempotent.WithAbsent())
			}
			before.Status, err = a.inspector.Resolve(c.Context(), namespace, key, bytes, codec, opts...)
			if err != nil {
				return err
			}
			return a.report("resolved", &before)
		},
	}
	flags := c.Flags()
	flags.StringVar(&value, "value", "", "the value as JSON, or the text itself with --codec raw; @FILE reads a file, @- stdin")
	flags.StringVar(&codec, "codec", "msgpack", "the executor's codec: msgpack, JSON or raw")
	flags.DurationVar(&ttl, "ttl", idempotent.DefaultTTL, "how long the value is kept")
	flags.BoolVar(&absent, "absent", false, "also if nothing is stored under the key")
	flags.BoolVar(&yes, "yes", false, "do not ask for the key to be typed")
	_ = c.RegisterFlagCompletionFunc("codec", cobra.FixedCompletions([]string{"msgpack", "JSON", "raw"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) value(c *cobra.Command, value, codec string) ([]byte, error) {
	if !c.Flags().Changed("value") {
		return nil, usagef("--value is not given; allowed: a JSON value")
	}
	if name, isFile := strings.CutPrefix(value, "@"); isFile {
		text, err := a.readFile(name)
		if err != nil {
			return nil, usagef("--value: %w", err)
		}
		value = text
	}
	bytes, err := present.Encode(value, codec)
	if err != nil {
		return nil, usageError{err}
	}
	return bytes, nil
}

// maxValue bounds what is read for a value.
const maxValue = 64 << 20

func (a *app) readFile(name string) (string, error) {
	from := io.Reader(a.in)
	if name != "-" {
		file, err := openFile(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxValue))
	return string(text), err
}

// confirm shows what is there, and asks for the key to be typed.
func (a *app) confirm(c *cobra.Command, namespace, key, effect string, yes bool) error {
	e, err := a.inspector.Inspect(c.Context(), namespace, key)
	if err != nil {
		return err
	}
	if yes {
		return nil
	}
	fmt.Fprint(a.err, a.story(&e, nil))
	fmt.Fprintf(a.err, "\n%s Type the key to go on: ", effect)
	typed, err := a.typed()
	if err != nil || typed != key && typed != present.Text(key) {
		fmt.Fprintln(a.err)
		return errCancelled
	}
	return nil
}

// report says what was done, and what was there.
func (a *app) report(done string, was *idempotent.Entry) error {
	if a.output == outputJSON {
		return json.NewEncoder(a.out).Encode(settled{done, asJSON(was)})
	}
	_, err := fmt.Fprintf(a.out, "%s; it was:\n%s", done, a.story(was, nil))
	return err
}
