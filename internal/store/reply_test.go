package store

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRawReplies(t *testing.T) {
	for raw, want := range map[string]struct {
		value []byte
		ok    bool
	}{
		"_\r\n":                            {nil, true},
		"$-1\r\n":                          {nil, true},
		"$0\r\n\r\n":                       {[]byte{}, true},
		"$3\r\na\r\n\r\n":                  {[]byte("a\r\n"), true},
		"-MOVED 1 127.0.0.1:1\r\n":         {nil, false},
		"!21\r\nSYNTAX invalid syntax\r\n": {nil, false},
		"-ERR $3\r\n":                      {nil, false},
		":1\r\n":                           {nil, false},
		"$3\r\n":                           {nil, false},
		"":                                 {nil, false},
	} {
		value, ok := bulk([]byte(raw))
		assert.Equal(t, want.ok, ok, "%q", raw)
		assert.Equal(t, want.value, value, "%q", raw)
	}
}
