package config

import (
	"fmt"
	"strings"

	"github.com/pushguard/pushguard/limiter"
)

// Rate is a token bucket, written 200/s or 5/s per channel. It converts to
// limiter.Rate, which says how it is read.
type Rate limiter.Rate

// String is the form of the file, without the burst.
func (r Rate) String() string { return limiter.Rate(r).String() }

func (r *Rate) setText(text string) error {
	rate, err := limiter.ParseRate(text)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), fmt.Sprintf("rate %q: ", text))
		return fault{"is not a rate", why}
	}
	*r = Rate(rate)
	return nil
}

// Quota is a cap on a UTC day, written 5000/day per channel. It converts to
// limiter.Rate; limiter.ParseQuota says how it is read.
type Quota limiter.Rate

// String is the form of the file.
func (q Quota) String() string { return limiter.Rate(q).String() }

func (q *Quota) setText(text string) error {
	rate, err := limiter.ParseQuota(text)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), fmt.Sprintf("quota %q: ", text))
		return fault{"is not a quota", why}
	}
	*q = Quota(rate)
	return nil
}
