package idempotent

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/inspect"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/store"
)

// An Inspector lists, shows and settles the keys of all namespaces, whatever their T, for operators and their
// tools. It may be used by any number of goroutines, and has nothing to close.
type Inspector struct {
	client redis.UniversalClient
}

// NewInspector returns an Inspector on a client, which stays the caller's. It accepts the clients that New accepts,
// and sends nothing to Redis.
func NewInspector(client redis.UniversalClient) (*Inspector, error) {
	cfg := defaultConfig("inspector")
	if err := validateConfig(&cfg, client); err != nil {
		return nil, err
	}
	return &Inspector{client: client}, nil
}

// An Entry is one key as it is stored, without its payload.
type Entry struct {
	Namespace, Key string
	// Server is the address of the master or shard, "" for a client that speaks to one server.
	Server string
	// Err matches ErrCorruptRecord if the record cannot be read; the Status then has no State.
	Err error
	Status
	// RecordedAt is when the outcome was recorded or, without one, when the execution began, by its process's clock.
	RecordedAt time.Time
	// Codec names the codec of a recorded value: "msgpack", "JSON", "raw" or "custom".
	Codec string
}

// A Filter selects entries. The zero Filter selects all.
type Filter struct {
	Namespace string  // "" for all
	KeyPrefix string  // needs a Namespace
	States    []State // none for all; StateAbsent selects records that cannot be read
	Owner     string  // "" for all
	MinAge    time.Duration

	// Batch is the number of names that Redis looks at in one step: 500 by default.
	Batch int
	// Pause is the time between two steps, which leaves the server to others: 10 ms by default, negative for none.
	Pause time.Duration
}

// List yields the entries that f selects on every master or shard, in no order. It reads with SCAN, so an entry that
// is written or moves to another server meanwhile may come twice or not at all. An error is the last that it yields.
func (i *Inspector) List(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if f.KeyPrefix != "" && f.Namespace == "" {
			yield(Entry{}, invalid("Filter", "KeyPrefix", "given without a Namespace", "both"))
			return
		}
		scan := inspect.Scan{Client: i.client, Namespace: f.Namespace, KeyPrefix: f.KeyPrefix, Batch: f.Batch, Pause: f.Pause}
		if scan.Batch <= 0 {
			scan.Batch = 500
		}
		if scan.Pause == 0 {
			scan.Pause = 10 * time.Millisecond
		}
		for found, err := range scan.All(ctx) {
			if err != nil {
				yield(Entry{}, storeError(ctx, err))
				return
			}
			if e := entryOf(found); f.selects(&e) && !yield(e, nil) {
				return
			}
		}
	}
}

func (f *Filter) selects(e *Entry) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, e.State)) &&
		(f.Owner == "" || f.Owner == e.Owner) && e.Age >= f.MinAge
}

func entryOf(f inspect.Found) Entry {
	e := Entry{Namespace: f.Namespace, Key: f.Key, Server: f.Server}
	rec, err := record.DecodeMetadata(f.Head, f.Size)
	if err != nil {
		e.Err, e.Size, e.TTLLeft = err, f.Size, max(0, f.TTL)
		return e
	}
	e.Status, e.RecordedAt = statusOfRecord(rec, f.Size, f.TTL), rec.At
	if rec.Outcome == record.OutcomeValue {
		e.Codec = rec.Codec.String()
	}
	return e
}

// Inspect returns what is stored under one key. If nothing is, the State is StateAbsent and there is no error.
func (i *Inspector) Inspect(ctx context.Context, namespace, key string) (Entry, error) {
	e, _, err := i.read(ctx, namespace, key)
	return e, err
}

// Payload returns the encoded value of a key and the name of its codec. ErrNotFound means that no value is recorded.
func (i *Inspector) Payload(ctx context.Context, namespace, key string) (payload []byte, codec string, err error) {
	e, raw, err := i.read(ctx, namespace, key)
	switch {
	case err != nil:
		return nil, "", err
	case e.Err != nil:
		return nil, "", e.Err
	case e.State != StateSucceeded:
		return nil, "", ErrNotFound
	}
	rec, err := record.Decode(raw)
	if err != nil {
		return nil, "", err
	}
	return rec.Payload, e.Codec, nil
}

func (i *Inspector) read(ctx context.Context, namespace, key string) (e Entry, raw []byte, err error) {
	e = Entry{Namespace: namespace, Key: key}
	c, err := i.core(namespace, record.CodecCustom)
	if err != nil {
		return e, nil, err
	}
	defer c.close()
	if err := c.enter(ctx, key); err != nil {
		return e, nil, err
	}
	defer c.group.Leave()
	got, err := c.store.Read(ctx, record.Name(namespace, key))
	if err != nil || got.Raw == nil {
		if err != nil {
			err = storeError(ctx, err)
		}
		return e, nil, err
	}
	return entryOf(inspect.Found{Namespace: namespace, Key: key, Head: got.Raw, Size: len(got.Raw), TTL: got.TTL}), got.Raw, nil
}

// Forget does what [Executor.Forget] does.
func (i *Inspector) Forget(ctx context.Context, namespace, key string) error {
	c, err := i.core(namespace, record.CodecCustom)
	if err != nil {
		return err
	}
	defer c.close()
	return c.forget(ctx, key)
}

// Resolve does what [Executor.Resolve] does, with a value that the codec has encoded already: "msgpack", "JSON" or
// "raw". It refuses bytes that the codec cannot read with ErrInvalidOption; whether they make a T of the executor's is
// not known here.
func (i *Inspector) Resolve(ctx context.Context, namespace, key string, payload []byte, codec string, opts ...RunOption) (was Status, err error) {
	id, err := codecNamed(codec, payload)
	if err != nil {
		return was, err
	}
	c, err := i.core(namespace, id)
	if err != nil {
		return was, err
	}
	defer c.close()
	run := c.defaults
	for _, o := range opts {
		if o == nil {
			return was, invalid("Resolve", "option", "nil", "a RunOption")
		}
		o.applyRun(&run)
	}
	if err := validateRun(&run); err != nil {
		return was, err
	}
	run.derive(c.lease)
	return c.resolve(ctx, key, &run, payload)
}

func codecNamed(name string, payload []byte) (record.CodecID, error) {
	readable, id := true, record.CodecRaw
	switch strings.ToLower(name) {
	case "msgpack":
		id = record.CodecMsgpack
		_, err := Msgpack[any]().Decode(payload)
		readable = err == nil
	case "json":
		id, readable = record.CodecJSON, json.Valid(payload)
	case "raw":
	default:
		return 0, invalid("Resolve", "codec", fmt.Sprintf("%.20q", name), "msgpack, JSON or raw")
	}
	if !readable {
		return 0, invalid("Resolve", "payload", fmt.Sprintf("%d bytes that are not %v", len(payload), id), "one encoded value")
	}
	return id, nil
}

// core returns a core for one operation on a namespace; the caller closes it.
func (i *Inspector) core(namespace string, codec record.CodecID) (*core, error) {
	cfg := defaultConfig(namespace)
	if err := validateConfig(&cfg, i.client); err != nil {
		return nil, err
	}
	return newCore(&cfg, store.New(i.client, cfg.messageLimit, cfg.ack), codec, nil), nil
}
