// Quickstart charges a card once, although it is asked three times.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/examples/internal/demoredis"
)

type Charge struct {
	ID    string
	Cents int
}

func chargeCard(context.Context) (Charge, error) {
	fmt.Println("calling the payment provider")
	return Charge{ID: "ch_1", Cents: 49_99}, nil
}

func main() {
	ctx := context.Background()
	rdb, stop, err := demoredis.Connect(ctx) // in your program: redis.NewClient(...)
	if err != nil {
		log.Fatal(err)
	}
	defer stop()
	charges, err := idempotent.New[Charge](rdb, "payments") // one for each kind of result
	if err != nil {
		log.Fatal(err)
	}
	defer charges.Close()

	for range 3 {
		charge, err := charges.Run(ctx, "order-42", chargeCard)
		fmt.Println(charge.ID, charge.Cents, err)
	}
}
