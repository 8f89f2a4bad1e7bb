package idemotel_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const docs = "../docs/observability.md"

type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t testing.TB) (all []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "prometheus/rules.yml")), &file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

func panels(t testing.TB) (d dashboard) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(read(t, "grafana/dashboard.json")), &d))
	return d
}

func (d *dashboard) queries() (all []string) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	return all
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

var (
	metricName = regexp.MustCompile(`\bidempotent_[a-z_]+`)
	labelNames = regexp.MustCompile(`^idempotent_(namespace|source|wait_for|action)$`)
)

// metricsIn returns the metrics that a query names.
func metricsIn(query string) (names []string) {
	for _, name := range metricName.FindAllString(query, -1) {
		if !labelNames.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// namesAreScraped holds rules, dashboard and documentation against a scrape.
func namesAreScraped(t *testing.T, text string) {
	t.Helper()
	scraped := make(map[string]bool)
	for line := range strings.Lines(text) {
		if name := metricName.FindString(line); name != "" && !strings.HasPrefix(line, "#") {
			scraped[name] = true
		}
	}
	queries := (&dashboard{Panels: panels(t).Panels}).queries()
	for _, a := range alerts(t) {
		queries = append(queries, a.Expr)
	}
	for _, query := range queries {
		names := metricsIn(query)
		assert.NotEmpty(t, names, query)
		for _, name := range names {
			assert.True(t, scraped[name], "%s is in no scrape: %s", name, query)
		}
	}
	families := make(map[string]bool)
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE idempotent_"); ok {
			name, _, _ := strings.Cut(rest, " ")
			families["idempotent_"+name] = true
		}
	}
	documented := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `(idempotent_[a-z_]+)` \\|").FindAllStringSubmatch(read(t, docs), -1) {
		documented[strings.TrimSuffix(row[1], "_total")] = true
	}
	assert.Equal(t, families, documented, "the table of metrics has what is scraped")
}

func TestRulesFireAndStayQuiet(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = "prometheus"
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "promtool %v (scripts/ensure-promtool installs it):\n%s", args, out)
	}
	tests := read(t, "prometheus/rules_test.yml")
	for _, a := range alerts(t) {
		assert.Contains(t, tests, "name: "+a.Alert+" fires\n")
		assert.Contains(t, tests, "name: "+a.Alert+" stays quiet\n")
	}
}

func TestEachAlertHasARunbook(t *testing.T) {
	page := read(t, docs)
	severities := make(map[string]int)
	for _, a := range alerts(t) {
		severities[a.Labels["severity"]]++
		assert.Equal(t, "docs/observability.md#"+strings.ToLower(a.Alert), a.Annotations["runbook"])
		_, section, found := strings.Cut(page, "\n### "+a.Alert+"\n")
		require.True(t, found, "no runbook of %s", a.Alert)
		section, _, _ = strings.Cut(section, "\n### ")
		for _, part := range []string{"**Means**", "**Look**", "**Do**"} {
			assert.Contains(t, section, part, a.Alert)
		}
	}
	assert.Equal(t, map[string]int{"page": 5, "warn": 4}, severities)
}

func TestDashboardHasQueriesThatPrometheusTakes(t *testing.T) {
	d := panels(t)
	assert.Len(t, d.Panels, 8)
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for i, query := range d.queries() {
		query = strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*").Replace(query)
		rules += fmt.Sprintf("  - record: q%d\n    expr: %q\n", i, query)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", file).CombinedOutput()
	assert.NoError(t, err, "scripts/ensure-promtool installs it:\n%s", out)
}

// The documentation has each line that is logged, and each name of a span, an event and an attribute.
func TestDocumentationHasLogLinesAndSpans(t *testing.T) {
	page := read(t, docs)
	logged := regexp.MustCompile(`(?:logger\.\w+\(|recoverFrom\().*?"(idempotent: [^"]+)"`)
	files, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	mechanisms, err := filepath.Glob("../internal/*/*.go")
	require.NoError(t, err)
	lines := 0
	for _, name := range append(files, mechanisms...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, m := range logged.FindAllStringSubmatch(read(t, name), -1) {
			lines++
			assert.Contains(t, page, "`"+m[1]+"`", name)
		}
	}
	assert.GreaterOrEqual(t, lines, 12)
	names := regexp.MustCompile(`"((?:idempotent|error)\.[a-z_.]+)"`).FindAllStringSubmatch(read(t, "spans.go"), -1)
	require.NotEmpty(t, names)
	for _, m := range names {
		assert.Contains(t, page, "`"+m[1]+"`")
	}
}
