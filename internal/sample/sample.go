// Package sample has records in every state, for the tests and pictures of the operator's tools.
package sample

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent/internal/record"
)

// HostileKey moves the cursor of a terminal, and is markup in a page.
const HostileKey = "<script>document.title='x'</script>\x1b[2J\x1b[31m\"'&\x00"

// HTTPKey is the key of a request that package idemhttp has recorded.
const HTTPKey = "5f2b7c9d0e1a4f3b8c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b"

// Secret is in no payload but that of payments/order-41, and in no metadata.
const Secret = "ch_3PSecret41" //nolint:gosec // of no account

// A stored is one record of the sample.
type stored struct {
	namespace, key string
	age, ttl       time.Duration
	rec            record.Record
}

// Store writes the sample. Ages and TTLs are of days, so that they look the same a while later.
func Store(ctx context.Context, client redis.UniversalClient) error {
	const half, day = 30 * time.Minute, 24 * time.Hour
	owner := func(name string) record.Extensions {
		return record.Extensions(nil).With(record.FieldOwner, []byte(name))
	}
	value, err := msgpack.Marshal(map[string]any{"ID": Secret, "Amount": 4200})
	if err != nil {
		return err
	}
	failure, err := msgpack.Marshal(map[string]any{"t": "card declined: insufficient funds"})
	if err != nil {
		return err
	}
	trace := record.Extensions(nil).With(record.FieldOrigin, append([]byte("\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36"), make([]byte, 9)...))
	running := record.Record{Kind: record.KindRunning, Attempt: 1, Lease: time.Minute, Retention: 7 * day}
	live, dead := running, running
	live.Extensions, dead.Extensions, dead.Attempt = owner("web-3:977"), owner("web-7:4211"), 2
	done := func(outcome record.Outcome, codec record.CodecID, payload []byte, ext record.Extensions) record.Record {
		return record.Record{Kind: record.KindDone, Attempt: 1, Outcome: outcome, Codec: codec, Payload: payload, Extensions: ext}
	}
	http := append([]byte{1, 0, 0xc9, 1, 0, 1, 12}, "Content-Type\x01\x10application/json\x00\x00{\"id\":\"pay_1\"}"...)
	all := []stored{
		{"payments", "order-41", 26*time.Hour + half, 6*day + half, done(record.OutcomeValue, record.CodecMsgpack, value, trace)},
		{"payments", "order-42", 29*time.Hour + half, 6*day + half, done(record.OutcomeInterrupted, 0, nil, owner("web-7:4211"))},
		{"payments", "order-43", 25*time.Hour + half, 7*day + half/20 + 90*time.Minute, live},
		{"payments", "order-44", 3*day + half, 4*day + half, done(record.OutcomeError, 0, failure, nil)},
		{"payments", "order-45", 28*time.Hour + half, 6*day + half, dead},
		{"reports", "2026-11", 50*time.Hour + half, 5*day + half, done(record.OutcomeValueNotKept, 0, nil, nil)},
		{"api", HTTPKey, 5*day + half, 2*day + half, done(record.OutcomeValue, record.CodecCustom, http, nil)},
	}
	for i, s := range all {
		s.rec.Token, s.rec.At = record.NewToken(), time.Now().Add(-s.age)
		if i%2 == 0 {
			s.rec.Fingerprint = []byte{0xf1, 0x9e, byte(i)}
		}
		if err := client.Set(ctx, record.Name(s.namespace, s.key), s.rec.Encode(), s.ttl).Err(); err != nil {
			return fmt.Errorf("sample: %w", err)
		}
	}
	return client.Set(ctx, record.Name("payments", HostileKey), "no record", 3*day+half).Err()
}
