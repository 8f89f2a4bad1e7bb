package webhook

import (
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pipeline"
)

//go:embed lua/*.lua
var luaFiles embed.FS

var (
	acceptScript  = loadScript("accept")
	takeScript    = loadScript("take")
	beginScript   = loadScript("begin")
	extendScript  = loadScript("extend")
	settleScript  = loadScript("settle")
	redriveScript = loadScript("redrive")
	eraseScript   = loadScript("erase")
)

func loadScript(name string) *redis.Script {
	src, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil { // embedded at build time
		panic(err)
	}
	return redis.NewScript(string(src))
}

// Limits and defaults of a RedisStore.
const (
	DefaultLanes = 16
	MaxLanes     = 1024

	// laneTTL is the lifetime of a lane's shared keys after their last change. It is longer than any retention in use,
	// so that it never ends a key that still has members.
	laneTTL = 10 * 365 * 24 * time.Hour
)

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,48}$`)

// A RedisStore keeps events in Redis 6.2 or later. It has lanes: an event belongs to the lane of its object or, if it
// names none, of its key. All keys of a lane share a hash tag, so that each step is one script, and the lanes spread over
// the masters of a Cluster. No key is without an expiry.
type RedisStore struct {
	rdb       redis.UniversalClient
	namespace string
	prefixes  []string // of each lane
	ack       replicaAck
	batcher   *pipeline.Batcher // of Accept; nil if its scripts are sent alone
	process   string            // part of each token
	takes     atomic.Uint64
}

// A RedisOption configures a RedisStore.
type RedisOption func(*RedisStore) error

// WithLanes sets how many lanes the store has, 1 to MaxLanes, 16 by default. It must be the same in all processes and
// cannot change while events are stored: Check reports a difference as an error. Use several times the number of masters
// that a Cluster may ever have.
func WithLanes(n int) RedisOption {
	return func(s *RedisStore) error {
		if n < 1 || n > MaxLanes {
			return fmt.Errorf("webhook: WithLanes: %d lanes; allowed: 1 to %d", n, MaxLanes)
		}
		s.prefixes = make([]string, n)
		return nil
	}
}

// WithReplicaAck makes an event accepted only once n replicas have it, so that a failover to one of them loses nothing
// that was answered with 2xx. n is 1 or more; timeout, 1 ms or more, is how long to wait for them. If too few acknowledge
// in time, Accept fails, and the provider delivers the event again. Claims and outcomes of handlers wait as well, so that
// what a failover loses of a settlement is settled again, without a second run. The default is not to wait.
func WithReplicaAck(n int, timeout time.Duration) RedisOption {
	return func(s *RedisStore) error {
		if n < 1 || timeout < time.Millisecond {
			return fmt.Errorf("webhook: WithReplicaAck: %d replicas within %v; allowed: 1 or more within 1 ms or more", n, timeout)
		}
		s.ack = replicaAck{n, timeout}
		return nil
	}
}

// NewRedisStore returns a store on a go-redis client, which stays the caller's. It does not talk to Redis. The namespace
// separates inboxes that share a Redis: 1 to 48 of the characters A-Z a-z 0-9 . _ / and -. A redis.Ring is refused: it
// sends a key to another server when one is down, so that events would be accepted twice.
func NewRedisStore(client redis.UniversalClient, namespace string, opts ...RedisOption) (*RedisStore, error) {
	s := &RedisStore{rdb: client, namespace: namespace, prefixes: make([]string, DefaultLanes), process: rand.Text()}
	var errs []error
	switch client.(type) {
	case nil:
		errs = append(errs, errors.New("webhook: NewRedisStore: client is nil; allowed: a go-redis client"))
	case *redis.Ring:
		errs = append(errs, errors.New("webhook: NewRedisStore: client is a *redis.Ring; allowed: a client of one server, a Sentinel or a Cluster"))
	}
	if !namespacePattern.MatchString(namespace) {
		errs = append(errs, fmt.Errorf("webhook: NewRedisStore: namespace is %q; allowed: 1 to 48 of A-Z a-z 0-9 . _ / -", namespace))
	}
	for i, o := range opts {
		if o == nil {
			errs = append(errs, fmt.Errorf("webhook: NewRedisStore: option %d is nil; allowed: a RedisOption", i))
			continue
		}
		errs = append(errs, o(s))
	}
	for i := range s.prefixes {
		s.prefixes[i] = fmt.Sprintf("webhook:{%s/%d}:", namespace, i)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.batcher = newBatcher(client)
	return s, nil
}

// A place is where an event lives: its lane, and its names there.
type place struct {
	lane   int
	prefix string
	tag    string // of its object; "-" if it names none
	key    string
}

// place returns the place of an event. Objects are known by 128 bits of a hash, so that names have a bounded length.
func (s *RedisStore) place(r Ref) place {
	p := place{tag: "-", key: r.Key}
	of := r.Key
	if r.Object != "" {
		sum := sha256.Sum256([]byte(strconv.Itoa(len(r.Source)) + ":" + r.Source + r.Object))
		p.tag = hex.EncodeToString(sum[:16])
		of = p.tag
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(of))
	p.lane = int(h.Sum32() % uint32(len(s.prefixes))) //nolint:gosec // at most MaxLanes
	p.prefix = s.prefixes[p.lane]
	return p
}

// placeOf returns the place of a reference in a lane.
func (s *RedisStore) placeOf(lane int, reference string) place {
	tag, key, _ := strings.Cut(reference, ":")
	return place{lane: lane, prefix: s.prefixes[lane], tag: tag, key: key}
}

func (p place) reference() string    { return p.tag + ":" + p.key }
func (p place) event() string        { return p.prefix + "event:" + p.key }
func (p place) payload() string      { return p.prefix + "payload:" + p.key }
func (p place) objects() string      { return p.prefix + "object:" + p.tag }
func (p place) state(s State) string { return p.prefix + stateName + string(s) }
func (p place) positions() string    { return p.prefix + "position:" + p.tag }

// id is the name of the string that leads from the provider's id to the event's key.
func idName(prefix, source, id string) string { return prefix + "id:" + idempotent.HashKey(source, id) }

// Names of a lane's shared keys, after its prefix.
const (
	queueName   = "queue"
	redriveName = "redrives"
	leasesName  = "leases"
	busyName    = "objects"
	waitingName = "waiting"
	tokenName   = "tokens"
	parkingName = "parked"
	stateName   = "state:" // and a state
)
