package idempotent

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/internal/inspect"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/store"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// An Inspector lists, shows and settles the keys of all namespaces, whatever their T, for operators and their
// tools. It may be used by any number of goroutines, and has nothing to close. If the client's user lacks a right, the
// error names it; docs/redis.md has the rights of a reader and of an operator.
type Inspector struct {
	client redis.UniversalClient
}

// NewInspector returns an Inspector on a client, which stays the caller's. It accepts the clients that New accepts,
// but for a Ring that does not list its shards, and sends nothing to Redis.
func NewInspector(client redis.UniversalClient) (*Inspector, error) {
	cfg := defaultConfig("inspector")
	if err := validateConfig(&cfg, client); err != nil {
		return nil, err
	}
	if !topology.CanSubscribe(client) {
		return nil, invalid("NewInspector", "client", fmt.Sprintf("a %T, which does not say which servers it spreads keys over", client), "one that has ForEachShard, or does not spread keys")
	}
	return &Inspector{client: client}, nil
}

// An Entry is one key as it is stored, without its payload.
type Entry struct {
	Namespace, Key string
	// Server is the address of the master or shard, "" for a client that speaks to one server, and from Inspect.
	Server string
	Status
	// Err says why a record cannot be read, for StateUnreadable. It matches ErrCorruptRecord.
	Err error
	// RecordedAt is when the outcome was recorded or, without one, when the execution began, by its process's clock.
	RecordedAt time.Time
	// Codec names the codec of a recorded value: "msgpack", "JSON", "raw" or "custom".
	Codec string
	// TraceID is the trace of the execution in hexadecimal digits, "" if it was not sampled.
	TraceID string
	// Fingerprint is that of the request, nil without one.
	Fingerprint []byte
}

var stateMeanings = [...]string{
	StateAbsent:       "Nothing is stored: no call has begun, or the record expired or was forgotten. The next Run runs fn.",
	StateRunning:      "A process runs fn and holds the lease. Wait; if it died, the next Run notices when the lease ends.",
	StateAbandoned:    "An execution ended without an outcome; what it did is not known. The next Run does what WithInterrupted says.",
	StateInterrupted:  "An execution ended without an outcome, and every Run is refused. Find out what it did; then resolve or forget.",
	StateSucceeded:    "A value is recorded, and every Run returns it.",
	StateFailed:       "An error or a panic is recorded, and every Run returns it. If it was no final answer, forget.",
	StateValueNotKept: "fn succeeded, and its value could not be stored; every Run is refused. Resolve with the value.",
	StateUnreadable:   "The record is damaged, foreign or of a newer version; every Run is refused. Find out what happened; then forget.",
}

// Meaning says to an operator what is known of a key in this state, and what settles it.
func (s State) Meaning() string {
	if int(s) >= len(stateMeanings) {
		return ""
	}
	return stateMeanings[s]
}

// A Filter selects entries. The zero Filter selects all.
type Filter struct {
	Namespace string        // "" for all
	KeyPrefix string        // needs a Namespace
	States    []State       // none for all
	Owner     string        // "" for all; only records without an outcome have one
	MinAge    time.Duration // 0 for all; more leaves out what is unreadable, since its age is not known

	// Batch is the number of names that Redis looks at in one step: 500 by default, 10,000 at most.
	Batch int
	// Pause is the time between two steps, which leaves the server to others: 50 ms by default, negative for none.
	Pause time.Duration
}

const (
	defaultBatch = 500
	maxBatch     = 10_000
	defaultPause = 50 * time.Millisecond
)

// scan returns the Scan that finds what f may select.
func (f *Filter) scan(client redis.UniversalClient) (*inspect.Scan, error) {
	switch {
	case f.Namespace != "" && !namespacePattern.MatchString(f.Namespace):
		return nil, invalid("Filter", "Namespace", fmt.Sprintf("%q", f.Namespace), namespacePattern.String())
	case f.KeyPrefix != "" && f.Namespace == "":
		return nil, invalid("Filter", "KeyPrefix", "given without a Namespace", "both")
	case f.Batch < 0 || f.Batch > maxBatch:
		return nil, invalid("Filter", "Batch", fmt.Sprint(f.Batch), fmt.Sprintf("1 to %d, or 0 for %d", maxBatch, defaultBatch))
	}
	s := &inspect.Scan{Client: client, Namespace: f.Namespace, KeyPrefix: f.KeyPrefix, Batch: f.Batch, Pause: f.Pause}
	if s.Batch == 0 {
		s.Batch = defaultBatch
	}
	if s.Pause == 0 {
		s.Pause = defaultPause
	}
	return s, nil
}

func (f *Filter) selects(e *Entry) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, e.State)) &&
		(f.Owner == "" || f.Owner == e.Owner) && e.Age >= f.MinAge
}

// List yields the entries that f selects on every master or shard, in no order. It reads with SCAN, so an entry that
// is written or moves to another server meanwhile may come twice or not at all. An error is the last that it yields.
func (i *Inspector) List(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		scan, err := f.scan(i.client)
		if ctx == nil {
			err = invalid("List", "ctx", "nil", "a context")
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for found, err := range scan.All(ctx) {
			if err != nil {
				yield(Entry{}, readError(ctx, err))
				return
			}
			if e := entryOf(&found); f.selects(&e) && !yield(e, nil) {
				return
			}
		}
	}
}

func entryOf(f *inspect.Found) Entry {
	e := Entry{Namespace: f.Namespace, Key: f.Key, Server: f.Server}
	rec, err := f.Metadata()
	if err != nil {
		e.Err, e.Status = err, Status{State: StateUnreadable, Size: f.Size, TTLLeft: max(0, f.TTL)}
		return e
	}
	e.Status, e.RecordedAt, e.Fingerprint = statusOfRecord(rec, f.Size, f.TTL), rec.At, rec.Fingerprint
	if rec.Outcome == record.OutcomeValue {
		e.Codec = rec.Codec.String()
	}
	if origin := rec.Extensions.Get(record.FieldOrigin); len(origin) >= traceIDSize {
		e.TraceID = hex.EncodeToString(origin[:traceIDSize])
	}
	return e
}

const traceIDSize = 16

// readError names the right that a read lacks.
func readError(ctx context.Context, err error) error {
	if right := inspect.MissingRight(err); right != "" {
		return lacking(err, right)
	}
	return storeError(ctx, err)
}

func lacking(err error, rights ...string) error {
	if !errorsIsAny(err, ErrUnavailable) {
		err = redisError(ErrUnavailable, err)
	}
	return &causeError{text: fmt.Sprintf("%v; add %s to the user", err, strings.Join(rights, " ")), cause: err}
}

// Inspect returns what is stored under one key, read from its master. If nothing is, the State is StateAbsent; if it
// cannot be read, StateUnreadable. Neither is an error.
func (i *Inspector) Inspect(ctx context.Context, namespace, key string) (Entry, error) {
	e := Entry{Namespace: namespace, Key: key}
	if err := checkName(ctx, namespace, key); err != nil {
		return e, err
	}
	switch found, err := inspect.One(ctx, i.client, record.Name(namespace, key)); {
	case err != nil:
		return e, readError(ctx, err)
	case found != nil:
		e = entryOf(found)
	}
	return e, nil
}

func checkName(ctx context.Context, namespace, key string) error {
	switch {
	case ctx == nil:
		return invalid("Inspector", "ctx", "nil", "a context")
	case !namespacePattern.MatchString(namespace):
		return invalid("Inspector", "namespace", fmt.Sprintf("%.70q", namespace), namespacePattern.String())
	}
	return checkKey(key)
}

// Payload returns the encoded value of a key and the name of its codec. For a recorded error or panic, it returns the
// text and "error". ErrNotFound means that neither is recorded.
func (i *Inspector) Payload(ctx context.Context, namespace, key string) (payload []byte, codec string, err error) {
	if err := checkName(ctx, namespace, key); err != nil {
		return nil, "", err
	}
	rec, err := inspect.Payload(ctx, i.client, record.Name(namespace, key))
	switch {
	case errorsIsAny(err, ErrCorruptRecord):
		return nil, "", err
	case err != nil:
		return nil, "", readError(ctx, err)
	case rec == nil:
		return nil, "", ErrNotFound
	}
	switch rec.Outcome {
	case record.OutcomeValue:
		return rec.Payload, rec.Codec.String(), nil
	case record.OutcomeError, record.OutcomePanic:
		return []byte(NewErrorRegistry().decode(rec, func(string) {}).Error()), "error", nil
	}
	return nil, "", ErrNotFound
}

// Forget does what [Executor.Forget] does, and returns what was stored just before.
func (i *Inspector) Forget(ctx context.Context, namespace, key string) (was Entry, err error) {
	if was, err = i.Inspect(ctx, namespace, key); err != nil {
		return was, err
	}
	c, err := i.core(namespace, record.CodecCustom)
	if err != nil {
		return was, err
	}
	defer c.close()
	return was, c.refusal(ctx, c.forget(ctx, key), "get", "getrange", "del")
}

// Resolve does what [Executor.Resolve] does, with a value that the codec has encoded already: "msgpack", "JSON" or
// "raw". It refuses bytes that the codec cannot read with ErrInvalidOption; whether they make a T of the executor's is
// not known here.
func (i *Inspector) Resolve(ctx context.Context, namespace, key string, payload []byte, codec string, opts ...RunOption) (was Status, err error) {
	if err := checkName(ctx, namespace, key); err != nil {
		return was, err
	}
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
	was, err = c.resolve(ctx, key, &run, payload)
	return was, c.refusal(ctx, err, "get", "getrange", "set", "pexpire")
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

// refusal adds to the error of a step which of its rights the user lacks. Redis 7.0 does not say so of commands within
// a script, so Check finds out.
func (c *core) refusal(ctx context.Context, err error, commands ...string) error {
	if err == nil || !inspect.Refused(err) {
		return err
	}
	var rights []string
	commands = append(commands, "pttl", "publish", "spublish", "eval", "evalsha")
	findings, _ := c.check(ctx)
	for _, f := range findings {
		command, _, refused := strings.Cut(f.Detail, " is refused")
		switch {
		case f.Code == idemcheck.FindingMissingKeys:
			rights = append(rights, "~"+record.Name(c.namespace, "*"))
		case f.Code == idemcheck.FindingMissingChannels:
			rights = append(rights, "&"+record.Name(c.namespace, "*"))
		case refused && slices.Contains(commands, strings.ToLower(command)):
			rights = append(rights, "+"+strings.ToLower(command))
		}
	}
	if slices.Sort(rights); rights == nil {
		return err
	}
	return lacking(err, slices.Compact(rights)...)
}
