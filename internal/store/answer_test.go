package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/record"
)

// An answering hook answers each command itself.
type answering func(cmd redis.Cmder) error

func (a answering) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a answering) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error { return a(cmd) }
}

func (a answering) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) (err error) {
		for _, cmd := range cmds {
			err = errors.Join(err, a(cmd))
		}
		return err
	}
}

func answered(t *testing.T, a answering) *Store {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	client.AddHook(a)
	return New(client, 1<<10, Ack{})
}

// Only a number says that an outcome is stored. A hook may let anything through.
func TestCommitWithoutAnAnswerIsNotStored(t *testing.T) {
	lost := errors.New("EOF")
	for name, test := range map[string]struct {
		value any
		err   error
		fails bool
	}{
		"stored":              {value: int64(1)},
		"text":                {value: "OK", fails: true},
		"nothing":             {fails: true},
		"an error":            {err: lost, fails: true},
		"one and an error":    {value: int64(1), err: lost, fails: true},
		"a list":              {value: []any{int64(1)}, fails: true},
		"nil beside an error": {err: redis.Nil, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := answered(t, func(cmd redis.Cmder) error {
				cmd.SetErr(test.err)
				if c, ok := cmd.(*redis.Cmd); ok && test.value != nil {
					c.SetVal(test.value)
				}
				return test.err
			})
			stored, err := s.Commit(t.Context(), nil, &Commit{Name: "name", Done: []byte("record"), TTL: time.Minute})
			assert.Equal(t, !test.fails, stored)
			assert.Equal(t, test.fails, err != nil, "%v", err)
		})
	}
}

// That nothing is stored must be the server's word: beside another error, nil is no answer.
func TestNilBesideAnErrorIsNoAnswer(t *testing.T) {
	lost := errors.New("EOF")
	cmd := redis.NewCmd(t.Context())
	cmd.SetErr(redis.Nil)
	_, err := readingOf(cmd, lost)
	assert.Equal(t, lost, err)
	got, err := readingOf(cmd, redis.Nil)
	require.NoError(t, err)
	assert.Nil(t, got.Raw)
	got, err = readingOf(cmd, nil)
	require.NoError(t, err)
	assert.Nil(t, got.Raw)
}

func TestReplyOfAnotherShapeIsAnError(t *testing.T) {
	for _, value := range []any{[]any{}, []any{"record"}, []any{"a", "b", "c"}, int64(1)} {
		cmd := redis.NewCmd(t.Context())
		cmd.SetVal(value)
		_, err := readingOf(cmd, nil)
		assert.Error(t, err, "%v", value)
	}
}

// A claim whose nil reply came with an error may not have been sent.
func TestClaimWithAnErrorIsNotMade(t *testing.T) {
	lost := errors.New("EOF")
	s := answered(t, func(cmd redis.Cmder) error { cmd.SetErr(lost); return lost })
	_, err := s.Claim(t.Context(), nil, "name", []byte("record"), int64(1000), nil, false)
	assert.ErrorIs(t, err, lost)
}

func TestRenewalWithABrokenAnswerIsAnError(t *testing.T) {
	token := record.NewToken()
	for _, value := range []any{"OK", []any{}} {
		s := answered(t, func(cmd redis.Cmder) error {
			if c, ok := cmd.(*redis.Cmd); ok {
				c.SetVal(value)
			}
			return nil
		})
		batch := []Renewal{{Name: "name", Token: &token, TTLMillis: 1000}}
		s.Renew(t.Context(), batch)
		assert.Error(t, batch[0].Err)
		assert.False(t, batch[0].Mine)
	}
}
