package webhook

import "time"

// DefaultTolerance is how far the time of a signature may be from the receiver's clock, in both directions, unless
// WithTolerance says otherwise. It is the default of Stripe's and Svix's own libraries.
const DefaultTolerance = 5 * time.Minute

// A SchemeOption changes how a ready-made scheme verifies.
type SchemeOption func(*schemeConfig)

type schemeConfig struct {
	tolerance time.Duration
}

// WithTolerance sets how far the time of a signature may be from the receiver's clock, in both directions; it must be
// positive. The default is DefaultTolerance. Providers that sign a redelivery with the time of the first attempt need
// more. It has no effect on schemes that sign no time; README.md lists them.
func WithTolerance(d time.Duration) SchemeOption {
	return func(c *schemeConfig) { c.tolerance = d }
}
