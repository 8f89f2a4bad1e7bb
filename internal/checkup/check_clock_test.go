package checkup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/idemcheck"
)

func TestClockSampleIsUncertainByHalfTheRoundTrip(t *testing.T) {
	sent := time.Now()
	c := clockSample{sent: sent, received: sent.Add(2 * time.Second), server: sent.Round(0).Add(11 * time.Second)}
	ahead, uncertainty := c.ahead()
	assert.Equal(t, 10*time.Second, ahead)
	assert.Equal(t, time.Second, uncertainty)
}

func TestReplicaClock(t *testing.T) {
	sent := time.Now()
	at := func(ahead time.Duration) clockSample {
		return clockSample{sent: sent, received: sent.Add(2 * time.Millisecond), server: sent.Round(0).Add(time.Millisecond + ahead)}
	}
	for name, test := range map[string]struct {
		off      time.Duration
		severity idemcheck.Severity // 0 for no finding
	}{
		"equal":           {0, 0},
		"a little ahead":  {900 * time.Millisecond, 0},
		"ahead":           {2 * time.Second, idemcheck.SeverityWarning},
		"behind":          {-2 * time.Second, idemcheck.SeverityWarning},
		"most of a lease": {7 * time.Second, idemcheck.SeverityUnsafe},
	} {
		k := &Checkup{core: &Checker{Lease: 10 * time.Second}}
		k.compare("replica", "master", at(test.off), at(0))
		if test.severity == 0 {
			assert.Empty(t, k.findings, name)
			continue
		}
		assert.Len(t, k.findings, 1, name)
		assert.Equal(t, test.severity, k.findings[0].Severity, name)
	}
}
