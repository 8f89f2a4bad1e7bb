package store

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/record"
)

func memoryClient(t *testing.T) *redis.Client {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Commits, renewals and releases by anybody but the owner change nothing.
func TestOnlyTheOwnerWrites(t *testing.T) {
	client := memoryClient(t)
	s := New(client, 1<<10, Ack{})
	name := record.Name("default", "order-1")
	owner := record.Record{Kind: record.KindRunning, Token: record.NewToken(), Attempt: 1, At: time.Now(), Lease: time.Minute, Retention: time.Hour}
	require.NoError(t, client.Set(t.Context(), name, owner.Encode(), time.Hour+time.Minute).Err())
	before, err := s.Read(t.Context(), name)
	require.NoError(t, err)

	stranger := record.NewToken()
	done := record.Record{Kind: record.KindDone, Token: stranger, Attempt: 1, At: time.Now(), Outcome: record.OutcomeValue}
	stored, err := s.Commit(t.Context(), nil, &Commit{Name: name, Done: done.Encode(), TTL: time.Hour})
	require.NoError(t, err)
	assert.False(t, stored)
	require.NoError(t, s.Release(t.Context(), &Release{Name: name, Token: stranger, Message: []byte{MessageFree}}))
	batch := []Renewal{{Name: name, Token: &stranger, TTLMillis: (9 * time.Hour).Milliseconds()}}
	s.Renew(t.Context(), batch)
	require.NoError(t, batch[0].Err)
	assert.False(t, batch[0].Mine)
	_, taken, err := s.TakeOver(t.Context(), name, before.Raw, done.Encode(), time.Hour, &owner, false)
	require.NoError(t, err)
	assert.False(t, taken, "its lease is not over")
	_, taken, err = s.TakeOver(t.Context(), name, done.Encode(), (&record.Record{Kind: record.KindDone, Token: record.NewToken(), Attempt: 1, At: time.Now(), Outcome: record.OutcomeValue}).Encode(), time.Hour, nil, false)
	require.NoError(t, err)
	assert.False(t, taken, "it is not the record that was seen")
	other := record.Record{Kind: record.KindDone, Token: record.NewToken(), Attempt: 1, At: time.Now(), Outcome: record.OutcomeValue}
	_, taken, err = s.TakeOver(t.Context(), name, nil, other.Encode(), time.Hour, nil, false)
	require.NoError(t, err)
	assert.False(t, taken, "none was seen, and there is one")

	after, err := s.Read(t.Context(), name)
	require.NoError(t, err)
	assert.Equal(t, before.Raw, after.Raw)
	assert.LessOrEqual(t, after.TTL, before.TTL)
}
