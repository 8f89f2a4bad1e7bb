package rediserr_test

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/internal/rediserr"
)

func TestTextLeavesArgumentsOut(t *testing.T) {
	err := errors.New("ERR unknown command 'evalsha', with args beginning with: 'secret result'")
	assert.Equal(t, "ERR unknown command 'evalsha'", rediserr.Text(err))
	assert.Equal(t, "i/o timeout", rediserr.Text(errors.New("i/o timeout")))
}

func send(panics any) (err error) {
	defer rediserr.RecoverTo(&err)
	if panics != nil {
		panic(panics)
	}
	return errors.New("refused")
}

// A hook that panics with an error of Redis must not look as if Redis had answered.
func TestPanicIsNoReply(t *testing.T) {
	assert.EqualError(t, send(nil), "refused")
	assert.EqualError(t, send("hook"), "panic: hook")
	err := send(redis.Nil)
	assert.EqualError(t, err, "panic: redis: nil")
	assert.NotErrorIs(t, err, redis.Nil)
}

func TestIsWrongType(t *testing.T) {
	assert.True(t, rediserr.IsWrongType(errors.New("WRONGTYPE Operation against a key holding the wrong kind of value")))
	assert.True(t, rediserr.IsWrongType(errors.New("ERR script: WRONGTYPE Operation")), "as a script says it")
	assert.False(t, rediserr.IsWrongType(errors.New("OOM command not allowed")))
	assert.False(t, rediserr.IsWrongType(nil))
}
