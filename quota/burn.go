package quota

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Burn is where the burn-rate part of an account's quota breaker stands. It is decided by whichever replica sees the
// cause first and shared by all of them, within a heartbeat; of two the one with the higher Seq holds. What it means is
// the limiter's business; the ledger carries it, as it carries the brake.
type Burn struct {
	Seq    int64         `json:"seq"`    // grows with each change
	Day    Day           `json:"day"`    // what is of another day no longer holds
	Level  uint8         `json:"level"`  // as the limiter counts its levels; 0: nothing is shed for the rate's sake
	Trial  bool          `json:"trial"`  // half open: everything passes until Until, to see whether the cause is gone
	Since  time.Time     `json:"since"`  // of this state
	Until  time.Time     `json:"until"`  // when a state that is not 0 ends at the earliest
	Hold   time.Duration `json:"hold"`   // how long the last one was held; the next of the day is longer
	Trips  int           `json:"trips"`  // today
	Reason string        `json:"reason"` // in words and numbers
	By     string        `json:"by"`     // the replica that decided it

	// PerSecond is how fast the plan burnt when it was decided, in messages, and Mark what the pair of windows that fired
	// allows, in even rates: what is needed to judge it anew with another plan or count. 0 in what an older release decided.
	PerSecond float64 `json:"per_second,omitempty"`
	Mark      float64 `json:"mark,omitempty"`
}

// CurrentBurn is what the replicas share, as of the last heartbeat; nil: nothing yet. It may be of another day.
func (l *Ledger) CurrentBurn() *Burn { return l.burn.Load() }

// SetBurn tells all replicas, unless one of them was faster: then nothing changes, and the next heartbeat brings that
// one's. what is its line in the audit trail.
func (l *Ledger) SetBurn(ctx context.Context, now time.Time, b Burn, what string) error {
	b.By = l.replica
	text, err := store.Pack(b)
	if err != nil {
		return err
	}
	audit := &store.AuditEntry{At: now.UTC(), Who: "breaker@" + l.replica, What: what, Why: b.Reason}
	return l.lever(ctx, now, "breaker", func(ctx context.Context, at store.At) error {
		return l.st.SetBurn(ctx, at, b.Seq, string(text), audit)
	})
}

// setBurn takes over the stored state.
func (l *Ledger) setBurn(text string) {
	if text == l.burnJSON {
		return
	}
	l.burnJSON = text
	if text == "" { // the store lost it; what this replica knows goes on, and is told at its next change
		return
	}
	b := &Burn{}
	if err := store.Unpack([]byte(text), b); err != nil {
		l.log.Error("the store holds a state of the breaker that cannot be read; it is ignored", "state", text, "err", err)
		return
	}
	l.burn.Store(b)
}

// Sent is what the account sent on now's day, corrections by hand left out: what a rate is made of.
func (l *Ledger) Sent(now time.Time) int64 {
	used, _ := l.Used(now)
	if v := l.view.Load(); l.dayOf(v.at) == l.dayOf(now) {
		used -= v.adjust
	}
	return used
}

// Corrected is by how much the count of now's day was corrected by hand, by Pusher's word or by its feed.
func (l *Ledger) Corrected(now time.Time) int64 {
	if v := l.view.Load(); DayOf(v.at) == DayOf(now) {
		return v.adjust
	}
	return 0
}

// BurnStored reports whether the store holds a state; one that lost its data does not, and is to be told again.
func (l *Ledger) BurnStored() bool { return l.view.Load().state.Burn != "" }
