package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func script() []play {
	return []play{asynqAlone(), twoDeliveries(), killedWorker(), lateTimeout(), brokenConnection(),
		briefOutage(), refusal(), visitors()}
}

// shortTimeout is for the jobs that are to time out. It is time enough to ask the bank.
const shortTimeout = 3 * time.Second

func asynqAlone() play {
	return play{
		title: "asynq alone",
		story: `A handler without this library. The bank pays, but its answer does not come before asynq's
timeout. For asynq the job has failed, so it tries again: that is its duty.`,
		bare:   true,
		manner: manner{mute: 1},
		act:    func(ctx context.Context, st *set) error { return throughQueue(ctx, st, bareType, shortTimeout) },
		judge:  judgeAsynqAlone,
	}
}

func twoDeliveries() play {
	answer := make(chan struct{})
	return play{
		title: "the same job delivered twice",
		story: `The refund is enqueued twice and delivered to two workers at once; and once more when all
is over. All three deliveries succeed, with the one receipt.`,
		manner: manner{until: answer},
		act: func(ctx context.Context, st *set) error {
			return deliverTwice(ctx, st, sync.OnceFunc(func() { close(answer) }))
		},
		judge: judgeTwoDeliveries,
	}
}

func killedWorker() play {
	return play{
		title: "a worker killed in the middle",
		story: `The bank pays, and the worker that asked is killed before it hears of that. asynq delivers
the job again. The next worker runs fn as attempt 2, so fn asks the bank before it pays.`,
		manner: manner{mute: 1},
		act:    killWorker,
		judge:  judgeKilledWorker,
	}
}

func lateTimeout() play {
	return play{
		title: "a timeout after the effect",
		story: `As in the first scene, with the library: the bank pays, asynq's timeout ends the handler's
context, and asynq tries again. The execution counts as interrupted, the next one is attempt 2.`,
		manner: manner{mute: 1},
		act:    func(ctx context.Context, st *set) error { return throughQueue(ctx, st, refundType, shortTimeout) },
		judge:  func(e *evidence) []stage.Check { return judgeUnclear(e, "context deadline exceeded") },
	}
}

func brokenConnection() play {
	return play{
		title: "a connection broken after the effect",
		story: `The bank pays, and then the connection breaks. That error says nothing about the money, so
the handler has the execution count as interrupted too.`,
		manner: manner{cuts: 1},
		act:    func(ctx context.Context, st *set) error { return throughQueue(ctx, st, refundType, taskTimeout) },
		judge:  func(e *evidence) []stage.Check { return judgeUnclear(e, "EOF") },
	}
}

func briefOutage() play {
	return play{
		title: "a bank down for a moment",
		story: `The bank answers 503 twice: nothing was paid, try again. That is not recorded; asynq tries
again, and each execution is a first attempt.`,
		manner: manner{failsFirst: 2},
		act:    func(ctx context.Context, st *set) error { return throughQueue(ctx, st, refundType, taskTimeout) },
		judge:  judgeOutage,
	}
}

func refusal() play {
	return play{
		title: "a refund refused for good",
		story: `The bank says no, and will say so again. The error is recorded once, and asynq archives the
task at once. Another delivery of the job gets the error from the record, and so does a visitor.`,
		manner: manner{refuses: "account closed"},
		act:    refuseTwice,
		judge:  judgeRefusal,
	}
}

func visitors() play {
	answer := make(chan struct{})
	return play{
		title: "a result for whoever asks",
		story: `Visitors ask the front, a process that cannot pay refunds: before the job is there, while
a worker is at it (one looks in, two wait for the result), and when all is over.`,
		manner: manner{until: answer},
		act: func(ctx context.Context, st *set) error {
			return receiveVisitors(ctx, st, sync.OnceFunc(func() { close(answer) }))
		},
		judge: judgeVisitors,
	}
}

// throughQueue enqueues the refund and waits until asynq is done with it.
func throughQueue(ctx context.Context, st *set, taskType string, timeout time.Duration) error {
	id, err := st.enqueue(ctx, taskType, asynq.Timeout(timeout))
	if err != nil {
		return err
	}
	return st.settled(ctx, id)
}

// deliverTwice has the bank answer once a second worker waits for the first one.
func deliverTwice(ctx context.Context, st *set, letAnswer func()) error {
	defer letAnswer()
	first, err := st.enqueue(ctx, refundType)
	if err != nil {
		return err
	}
	if _, err := st.asked(ctx); err != nil {
		return err
	}
	second, err := st.enqueue(ctx, refundType)
	if err != nil {
		return err
	}
	if err := st.await(ctx, "the second worker", func(e *evidence) bool { return e.waiting > 0 }); err != nil {
		return err
	}
	letAnswer()
	if err := errors.Join(st.settled(ctx, first), st.settled(ctx, second)); err != nil {
		return err
	}
	return throughQueue(ctx, st, refundType, taskTimeout)
}

// killWorker kills whoever asks the bank for money, once the money is paid.
func killWorker(ctx context.Context, st *set) error {
	id, err := st.enqueue(ctx, refundType)
	if err != nil {
		return err
	}
	if st.killed, err = st.asked(ctx); err != nil {
		return err
	}
	victim := st.fleet.workers[st.killed-1]
	victim.Kill()
	st.out.Say("parent: SIGKILL for worker %d, pid %d", victim.Number, victim.PID())
	if err := st.expireLease(ctx, id); err != nil {
		return err
	}
	next, err := st.fleet.startWorker(ctx)
	if err != nil {
		return err
	}
	st.out.Say("parent: starts worker %d in its place, pid %d", next.Number, next.PID())
	return st.settled(ctx, id)
}

func refuseTwice(ctx context.Context, st *set) error {
	for range 2 {
		if err := throughQueue(ctx, st, refundType, taskTimeout); err != nil {
			return err
		}
	}
	return st.visit(ctx, 0)
}

// receiveVisitors has the bank answer once two visitors wait for the result.
func receiveVisitors(ctx context.Context, st *set, letAnswer func()) error {
	defer letAnswer()
	if err := st.visit(ctx, 0); err != nil {
		return err
	}
	status, err := st.receipts.Peek(ctx, st.key)
	if err != nil {
		return err
	}
	st.trace = status.State
	id, err := st.enqueue(ctx, refundType)
	if err != nil {
		return err
	}
	if _, err := st.asked(ctx); err != nil {
		return err
	}
	if err := st.visit(ctx, 0); err != nil {
		return err
	}
	told := make(chan error, 2)
	for range cap(told) {
		go func() { told <- st.visit(ctx, waitLimit) }()
	}
	if err := st.await(ctx, "two visitors", func(e *evidence) bool { return e.waiting >= 2 }); err != nil {
		return err
	}
	letAnswer()
	if err := errors.Join(st.settled(ctx, id), <-told, <-told); err != nil {
		return err
	}
	return st.visit(ctx, 0)
}
