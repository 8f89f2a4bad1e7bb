package inspect

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// A Found is what is stored under one name, without its payload if that is long.
type Found struct {
	Namespace, Key string
	Server         string
	Head           []byte // empty if nothing is stored, or no string
	Size           int
	TTL            time.Duration // negative without an expiry
	NoString       bool          // another type, which no version of this library wrote
}

// Metadata returns the record without its payload, or an ErrCorrupt that says why it cannot be read.
func (f *Found) Metadata() (*record.Record, error) {
	if f.NoString {
		return nil, record.Corrupt("is no string")
	}
	return record.DecodeMetadata(f.Head, f.Size)
}

// One reads the metadata of one name from its master. It is nil if nothing is stored.
func One(ctx context.Context, client redis.UniversalClient, name string) (found *Found, err error) {
	err = onMaster(ctx, client, name, func(c redis.UniversalClient) error {
		var batch []Found
		asked := ask(ctx, c, []string{name}, false)
		if err := asked[0].addTo(&batch); err != nil || batch == nil {
			return err
		}
		found = &batch[0]
		return nil
	})
	return found, err
}

// Payload reads a whole record from its master. It is nil if nothing is stored.
func Payload(ctx context.Context, client redis.UniversalClient, name string) (rec *record.Record, err error) {
	var raw []byte
	err = onMaster(ctx, client, name, func(c redis.UniversalClient) (err error) {
		raw, err = c.Get(ctx, name).Bytes()
		return err
	})
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case rediserr.IsWrongType(err):
		return nil, record.Corrupt("is no string")
	case err != nil:
		return nil, err
	}
	return record.Decode(raw)
}

// onMaster runs a read on the master that has name, because a client that sends reads to replicas would show the
// past. If that master redirects, the read is repeated on the client, which follows.
func onMaster(ctx context.Context, client redis.UniversalClient, name string, read func(redis.UniversalClient) error) error {
	_, node, err := topology.Of(client).Node(ctx, name)
	if err != nil {
		return err
	}
	if err = read(node); isRedirect(err) {
		err = read(client)
	}
	return err
}

func isRedirect(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")
}

// A metadata is what is asked about one name.
type metadata struct {
	name string
	head *redis.StringCmd
	size *redis.IntCmd
	ttl  *redis.DurationCmd
}

func (m *metadata) err() error { return cmp.Or(m.head.Err(), m.size.Err(), m.ttl.Err()) }

// ask sends the commands about names in one pipeline. asking makes a master answer about a slot that moves to it.
func ask(ctx context.Context, client redis.UniversalClient, names []string, asking bool) []metadata {
	pipe := client.Pipeline()
	before := func() {
		if asking {
			pipe.Do(ctx, "asking")
		}
	}
	asked := make([]metadata, len(names))
	for i, name := range names {
		asked[i].name = name
		before()
		asked[i].head = pipe.GetRange(ctx, name, 0, record.MaxMetadataSize-1)
		before()
		asked[i].size = pipe.StrLen(ctx, name)
		before()
		asked[i].ttl = pipe.PTTL(ctx, name)
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	return asked
}

// readBatch reads the metadata of names that a server has listed. Names that have gone or moved since are left out.
func readBatch(ctx context.Context, client redis.UniversalClient, names []string) ([]Found, error) {
	batch := make([]Found, 0, len(names))
	var moving []string
	for _, m := range ask(ctx, client, names, false) {
		if isRedirect(m.err()) {
			moving = append(moving, m.name)
			continue
		}
		if err := m.addTo(&batch); err != nil {
			return nil, err
		}
	}
	if moving == nil {
		return batch, nil
	}
	for _, m := range ask(ctx, client, moving, true) {
		if isRedirect(m.err()) {
			continue
		}
		if err := m.addTo(&batch); err != nil {
			return nil, err
		}
	}
	return batch, nil
}

// addTo adds what was found, unless the name has gone.
func (m *metadata) addTo(batch *[]Found) error {
	f := Found{Head: []byte(m.head.Val()), Size: int(m.size.Val()), TTL: m.ttl.Val()}
	f.Namespace, f.Key, _ = strings.Cut(strings.TrimPrefix(m.name, record.KeyPrefix), ":")
	err := m.err()
	switch f.NoString = rediserr.IsWrongType(err); {
	case err != nil && !f.NoString:
		return err
	case len(f.Head) == 0 && !f.NoString || f.Key == "":
		return nil
	}
	if len(f.Head) < record.MaxMetadataSize { // whole; the size may be that of a record written in between
		f.Size = len(f.Head)
	}
	*batch = append(*batch, f)
	return nil
}
