// Package architecture has the tests that hold which package may import which, and how the files of the
// root package use each other. It has no code of its own.
package architecture

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/idempotent-go/idempotent"
	root   = "../.."
)

// arrows are the imports that mechanisms may have of each other. An arrow that is not here is a
// decision about the architecture: make it on purpose.
var arrows = map[string][]string{
	"backoff":     nil,
	"equal":       nil,
	"errreg":      {"errtree"},
	"errtree":     nil,
	"flight":      nil,
	"guard":       {"rediserr"},
	"jsonx":       {"equal", "safetext", "shape"},
	"msgpackx":    {"equal", "safetext", "shape"},
	"present":     nil,
	"record":      nil,
	"rediserr":    nil,
	"runctx":      nil,
	"safetext":    nil,
	"seam":        {"record"},
	"shape":       {"safetext"},
	"slot":        nil,
	"topology":    nil,
	"lifecycle":   nil,
	"release":     {"backoff", "rediserr", "store"},
	"pipeline":    {"rediserr"},
	"pubsub":      {"backoff", "topology"},
	"store":       {"backoff", "pipeline", "record", "rediserr", "topology"},
	"lease":       {"pipeline", "record", "rediserr", "store"},
	"replaycache": {"backoff", "pubsub", "record", "rediserr", "store"},
	"inspect":     {"record", "rediserr", "topology"},
	"checkup":     {"idemcheck", "record", "rediserr", "topology"},
}

// harness are the packages of tests, which no other package may import.
var harness = []string{"acceptance", "architecture", "behaviour", "pgtest", "redistest", "sample"}

// maxExported is how many names a mechanism may export. Constants of one of its types belong to that
// type, and methods and fields are not counted.
const maxExported = 10

// moreExported are the exceptions: record is the format, whose sizes are shared with scripts and callers,
// and store has a name for each step of the protocol.
var moreExported = map[string]int{"record": 21, "store": 11}

// parsed are the files of one package, without tests.
func parsed(t *testing.T, fset *token.FileSet, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	return files
}

// importsOf are the packages of this module that files import, without "internal/".
func importsOf(files []*ast.File) []string {
	found := make(map[string]bool)
	for _, file := range files {
		for _, spec := range file.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			if path == module {
				found["."] = true
			} else if rest, inside := strings.CutPrefix(path, module+"/"); inside {
				found[strings.TrimPrefix(rest, "internal/")] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func mechanisms(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "internal"))
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() && !slices.Contains(harness, entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names
}

func TestMechanismsImportOnlyWhatIsAllowed(t *testing.T) {
	names := mechanisms(t)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(arrows)), names, "each mechanism has a line in arrows")
	for _, name := range names {
		for _, imported := range importsOf(parsed(t, token.NewFileSet(), "internal/"+name)) {
			assert.Contains(t, arrows[name], imported, "internal/%s imports %s", name, imported)
		}
	}
}

func TestArrowsRunOneWay(t *testing.T) {
	edges := make(map[string]map[string]bool)
	for from, all := range arrows {
		edges[from] = make(map[string]bool)
		for _, to := range all {
			edges[from][to] = true
		}
	}
	assert.Empty(t, cycle(edges))
}

func TestMechanismsSayWhatTheyOwn(t *testing.T) {
	for _, name := range append(mechanisms(t), "../idemcheck") {
		var doc strings.Builder
		exported := make(map[string]bool)
		for _, file := range parsed(t, token.NewFileSet(), "internal/"+name) {
			doc.WriteString(file.Doc.Text())
			for _, decl := range file.Decls {
				for _, ident := range exportedBy(decl) {
					exported[ident] = true
				}
			}
		}
		assert.True(t, strings.HasPrefix(doc.String(), "Package "+filepath.Base(name)), "internal/%s has no package comment", name)
		assert.LessOrEqual(t, len(exported), max(maxExported, moreExported[name]), "internal/%s exports %v", name, slices.Sorted(maps.Keys(exported)))
	}
}

// exportedBy are the exported names that a declaration adds to its package.
func exportedBy(decl ast.Decl) (names []string) {
	add := func(ident *ast.Ident) {
		if ident.IsExported() {
			names = append(names, ident.Name)
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			add(d.Name)
		}
	case *ast.GenDecl:
		typed := false // a constant without a value repeats the type before it
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				add(s.Name)
			case *ast.ValueSpec:
				typed = s.Type != nil || typed && s.Values == nil
				if typed && d.Tok == token.CONST {
					continue
				}
				for _, ident := range s.Names {
					add(ident)
				}
			}
		}
	}
	return names
}

// The files of the root package use each other in one direction.
func TestRootFilesHaveNoCycle(t *testing.T) {
	fset := token.NewFileSet()
	files := parsed(t, fset, ".")
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", exportData(t))}
	pkg, err := config.Check(module, fset, files, info)
	require.NoError(t, err)

	fileOf := func(pos token.Pos) string { return filepath.Base(fset.Position(pos).Filename) }
	edges := make(map[string]map[string]bool)
	for ident, object := range info.Uses {
		if from, to := fileOf(ident.Pos()), fileOf(object.Pos()); object.Pkg() == pkg && from != to {
			if edges[from] == nil {
				edges[from] = make(map[string]bool)
			}
			edges[from][to] = true
		}
	}
	require.NotEmpty(t, edges)
	assert.Empty(t, cycle(edges))
}

// The root package can be read in one sitting: its public API, and what the engine decides.
func TestRootIsSmall(t *testing.T) {
	const maxFiles, maxLines = 18, 380
	fset := token.NewFileSet()
	files := parsed(t, fset, ".")
	assert.LessOrEqual(t, len(files), maxFiles)
	for _, file := range files {
		position := fset.Position(file.FileEnd)
		assert.LessOrEqual(t, position.Line, maxLines, position.Filename)
	}
}

// exportData finds what the compiler wrote about the packages that the root package imports.
func exportData(t *testing.T) importer.Lookup {
	t.Helper()
	list := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", ".")
	list.Dir = root
	out, err := list.Output()
	require.NoError(t, err)
	exports := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[path] = file
	}
	return func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	}
}

// cycle returns nodes that use each other in a circle, nil if there are none.
func cycle(edges map[string]map[string]bool) []string {
	const visiting, done = 1, 2
	state := make(map[string]int)
	var path []string
	var visit func(node string) []string
	visit = func(node string) []string {
		switch state[node] {
		case visiting:
			return append(slices.Clone(path[slices.Index(path, node):]), node)
		case done:
			return nil
		}
		state[node] = visiting
		path = append(path, node)
		for _, next := range slices.Sorted(maps.Keys(edges[node])) {
			if found := visit(next); found != nil {
				return found
			}
		}
		path = path[:len(path)-1]
		state[node] = done
		return nil
	}
	for _, node := range slices.Sorted(maps.Keys(edges)) {
		if found := visit(node); found != nil {
			return found
		}
	}
	return nil
}

func TestCycleIsFound(t *testing.T) {
	assert.Equal(t, []string{"b", "c", "b"}, cycle(map[string]map[string]bool{"a": {"b": true}, "b": {"c": true}, "c": {"b": true}}))
	assert.Nil(t, cycle(map[string]map[string]bool{"a": {"b": true, "c": true}, "b": {"c": true}}))
}
