package acceptance

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/slot"
)

// inspectorRules are the rules that docs/redis.md has for a role: on a single server, and on a Cluster.
func inspectorRules(t *testing.T, role string) (single, cluster []string) {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^ACL SETUSER `+role+` (.*)$`).FindAllStringSubmatch(readText(t, "docs/redis.md"), -1)
	require.Len(t, lines, 2)
	single = strings.Fields(lines[0][1])
	return single, append(slices.Clone(single), strings.Fields(lines[1][1])...)
}

// A role is what a reader or an operator does, and the error of the first step that fails.
type role func(ctx context.Context, i *idempotent.Inspector) error

var roles = map[string]role{"reader": inspectsAll, "operator": func(ctx context.Context, i *idempotent.Inspector) error {
	if err := inspectsAll(ctx, i); err != nil {
		return err
	}
	if _, err := i.Resolve(ctx, "acl", "{order}abandoned", []byte("charged"), "raw"); err != nil {
		return err
	}
	_, err := i.Forget(ctx, "acl", "{order}abandoned")
	return err
}}

func inspectsAll(ctx context.Context, i *idempotent.Inspector) error {
	found := 0
	for _, err := range i.List(ctx, idempotent.Filter{Namespace: "acl", Pause: -1}) {
		if err != nil {
			return err
		}
		found++
	}
	if found != 2 {
		return errors.New("not all is listed")
	}
	if _, err := i.Inspect(ctx, "acl", "{order}abandoned"); err != nil {
		return err
	}
	_, _, err := i.Payload(ctx, "acl", "{order}failed")
	return err
}

// twoRecords makes an abandoned record and a failed one.
func twoRecords(t *testing.T, admin redis.UniversalClient) {
	t.Helper()
	x, err := idempotent.New[string](admin, "acl")
	require.NoError(t, err)
	defer x.Close()
	_, err = x.Run(t.Context(), "{order}failed", returning("", errors.New("declined")))
	require.Error(t, err)
	require.NoError(t, x.Forget(t.Context(), "{order}abandoned"))
	_, err = x.Run(t.Context(), "{order}abandoned", returning("", idempotent.OutcomeUnknown(errors.New("broken pipe"))))
	require.Error(t, err)
}

// A twice delivers each script that writes a second time, as a client does whose first reply is lost.
type twice struct{ refuse }

func (twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); err != nil || !isForget(cmd.Args()) {
			return err
		}
		return next(ctx, cmd)
	}
}

// The reader and the operator of docs/redis.md can do what they are for, and each right is needed.
func TestDocumentedInspectorNeedsEachRight(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	for name, does := range roles {
		rules, _ := inspectorRules(t, name)
		for i, rule := range append([]string{"nothing"}, rules[2:]...) {
			t.Run(name+", without "+rule, func(t *testing.T) {
				twoRecords(t, admin)
				require.NoError(t, admin.ScriptFlush(t.Context()).Err())
				require.NoError(t, admin.Do(t.Context(), "acl", "log", "reset").Err())
				client := loggedIn(t, server.Addr())
				client.AddHook(twice{})
				if i == 0 {
					setUser(t, admin, rules)
					require.NoError(t, does(t.Context(), inspector(t, client)))
					requireEmptyLog(t, admin)
					return
				}
				setUser(t, admin, slices.Delete(slices.Clone(rules), i+1, i+2))
				err := does(t.Context(), inspector(t, client))
				require.ErrorIs(t, err, idempotent.ErrUnavailable)
				assert.Contains(t, err.Error(), "add "+strings.TrimPrefix(narrowed(rule, err), "%R")+" to the user")
			})
		}
	}
}

// narrowed is a rule as an error has it that knows the namespace.
func narrowed(rule string, err error) string {
	if strings.Contains(err.Error(), "idempotent:acl:*") {
		return strings.Replace(rule, "idempotent:", "idempotent:acl:", 1)
	}
	return rule
}

func TestDocumentedReaderChangesNothing(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	twoRecords(t, admin)
	rules, _ := inspectorRules(t, "reader")
	setUser(t, admin, rules)
	i := inspector(t, loggedIn(t, server.Addr()))
	_, err := i.Forget(t.Context(), "acl", "{order}abandoned")
	require.ErrorContains(t, err, "add +del +eval +evalsha +publish to the user")
	_, err = i.Resolve(t.Context(), "acl", "{order}abandoned", nil, "raw")
	require.ErrorContains(t, err, "+set")
	e, err := i.Inspect(t.Context(), "acl", "{order}abandoned")
	require.NoError(t, err)
	assert.Equal(t, idempotent.StateAbandoned, e.State)
}

// On a Cluster, also while a slot moves.
func TestDocumentedInspectorOnCluster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	masters, err := cluster.Masters(t.Context())
	require.NoError(t, err)
	name := "idempotent:acl:{order}abandoned"
	from, err := cluster.MasterOf(t.Context(), name)
	require.NoError(t, err)
	to := masters[slices.IndexFunc(masters, func(n *redistest.Node) bool { return n != from })]
	_, err = cluster.BeginMigration(t.Context(), slot.Of(name), to)
	require.NoError(t, err)
	for role, does := range roles {
		t.Run(role, func(t *testing.T) {
			twoRecords(t, cluster.Client(t))
			_, rules := inspectorRules(t, role)
			for _, n := range cluster.Nodes {
				setUser(t, n.Client(), rules)
			}
			require.NoError(t, does(t.Context(), inspector(t, loggedIntoCluster(t, cluster))))
			for _, n := range cluster.Nodes {
				requireEmptyLog(t, n.Client())
			}
			if role == "reader" {
				return
			}
			without := slices.DeleteFunc(slices.Clone(rules), func(rule string) bool { return rule == "+cluster|slots" })
			for _, n := range cluster.Nodes {
				setUser(t, n.Client(), without)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			require.ErrorContains(t, does(ctx, inspector(t, loggedIntoCluster(t, cluster))), "add +cluster|slots to the user")
		})
	}
}
