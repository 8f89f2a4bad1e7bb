package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/idemtest"
)

// A receipt must be there for the last delivery of its job, else that one would pay again; and the
// number of a dead execution for the delivery after it.
func TestReceiptsOutlastTheQueue(t *testing.T) {
	const redelivery = 2 * time.Minute // at most, after the death of a worker: 60 s and a look each minute
	last := maxRetry*(taskTimeout+redelivery+retryPause) + retention
	assert.Greater(t, keep, last)
	assert.Less(t, patience, taskTimeout, "who waits must give up before asynq does")
	assert.Less(t, lease, time.Minute, "a dead worker's lease must be over when asynq delivers again")
}

// A fakeBank gives the answers it was told to give, one after the other.
type fakeBank struct {
	answers chan int
	asked   chan string // the methods of the requests
}

func newWorker(t *testing.T) (*refunds, *fakeBank, *idemtest.Recorder) {
	f := &fakeBank{answers: make(chan int, 10), asked: make(chan string, 10)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked <- r.Method
		stage.Respond(w, <-f.answers, Receipt{Number: "rf_1", Cents: 4999})
	}))
	t.Cleanup(server.Close)
	seen := &idemtest.Recorder{}
	receipts, err := newReceipts(idemtest.NewRedis(t), "jobs", idempotent.WithObserver(seen))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, receipts.Close()) })
	log := func(context.Context, Refund, Receipt, idempotent.Report, error) {}
	return &refunds{receipts: receipts, bank: &bankClient{url: server.URL}, log: log}, f, seen
}

func (f *fakeBank) willAnswer(statuses ...int) {
	for _, s := range statuses {
		f.answers <- s
	}
}

// wasAsked are the requests since the last call.
func (f *fakeBank) wasAsked() (methods []string) {
	for len(f.asked) > 0 {
		methods = append(methods, <-f.asked)
	}
	return methods
}

var ours = Refund{ID: "refund-1", Cents: 4999}

func TestWhatAnErrorOfTheBankMeans(t *testing.T) {
	for _, tt := range []struct {
		status int
		state  idempotent.State
		again  bool
		next   []string
	}{
		{http.StatusServiceUnavailable, idempotent.StateAbsent, true, []string{"POST"}},
		{http.StatusUnprocessableEntity, idempotent.StateFailed, false, nil},
		{http.StatusInternalServerError, idempotent.StateAbandoned, true, []string{"GET"}},
		{http.StatusGatewayTimeout, idempotent.StateAbandoned, true, []string{"GET"}},
	} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			w, bank, _ := newWorker(t)
			bank.willAnswer(tt.status, http.StatusOK)
			var report idempotent.Report
			_, err := w.once(t.Context(), ours, &report)
			require.Error(t, err)
			assert.Equal(t, tt.again, !errors.Is(verdict(err, report), asynq.SkipRetry))
			require.Equal(t, []string{"POST"}, bank.wasAsked())
			status, err := w.receipts.Peek(t.Context(), refundKey(ours.ID))
			require.NoError(t, err)
			require.Equal(t, tt.state, status.State)

			receipt, err := w.once(t.Context(), ours, &report)
			assert.Equal(t, tt.next, bank.wasAsked())
			assert.Equal(t, tt.again, err == nil, "%v", err)
			assert.Equal(t, tt.again, receipt.Number == "rf_1")
			if !tt.again {
				assert.ErrorIs(t, verdict(err, report), asynq.SkipRetry)
			}
		})
	}
}

// As long as the bank does not say what came of the first attempt, no other one pays.
func TestTheQuestionIsAskedUntilItIsAnswered(t *testing.T) {
	w, bank, _ := newWorker(t)
	for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests} {
		bank.willAnswer(status)
		_, err := w.once(t.Context(), ours, &idempotent.Report{})
		require.Error(t, err)
	}
	bank.willAnswer(http.StatusNotFound, http.StatusOK)
	var report idempotent.Report
	_, err := w.once(t.Context(), ours, &report)
	require.NoError(t, err)
	assert.Equal(t, []string{"POST", "GET", "GET", "GET", "POST"}, bank.wasAsked())
	assert.Equal(t, 4, report.Attempt)
}

// Those who ask for a result do no harm: not to a job that nobody has begun, and not to the memory
// of an execution that died.
func TestAskingDoesNoHarm(t *testing.T) {
	w, bank, seen := newWorker(t)
	front := &reader{receipts: w.receipts}
	_, err := front.receipt(t.Context(), ours.ID, 0)
	require.ErrorIs(t, err, errNotYet)
	status, err := w.receipts.Peek(t.Context(), refundKey(ours.ID))
	require.NoError(t, err)
	require.Equal(t, idempotent.StateAbsent, status.State)

	bank.willAnswer(http.StatusInternalServerError)
	_, err = w.once(t.Context(), ours, &idempotent.Report{})
	require.Error(t, err)
	_, err = front.receipt(t.Context(), ours.ID, time.Second)
	require.ErrorIs(t, err, errNotYet)
	bank.willAnswer(http.StatusOK)
	receipt, err := w.once(t.Context(), ours, &idempotent.Report{})
	require.NoError(t, err)
	assert.Equal(t, []string{"POST", "GET"}, bank.wasAsked(), "it was forgotten that there was a first attempt")

	told, err := front.receipt(t.Context(), ours.ID, 0)
	require.NoError(t, err)
	assert.Equal(t, receipt, told)
	assert.Equal(t, 1, seen.Count(idempotent.EventRecorded))
}

// The reader's refusal must not become the job's result, even on an executor that records every
// error.
func TestTheReadersRefusalIsNotRecorded(t *testing.T) {
	receipts, err := idempotent.New[Receipt](idemtest.NewRedis(t), "default")
	require.NoError(t, err)
	defer receipts.Close()
	_, err = (&reader{receipts: receipts}).receipt(t.Context(), ours.ID, 0)
	require.ErrorIs(t, err, errNotYet)
	status, err := receipts.Peek(t.Context(), refundKey(ours.ID))
	require.NoError(t, err)
	assert.Equal(t, idempotent.StateAbsent, status.State)
}

func TestTaskIsArchived(t *testing.T) {
	w, bank, _ := newWorker(t)
	bank.willAnswer(http.StatusOK)
	_, err := w.once(t.Context(), ours, &idempotent.Report{})
	require.NoError(t, err)
	other, err := newTask(refundType, Refund{ID: ours.ID, Cents: 1})
	require.NoError(t, err)
	for name, task := range map[string]*asynq.Task{
		"another refund with this ID": other,
		"a payload that is no refund": asynq.NewTask(refundType, []byte("?")),
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, w.ProcessTask(t.Context(), task), asynq.SkipRetry)
		})
	}
	assert.Equal(t, []string{"POST"}, bank.wasAsked())
}

func TestVerdict(t *testing.T) {
	recorded := idempotent.Report{RecordedAt: time.Now()}
	for _, tt := range []struct {
		err    error
		report idempotent.Report
		again  bool
	}{
		{errors.New("no"), recorded, false},
		{errors.New("who knows"), idempotent.Report{}, true},
		{idempotent.ErrCorruptRecord, idempotent.Report{}, false},
		{idempotent.ErrInvalidKey, idempotent.Report{}, false},
		{idempotent.ErrKeyReused, idempotent.Report{}, false},
		{idempotent.ErrInterrupted, idempotent.Report{}, false},
		{idempotent.ErrUnavailable, idempotent.Report{}, true},
		{idempotent.ErrNotRecorded, idempotent.Report{}, true},
		{idempotent.ErrLeaseLost, idempotent.Report{}, true},
		{&idempotent.InProgressError{}, idempotent.Report{}, true},
	} {
		err := verdict(tt.err, tt.report)
		assert.Equal(t, tt.again, !errors.Is(err, asynq.SkipRetry), tt.err)
		assert.ErrorIs(t, err, tt.err)
	}
}

func TestABusyJobCostsNoRetry(t *testing.T) {
	busy := fmt.Errorf("refund-1: %w", &idempotent.InProgressError{RetryAfter: time.Second})
	assert.False(t, isFailure(busy))
	assert.Equal(t, time.Second, retryDelay(0, busy, nil))
	assert.Equal(t, retryPause, retryDelay(0, &idempotent.InProgressError{}, nil))
	assert.True(t, isFailure(errors.New("503")))
	assert.Equal(t, retryPause, retryDelay(0, errors.New("503"), nil))
}

func TestReceiptsComeBackAsTheyWere(t *testing.T) {
	idemtest.CodecRoundTrip(t, idempotent.Msgpack[Receipt](), Receipt{}, Receipt{Number: "rf_1", Cents: 4999})
}
