package acceptance

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// The documentation is part of what is tested.

// The example of docs/testing.md, as it stands there.
//
// docs/testing.md: begin
func TestChargeExpiresAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t) // inside the bubble
		charges, err := idempotent.New[string](rdb, "default")
		if err != nil {
			t.Fatal(err)
		}
		defer charges.Close()

		runs := 0
		pay := func() {
			_, _ = charges.Run(t.Context(), "order-42", func(context.Context) (string, error) {
				runs++
				return "charged", nil
			})
		}
		pay()
		pay()
		time.Sleep(24*time.Hour + time.Second)
		pay()
		if runs != 2 {
			t.Errorf("%d runs", runs)
		}
	})
}

// docs/testing.md: end

// root is the way from this package to the files of the repository.
const root = "../.."

func readText(t *testing.T, name string) string {
	t.Helper()
	return readFile(t, filepath.Join(root, name))
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// marked is what stands between two marks in a Go file, moved to the left.
func marked(t *testing.T, file, mark string) string {
	t.Helper()
	_, rest, found := strings.Cut(readText(t, file), "// "+mark+": begin\n")
	require.True(t, found, "%s has no mark %q", file, mark)
	block, _, found := strings.Cut(rest, "// "+mark+": end\n")
	require.True(t, found, "%s has no end of mark %q", file, mark)
	lines := strings.Split(strings.TrimSpace(block), "\n")
	last := lines[len(lines)-1]
	indent := last[:len(last)-len(strings.TrimLeft(last, "\t"))]
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, indent)
	}
	return strings.Join(lines, "\n")
}

// goBlocks are the Go examples of a Markdown file.
func goBlocks(t *testing.T, file string) (blocks []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^```go\n(.*?)\n```$").FindAllStringSubmatch(readText(t, file), -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

func TestDocsTestingExampleCompiles(t *testing.T) {
	assert.Contains(t, goBlocks(t, "docs/testing.md"), marked(t, "internal/acceptance/docs_test.go", "docs/testing.md"))
}

func TestDocsRedisExampleCompiles(t *testing.T) {
	assert.Contains(t, goBlocks(t, "docs/redis.md"), marked(t, "example_operate_test.go", "docs/redis.md"))
}

// The table of findings has each code once.
func TestDocsFindings(t *testing.T) {
	var codes, documented []string
	for _, m := range regexp.MustCompile(`FindingCode = "([a-z-]+)"`).FindAllStringSubmatch(readText(t, "idemcheck/finding.go"), -1) {
		codes = append(codes, "`"+m[1]+"`")
	}
	_, section, found := strings.Cut(readText(t, "docs/redis.md"), "\n## Check\n")
	require.True(t, found)
	for _, row := range tableRows(section) {
		documented = append(documented, row[0])
	}
	require.NotEmpty(t, codes)
	assert.ElementsMatch(t, codes, documented)
}

// pages are the files of docs.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := fs.Glob(os.DirFS(root), "docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, found)
	return found
}

// documents are the Markdown files that have to be true.
func documents(t *testing.T) []string {
	t.Helper()
	return append(pages(t), "README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", "CHANGELOG.md",
		"verify/spec/README.md", "verify/soak/README.md")
}

// testNames are the tests, benchmarks, fuzz targets and examples of all modules of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		for _, m := range declared.FindAllStringSubmatch(readFile(t, path), -1) {
			names[m[1]] = true
		}
		return nil
	})
	require.NoError(t, err)
	return names
}

func TestDocsNameTestsThatExist(t *testing.T) {
	names := testNames(t)
	named := regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark|Example)[A-Z]\w*`)
	for _, doc := range documents(t) {
		for _, name := range named.FindAllString(readText(t, doc), -1) {
			assert.True(t, names[name], "%s names %s, which does not exist", doc, name)
		}
	}
}

// tableRows are the rows of the tables in a Markdown text, without heads, as cells.
func tableRows(text string) (rows [][]string) {
	lines := strings.Split(text, "\n")
	separator := regexp.MustCompile(`^\|(?:-+\|)+$`)
	inTable := false
	for _, line := range lines {
		switch {
		case separator.MatchString(line):
			inTable = true
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case inTable:
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

// Each guarantee names a test that shows it; only the last section has what nobody can show.
func TestDocsShowEachGuarantee(t *testing.T) {
	shown, _, found := strings.Cut(readText(t, "docs/guarantees.md"), "## What cannot be guaranteed")
	require.True(t, found)
	rows := tableRows(shown)
	require.NotEmpty(t, rows)
	for _, row := range rows {
		require.Len(t, row, 3, "%v", row)
		assert.Regexp(t, "^`Test\\w+`(?:, `Test\\w+`)*$", row[2], "%v", row)
	}
}

// anchors are the headings of a Markdown file as links name them.
func anchors(text string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		slug := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found[strings.ReplaceAll(slug, " ", "-")] = true
	}
	return found
}

func TestDocsLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code := regexp.MustCompile("(?s)```.*?```|`[^`]*`") // New[T](client) is no link
	for _, doc := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(readText(t, doc), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := doc
			if path != "" {
				target = filepath.Join(filepath.Dir(doc), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
				continue
			}
			if anchor != "" {
				assert.True(t, anchors(readText(t, target))[anchor], "%s links to %s: no such heading", doc, m[1])
			}
		}
	}
}

// pkg.go.dev replaces a table of options: each one's comment says what holds without it.
func TestEveryOptionNamesItsDefault(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	require.NoError(t, err)
	options := 0
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "With") {
				continue
			}
			options++
			assert.Regexp(t, `(?i)\bdefaults?\b`, f.Doc.Text(), "the comment of %s", f.Name.Name)
		}
	}
	assert.Greater(t, options, 15)
}
