// Package integration has tests on server images, in containers.
package integration

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"
)

// imagesEnv names the images, separated by spaces or commas. Given, they have to be tested: what
// keeps them from it is a failure. Empty, none is.
const imagesEnv = "IDEMPOTENT_IMAGES"

// usualImages are tested where there is Docker and they are to be had.
var usualImages = []string{"redis:7", "redis:8", "valkey/valkey:8", "valkey/valkey:9"}

// A daemon is what starts containers.
type daemon struct {
	*testcontainers.DockerProvider
	images []string
	asked  bool // for these images
}

// connect finds Docker and what to test, or skips the test.
func connect(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{images: usualImages}
	if list, ok := os.LookupEnv(imagesEnv); ok {
		d.asked = true
		d.images = strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' })
		if len(d.images) == 0 {
			t.Skip(imagesEnv + " is empty")
		}
	}
	log.SetDefault(log.NewNoopLogger())
	var err error
	if d.DockerProvider, err = provider(t.Context()); err != nil {
		d.miss(t, "no Docker: %v", err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// provider returns a Docker that answers. testcontainers panics where it finds none.
func provider(ctx context.Context) (p *testcontainers.DockerProvider, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if p, err = testcontainers.NewDockerProvider(); err != nil {
		return nil, err
	}
	return p, p.Health(ctx)
}

// miss ends a test for want of something.
func (d *daemon) miss(t *testing.T, format string, args ...any) {
	t.Helper()
	if d.asked {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// need makes sure that the image is there.
func (d *daemon) need(t *testing.T, image string) {
	t.Helper()
	if _, err := d.Client().ImageInspect(t.Context(), image); err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := d.PullImage(ctx, image); err != nil {
		d.miss(t, "image %s is not to be had: %v", image, err)
	}
}

// start runs a server with further arguments, until the test ends.
func (d *daemon) start(t *testing.T, image string, args ...string) *server {
	t.Helper()
	const port = "6379/tcp"
	args = slices.Concat([]string{"--protected-mode", "no", "--save", ""}, args)
	c, err := testcontainers.Run(t.Context(), image,
		testcontainers.WithCmd(args...), // all these images take them as arguments of the server
		testcontainers.WithExposedPorts(port),
		testcontainers.WithWaitStrategy(wait.ForLog("eady to accept connections")))
	testcontainers.CleanupContainer(t, c)
	require.NoError(t, err)
	addr, err := c.PortEndpoint(t.Context(), port, "")
	require.NoError(t, err)
	s := &server{addr: addr}
	require.NoError(t, s.admin(t).Ping(t.Context()).Err(), "inside a container, TESTCONTAINERS_HOST_OVERRIDE may have to say where others are reached")
	return s
}
