package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// describe names the machine and the versions, for without them figures mean nothing.
func (e *env) describe() string {
	server := "?"
	if info, err := e.admin.Info(context.Background(), "server").Result(); err == nil {
		server = after(info, "redis_version:")
	}
	return fmt.Sprintf("%s, %d CPUs; %s; Redis %s over loopback; %s; go-redis %s; load %s before the run",
		or(field("/proc/cpuinfo", "model name"), runtime.GOARCH), runtime.NumCPU(),
		or(strings.Trim(after(read("/etc/os-release"), "PRETTY_NAME="), `"`), runtime.GOOS),
		server, strings.ReplaceAll(runtime.Version(), "go", "Go "), moduleVersion("github.com/redis/go-redis/v9"),
		or(first(read("/proc/loadavg")), "unknown"))
}

func read(file string) string {
	text, _ := os.ReadFile(file) // not on every system
	return string(text)
}

// after is the rest of the line that begins with prefix.
func after(text, prefix string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// field is the value of "name : value" in a file.
func field(file, name string) string {
	_, value, _ := strings.Cut(after(read(file), name), ":")
	return strings.TrimSpace(value)
}

func first(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

func or(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "?"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return "?"
}
