package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func (d *demo) script() []play {
	return []play{oneCharge(), declinedCard(), briefOutage(), anotherAmount(), killedOwner()}
}

func oneCharge() play {
	return play{
		title: "one charge for a hundred callers",
		story: `Each of the 5 processes calls Run 20 times at once, all with the same key. One call may
run the function that takes the money. All of them must get its charge.`,
		act:   together,
		judge: judgeCharge,
	}
}

func declinedCard() play {
	return play{
		title: "a declined card",
		story: `The same, but the bank says no. That is an answer too: it is recorded and replayed, and
errors.As finds the same *CardError in every process.`,
		manner: manner{declines: "insufficient funds"},
		act:    together,
		judge:  judgeDeclined,
	}
}

func briefOutage() play {
	return play{
		title: "a provider down for a moment",
		story: `The provider answers the first request with 503. That error is worth another try, so it is
not recorded: whoever ran fn gets it, and the next in line runs fn again for all the others.`,
		manner: manner{failsFirst: 1},
		act:    together,
		judge:  judgeOutage,
	}
}

func anotherAmount() play {
	answer := make(chan struct{})
	return play{
		title: "another amount under the same key",
		story: `While fn runs, and again afterwards, some callers ask for another amount under the key.
They must be refused: not charged, and not given somebody else's charge either.`,
		manner: manner{until: answer},
		act: func(ctx context.Context, st *set) error {
			return confuse(ctx, st, sync.OnceFunc(func() { close(answer) }))
		},
		judge: judgeAnotherAmount,
	}
}

func killedOwner() play {
	return play{
		title: "an owner killed in mid-flight",
		story: fmt.Sprintf(`The provider takes the money, and the process that asked for it is killed before it hears
of that. It held a lease of %s; when that is over, another process runs fn, as attempt 2.
So fn knows that it was begun before, asks the provider first, and does not charge again.`, span(lease)),
		manner: manner{until: make(chan struct{})}, // never: the owner must not hear of it
		act:    killOwner,
		judge:  judgeKilledOwner,
	}
}

// together is the usual course: everybody at once, and one in each process when all is over.
func together(ctx context.Context, st *set) (err error) {
	if st.callers, err = st.pay(ctx, st.order, perWorker); err != nil {
		return err
	}
	if err = st.measure(ctx); err != nil {
		return err
	}
	st.out.Say("parent: all is over; one more caller in each process:")
	st.later, err = st.pay(ctx, st.order, 1)
	return err
}

// confused is how many callers in each worker ask for the other amount.
const confused = 4

// confuse has some ask for another amount while the provider withholds its answer, and again later.
func confuse(ctx context.Context, st *set, letAnswer func()) error {
	defer letAnswer()
	other := Order{ID: st.order.ID, Cents: 10 * st.order.Cents}
	paying := stage.InBackground(func() ([]outcome, error) { return st.pay(ctx, st.order, perWorker-confused) })
	if _, err := st.asked(ctx); err != nil {
		return err
	}
	st.out.Say("parent: meanwhile, %d callers in each process ask for %s:", confused, stage.Euros(other.Cents))
	var err error
	if st.otherNow, err = st.pay(ctx, other, confused); err != nil {
		return err
	}
	letAnswer()
	if st.callers, err = paying(); err != nil {
		return err
	}
	if err = st.measure(ctx); err != nil {
		return err
	}
	st.out.Say("parent: all is over; again %d callers in each process ask for %s:", confused, stage.Euros(other.Cents))
	st.otherLater, err = st.pay(ctx, other, confused)
	return err
}

// killOwner kills whoever asks the provider for money, once the money is taken.
func killOwner(ctx context.Context, st *set) error {
	paying := stage.InBackground(func() ([]outcome, error) { return st.pay(ctx, st.order, perWorker) })
	owner, err := st.asked(ctx)
	if err != nil {
		return err
	}
	w := st.fleet.Fleet[owner-1]
	st.killed, st.killedAt = owner, time.Now()
	w.Kill()
	st.out.Say("parent: SIGKILL for worker %d, pid %d, and its %d callers", owner, w.PID(), perWorker)
	if st.callers, err = paying(); err != nil {
		return err
	}
	return st.measure(ctx)
}
