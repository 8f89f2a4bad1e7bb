package checkup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Two reckonings a minute apart, by each of the three clocks.
func TestJump(t *testing.T) {
	const minute, trip = time.Minute, 20 * time.Millisecond
	for name, test := range map[string]struct {
		server, wall time.Duration
		by           time.Duration // about
		together     bool
	}{
		"right":                        {server: minute, wall: minute},
		"slewed":                       {server: minute + 500*time.Millisecond, wall: minute},
		"slewed back":                  {server: minute - 500*time.Millisecond, wall: minute},
		"the trips took it":            {server: minute + trip, wall: minute},
		"this machine's clock stepped": {server: minute, wall: minute + time.Hour},
		"jumped":                       {server: minute + 5*time.Second, wall: minute, by: 5 * time.Second},
		"jumped back":                  {server: minute - 5*time.Second, wall: minute, by: -5 * time.Second},
		"jumped back before the start": {server: -time.Hour, wall: minute, by: -time.Hour - minute},
		"this machine was suspended":   {server: minute + time.Hour, wall: minute + time.Hour, by: time.Hour, together: true},
		"both stepped, not alike":      {server: minute + time.Hour, wall: minute + 2*time.Hour, by: time.Hour},
		"runs at half the speed":       {server: minute / 2, wall: minute, by: -minute / 2},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now().Round(0)
			at := func(steady, wall time.Duration) timestamp { return timestamp{steady, start.Add(wall)} }
			from := clockSample{sent: at(0, 0), received: at(trip, trip), server: start.Add(trip / 2)}
			to := clockSample{sent: at(minute, test.wall), received: at(minute+trip, test.wall+trip), server: start.Add(trip / 2).Add(test.server)}
			by, together := jump(from, to)
			assert.InDelta(t, test.by, by, float64(2*trip))
			assert.Equal(t, test.by == 0, by == 0)
			assert.Equal(t, test.together, together)
		})
	}
}

func TestAhead(t *testing.T) {
	start := time.Now().Round(0)
	r := clockSample{
		sent:     timestamp{time.Second, start},
		received: timestamp{3 * time.Second, start.Add(2 * time.Second)},
		server:   start.Add(11 * time.Second),
	}
	ahead, doubt := r.ahead()
	assert.Equal(t, 10*time.Second, ahead)
	assert.Equal(t, time.Second, doubt)
}
