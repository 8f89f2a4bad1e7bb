// Package present owns how operators see operations, in a terminal and on a page: keys, durations and sizes as text,
// payloads in a readable form, and typed values as bytes of a codec. It knows neither Redis nor records.
package present

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Text quotes a text that holds anything but printable characters, quotes, or spaces at an end, so that it cannot move a
// cursor, change colours, or pass for another text.
func Text(text string) string {
	if quoted := strconv.QuoteToGraphic(text); quoted != `"`+text+`"` || text == "" || strings.TrimSpace(text) != text {
		return strconv.Quote(text)
	}
	return text
}

// Unquote returns the text that Text shows: one that is quoted as a Go string without its quotes, any other as it is.
func Unquote(shown string) string {
	if strings.HasPrefix(shown, `"`) {
		if text, err := strconv.Unquote(shown); err == nil {
			return text
		}
	}
	return shown
}

// Span writes a duration with its two largest units: 3d4h, 1h2m, 5m6s, 7s.
func Span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

const day = 24 * time.Hour

// Size writes a number of bytes.
func Size(n int64) string {
	const unit = 1024
	switch {
	case n < unit:
		return fmt.Sprintf("%d B", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f KiB", float64(n)/unit)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(unit*unit))
}

// Error returns the text of an error of package idempotent without the package's name.
func Error(err error) string { return strings.TrimPrefix(err.Error(), "idempotent: ") }
