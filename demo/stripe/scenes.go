package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func script() []play {
	return []play{withoutRun(), oneCharge(), declinedCard(), rateLimit(), lostConnection(), killedOwner(), blindSuccessor()}
}

func withoutRun() play {
	return play{
		title: "what goes wrong without it",
		story: `5 processes call stripe-go 10 times each for the same order. stripe-go sends an
Idempotency-Key with every call, but each call has its own.`,
		card:       cardGood,
		needsProxy: true, // it would do the same to the real Stripe, and nobody needs that
		act: func(ctx context.Context, st *set) (err error) {
			st.behave(manner{quiet: true})
			st.first, err = st.collect(ctx, task{Payment: st.payment, Callers: perWorker, Bare: true})
			n, one := stage.Count(st.first, paid)
			st.out.Say("%d calls got a charge of their own, such as %s", n, one.Charge.Intent)
			return err
		},
		judge: judgeWithoutRun,
	}
}

func oneCharge() play {
	return play{
		title: "5 processes, 10 calls each, 1 charge",
		story: `The same with Run around it.`,
		card:  cardGood,
		act:   together,
		judge: judgeCharge,
	}
}

func declinedCard() play {
	return play{
		title: "a declined card",
		story: `The bank says no. That is an outcome like any other: it is recorded and replayed, and
errors.As finds the same *stripe.Error in every process.`,
		card:  cardDeclined,
		act:   together,
		judge: judgeDeclined,
	}
}

func rateLimit() play {
	return play{
		title: "Stripe's rate limit",
		story: `Stripe answers 429. Those who wait hear of it, so that they do not ask Stripe one after the
other; it is not recorded, and all of them come back.`,
		card:       cardGood,
		needsProxy: true,
		act: func(ctx context.Context, st *set) (err error) {
			st.behave(manner{limits: 1, until: st.gathered})
			if st.first, err = st.ask(ctx, perWorker); err != nil {
				return err
			}
			st.out.Say("parent: all of them ask again")
			st.second, err = st.ask(ctx, perWorker)
			return err
		},
		judge: judgeRateLimit,
	}
}

func lostConnection() play {
	return play{
		title: "the connection breaks when the money is taken",
		story: `Stripe takes the money, and the answer is lost. stripe-go tries twice more, with the same
key and no more luck, until fn gives up: it does not know its outcome, and says so. Nothing
is recorded but that. The next in line runs fn as attempt 2, looks first, and finds the charge.`,
		card:       cardGood,
		needsProxy: true,
		act: func(ctx context.Context, st *set) error {
			return st.askAndAskAgain(ctx, manner{cuts: true, until: st.gathered})
		},
		judge: judgeLostConnection,
	}
}

func killedOwner() play {
	return play{
		title: "an owner killed between Stripe's answer and its record",
		story: fmt.Sprintf(`Stripe has taken the money and answers, and the process that asked gets SIGKILL. When its
lease of %v is over, another one runs fn as attempt 2, looks first, and finds the charge.`, demoLease),
		card:       cardGood,
		needsProxy: true,
		act:        func(ctx context.Context, st *set) error { return st.killOwner(ctx, false) },
		judge:      judgeKilledOwner,
	}
}

func blindSuccessor() play {
	return play{
		title: "the same, and the look-up does not see the charge yet",
		story: `As Stripe's search would not, for up to a minute. So attempt 2 asks for the money again: with
the same Idempotency-Key, to which Stripe repeats its answer.`,
		card:       cardGood,
		needsProxy: true,
		act:        func(ctx context.Context, st *set) error { return st.killOwner(ctx, true) },
		judge:      judgeBlindSuccessor,
	}
}

// together is the usual course: everybody at once, and one more in each process when all is over.
// Stripe's answer waits until everybody is there, so that everybody has to wait for it.
func together(ctx context.Context, st *set) error {
	return st.askAndAskAgain(ctx, manner{until: st.gathered})
}

func (st *set) askAndAskAgain(ctx context.Context, m manner) (err error) {
	st.behave(m)
	if st.first, err = st.ask(ctx, perWorker); err != nil {
		return err
	}
	st.out.Say("parent: all is over; one more call in each process")
	st.second, err = st.ask(ctx, 1)
	return err
}

// killOwner kills whoever runs fn, once Stripe has taken the money and answered. The proxy keeps
// the answer back until then, so that the process cannot be faster than its death.
func (st *set) killOwner(ctx context.Context, blind bool) (err error) {
	st.behave(manner{until: st.released, blindList: blind})
	defer st.release()
	asking := stage.InBackground(func() ([]outcome, error) { return st.ask(ctx, perWorker) })
	for _, happened := range []<-chan struct{}{st.gathered, st.account.answered} {
		select {
		case <-happened:
		case <-ctx.Done():
			return fmt.Errorf("no request came to Stripe, or not everybody waits: %w", context.Cause(ctx))
		}
	}
	w := st.fleet.Fleet[st.owner()-1]
	st.killed = w.Number
	w.Kill()
	st.out.Say("parent: SIGKILL for worker %d and its %d calls; nobody has heard of the charge", w.Number, perWorker)
	st.release()
	st.first, err = asking()
	return err
}

// owner is the worker that runs fn.
func (st *set) owner() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.executions[len(st.executions)-1].worker
}

func (st *set) ask(ctx context.Context, callers int) ([]outcome, error) {
	got, err := st.collect(ctx, task{Payment: st.payment, Callers: callers})
	for _, line := range summarize(got) {
		st.out.Say("%s", line)
	}
	return got, err
}

// collect gives every worker the task, and returns what all calls got. A worker that was killed has
// none.
func (st *set) collect(ctx context.Context, t task) ([]outcome, error) {
	got, err := st.fleet.Ask(ctx, t, nil)
	return slices.Concat(got...), err
}
