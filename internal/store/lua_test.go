package store

import (
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/record"
)

const (
	testName  = "idempotent:default:order-1"
	lease     = time.Minute
	retention = time.Hour
)

// A bench is a Store on a server in memory, whose time the test moves.
type bench struct {
	*Store
	t      *testing.T
	server *miniredis.Miniredis
	client *redis.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	return &bench{Store: New(client, 1<<10, Ack{}), t: t, server: server, client: client}
}

func running() *record.Record {
	return &record.Record{Kind: record.KindRunning, Token: record.NewToken(), Attempt: 1, At: time.Now(), Lease: lease, Retention: retention}
}

func done(token record.Token) *record.Record {
	return &record.Record{Kind: record.KindDone, Token: token, Attempt: 1, At: time.Now(), Outcome: record.OutcomeValue}
}

func (b *bench) put(r *record.Record, ttl time.Duration) {
	b.t.Helper()
	require.NoError(b.t, b.client.Set(b.t.Context(), testName, r.Encode(), ttl).Err())
}

func (b *bench) stored() []byte {
	b.t.Helper()
	raw, err := b.client.Get(b.t.Context(), testName).Bytes()
	require.NoError(b.t, err)
	return raw
}

func (b *bench) takeOver(seen, next *record.Record) (taken bool) {
	b.t.Helper()
	_, taken, err := b.TakeOver(b.t.Context(), testName, seen.Encode(), next.Encode(), lease+retention, seen, false)
	require.NoError(b.t, err)
	return taken
}

// A lease is over when no more than the retention is left, and not a moment before.
func TestTakeOverWaitsForTheEndOfTheLease(t *testing.T) {
	b := newBench(t)
	owner := running()
	b.put(owner, retention+500*time.Millisecond)
	assert.False(t, b.takeOver(owner, running()), "half a second of the lease is left")
	b.put(owner, retention+time.Millisecond)
	assert.False(t, b.takeOver(owner, running()), "a millisecond is left")
	assert.Equal(t, owner.Encode(), b.stored())
	b.server.FastForward(time.Millisecond)
	assert.True(t, b.takeOver(owner, running()))
}

// go-redis may deliver a command twice. The second delivery finds its own record, which is no other
// owner's, and writes, so that WAIT on its connection means something.
func TestTakeOverKnowsItsEarlierDelivery(t *testing.T) {
	b := newBench(t)
	owner, next := running(), running()
	b.put(owner, retention)
	require.True(t, b.takeOver(owner, next))
	b.server.FastForward(10 * time.Second)
	assert.True(t, b.takeOver(owner, next))
	assert.Equal(t, lease+retention, b.server.TTL(testName), "a write sets the expiry")

	ended := done(next.Token) // in between, it was committed: that stays
	b.put(ended, time.Minute)
	assert.True(t, b.takeOver(owner, next))
	assert.Equal(t, ended.Encode(), b.stored())
	assert.Equal(t, time.Minute, b.server.TTL(testName))
}

// A late release or renewal may arrive after the commit of the same owner.
func TestReleaseAndRenewalLeaveTheOutcomeAlone(t *testing.T) {
	b := newBench(t)
	token := record.NewToken()
	outcome := done(token)
	b.put(outcome, time.Minute)
	require.NoError(t, b.Release(t.Context(), &Release{Name: testName, Token: token, Message: []byte{MessageFree}}))
	batch := []Renewal{{Name: testName, Token: &token, TTLMillis: (9 * time.Hour).Milliseconds()}}
	b.Renew(t.Context(), batch)
	require.NoError(t, batch[0].Err)
	assert.False(t, batch[0].Mine)
	assert.Equal(t, outcome.Encode(), b.stored())
	assert.Equal(t, time.Minute, b.server.TTL(testName))
}

func TestRenewalExtendsTheOwnersRecord(t *testing.T) {
	b := newBench(t)
	owner := running()
	b.put(owner, retention)
	batch := []Renewal{{Name: testName, Token: &owner.Token, TTLMillis: (lease + retention).Milliseconds()}}
	b.Renew(t.Context(), batch)
	require.NoError(t, batch[0].Err)
	assert.True(t, batch[0].Mine)
	assert.Equal(t, lease+retention, b.server.TTL(testName))
}

// What is no record may be of any size, and is refused by its first bytes.
func TestReadFetchesOnlyTheBeginningOfWhatIsNoRecord(t *testing.T) {
	b := newBench(t)
	for _, foreign := range []string{strings.Repeat("x", 1<<20), "\x02R" + strings.Repeat("x", 100), "\x01X" + strings.Repeat("x", 100)} {
		require.NoError(t, b.client.Set(t.Context(), testName, foreign, time.Minute).Err())
		got, err := b.Read(t.Context(), testName)
		require.NoError(t, err)
		assert.Equal(t, foreign[:64], string(got.Raw))
		assert.Equal(t, time.Minute, got.TTL)
	}
	owner := running()
	b.put(owner, time.Minute)
	got, err := b.Read(t.Context(), testName)
	require.NoError(t, err)
	assert.Equal(t, owner.Encode(), got.Raw)
}

func TestForgetDeletesOnlyWhatWasSeen(t *testing.T) {
	b := newBench(t)
	seen, other := running(), running()
	b.put(other, time.Minute)
	there, err := b.forget(t.Context(), testName, seen.Head(), false)
	require.NoError(t, err)
	assert.Equal(t, other.Head(), there)
	assert.Equal(t, other.Encode(), b.stored())
	there, err = b.forget(t.Context(), testName, other.Head(), false)
	require.NoError(t, err)
	assert.Equal(t, other.Head(), there)
	assert.False(t, b.server.Exists(testName))
}

// An owner whose record was forgotten, and that nobody has claimed since, may still record.
func TestCommitIsAcceptedUnlessAnotherHasTakenOver(t *testing.T) {
	b := newBench(t)
	owner := running()
	outcome := done(owner.Token)
	for range 2 { // the second finds what the first one stored
		stored, err := b.Commit(t.Context(), nil, &Commit{Name: testName, Done: outcome.Encode(), TTL: time.Minute})
		require.NoError(t, err)
		assert.True(t, stored)
		assert.Equal(t, time.Minute, b.server.TTL(testName))
		b.server.FastForward(time.Second)
	}
	b.put(running(), time.Minute)
	stored, err := b.Commit(t.Context(), nil, &Commit{Name: testName, Done: outcome.Encode(), TTL: time.Minute})
	require.NoError(t, err)
	assert.False(t, stored)
}
