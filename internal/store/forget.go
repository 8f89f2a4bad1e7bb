package store

import (
	"bytes"
	"cmp"
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// maxForgetting is how often a deletion that fails is sent.
const maxForgetting = 4

// Remove deletes what is stored, and nothing else: a deletion without a reply may arrive late, when the
// operation has run again already. It must not delete that record, because fn would run a third time.
func (s *Store) Remove(ctx context.Context, name string) error {
	got, err := s.Read(ctx, name)
	strange := rediserr.IsWrongType(err)
	if err != nil && !strange {
		return err
	}
	seen, doubtful := HeadOf(got.Raw), false
	pause := backoff.Backoff{First: 10 * time.Millisecond, Limit: time.Second}
	for failures := 0; ; {
		there, err := s.forget(ctx, name, seen, strange)
		switch {
		case err == nil && (doubtful || len(there) == 0 || bytes.Equal(there, seen)):
			return nil
		case err == nil: // the record changed since it was read
			if seen = there; ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if failures++; failures == maxForgetting {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.Next()):
		}
		doubtful = true
		got, failed := s.Read(ctx, name)
		switch {
		case failed != nil && !rediserr.IsWrongType(failed):
			return err
		case !sameExecution(HeadOf(got.Raw), seen):
			return nil
		}
		seen = HeadOf(got.Raw)
	}
}

// sameExecution reports whether two heads are of records of one owner.
func sameExecution(a, b []byte) bool {
	return bytes.Equal(a, b) || len(a) == record.HeadSize && len(b) == record.HeadSize && bytes.Equal(a[2:], b[2:])
}

// forget deletes the record whose head was seen, and publishes that to waiters and to caches. It returns
// the head of the record found; another one than seen stays. anyType deletes whatever is there, for a
// name that holds no string. It is sent once, because a second delivery might delete a record that was
// made since.
func (s *Store) forget(ctx context.Context, name string, head []byte, anyType bool) (there []byte, err error) {
	send := func(verb, script string) (*redis.Cmd, error) {
		cmd := redis.NewCmd(ctx, verb, script, one, name, s.Publish, []byte{MessageFree}, s.CacheChannel, head, anyType)
		cmd.SetFirstKeyPos(3)
		return cmd, s.Send(ctx, s.Client, sentOnce{cmd})
	}
	cmd, err := send("evalsha", forgetScript.Hash())
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		cmd, err = send("eval", forgetSource)
	}
	text, broken := cmd.Text()
	return []byte(text), cmp.Or(err, broken)
}

// sentOnce is a command that go-redis must not retry.
type sentOnce struct{ *redis.Cmd }

func (sentOnce) NoRetry() bool { return true }
