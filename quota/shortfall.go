package quota

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Shortfall is what Pusher's own word "over quota" showed: it has counted a whole plan where the guard had counted less.
type Shortfall struct {
	Day     Day       `json:"day"`
	At      time.Time `json:"at"`
	Counted int64     `json:"counted"` // by the guard, when Pusher refused
	Plan    int64     `json:"plan"`
	// By is how many times as many the configured numbers of subscribers must count for the count to come out right; 1:
	// nothing was priced by them, so they cannot be what is wrong. Scale is by how much they are scaled in all, this and
	// earlier refusals together.
	By    float64 `json:"by"`
	Scale float64 `json:"scale"`
}

// Factor is at least how many times as much Pusher counted.
func (s Shortfall) Factor() float64 { return float64(s.Plan) / float64(max(s.Counted, 1)) }

// Words is the sentence for people.
func (s Shortfall) Words() string {
	text := fmt.Sprintf("Pusher counted at least %.3g times what this guard did (%d of %d messages): %d are booked as unseen",
		s.Factor(), s.Counted, s.Plan, s.Plan-s.Counted)
	if s.By > 1 {
		text += fmt.Sprintf(", and the configured numbers of subscribers count %.3g times as many from now on", s.Scale)
	}
	return text + ". If the plan in the config is larger than the one at Pusher, set it right instead (pushguard plan set)"
}

const shortfallBlob = "shortfall"

// shortfallLeast is the part of the plan that must be missing: leases and questions of fate account for a little.
const shortfallLeast = 0.01

// bookShortfall makes the count what Pusher's word says that it is at least. It belongs to the flight.
func (l *Ledger) bookShortfall(ctx context.Context, at store.At, m *mark) error {
	counted, plan := l.Used(m.at)
	if DayOf(m.at) != m.day || float64(plan-counted) < shortfallLeast*float64(plan) {
		return nil
	}
	s := Shortfall{Day: m.day, At: m.at, Counted: counted, Plan: plan, By: 1}
	if t := l.Tally(m.at); t[GuessedDeliveries] > 0 {
		known := counted - t[GuessedDeliveries]
		s.By = max(float64(plan-known)/float64(t[GuessedDeliveries]), 1)
	}
	s.Scale = s.By * max(l.LastShortfall().Scale, 1)
	audit := &store.AuditEntry{At: m.at, Who: "pusher", What: "unseen messages booked", Why: s.Words(),
		Before: strconv.FormatInt(counted, 10), After: strconv.FormatInt(plan, 10)}
	if err := l.st.SetUsage(ctx, at, plan, audit); err != nil {
		return err
	}
	l.Count(ByPusher, plan-counted)
	if s.By == 1 { // nothing was guessed: what is missing passes nowhere here, and will be there tomorrow as well
		l.learnUnseen(ctx, m.day.Start(), m.at, plan-counted)
	}
	l.shortfall.Store(&s)
	if text, err := store.Pack(s); err == nil {
		if err := l.st.PutBlob(ctx, l.cfg.Load().Account, shortfallBlob, text); err != nil {
			l.log.Warn("what Pusher's refusal showed is not known to the other replicas", "err", err)
		}
	}
	l.log.Warn(s.Words(), "counted", counted, "plan", plan, "scale", math.Round(s.Scale*100)/100)
	return nil
}

// unbook takes back what was booked because Pusher refused: it accepts again on the same day, so its plan was raised, or
// its refusal was none of the plan's.
func (l *Ledger) unbook(ctx context.Context, now time.Time) error {
	if err := l.HearShortfall(ctx); err != nil {
		return err
	}
	s := l.LastShortfall()
	booked := s.Plan - s.Counted
	if used, _ := l.Used(now); s.Day != DayOf(now) || booked <= 0 || used < booked {
		return nil
	} else if err := l.setUsage(ctx, now, used-booked, "pusher", "Pusher takes publishes again: its plan was raised. Tell pushguard with plan set"); err != nil {
		return err
	}
	l.Count(ByPusher, -booked)
	return l.settleShortfall(ctx, now)
}

// settleShortfall says that what was booked because Pusher refused stands no more: Pusher accepts, or a person set the count.
func (l *Ledger) settleShortfall(ctx context.Context, now time.Time) error {
	s := l.LastShortfall()
	if s.Day != DayOf(now) || s.Counted >= s.Plan {
		return nil
	}
	s.Counted = s.Plan
	l.shortfall.Store(&s)
	text, err := store.Pack(s)
	if err != nil {
		return err
	}
	return l.st.PutBlob(ctx, l.cfg.Load().Account, shortfallBlob, text)
}

// LastShortfall is what Pusher's last refusal showed, on whichever replica; the zero value: none is known.
func (l *Ledger) LastShortfall() Shortfall {
	if s := l.shortfall.Load(); s != nil {
		return *s
	}
	return Shortfall{}
}

// HearShortfall asks the store what the other replicas learned from Pusher's refusals. For a background task.
func (l *Ledger) HearShortfall(ctx context.Context) error {
	text, err := l.st.GetBlob(ctx, l.cfg.Load().Account, shortfallBlob)
	if err != nil || text == nil {
		return err
	}
	s := &Shortfall{}
	if err := store.Unpack(text, s); err != nil {
		return err
	}
	if old := l.shortfall.Load(); old == nil || !s.At.Before(old.At) {
		l.shortfall.Store(s)
	}
	return nil
}
