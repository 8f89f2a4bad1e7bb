package acceptance

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
)

const readmeLines = 40 // of its first program

// The README's program compiles as it stands and prints what the README says, with the Redis that it
// embeds and with a real one.
func TestReadmeProgramRuns(t *testing.T) {
	t.Parallel()
	program := goBlocks(t, "README.md")[0]
	require.True(t, strings.HasPrefix(program, "package main\n"), program)
	assert.LessOrEqual(t, len(strings.Split(program, "\n")), readmeLines, "lines")
	console := regexp.MustCompile("(?s)```console\n\\$ [^\n]*go run [^\n]*\n(.*?)```").FindStringSubmatch(readText(t, "README.md"))
	require.NotNil(t, console)

	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(source, []byte(program), 0o600))
	command(t, exec.CommandContext(t.Context(), "go", "build", "-o", binary, source))

	for name, addr := range map[string]string{"embedded": "", "real Redis": redistest.Start(t).Addr()} {
		t.Run(name, func(t *testing.T) {
			run := exec.CommandContext(t.Context(), binary)
			run.Env = append(os.Environ(), "REDIS_ADDR="+addr)
			assert.Equal(t, console[1], command(t, run))
		})
	}
}

// command runs cmd at the top of the repository and returns what it prints.
func command(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	cmd.Dir = root
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return string(output)
}

// The README's second block is the very code of example_test.go, which runs.
func TestReadmeSecondBlockIsAnExample(t *testing.T) {
	blocks := goBlocks(t, "README.md")
	require.Len(t, blocks, 2)
	assert.Equal(t, marked(t, "example_test.go", "README"), blocks[1])
}

// docs/migrating.md shows the code that is tested here.
func TestDocsMigratingShowsTestedCode(t *testing.T) {
	blocks := goBlocks(t, "docs/migrating.md")
	for _, part := range []string{"by hand", "npm"} {
		assert.Contains(t, blocks, marked(t, "internal/acceptance/migrating_test.go", "docs/migrating.md, "+part))
	}
}
