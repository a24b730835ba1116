package quota

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// LossPolicy says how a replica spends while the store is out of reach.
type LossPolicy uint8

// The policies.
const (
	LossLease  LossPolicy = iota // spend what lease and standby still hold, then refuse
	LossOpen                     // beyond them, spend this replica's part of what was left when the store was last heard
	LossClosed                   // refuse at once
)

var lossNames = [...]string{"lease", "open", "closed"}

// String is the word that the config file uses.
func (p LossPolicy) String() string {
	if int(p) < len(lossNames) {
		return lossNames[p]
	}
	return "unknown"
}

// ParseLossPolicy is the inverse of String.
func ParseLossPolicy(s string) (LossPolicy, error) {
	for i, name := range lossNames {
		if s == name {
			return LossPolicy(i), nil
		}
	}
	return 0, fmt.Errorf("on_store_loss %q is none of lease, open, closed", s)
}

// Config is what a ledger is told; Open and Reconfigure copy it.
type Config struct {
	Account string // the account's name; part of every key in the store, so it cannot change
	Plan    Plan   // until SetPlan says otherwise; a change of this figure overrides SetPlan in its turn
	// Floors[p] is the fraction of the plan that priorities below p cannot eat. The floors stack up at the
	// plan's end: bulk is refused once only floor(normal)+floor(critical) is left, normal once only
	// floor(critical) is. Floors[Bulk] is ignored.
	Floors      [Priorities]float64
	OnStoreLoss LossPolicy
	// Shares caps callers: caller → fraction of the plan that it may spend in a day, over all replicas. A share
	// lends to other shares what its caller should have used by this time of the day (evenly over the day) and did
	// not; what the rest of the day is for is never lent, and what it uses later it takes back from what the others
	// may still borrow. A caller that is absent has no cap of its own, and cannot be borrowed from.
	Shares map[string]float64

	// NoUnseen books nothing for traffic that never passes here. Otherwise what corrections by hand show is kept as a
	// profile of the week, and booked by itself from then on.
	NoUnseen bool
	// Headroom is the fraction of the plan that is kept for what is never counted: everything but the store's own bound
	// takes the plan to be smaller by it.
	Headroom float64

	// RecordDir is where this replica keeps a small durable record of the leases it took, fsynced before they are
	// spent. It heals a store that lost its data together with the replicas. Empty: none. Read by Open alone.
	RecordDir string

	// Standby is for how long of its own traffic a replica can go on without the store; 0: for its lease alone.
	Standby time.Duration
	// Patient: Open does not fail because the store cannot be reached.
	Patient bool

	Wait    time.Duration // for how long a reserve waits at most for a refill; 0: 600 ms; negative: for one round trip only
	Listen  time.Duration // how long Open waits on a shared store that is empty, for replicas that know it was not; 0: not at all
	Every   time.Duration // between heartbeats in Run; 0: 250 ms
	DeadIn  time.Duration // a replica that was silent so long is taken for dead and what it held counts as spent; 0: 10 s
	Horizon time.Duration // how much of the present demand a lease holds; 0: 1.5 s
}

func (c Config) withDefaults() Config {
	c.Shares = maps.Clone(c.Shares)
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&c.Wait, 600 * time.Millisecond}, {&c.Every, 250 * time.Millisecond}, {&c.DeadIn, 10 * time.Second}, {&c.Horizon, 1500 * time.Millisecond}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	return c
}

// maxPlan keeps every sum exact in the store, whose scripts count in float64.
const maxPlan = 1 << 50

func (c Config) check() error {
	var errs []error
	if c.Account == "" {
		errs = append(errs, errors.New("an account needs a name"))
	}
	if m := c.Plan.MessagesPerDay; m <= 0 || m > maxPlan {
		errs = append(errs, fmt.Errorf("a plan of %d messages a day: give a number from 1 to 2^50", m))
	}
	sum := 0.0
	for p := Normal; p < Priorities; p++ {
		if f := c.Floors[p]; !(f >= 0 && f <= 1) {
			errs = append(errs, fmt.Errorf("the floor of %s is %v: give a fraction from 0 to 1", p, f))
		}
		sum += c.Floors[p]
	}
	if sum > 1 {
		errs = append(errs, fmt.Errorf("the floors of normal and critical are %v of the plan together: more than all of it", sum))
	}
	for caller, f := range c.Shares {
		if !(f > 0 && f <= 1) {
			errs = append(errs, fmt.Errorf("the share of %s is %v: give a fraction above 0, up to 1", caller, f))
		}
	}
	if !(c.Headroom >= 0 && c.Headroom < 1) {
		errs = append(errs, fmt.Errorf("the headroom is %v of the plan: give a fraction from 0 to below 1", c.Headroom))
	}
	if c.OnStoreLoss > LossClosed {
		errs = append(errs, fmt.Errorf("loss policy %d is unknown", c.OnStoreLoss))
	}
	return errors.Join(errs...)
}

const million = 1_000_000

func ppm(f float64) int64 { return int64(f*million + 0.5) }
