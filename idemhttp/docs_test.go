package idemhttp_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
)

func readAll(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files, pattern)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		all.Write(text)
	}
	return all.String()
}

func TestDocumentationNamesTestsThatExist(t *testing.T) {
	tests := readAll(t, "*_test.go") + readAll(t, "*/*_test.go") + readAll(t, "../demo/http/*_test.go")
	for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(readAll(t, "../docs/http.md"), -1) {
		assert.Contains(t, tests, "\nfunc "+name[1]+"(", "docs/http.md names a test that is not there")
	}
}

func TestDocumentationHasEveryOption(t *testing.T) {
	doc := readAll(t, "../docs/http.md")
	options := regexp.MustCompile(`(?m)^func (With[A-Za-z]+)\(`).FindAllStringSubmatch(readAll(t, "*options.go"), -1)
	require.Greater(t, len(options), 20)
	for _, option := range options {
		assert.Contains(t, doc, "`"+option[1]+"(")
	}
}

// The type of a problem leads to its section.
func TestDocumentationHasEveryProblem(t *testing.T) {
	doc := readAll(t, "../docs/http.md")
	for _, problemType := range []string{
		idemhttp.TypeKeyMissing, idemhttp.TypeKeyInvalid, idemhttp.TypeBodyUnreadable, idemhttp.TypeRequestTooLarge,
		idemhttp.TypeKeyReused, idemhttp.TypeInProgress, idemhttp.TypeSuperseded, idemhttp.TypeInterrupted,
		idemhttp.TypePanicked, idemhttp.TypeResponseTooLarge, idemhttp.TypeRecordUnreadable, idemhttp.TypeMisconfigured,
		idemhttp.TypeUnavailable, idemhttp.TypeNotHTTP,
	} {
		_, name, found := strings.Cut(problemType, "docs/http.md#")
		require.True(t, found)
		assert.Contains(t, doc, "\n### "+name+"\n")
	}
}
