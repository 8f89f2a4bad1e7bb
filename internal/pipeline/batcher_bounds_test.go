package pipeline

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
)

// go-redis gives a pipeline one timeout, whatever it carries.
func TestPipelinesAreBounded(t *testing.T) {
	queue := func(n, size int) (queue []*ticket) {
		for range n {
			queue = append(queue, &ticket{cmd: redis.NewCmd(t.Context(), "set", "name", make([]byte, size))})
		}
		return queue
	}
	for name, test := range map[string]struct{ queued, size, reply, want int }{
		"nothing":                      {0, 0, 0, 0},
		"small ones":                   {20, 100, 100, 20},
		"very many":                    {3000, 10, 10, MaxCommands},
		"large commands":               {20, 400 << 10, 0, 3},
		"large replies":                {20, 10, 400 << 10, 3},
		"one that is too large alone":  {20, 2 << 20, 0, 1},
		"replies too large, by itself": {20, 10, 2 << 20, 1},
	} {
		assert.Equal(t, test.want, fitting(queue(test.queued, test.size), test.reply), name)
	}
}
