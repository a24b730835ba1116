package limiter

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// Level is how much the quota breaker lets pass. The zero value is Closed.
type Level uint8

// The levels, mildest first.
const (
	Closed       Level = iota // everything passes
	ShedBulk                  // bulk is refused
	ShedNormal                // bulk and normal are refused
	OnlyCritical              // the same for publishes; pushguard makes no calls of its own either
	Open                      // nothing passes
	HalfOpen                  // on trial: one publish is out to learn whether Pusher takes it, or all pass to see whether the plan still burns too fast
)

const levels = 6

var levelNames = [levels]string{"closed", "shed_bulk", "shed_normal", "critical_only", "open", "half_open"}

// String is the word that programs outside rely on.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "unknown"
}

// BreakerConfig holds the thresholds as fractions of the plan. Zero fields take the default.
type BreakerConfig struct {
	ShedBulkAt     float64       // 0.80
	ShedNormalAt   float64       // 0.95
	CriticalOnlyAt float64       // 0.98
	Hysteresis     float64       // 0.01: how far below its threshold the use must fall before a level ends
	Probe          time.Duration // 60 s: how long after Pusher's refusal one publish may try again
	Burn           BurnMode      // whether the burn rate trips levels before the thresholds do
	// ByMarks keeps to the thresholds. Otherwise, once the account's week is known, bulk is refused from where what normal
	// and critical will still need today would not fit any more, and normal from where critical would not; see Protect.
	ByMarks bool
}

func (c BreakerConfig) normal() (BreakerConfig, error) {
	def := func(f *float64, d float64) {
		if *f == 0 {
			*f = d
		}
	}
	def(&c.ShedBulkAt, 0.80)
	def(&c.ShedNormalAt, 0.95)
	def(&c.CriticalOnlyAt, 0.98)
	def(&c.Hysteresis, 0.01)
	if c.Probe == 0 {
		c.Probe = time.Minute
	}
	var errs []error
	if !(0 < c.ShedBulkAt && c.ShedBulkAt <= c.ShedNormalAt && c.ShedNormalAt <= c.CriticalOnlyAt && c.CriticalOnlyAt <= 1) {
		errs = append(errs, fmt.Errorf("breaker: thresholds must rise: 0 < shed_bulk_at %s <= shed_normal_at %s <= critical_only_at %s <= 100 %%",
			percent(c.ShedBulkAt), percent(c.ShedNormalAt), percent(c.CriticalOnlyAt)))
	}
	if !(0 < c.Hysteresis && c.Hysteresis < c.ShedBulkAt) {
		errs = append(errs, fmt.Errorf("breaker: hysteresis %s must be above 0 and below shed_bulk_at", percent(c.Hysteresis)))
	}
	if c.Probe < time.Second {
		errs = append(errs, fmt.Errorf("breaker: probe of %v is below a second", c.Probe))
	}
	return c, errors.Join(errs...)
}

// Transition is a change of level, told in words and numbers.
type Transition struct {
	From, To Level
	At       time.Time
	Reason   string
}

// BreakerState is where the breaker stands.
type BreakerState struct {
	State  Level
	Reason string
	Since  time.Time
}

// Breaker is the quota breaker of one account: the fuller the plan, and the faster it burns, the less
// it lets pass. All apps of the account share it. Safe for concurrent use; Allow is atomics only unless
// the level changes.
//
// The stricter of two levels holds: that by thresholds, and that by the burn rate (burn.go).
//
// By thresholds the level follows from used/plan. It rises at once, and falls only when the use
// lies Hysteresis below the threshold (after a refund, a correction or a raised plan), or with the
// new day. At 100 % of the plan it is Open, and falls by the same rule.
//
// Pusher's own word that the account is over its quota (Trip) opens it whatever the count says.
// Then, each Probe, it is HalfOpen for one publish. If Pusher takes that, the level by threshold
// holds again; if not, it is Open for another Probe. Each replica probes by itself. The border
// that sees a Verdict.Probe delivered should call Ledger.Reopen, so that all replicas know.
type Breaker struct {
	limits atomic.Pointer[limits]
	word   atomic.Int64 // a standing

	burning atomic.Int64 // the day above bit 8, then the level that the burn rate asks for
	needs   atomic.Pointer[Needs]

	mu        sync.Mutex
	burn      burn
	byBurn    bool // the present level is the burn rate's
	reason    string
	since     time.Time
	moves     [HalfOpen + 1]int64 // into each level
	nextProbe time.Time           // of an opening by Pusher's word

	notify  func(Transition)
	queue   []Transition
	sending bool
}

type limits struct {
	cfg BreakerConfig
	at  [Open + 1]float64 // use at which each level begins
}

// Preview is where the breaker would stand with another count or plan, by the code that decides when they are set.
func (b *Breaker) Preview(now time.Time, used, plan int64) (Level, string) {
	if open, _ := b.openByWord(now); open {
		st := b.State(now)
		return st.State, st.Reason
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	day := quota.DayOf(now)
	m := b.marks(plan)
	to := m.level(use(used, plan), Closed)
	state := b.burn.state
	if next, changed := b.burn.anew(now, used, plan); changed {
		state = next
	}
	if state.Day == day && state.Level > 0 && b.limits.Load().cfg.Burn == BurnOn {
		burning := min(Level(state.Level), OnlyCritical)
		if state.Trial {
			burning = HalfOpen
		}
		if burning != HalfOpen && burning > to || to == Closed {
			return burning, state.Reason
		}
	}
	from := b.standing().level()
	if from == HalfOpen {
		from = Closed
	}
	if to == Closed && from == Closed {
		return Closed, "no mark is reached"
	}
	return to, m.why(from, to, used, plan)
}

// standing is what the hot path needs to know, in one word: the day above bit 16, then flags, then
// the level.
type standing int64

const (
	byWord    standing = 1 << 8 // open, or half open, because Pusher said so
	confirmed standing = 1 << 9 // and the ledger knows it
)

func stand(day quota.Day, l Level, flags standing) standing {
	return standing(day)<<16 | flags | standing(l)
}

func (s standing) day() quota.Day  { return quota.Day(s >> 16) }
func (s standing) level() Level    { return Level(s & 0xff) }
func (s standing) flags() standing { return s & (byWord | confirmed) }
func (s standing) word() bool      { return s&byWord != 0 }

// NewBreaker makes a breaker that is closed. onTransition, if not nil, is told of every change of
// level, one after another and in order, outside of any lock; it runs in the goroutine of the
// publish that caused the change, so it should hand over and return.
func NewBreaker(now time.Time, cfg BreakerConfig, onTransition func(Transition)) (*Breaker, error) {
	b := &Breaker{notify: onTransition, since: now, reason: "closed at this replica's start", burn: newBurn()}
	b.word.Store(int64(stand(quota.DayOf(now), Closed, 0)))
	if err := b.Configure(cfg); err != nil {
		return nil, err
	}
	return b, nil
}

// Configure takes new thresholds while running; on an error the old ones stay. The level follows
// with the next Allow or Update.
func (b *Breaker) Configure(cfg BreakerConfig) error {
	cfg, err := cfg.normal()
	if err != nil {
		return err
	}
	b.limits.Store(&limits{cfg, [Open + 1]float64{0, cfg.ShedBulkAt, cfg.ShedNormalAt, cfg.CriticalOnlyAt, 1}})
	return nil
}

// Needs are the messages that a day still needs for publishes that must not be refused for others' sake.
type Needs struct {
	AboveBulk   int64 // of normal and critical publishes, and of what passes nobody
	AboveNormal int64 // of critical ones alone
}

// Protect takes what the rest of the day needs, from a forecast; nil: it is not known, and the thresholds hold.
func (b *Breaker) Protect(n *Needs) { b.needs.Store(n) }

// Protected says from which part of the plan what is refused, and whether a forecast says so.
func (b *Breaker) Protected(plan int64) (at [Open + 1]float64, byForecast bool) {
	m := b.marks(plan)
	return m.at, m.byForecast
}

// marks are where each level begins, and how far below it ends.
type marks struct {
	at         [Open + 1]float64
	hysteresis float64
	byForecast bool
}

// forecastHysteresis is small: what it holds back of the plan at the day's end is never used.
const forecastHysteresis = 0.003

func (b *Breaker) marks(plan int64) marks {
	l := b.limits.Load()
	n := b.needs.Load()
	if n == nil || l.cfg.ByMarks || plan <= 0 {
		return marks{at: l.at, hysteresis: l.cfg.Hysteresis}
	}
	part := func(need int64) float64 { return min(max(1-float64(max(need, 0))/float64(plan), 0.0001), 1) }
	m := marks{hysteresis: forecastHysteresis, byForecast: true}
	m.at = [Open + 1]float64{0, part(n.AboveBulk), part(n.AboveNormal), 1, 1}
	m.at[ShedBulk] = min(m.at[ShedBulk], m.at[ShedNormal])
	m.at[OnlyCritical] = (m.at[ShedNormal] + 1) / 2
	return m
}

// level is where the use belongs, coming from level from.
func (l *marks) level(use float64, from Level) Level {
	to := Closed
	for n := Open; n > Closed; n-- {
		at := l.at[n]
		if n <= from {
			at -= l.hysteresis
		}
		if use >= at {
			to = n
			break
		}
	}
	return to
}

// Allow says whether a publish of priority p may pass when used of plan messages are spent, and
// if not, why: BreakerOpen for Pusher's word, PlanSpent when the plan is used up, else by level. A plan
// of 0 or less is no plan: everything passes.
func (b *Breaker) Allow(now time.Time, p quota.Priority, used, plan int64) (bool, Reason) {
	level := b.Update(now, used, plan)
	switch {
	case level == Closed, p == quota.Critical && level < Open, level == HalfOpen && !b.standing().word():
		return true, NoReason
	case level == ShedBulk:
		if p > quota.Bulk {
			return true, NoReason
		}
		return false, SheddingBulk
	case level == ShedNormal:
		return false, SheddingNormal
	case level == OnlyCritical:
		return false, CriticalOnly
	}
	if open, _ := b.openByWord(now); open {
		return false, BreakerOpen
	}
	return false, PlanSpent
}

// Update brings the level up to date, for a background task that wants it shown truthfully when
// nothing is published. Allow does the same.
func (b *Breaker) Update(now time.Time, used, plan int64) Level {
	if s := b.standing(); quota.DayOf(now) <= s.day() {
		level := s.level()
		if s.word() || level == Closed && plan <= 0 || b.level(s.day(), used, plan, level) == level {
			return level
		}
	}
	return b.move(now, used, plan)
}

// level is where thresholds and burn rate together put the use, coming from level from.
func (b *Breaker) level(day quota.Day, used, plan int64, from Level) Level {
	if from == HalfOpen {
		from = Closed
	}
	m := b.marks(plan)
	to := m.level(use(used, plan), from)
	if burn := b.burnLevel(day); burn == HalfOpen {
		if to == Closed {
			return HalfOpen
		}
	} else if burn > to {
		return burn
	}
	return to
}

func (b *Breaker) standing() standing { return standing(b.word.Load()) }

func use(used, plan int64) float64 {
	if plan <= 0 {
		return 0
	}
	return float64(used) / float64(plan)
}

// move is Update's slow path: the day or the level changes.
func (b *Breaker) move(now time.Time, used, plan int64) Level {
	b.mu.Lock()
	if today := quota.DayOf(now); today > b.standing().day() {
		b.set(now, stand(today, Closed, 0), newDay)
	}
	s := b.standing()
	level := s.level()
	if !s.word() {
		if to := b.level(s.day(), used, plan, level); to != level {
			b.set(now, stand(s.day(), to, 0), b.why(s.day(), level, to, used, plan))
			level = to
		}
	}
	b.mu.Unlock()
	b.deliver()
	return level
}

const newDay = "a new day began at 00:00 UTC: the plan is whole again"

// why puts a change of level into words. b.mu is held.
func (b *Breaker) why(day quota.Day, from, to Level, used, plan int64) string {
	l := b.marks(plan)
	was := b.byBurn
	b.byBurn = to > Closed && to == b.burnLevel(day) && to != l.level(use(used, plan), Closed)
	if b.byBurn || was && to == Closed && b.burn.state.Day == day && b.limits.Load().cfg.Burn == BurnOn {
		return b.burn.state.Reason
	}
	if from == HalfOpen {
		from = Closed
	}
	return l.why(from, to, used, plan)
}

// why puts a change by threshold into words.
func (l *marks) why(from, to Level, used, plan int64) string {
	if plan <= 0 {
		return "the account has no plan any more"
	}
	s := fmt.Sprintf("%s of the plan used (%s of %s messages), ", percent(use(used, plan)), grouped(used), grouped(plan))
	if kept := int64(math.Round((1 - l.at[max(to, min(from, ShedNormal))]) * float64(plan))); l.byForecast && max(from, to) <= ShedNormal {
		who := "normal and critical"
		if max(from, to) == ShedNormal {
			kept, who = int64(math.Round((1-l.at[ShedNormal])*float64(plan))), "critical"
		}
		if to < from {
			return s + fmt.Sprintf("and what %s will still need today, %s by the forecast, fits beside it again", who, grouped(kept))
		}
		return s + fmt.Sprintf("and %s will still need %s today, by the forecast: %s", who, grouped(kept), to.does())
	}
	if to < from {
		return s + fmt.Sprintf("%s below the %s at which %s begins", percent(l.at[to+1]-use(used, plan)), percent(l.at[to+1]), (to+1).does())
	}
	return s + fmt.Sprintf("at or over the %s at which %s begins", percent(l.at[to]), to.does())
}

// does is the level as an activity.
func (l Level) does() string {
	switch l {
	case ShedBulk:
		return "refusing bulk"
	case ShedNormal:
		return "refusing bulk and normal"
	case OnlyCritical:
		return "letting only critical pass"
	}
	return "refusing everything"
}

// set changes where the breaker stands; if that is another level it keeps the reason and queues
// the news. b.mu is held.
func (b *Breaker) set(now time.Time, to standing, reason string) {
	from := b.standing()
	b.word.Store(int64(to))
	if from.level() == to.level() {
		return
	}
	b.reason, b.since = reason, now
	b.moves[to.level()]++
	if b.notify != nil {
		b.queue = append(b.queue, Transition{From: from.level(), To: to.level(), At: now, Reason: reason})
	}
}

// deliver hands the queue to notify. One goroutine does it at a time, so the order is kept; a
// notify that calls the breaker finds it busy and leaves the rest to that one.
func (b *Breaker) deliver() {
	if b.notify == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sending {
		return
	}
	b.sending = true
	for len(b.queue) > 0 {
		t := b.queue[0]
		b.queue = b.queue[1:]
		b.mu.Unlock()
		b.notify(t)
		b.mu.Lock()
	}
	b.sending = false
}

// Moves counts changes of level since the start, by the new level.
func (b *Breaker) Moves() [HalfOpen + 1]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.moves
}

// State is where the breaker stands at now.
func (b *Breaker) State(now time.Time) BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.standing()
	if today := quota.DayOf(now); today > s.day() && s.level() != Closed {
		return BreakerState{Closed, newDay, today.Start()}
	}
	return BreakerState{s.level(), b.reason, b.since}
}

// Trip opens the breaker by Pusher's own word that the account is over its quota, until a probe is
// accepted, the ledger is opened again, or the day ends. It does nothing while that holds already.
func (b *Breaker) Trip(now time.Time, reason string) { b.trip(now, reason, 0) }

// Confirm tells the breaker that the ledger knows of Pusher's word, from whichever replica; without it one that sends
// nothing would not try whether Pusher accepts again.
func (b *Breaker) Confirm(now time.Time) { b.confirm(now) }

// confirm is Trip by the ledger, which knows that the account is exhausted. From then on the
// ledger's word to the contrary is believed.
func (b *Breaker) confirm(now time.Time) {
	if s := b.standing(); s.flags() != byWord|confirmed || quota.DayOf(now) > s.day() {
		b.trip(now, "told by the ledger", confirmed)
	}
}

func (b *Breaker) trip(now time.Time, reason string, flag standing) {
	b.mu.Lock()
	s := b.standing()
	if today := quota.DayOf(now); s.word() && today <= s.day() {
		b.set(now, s|flag, b.reason)
	} else {
		b.nextProbe = now.Add(b.limits.Load().cfg.Probe)
		to := stand(max(today, s.day()), Open, byWord|flag)
		b.set(now, to, "Pusher says that the account is over its quota: "+reason)
	}
	b.mu.Unlock()
	b.deliver()
}

// openByWord says whether Trip holds at now, and whether the ledger knows it.
func (b *Breaker) openByWord(now time.Time) (open, known bool) {
	s := b.standing()
	open = s.word() && quota.DayOf(now) <= s.day()
	return open, open && s&confirmed != 0
}

// tryProbe says whether this publish is the one that may try. A probe whose end is never told is
// given up after another Probe.
func (b *Breaker) tryProbe(now time.Time) bool {
	b.mu.Lock()
	s := b.standing()
	ok := s.word() && !now.Before(b.nextProbe)
	if ok {
		probe := b.limits.Load().cfg.Probe
		b.nextProbe = now.Add(probe)
		b.set(now, stand(s.day(), HalfOpen, s.flags()), "one publish is sent to learn whether Pusher takes it again")
	}
	b.mu.Unlock()
	b.deliver()
	return ok
}

// probed says how a probe ended.
func (b *Breaker) probed(now time.Time, accepted bool) {
	b.mu.Lock()
	switch s := b.standing(); {
	case !s.word():
	case accepted:
		b.set(now, stand(s.day(), Closed, 0), "Pusher took a publish again")
	case s.level() == HalfOpen:
		probe := b.limits.Load().cfg.Probe
		b.nextProbe = now.Add(probe)
		b.set(now, stand(s.day(), Open, s.flags()), fmt.Sprintf("the probe did not get through; the next one in %v", probe))
	}
	b.mu.Unlock()
	b.deliver()
}

// reopened ends an opening by Pusher's word, because the ledger grants again: another replica's
// probe was taken, or a person set plan or usage.
func (b *Breaker) reopened(now time.Time) {
	b.mu.Lock()
	if s := b.standing(); s.word() {
		b.set(now, stand(s.day(), Closed, 0), "the account was opened again")
	}
	b.mu.Unlock()
	b.deliver()
}

// retryAfter is how long the breaker will refuse for sure, as far as it knows.
func (b *Breaker) retryAfter(now time.Time) time.Duration {
	if open, _ := b.openByWord(now); open {
		b.mu.Lock()
		d := b.nextProbe.Sub(now)
		b.mu.Unlock()
		return max(d, time.Second)
	}
	return untilReset(now)
}

// untilReset is the time until the plan is whole again, at least a second.
func untilReset(now time.Time) time.Duration {
	return max(quota.DayOf(now).End().Sub(now), time.Second)
}

// percent is f with at most one decimal, never rounded up: 99.96 is not yet 100.
func percent(f float64) string {
	return strconv.FormatFloat(math.Floor(f*1000+1e-6)/10, 'f', -1, 64) + " %"
}

func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
