package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// palette are the colours of a dark terminal.
var palette = map[string]string{"31": "#ff9492", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff"}

var escape = regexp.MustCompile(`\x1b\[([0-9;]*)m`)

// writePicture draws a screen with its colours as an SVG for docs/operations.md.
func writePicture(t *testing.T, path, screen string, width int) {
	t.Helper()
	const charWidth, lineHeight, margin = 7.25, 17, 12
	lines := strings.Split(strings.TrimRight(screen, "\n"), "\n")
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="ui-monospace,monospace" font-size="12">`+"\n",
		int(float64(width)*charWidth)+2*margin, len(lines)*lineHeight+2*margin)
	b.WriteString(`<rect width="100%" height="100%" rx="6" fill="#0d1117"/>` + "\n")
	fill, weight := "#e6edf3", "400"
	for y, line := range lines {
		column := 0
		ends := append(escape.FindAllStringSubmatchIndex(line, -1), []int{len(line), len(line), 0, 0})
		from := 0
		for _, m := range ends {
			text := strings.TrimLeft(line[from:m[0]], " ")
			if column += len(line[from:m[0]]) - len(text); text != "" {
				var safe strings.Builder
				require.NoError(t, xml.EscapeText(&safe, []byte(text)))
				fmt.Fprintf(&b, `<text xml:space="preserve" x="%.2f" y="%d" textLength="%.2f" fill="%s" font-weight="%s">%s</text>`+"\n",
					margin+float64(column)*charWidth, margin+(y+1)*lineHeight-4, float64(len([]rune(text)))*charWidth, fill, weight, safe.String())
			}
			column += len([]rune(text))
			from = m[1]
			for code := range strings.SplitSeq(line[m[2]:m[3]], ";") {
				switch {
				case palette[code] != "":
					fill = palette[code]
				case code == "1":
					weight = "700"
				case code == "39":
					fill = "#e6edf3"
				case code == "0" || code == "":
					fill, weight = "#e6edf3", "400"
				}
			}
		}
	}
	b.WriteString("</svg>\n")
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o600))
}

// The picture in docs/operations.md is of the sample.
func TestPicture(t *testing.T) {
	const width, path = 112, "../../docs/img/operations-watch.svg"
	server, _ := sampled(t)
	term := openTerminal(t, width, binary(t)+" watch", "IDEMPOTENT_REDIS_URL="+server.URL(), "TERM=tmux-256color")
	term.shows("order-43")
	if screen := clock.Replace(term.screen("-e")); *update {
		writePicture(t, path, screen, width)
	}
	picture, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range strings.SplitSeq(escape.ReplaceAllString(clock.Replace(term.screen("-e")), "\n"), "\n") {
		var safe strings.Builder
		require.NoError(t, xml.EscapeText(&safe, []byte(strings.Trim(line, " "))))
		require.Contains(t, string(picture), safe.String())
	}
}
