package quota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Brake is a stop that a person asked for. It is shared by all replicas, within a heartbeat.
type Brake struct {
	Allow  string    `json:"allow"` // what still passes: "critical" or "none"
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"` // zero: until it is lifted
}

// lever changes the account's state in the store, then beats, so that this replica obeys at once. It goes on when
// ctx is cancelled, for a lever half pulled is worse than one pulled for nobody; it needs the store.
func (l *Ledger) lever(ctx context.Context, now time.Time, what string, pull func(ctx context.Context, at store.At) error) error {
	ctx = context.WithoutCancel(ctx)
	// The beat first, so that the store knows the latest and this replica the epoch.
	err := l.Beat(ctx, now)
	for try := 0; err == nil; try++ {
		err = l.exclusive(ctx, func(ctx context.Context) error {
			b := l.cur.Load()
			return pull(ctx, store.At{Account: l.cfg.Load().Account, Epoch: b.epoch, Day: int32(b.day)})
		})
		if !errors.Is(err, store.ErrLost) || try > 1 {
			break
		}
		err = l.Beat(ctx, now)
	}
	if err == nil {
		err = l.Beat(ctx, now)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// SetPlan changes the plan, live on every replica within a heartbeat, and kept over restarts until the config's own
// figure changes. A plan below what is out already stops new sends and calls unspent leases back.
func (l *Ledger) SetPlan(ctx context.Context, now time.Time, messagesPerDay int64, who, why string) error {
	if messagesPerDay <= 0 || messagesPerDay > maxPlan {
		return fmt.Errorf("a plan of %d messages a day: give a number from 1 to 2^50", messagesPerDay)
	}
	name := "custom"
	for _, p := range plans {
		if p.MessagesPerDay == messagesPerDay {
			name = p.Name
		}
	}
	audit := &store.AuditEntry{At: now.UTC(), Who: who, What: "plan set", Why: why,
		Before: strconv.FormatInt(l.plan.Load(), 10), After: strconv.FormatInt(messagesPerDay, 10)}
	return l.lever(ctx, now, "plan set", func(ctx context.Context, at store.At) error {
		return l.st.SetPlan(ctx, at, messagesPerDay, name, audit)
	})
}

// SetUsage makes used the account's count of now's day, as when Pusher's dashboard knows of messages that did not
// pass here. What goes out from then on is added to it.
func (l *Ledger) SetUsage(ctx context.Context, now time.Time, used int64, who, why string) error {
	if used < 0 || used > maxPlan {
		return fmt.Errorf("a usage of %d: give a number from 0 to 2^50", used)
	}
	if err := l.setUsage(ctx, now, used, who, why); err != nil {
		return err
	}
	return l.settleShortfall(ctx, now)
}

func (l *Ledger) setUsage(ctx context.Context, now time.Time, used int64, who, why string) error {
	return l.lever(ctx, now, "usage set", func(ctx context.Context, at store.At) error {
		before, _ := l.Used(now)
		audit := &store.AuditEntry{At: now.UTC(), Who: who, What: "usage set", Why: why,
			Before: strconv.FormatInt(before, 10), After: strconv.FormatInt(used, 10)}
		if err := l.st.SetUsage(ctx, at, used, audit); err != nil {
			return err
		}
		if today, _ := l.GuessedRatio(now); today < mostlyGuessed && who != "pusher" {
			l.learnUnseen(ctx, DayOf(now).Start(), now, used-before)
		}
		return nil
	})
}

// mostlyGuessed is the part of the day's messages that, priced by a default, explains why a count is wrong: then a
// correction says nothing of traffic that passes elsewhere.
const mostlyGuessed = 0.5

// SetBrake pulls the brake on the whole account; nil lifts it. A Since that is zero becomes now. It replaces the one that
// is on, whatever that is: see TightenBrake. With ErrHereAlone the store is out of reach, and this replica alone obeys for
// the time being.
func (l *Ledger) SetBrake(ctx context.Context, now time.Time, b *Brake) error {
	return l.pullBrake(ctx, now, b, true)
}

// TightenBrake is SetBrake, but does not replace a stricter brake: then the error is ErrMilder.
func (l *Ledger) TightenBrake(ctx context.Context, now time.Time, b *Brake) error {
	return l.pullBrake(ctx, now, b, false)
}

func (l *Ledger) pullBrake(ctx context.Context, now time.Time, b *Brake, replace bool) error {
	if b == nil {
		return l.LiftBrake(ctx, now, "", "")
	}
	if b.Allow != "critical" && b.Allow != "none" {
		return fmt.Errorf("brake: allow is %q; it can be critical or none", b.Allow)
	}
	set := *b
	if set.Since.IsZero() {
		set.Since = now.UTC()
	}
	return l.moveBrake(ctx, now, func(old *Brake, aims []Aim) (*Brake, []Aim, *store.AuditEntry, error) {
		audit := &store.AuditEntry{At: now.UTC(), Who: set.By, What: "brake on", Why: set.Reason, After: set.what()}
		if old != nil {
			audit.Before = old.what()
			if why := milder(old.Allow, set.Allow, 0, 0, old.Until, set.Until); why != "" && !replace {
				return nil, nil, nil, fmt.Errorf("%w: pulled by %s, and %s. Replace it (--replace), or lift it first", ErrMilder, cmp.Or(old.By, "somebody"), why)
			}
		}
		return &set, aims, audit, nil
	})
}

func (b *Brake) what() string {
	s := "allow " + b.Allow
	if !b.Until.IsZero() {
		s += " until " + b.Until.UTC().Format(time.RFC3339)
	}
	return s
}

// LiftBrake ends the brake on the whole account and says who did. ErrHereAlone is as with SetBrake.
func (l *Ledger) LiftBrake(ctx context.Context, now time.Time, who, why string) error {
	return l.moveBrake(ctx, now, func(old *Brake, aims []Aim) (*Brake, []Aim, *store.AuditEntry, error) {
		audit := &store.AuditEntry{At: now.UTC(), Who: who, What: "brake off", Why: why}
		if old != nil {
			audit.Before = "allow " + old.Allow
		}
		return nil, aims, audit, nil
	})
}

// Exhaust records Pusher's own word that the account is over its quota: every reserve of the day is refused, here
// at once, on the other replicas within a heartbeat, until Reopen or the next day. When the store cannot be told the
// error says so, this replica obeys all the same, and tells it later.
func (l *Ledger) Exhaust(ctx context.Context, now time.Time, reason string) error {
	day := l.dayOf(now)
	if l.exhausted(day) {
		return nil
	}
	l.pending.Store(&mark{day, now.UTC(), reason})
	l.setGate(gateExhausted, true)
	return l.Beat(context.WithoutCancel(ctx), now)
}

// ExhaustedOn says that Pusher's word "over quota" holds on now's day.
func (l *Ledger) ExhaustedOn(now time.Time) bool { return l.exhausted(DayOf(now)) }

// Reopen ends what Exhaust began: Pusher accepted a publish again.
func (l *Ledger) Reopen(ctx context.Context, now time.Time, reason string) error {
	l.pending.Store(nil)
	audit := &store.AuditEntry{At: now.UTC(), Who: "pusher", What: "account reopened", Why: reason}
	if err := l.lever(ctx, now, "reopen", func(ctx context.Context, at store.At) error {
		return l.st.ClearExhausted(ctx, at, audit)
	}); err != nil {
		return err
	}
	return l.unbook(ctx, now)
}

// Audit returns the newest lines of the account's trail of levers, newest first.
func (l *Ledger) Audit(ctx context.Context, limit int) ([]store.AuditEntry, error) {
	return l.st.Audit(ctx, l.cfg.Load().Account, limit)
}

// AuditAppend adds a line for an act that the ledger does not know of.
func (l *Ledger) AuditAppend(ctx context.Context, e store.AuditEntry) error {
	return l.st.AuditAppend(ctx, l.cfg.Load().Account, e)
}

// Snapshot is the state of the account as this replica sees it.
type Snapshot struct {
	Day         Day
	Plan        Plan
	Used        int64     // spent on Day by all replicas; ours exactly, others' as of the last heartbeat
	Leased      int64     // held by replicas and not spent
	Remaining   int64     // Plan − Used, never negative; Leased is a part of it
	ExhaustedBy string    // Pusher's words
	Exhausted   time.Time // since when; zero: not exhausted
	Brake       *Brake
	Aims        []Aim // aimed brakes in force
	StoreUp     bool
	StoreErr    string    // why not
	StoreSince  time.Time // since when up or not
	OnStoreLoss LossPolicy
	Healing     bool   // the store lost data, and gives no lease until every replica has told what it knows
	Faults      int    // losses of data that this replica saw since its start
	Replicas    int    // alive, as of the last heartbeat
	Epoch       string // changes when the store loses data
	Lease       int64  // this replica's unspent tokens, those of the standby left out
	Standby     int64  // its tokens for when the store is out of reach
	Opened      bool   // a first lease was asked for and answered
	Joined      bool   // the store has answered since the start, or the record of a process before says what it held
	LeaseSpent  bool   // the store is out of reach, OnStoreLoss is LossLease, and too few of them are left for what comes
	Borrowed    int64  // sent beyond the lease since the store is out of reach
}

// Snapshot is cheap, but not for the hot path.
func (l *Ledger) Snapshot(now time.Time) Snapshot {
	v := l.view.Load()
	s := Snapshot{
		Day: l.dayOf(now), Plan: Plan{v.state.PlanName, l.plan.Load()}, Brake: l.CurrentBrake(now), Aims: l.aimsNow(now),
		StoreUp: v.up, StoreErr: v.err, StoreSince: v.since, OnStoreLoss: l.cfg.Load().OnStoreLoss,
		Healing: v.withheld, Faults: v.faults, Replicas: v.replicas, Epoch: v.epoch,
	}
	s.Used, _ = l.Used(now)
	s.Remaining = max(l.Net(s.Plan.MessagesPerDay)-s.Used, 0)
	if b := l.find(now); b != nil {
		s.Lease, s.Standby = b.plan.holds(Critical), b.plan.standbyFor(Critical)
		s.Borrowed = b.plan.emergency.Load()
		if b == l.cur.Load() {
			s.Leased = max(v.taken-v.spent-(b.plan.spent.Load()-v.sentSpent), 0)
		}
	}
	s.LeaseSpent = !v.up && s.OnStoreLoss == LossLease && (s.Lease+s.Standby == 0 || l.spent.Load())
	s.Joined, s.Opened = v.epoch != "", l.opened.Load()
	m := l.pending.Load()
	if m == nil {
		m = v.exhausted
	}
	if m != nil && m.day == s.Day {
		s.Exhausted, s.ExhaustedBy = m.at, m.why
	}
	return s
}
