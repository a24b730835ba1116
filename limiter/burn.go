package limiter

import (
	"fmt"
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/forecast"
)

// How fast the plan burns is measured over pairs of windows, as the multi-window, multi-burn-rate alerts of Google's
// SRE workbook are (https://sre.google/workbook/alerting-on-slos/, "6: Multiwindow, Multi-Burn-Rate Alerts"). A burn
// rate of 1 is the even rate: the plan divided by the day. The long window says that it matters, the short one, a
// twelfth of it, that it still goes on.
//
// The workbook has a budget of 30 days and windows of 1 h and 5 min at 14.4, 6 h and 30 min at 6, 3 d and 6 h at 1.
// Here the budget is of one day, so every window is divided by 30; the part of the budget that is gone when a pair
// fires stays the same: 2 %, 5 %, 10 %.
//
// An error budget is not meant to be spent, a plan is. So a pair alone trips nothing: the forecast must say as well
// that the plan will not last until the reset. For the slowest pair, which any busy afternoon fires, it must say so by
// a margin larger than its own error, and from a profile of the week that knows the hours to come.
type burnPair struct {
	long, short time.Duration
	rate        float64
	margin      float64 // use at reset, in plans, that the forecast must reach
	profile     bool    // the forecast must know the week
}

var burnPairs = [...]burnPair{
	{2 * time.Minute, 10 * time.Second, 14.4, 1, false},
	{12 * time.Minute, time.Minute, 6, 1, false},
	{144 * time.Minute, 12 * time.Minute, 1, 1.15, true},
}

const (
	// At the present rate the rest of the plan lasts no longer than this: bulk alone is not enough.
	burnNormalIn   = 15 * time.Minute
	burnCriticalIn = 3 * time.Minute
	// burnDwell is how long a level is given to show its effect before a stricter one follows.
	burnDwell = time.Minute
	// The first hold of a day, and the longest. Each is twice the one before.
	burnHold    = 5 * time.Minute
	burnHoldMax = time.Hour
	// burnTrial is how long everything must pass without a pair firing before a trial is over. It lasts as long as it
	// says, unless what passes costs more than trialCost of the plan before.
	burnTrial = time.Minute
	trialCost = 0.01
	// burnKnown is how many of the week's hours make a profile.
	burnKnown = 72
)

// BurnTripsPerDay bounds how often a day the burn rate can make the breaker shed, whatever the load looks like: holds of
// 5, 10, 20 and 40 minutes, then of an hour, fit into a day no more often.
const BurnTripsPerDay = 28

// burn is the burn-rate part of a Breaker. It belongs to the breaker's mutex.
type burn struct {
	state  quota.Burn
	fine   samples // for windows of minutes
	coarse samples // for hours
	total  int64   // sent since the start of the process, over midnights
	sent   int64   // today's, at the last observation
	at     time.Time
	since  time.Time // when observations began

	figures   figures // that the state was judged with
	protected bool    // a forecast of what the upper priorities need decides who is refused; see Protect
	trialFrom int64   // total when the trial began
}

// figures are what people set, and every judgement depends on.
type figures struct{ plan, corrected int64 }

// samples is a ring of running totals, one each step.
type samples struct {
	step time.Duration
	at   []int64 // Unix time in steps
	n    []int64
}

func newSamples(step, span time.Duration) samples {
	size := int(span/step) + 2
	return samples{step, make([]int64, size), make([]int64, size)}
}

func (s *samples) add(now time.Time, total int64) {
	k := now.UnixNano() / int64(s.step)
	i := int(k % int64(len(s.at)))
	if s.at[i] != k {
		s.at[i], s.n[i] = k, total
	}
}

// before is the total at now-window, and how long ago exactly it was taken; false if nobody was there to see.
func (s *samples) before(now time.Time, window time.Duration) (total int64, ago time.Duration, ok bool) {
	k := now.Add(-window).UnixNano() / int64(s.step)
	for range 3 { // a tick may have been missed
		if i := int(k % int64(len(s.at))); k >= 0 && s.at[i] == k {
			return s.n[i], now.Sub(time.Unix(0, k*int64(s.step))), true
		}
		k--
	}
	return 0, 0, false
}

func newBurn() burn {
	return burn{fine: newSamples(2*time.Second, 3*time.Minute), coarse: newSamples(30*time.Second, 145*time.Minute)}
}

func (b *burn) observe(now time.Time, sent int64) {
	if b.at.IsZero() || now.Before(b.at) {
		b.fine, b.coarse = newBurn().fine, newBurn().coarse
		b.since = now
	} else if quota.DayOf(now) != quota.DayOf(b.at) {
		b.total += max(sent, 0)
	} else {
		b.total += max(sent-b.sent, 0)
	}
	b.at, b.sent = now, sent
	b.fine.add(now, b.total)
	b.coarse.add(now, b.total)
}

// perSecond is the rate over a window.
func (b *burn) perSecond(now time.Time, window time.Duration) (float64, bool) {
	s := &b.coarse
	if window <= 2*time.Minute {
		s = &b.fine
	}
	was, ago, ok := s.before(now, window)
	if !ok || ago <= 0 {
		return 0, false
	}
	return float64(b.total-was) / ago.Seconds(), true
}

// firing is the pair that fires, with its two burn rates.
type firing struct {
	pair        *burnPair
	long, short float64
}

func (b *burn) firing(now time.Time, plan int64, fc forecast.Forecast) (f firing, ok bool) {
	even := float64(plan) / (24 * 60 * 60)
	for i := range burnPairs {
		p := &burnPairs[i]
		if fc.ExhaustedAt.IsZero() || float64(fc.UsedAtReset) < p.margin*float64(plan) || p.profile && fc.Hours < burnKnown {
			continue
		}
		if p.profile && b.protected {
			continue // who knows what the rest of the day needs refuses bulk when it is needed, and not before
		}
		short, ok := b.perSecond(now, p.short)
		if !ok || short < p.rate*even {
			continue
		}
		// In a trial the long window still holds what was before it.
		long, ok := b.perSecond(now, p.long)
		if b.state.Trial {
			long, ok = short, true
		}
		if ok && long >= p.rate*even {
			return firing{p, long / even, short / even}, true
		}
	}
	return firing{}, false
}

// worth is whether any pair could fire, before the forecast is asked, which costs more.
func (b *burn) worth(now time.Time, plan int64) bool {
	even := float64(plan) / (24 * 60 * 60)
	for i := range burnPairs {
		if short, ok := b.perSecond(now, burnPairs[i].short); ok && short >= burnPairs[i].rate*even {
			return true
		}
	}
	return false
}

// next is the state that follows, if another does.
func (b *burn) next(now time.Time, used, plan int64, extrapolate func() forecast.Forecast) (next quota.Burn, changed bool) {
	s := b.state
	if today := quota.DayOf(now); s.Day != today {
		if s.Level == 0 && !s.Trial && s.Day > today { // another replica's clock is ahead
			return s, false
		}
		s = quota.Burn{Seq: s.Seq, Day: today}
		b.state = s
	}
	if plan <= 0 {
		return s, false
	}
	if is := (figures{plan, used - b.sent}); is != b.figures {
		first := b.figures == figures{}
		b.figures = is
		if n, changed := b.anew(now, used, plan); changed && !first {
			return n, true
		}
	}
	var fc forecast.Forecast
	var f firing
	fires := false
	if b.worth(now, plan) {
		fc = extrapolate()
		f, fires = b.firing(now, plan, fc)
		if s.Trial && now.Before(s.Until) && float64(b.total-b.trialFrom) < trialCost*float64(plan) {
			fires = false
		}
	}
	set := func(level Level, trial bool, d time.Duration, reason string) (quota.Burn, bool) {
		n := s
		n.Seq++
		n.Level, n.Trial, n.Since, n.Until, n.Reason = uint8(level), trial, now.UTC(), now.Add(d).UTC(), reason
		if fires {
			n.PerSecond, n.Mark = min(f.long, f.short)*float64(plan)/secondsPerDay, f.pair.rate
		}
		if level > Closed && !trial && (s.Level == 0 || s.Trial) {
			n.Trips++
			n.Hold = d
		}
		return n, true
	}
	level := Level(s.Level)
	switch {
	case fires && (level == Closed || s.Trial):
		if s.Trips >= BurnTripsPerDay { // cannot happen, by the holds; the bound holds all the same
			return s, false
		}
		hold := min(max(2*s.Hold, burnHold), burnHoldMax)
		to := max(b.imminent(now, used, plan), ShedBulk)
		return set(to, false, hold, b.words(now, f, fc, plan, to)+fmt.Sprintf("; tried again in %v", short(hold)))
	case fires && level > Closed && now.Sub(s.Since) >= burnDwell && b.imminent(now, used, plan) > level:
		to := b.imminent(now, used, plan)
		return set(to, false, max(s.Until.Sub(now), burnHold), b.words(now, f, fc, plan, to))
	case s.Trial && !now.Before(s.Until):
		return set(Closed, false, 0, fmt.Sprintf("everything passed for %v and the plan burnt at %s times its even rate: no mark was reached again", short(burnTrial), b.multiple(now, time.Minute, plan)))
	case level > Closed && !s.Trial && !now.Before(s.Until):
		return set(level, true, burnTrial, fmt.Sprintf("after %v of %s everything passes again on trial, for %v or until that costs %s of the plan: the plan burns at %s times its even rate now",
			short(now.Sub(s.Since)), level.does(), short(burnTrial), percent(trialCost), b.multiple(now, time.Minute, plan)))
	}
	return s, false
}

const secondsPerDay = 24 * 60 * 60

// anew judges a state that sheds again, because a person, a reload or a correction changed the plan or the count: would
// it have been decided with these figures? What caused it is not forgotten, and so a small correction ends nothing.
func (b *burn) anew(now time.Time, used, plan int64) (quota.Burn, bool) {
	s := b.state
	if s.Level == 0 || s.Day != quota.DayOf(now) {
		return s, false
	}
	rate := s.PerSecond
	if rate <= 0 {
		rate, _ = b.perSecond(now, time.Minute)
		s.Mark = burnPairs[1].rate
	}
	times := rate * secondsPerDay / float64(plan)
	left := float64(max(plan-used, 0))
	n := s
	n.Seq++
	n.Since, n.Until = now.UTC(), now.UTC()
	if times < s.Mark || left > rate*untilReset(now).Seconds() {
		n.Level, n.Trial = uint8(Closed), false
		n.Reason = fmt.Sprintf("judged anew with %s of %s messages used: the %.1f messages a second for which it shed are %.1f times the even rate of this plan, and would not use it up: everything passes",
			grouped(used), grouped(plan), rate, times)
		return n, true
	}
	to := ShedBulk
	switch lasts := time.Duration(left / rate * float64(time.Second)); {
	case lasts <= burnCriticalIn:
		to = OnlyCritical
	case lasts <= burnNormalIn:
		to = ShedNormal
	}
	if s.Trial || to == Level(s.Level) {
		return s, false
	}
	n.Level, n.Until = uint8(to), s.Until
	n.Reason = fmt.Sprintf("judged anew with %s of %s messages used: at %.1f times the even rate of this plan it still does not last: %s",
		grouped(used), grouped(plan), times, to.does())
	return n, true
}

// imminent is the level that a plan calls for whose rest is gone within minutes at the rate of the last minute.
func (b *burn) imminent(now time.Time, used, plan int64) Level {
	rate, ok := b.perSecond(now, time.Minute)
	if !ok || rate <= 0 {
		return Closed
	}
	left := time.Duration(float64(max(plan-used, 0)) / rate * float64(time.Second))
	switch {
	case left <= burnCriticalIn:
		return OnlyCritical
	case left <= burnNormalIn:
		return ShedNormal
	}
	return Closed
}

func (b *burn) multiple(now time.Time, window time.Duration, plan int64) string {
	rate, ok := b.perSecond(now, window)
	if !ok {
		return "an unknown number of"
	}
	return fmt.Sprintf("%.1f", rate*24*60*60/float64(plan))
}

func (b *burn) words(now time.Time, f firing, fc forecast.Forecast, plan int64, to Level) string {
	text := fmt.Sprintf("the plan burns at %.1f times its even rate over %v and %.1f over %v (the mark is %v); the forecast is %s of the plan by the reset, used up at %s",
		f.long, short(f.pair.long), f.short, short(f.pair.short), f.pair.rate,
		percent(float64(fc.UsedAtReset)/float64(plan)), fc.ExhaustedAt.UTC().Format("15:04 UTC"))
	if to > ShedBulk {
		in := burnNormalIn
		if to == OnlyCritical {
			in = burnCriticalIn
		}
		text += fmt.Sprintf("; at the rate of the last minute the rest is gone in less than %v", short(in))
	}
	return text + ": " + to.does()
}

// short is d without the zeros that String has behind it.
func short(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return d.String()
}

// BurnMode says what the burn rate does.
type BurnMode uint8

// The modes. The zero value is BurnOn.
const (
	BurnOn      BurnMode = iota
	BurnObserve          // decides and tells, sheds nothing
	BurnOff
)

// String is the word that the config file uses.
func (m BurnMode) String() string {
	switch m {
	case BurnOn:
		return "on"
	case BurnObserve:
		return "observe"
	}
	return "off"
}

// ObserveBurn tells the breaker how much the account has sent today, corrections by hand left out, and how much of the
// plan counts as used, about once a second or oftener. extrapolate is asked only when a burn rate is high. When the
// burn-rate state changes, next is to be told to the other replicas; this one obeys already.
func (b *Breaker) ObserveBurn(now time.Time, sent, used, plan int64, extrapolate func() forecast.Forecast) (next quota.Burn, changed bool) {
	mode := b.limits.Load().cfg.Burn
	b.mu.Lock()
	b.burn.observe(now, sent)
	b.burn.protected = b.needs.Load() != nil && !b.limits.Load().cfg.ByMarks
	if mode == BurnOff {
		if b.burn.state.Level > 0 {
			n := quota.Burn{Seq: b.burn.state.Seq + 1, Day: quota.DayOf(now), Since: now.UTC(), Reason: "the burn rate was switched off"}
			b.takeBurn(n)
			next, changed = n, true
		}
	} else if next, changed = b.burn.next(now, used, plan, extrapolate); changed {
		b.takeBurn(next)
	}
	b.mu.Unlock()
	b.Update(now, used, plan)
	return next, changed
}

// AdoptBurn takes over what another replica decided, if it is newer.
func (b *Breaker) AdoptBurn(now time.Time, s quota.Burn, used, plan int64) {
	b.mu.Lock()
	if s.Seq > b.burn.state.Seq || s.Seq == b.burn.state.Seq && s != b.burn.state {
		b.takeBurn(s)
	}
	b.mu.Unlock()
	b.Update(now, used, plan)
}

// takeBurn makes s the state. b.mu is held.
func (b *Breaker) takeBurn(s quota.Burn) {
	if s.Trial && !(b.burn.state.Trial && b.burn.state.Since.Equal(s.Since)) {
		b.burn.trialFrom = b.burn.total
	}
	b.burn.state = s
	level := Level(s.Level)
	if level > OnlyCritical {
		level = OnlyCritical
	}
	if s.Trial && level > Closed {
		level = HalfOpen
	}
	b.burning.Store(int64(s.Day)<<8 | int64(level))
}

// burnLevel is the level that the burn rate asks for at now.
func (b *Breaker) burnLevel(day quota.Day) Level {
	w := b.burning.Load()
	if quota.Day(w>>8) != day || b.limits.Load().cfg.Burn != BurnOn {
		return Closed
	}
	return Level(w & 0xff)
}

// BurnState is the burn-rate part of the breaker, for people: what it would do in BurnObserve too.
func (b *Breaker) BurnState() quota.Burn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.burn.state
}

// paceWindow is over how long Pace is measured, and paceLeast over how little
// when the process is younger than that.
const (
	paceWindow = 8 * time.Second
	paceLeast  = 2 * time.Second
)

// Pace is how many messages a second the account spent in the last eight
// seconds; false while that is not known. It follows what ObserveBurn is told.
func (b *Breaker) Pace(now time.Time) (perSecond float64, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	window := min(paceWindow, now.Sub(b.burn.since))
	if b.burn.since.IsZero() || window < paceLeast {
		return 0, false
	}
	return b.burn.perSecond(now, window)
}

// BurnRate is how many times its even rate the plan burns over the last minute; 0 while that is not known.
func (b *Breaker) BurnRate(now time.Time, plan int64) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	rate, ok := b.burn.perSecond(now, time.Minute)
	if !ok || plan <= 0 {
		return 0
	}
	return rate * 24 * 60 * 60 / float64(plan)
}

// BurnWindow is how fast the plan burns over one window.
type BurnWindow struct {
	Over  time.Duration
	Times float64 // the even rate, the plan divided by the day
	Known bool    // the process has watched for that long
	Mark  float64 // at which the pair of windows that it belongs to fires, if the forecast agrees
}

// BurnWindows are all that the breaker looks at, in pairs, the shorter of each after the longer. For people: it may
// wait for the breaker's mutex.
func (b *Breaker) BurnWindows(now time.Time, plan int64) []BurnWindow {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]BurnWindow, 0, 2*len(burnPairs))
	for i := range burnPairs {
		p := &burnPairs[i]
		for _, over := range [...]time.Duration{p.long, p.short} {
			w := BurnWindow{Over: over, Mark: p.rate}
			if rate, ok := b.burn.perSecond(now, over); ok && plan > 0 {
				w.Times, w.Known = rate*24*60*60/float64(plan), true
			}
			out = append(out, w)
		}
	}
	return out
}
