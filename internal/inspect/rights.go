package inspect

import (
	"regexp"
	"strings"

	"github.com/idempotent-go/idempotent/internal/record"
)

// noCommand finds the command in the refusal of a server, in the words of Redis 7.0 and of later versions.
var noCommand = regexp.MustCompile(`no permissions to run the '([^']+)' command`)

// Refused reports whether a server says, itself or from within a script, that the user lacks a right.
func Refused(err error) bool {
	text := err.Error()
	return strings.Contains(text, "NOPERM") || strings.Contains(text, "ACL failure in script") ||
		strings.Contains(text, "The user executing the script can't")
}

// MissingRight returns the ACL rule without which a server refused a command, such as "+scan". It is "" for any
// other error, and where a server does not name the command, as Redis 7.0 within scripts.
func MissingRight(err error) string {
	text := err.Error()
	switch m := noCommand.FindStringSubmatch(text); {
	case !Refused(err):
	case m != nil:
		return "+" + strings.ToLower(m[1])
	case strings.Contains(text, " key"):
		return "~" + record.KeyPrefix + "*"
	case strings.Contains(text, " channel"):
		return "&" + record.KeyPrefix + "*"
	}
	return ""
}
