package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
)

const redriveNamespace = "redrives"

// redriver redrives all dead letters and prints how many it queued.
func redriver() error {
	opts, err := redis.ParseURL(os.Getenv(childRedis))
	if err != nil {
		return err
	}
	scheme, err := webhook.Stripe([]string{secret})
	if err != nil {
		return err
	}
	var store webhook.Store
	if store, err = webhook.NewRedisStore(redis.NewClient(opts), redriveNamespace); err != nil {
		return err
	}
	if os.Getenv(childPauses) != "" {
		store = &pausingStore{Store: store}
	}
	ctx := context.Background()
	in, err := webhook.New(ctx, store, []webhook.Source{{Name: "stripe", Scheme: scheme}}, webhook.NewRouter(), webhook.WithUnsafeStore())
	if err != nil {
		return err
	}
	done, err := in.Redrive(ctx, webhook.Filter{}, webhook.RedriveOptions{Name: "fix-1", PerSecond: 1e6})
	fmt.Println(done.Queued)
	return err
}

// A pausingStore stops for ever in the middle of the second page of a redrive, and prints that it does.
type pausingStore struct {
	webhook.Store
	pages int
}

func (s *pausingStore) Redrive(ctx context.Context, events []webhook.Ref, r webhook.Requeue) (int, error) {
	if s.pages++; s.pages < 2 {
		return s.Store.Redrive(ctx, events, r)
	}
	n, err := s.Store.Redrive(ctx, events[:len(events)/2], r)
	fmt.Println("paused after", n, err)
	select {}
}

// 10,000 dead letters are redriven under one name by five processes at once, of which two are killed in the middle. Each
// is redriven once, and has its effect once.
func TestRedriveRunsEachOnce(t *testing.T) {
	letters, people, kills := 10_000, 5, 2
	if testing.Short() {
		letters = 2000
	}
	server := redistest.Start(t)
	var did effects
	var fixed atomic.Bool
	router := webhook.NewRouter()
	router.Handle("stripe", "*", func(_ context.Context, j *webhook.Job) error {
		if !fixed.Load() {
			return webhook.Permanent(errors.New("unknown order"))
		}
		did.add(j.Reference, j.ID)
		return nil
	})
	store := open(t, server.Client(t), redriveNamespace)
	o := newOfficeOf(t, store, []webhook.Source{stripeSource(t)}, router, webhook.WithLogger(slog.New(slog.DiscardHandler)))
	o.work()
	var senders sync.WaitGroup
	for s := range 16 {
		senders.Go(func() {
			for i := s; i < letters; i += 16 {
				acceptLetter(t, store, i)
			}
		})
	}
	senders.Wait()
	o.wait(letters, webhook.Dead)
	fixed.Store(true)
	dry, err := o.Redrive(t.Context(), webhook.Filter{}, webhook.RedriveOptions{Name: "fix-1", DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, webhook.Redriven{Found: letters}, dry)
	assert.Empty(t, did.list())

	var all sync.WaitGroup
	for i := range people {
		all.Go(func() { redriveInProcess(t, server, i < kills) })
	}
	all.Wait()
	o.wait(letters, webhook.Done)
	found := 0
	for r, err := range o.Find(t.Context(), webhook.Filter{}) {
		require.NoError(t, err)
		found++
		require.Equal(t, webhook.Done, r.State)
		require.Equal(t, 1, r.Redrives)
		require.Equal(t, 2, r.Attempts)
		require.Equal(t, 1, did.times(reference(r)))
	}
	require.Equal(t, letters, found)
	again, err := o.Redrive(t.Context(), webhook.Filter{States: []webhook.State{webhook.Done}}, webhook.RedriveOptions{Name: "fix-1"})
	require.NoError(t, err)
	assert.Equal(t, webhook.Redriven{Found: letters}, again, "the same name is the same redrive")
}

func letterID(i int) string { return "evt_letter_" + strconv.Itoa(i) }

func acceptLetter(t *testing.T, store webhook.Store, i int) {
	id := letterID(i)
	_, err := store.Accept(t.Context(), webhook.Arrival{
		Key: idempotent.HashKey(id), Source: "stripe", Event: webhook.Event{ID: id, Type: "charge.captured", Object: "ch_" + id},
		Payload: webhook.Payload{Body: []byte("{}")}, Receipt: webhook.Receipt{At: time.Now()},
		Retention: webhook.DefaultRetention(), Step: webhook.Step{At: time.Now(), State: webhook.Queued},
	})
	if err != nil {
		t.Error(err)
	}
}

// redriveInProcess redrives in a process, which is killed when it pauses, if that is asked for.
func redriveInProcess(t *testing.T, server *redistest.Server, kill bool) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childRedis+"="+server.URL())
	cmd.Stderr = os.Stderr
	if !kill {
		if out, err := cmd.Output(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	cmd.Env = append(cmd.Env, childPauses+"=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	var said strings.Builder
	for part := make([]byte, 1); !strings.HasSuffix(said.String(), "\n"); said.Write(part) {
		if _, err := out.Read(part); err != nil {
			t.Errorf("the process ended before it paused: %v, %s", err, &said)
			break
		}
	}
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended before it was killed")
	}
}
