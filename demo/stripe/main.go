// Stripe charges customers once: 5 processes that ask 10 times each get one charge, also if the
// process that asked Stripe is killed before it could tell. It talks to stripe-mock, which it
// starts, or to Stripe's test mode if STRIPE_API_KEY is set, and ends with a status other than zero
// if a customer was charged twice or anything else went wrong.
//
// payments.go and errors.go are the part to copy; everything else is there to watch it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/redisproc"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

const (
	workers   = 5
	perWorker = 10 // calls in each worker
	everybody = workers * perWorker

	// sceneLimit bounds each scene, so that the example fails instead of hanging.
	sceneLimit = 30 * time.Second
)

// What a process of this program is, by its first argument. Without one it is the parent.
const (
	roleWorker = "worker"
	roleMock   = "stripe-mock"
)

func main() {
	redisproc.Main()
	switch args := os.Args[1:]; {
	case len(args) == 0:
		os.Exit(stage.Parent(runDemo, (*stage.Narrator).Conclude))
	case args[0] == roleWorker:
		os.Exit(stage.WorkerProcess(roleWorker, work))
	case args[0] == roleMock:
		os.Exit(mockProcess())
	default:
		fmt.Fprintln(os.Stderr, "stripe takes no arguments; REDIS_URL names the Redis to use and STRIPE_API_KEY the test mode to use, if set")
		os.Exit(2)
	}
}

// runDemo starts everything, plays the scenes, and has stopped everything when it returns.
func runDemo(ctx context.Context, out *stage.Narrator) (t stage.Tally, err error) {
	key, err := testKey(os.Getenv("STRIPE_API_KEY"))
	if err != nil {
		return t, err
	}
	redis, err := redisproc.Start(ctx)
	if err != nil {
		return t, err
	}
	defer redis.Stop()

	d := &demo{out: out, namespace: stage.Namespace("stripe")}
	s := setup{RedisURL: redis.URL, StripeKey: key, Namespace: d.namespace}
	where := "Stripe's test mode, named by STRIPE_API_KEY"
	if key == "" {
		mock, err := startMock(ctx)
		if err != nil {
			return t, err
		}
		defer mock.Stop(stopLimit)
		if d.proxy, err = startProxy(mock.url, out.Say); err != nil {
			return t, err
		}
		defer d.proxy.stop()
		s.StripeKey, s.StripeURL = "sk_test_mock", d.proxy.url
		where = fmt.Sprintf("stripe-mock at %s, behind a proxy that remembers, at %s", mock.url, d.proxy.url)
	}
	d.stripe = newStripe(s.StripeKey, s.StripeURL)
	if d.fleet, err = startFleet(s, d.observe); err != nil {
		return t, err
	}
	defer d.fleet.Stop(stopLimit)
	d.introduce(redis.Description, where)
	return d.playAll(ctx)
}

// errLiveKey: real money.
var errLiveKey = errors.New("STRIPE_API_KEY is not a key of the test mode (sk_test_... or rk_test_...): this example would charge real customers")

func testKey(key string) (string, error) {
	if key != "" && !strings.HasPrefix(key, "sk_test_") && !strings.HasPrefix(key, "rk_test_") {
		return "", errLiveKey
	}
	return key, nil
}
