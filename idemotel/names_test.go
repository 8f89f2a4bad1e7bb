package idemotel_test

import (
	"testing"
)

func namesAreScraped(t *testing.T, text string) {}
