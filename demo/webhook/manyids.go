package main

import (
	"context"
	"fmt"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

func manyIDs() play {
	return play{
		title: "one change under several ids",
		story: `A bank sends each change of a transfer under 5 ids, each of them four times, shuffled. Its key is
made of provider, type, object and version: the second version is another change and must
have its effect too.`,
		limit: sceneLimit,
		act:   rename,
	}
}

const (
	transfer   = "transfer-7"
	versions   = 2
	idsOfOne   = 5 // of one change
	timesOfOne = 4 // deliveries of one id
)

func rename(ctx context.Context, st *set) (evidence, error) {
	var ids []string
	var half [][]byte
	for v := range versions {
		for i := range idsOfOne {
			id := fmt.Sprintf("bank_v%d_%d", v+1, i+1)
			ids = append(ids, id)
			for range timesOfOne / 2 {
				half = append(half, eventBody(id, "transfer.settled", object{
					ID: transfer, Amount: 1000 * int64(v+1), Version: int64(v + 1),
				}))
			}
		}
	}
	e := &renamed{repetition{
		expected: versions * idsOfOne * timesOfOne,
		effects:  versions,
		perEvent: idsOfOne * timesOfOne,
	}}
	return e, st.repeat(ctx, &e.repetition, bank, ids, half)
}

// Renamed is a repetition in which both changes are of one object.
type renamed struct{ repetition }

func (e *renamed) checks() []stage.Check {
	list := e.repetition.checks()
	for i := range list {
		if list[i].What == "orders credited twice" {
			list[i] = stage.Exactly("credits of the transfer: one for each version", versions, e.books.credits[transfer])
		}
	}
	return list
}
