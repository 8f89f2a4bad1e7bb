package acceptance

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The documentation has limits: of words in a page, of words in a sentence, and of what it leaves unsaid.
const (
	readmeWords   = 900
	docsWords     = 16_000
	sentenceWords = 35
)

var (
	benched  = regexp.MustCompile(`(?s)<!-- bench:.*?<!-- /bench:\w+ -->`) // what make bench writes
	fence    = regexp.MustCompile("(?ms)^```.*?^```$")
	comment  = regexp.MustCompile(`(?s)<!--.*?-->`)
	codeSpan = regexp.MustCompile("`[^`]*`")
	mdLink   = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
	listItem = regexp.MustCompile(`^\s*(?:[*-]|\d+\.) `)
	letter   = regexp.MustCompile(`[A-Za-z0-9]`)
)

// words counts what has a letter or a digit: no bars of tables, no dashes.
func words(text string) (n int) {
	for field := range strings.FieldsSeq(text) {
		if letter.MatchString(field) {
			n++
		}
	}
	return n
}

// paragraphs returns the prose of a Markdown text: paragraphs, items of lists and cells of tables. A
// code span counts as one word, a link as its text. Blocks of code and headings are left out.
func paragraphs(text string) (found []string) {
	text = comment.ReplaceAllString(fence.ReplaceAllString(text, "\n"), "")
	text = mdLink.ReplaceAllString(codeSpan.ReplaceAllString(text, "code"), "$1")
	var open []string
	end := func() {
		if len(open) > 0 {
			found, open = append(found, strings.Join(open, " ")), nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
			end()
		case strings.HasPrefix(line, "|"):
			end()
			found = append(found, strings.Split(line, "|")...)
		case listItem.MatchString(line):
			end()
			open = []string{listItem.ReplaceAllString(line, "")}
		default:
			open = append(open, strings.TrimSpace(line))
		}
	}
	end()
	return found
}

var sentenceEnd = regexp.MustCompile(`[.!?][*_")]*\s`)

func sentences(paragraph string) []string { return sentenceEnd.Split(paragraph+" ", -1) }

func TestDocsSentencesAreShort(t *testing.T) {
	for _, doc := range append(pages(t), "README.md", ".github/SECURITY.md", "verify/spec/README.md", "verify/soak/README.md") {
		for _, paragraph := range paragraphs(readText(t, doc)) {
			for _, sentence := range sentences(paragraph) {
				assert.LessOrEqual(t, words(sentence), sentenceWords, "%s: %s", doc, sentence)
			}
		}
	}
}

func TestDocsSentencesAreFound(t *testing.T) {
	text := "# A heading\n\nOne `a b c` [two words](x.md#y). Two\nlines (e.g. here.)\n\n* an item\n  of two lines\n| a | b c |\n\n```go\ncode. code\n```\n<!-- no\n\nprose -->"
	assert.Equal(t, []string{"One code two words. Two lines (e.g. here.)", "an item of two lines", "", " a ", " b c ", ""}, paragraphs(text))
	assert.Equal(t, []string{"One code two words", "Two lines", ""}, sentences("One code two words. Two lines."))
	assert.Equal(t, 3, words("a | – 1 b2"))
}

// Blocks of code and the tables that make bench writes are no words.
func TestDocsAreShort(t *testing.T) {
	assert.LessOrEqual(t, len(strings.Fields(readText(t, "README.md"))), readmeWords, "README.md")
	total := 0
	for _, page := range pages(t) {
		n := words(fence.ReplaceAllString(benched.ReplaceAllString(readText(t, page), ""), ""))
		t.Logf("%s: %d words", page, n)
		total += n
	}
	assert.LessOrEqual(t, total, docsWords)
}

// A reader knows after two lines whether a page is for them.
func TestDocsSayForWhomTheyAre(t *testing.T) {
	for _, page := range pages(t) {
		assert.Regexp(t, `\A# [^\n]+\n\nFor [^\n]+\n[^\n]+\n`, readText(t, page), page)
	}
}

// The style guide's words that need explaining, in text for users.
func TestDocsUsePlainWords(t *testing.T) {
	private := regexp.MustCompile(`(?i)\b(?:nobody|somebody|those who|anew|under way|beside|of late|heeds?|comes? of|came to|whoever)\b`)
	for _, doc := range append(pages(t), "README.md", ".github/SECURITY.md", "verify/spec/README.md", "verify/soak/README.md") {
		for _, paragraph := range paragraphs(readText(t, doc)) {
			assert.NotRegexp(t, private, paragraph, doc)
		}
	}
}
