package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/pg/inbox"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

const secret = "secret of the shop"

// A whole inbox without Redis: deliveries come twice, the first attempt of every third handler fails, and two processes'
// worth of workers handle them.
func TestInboxHandlesEachEventOnce(t *testing.T) {
	pool := newPool(t, "&pool_max_conns=20")
	_, err := pool.Exec(t.Context(), `CREATE TABLE ledger (key text NOT NULL)`)
	require.NoError(t, err)
	var mu sync.Mutex
	attempts := map[string]int{}
	router := webhook.NewRouter()
	router.Handle("github", "*", func(ctx context.Context, j *webhook.Job) error {
		mu.Lock()
		attempts[j.ID]++
		first := attempts[j.ID] == 1
		mu.Unlock()
		if _, err := inbox.Tx(ctx).Exec(ctx, `INSERT INTO ledger VALUES ($1)`, j.ID); err != nil {
			return err
		}
		if first && j.ID[len(j.ID)-1]%3 == 0 {
			return errors.New("after the write")
		}
		return nil
	}, webhook.Backoff(time.Millisecond, time.Millisecond))
	scheme, err := webhook.GitHub([]string{secret})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	var inboxes []*webhook.Inbox
	for range 2 {
		in, err := webhook.New(t.Context(), newStore(t, pool), []webhook.Source{{Name: "github", Scheme: scheme}}, router,
			webhook.WithUnsafeStore(), webhook.WithWorkers(4), webhook.WithPoll(5*time.Millisecond))
		require.NoError(t, err)
		inboxes = append(inboxes, in)
		workers.Go(func() { assert.NoError(t, in.Work(ctx)) })
	}
	const events = 30
	for i := range events {
		for n := range 2 {
			w := httptest.NewRecorder()
			r := webhooktest.GitHub("push", fmt.Sprintf("guid-%d", i), secret).Request(t, "/webhooks/github", []byte(`{}`), time.Now())
			r.SetPathValue("source", "github")
			inboxes[(i+n)%2].ServeHTTP(w, r)
			require.Equal(t, 200, w.Code, w.Body)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		b, err := newStore(t, pool).Backlog(t.Context())
		require.NoError(t, err)
		if b.Unsettled() == 0 {
			break
		}
		require.True(t, time.Now().Before(deadline), "%+v after %v", b, patience)
	}
	stop()
	workers.Wait()
	for _, in := range inboxes {
		assert.NoError(t, in.Close())
	}
	var rows, distinct int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT key) FROM ledger`).Scan(&rows, &distinct))
	assert.Equal(t, events, rows)
	assert.Equal(t, events, distinct)
	page, _, err := newStore(t, pool).Find(t.Context(), webhook.Filter{States: []webhook.State{webhook.Done}}, "", 100)
	require.NoError(t, err)
	assert.Len(t, page, events)
	for _, r := range page {
		assert.Equal(t, 2, r.Deliveries)
	}
}
