package ops

import (
	"sync"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// The bounds of what an account's book remembers: ten minutes by the second, a
// day by the minute, callers by name up to maxBookCallers (the rest is one line
// called limiter.OtherCallers). All in all at most about 1.5 MB an account.
const (
	fineStep       = time.Second
	finePoints     = 600
	coarseStep     = time.Minute
	coarsePoints   = 1440
	maxBookCallers = 64
	maxEvents      = 200
)

// The groups in which the dashboard draws what happened to publishes.
const (
	groupPassed      = iota // sent
	groupFolded             // deduplicated: accepted, and delivered already
	groupUndelivered        // accepted and not delivered: conflated (a newer value is), digested, vacant
	groupLimited            // throttled, contained
	groupShed               // over_budget, braked
	groupFailed             // unavailable, or refused by Pusher itself
	groups
)

var groupOf = [limiter.Outcomes]int{
	limiter.Sent:         groupPassed,
	limiter.Deduplicated: groupFolded,
	limiter.Conflated:    groupUndelivered,
	limiter.Digested:     groupUndelivered,
	limiter.Vacant:       groupUndelivered,
	limiter.Throttled:    groupLimited,
	limiter.Contained:    groupLimited,
	limiter.OverBudget:   groupShed,
	limiter.Braked:       groupShed,
	limiter.Unavailable:  groupFailed,
}

// pair is publishes asked for, and those of them that were held back (refused,
// whatever the reason).
type pair struct{ asked, held int64 }

// point is what happened in one step of time, which ends at at.
type point struct {
	at         int64 // unix seconds
	used, plan int64
	level      limiter.Level
	braked     bool
	groups     [groups]int64
	callers    []pair // by the book's caller index; may be shorter than it
}

// ring keeps the newest points.
type ring struct {
	points []point
	next   int
	full   bool
}

func newRing(n int) ring { return ring{points: make([]point, n)} }

func (r *ring) add(p point) {
	r.points[r.next] = p
	r.next++
	if r.next == len(r.points) {
		r.next, r.full = 0, true
	}
}

// since lists the points after from, oldest first.
func (r *ring) since(from int64) []point {
	n := r.next
	if r.full {
		n = len(r.points)
	}
	out := make([]point, 0, n)
	for i := range n {
		p := r.points[i]
		if r.full {
			p = r.points[(r.next+i)%len(r.points)]
		}
		if p.at > from {
			out = append(out, p)
		}
	}
	return out
}

// Event is something that happened to an account, as this replica saw it.
type Event struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"` // breaker, brake, plan, store, upstream, start
	// Severity is good, note, warn or bad: how loud to show it.
	Severity string `json:"severity"`
	Text     string `json:"text"`
}

// book is what this replica remembers of one account for the dashboard. It is
// written once a second by sample and read by the pages.
type book struct {
	mu sync.Mutex

	seen     bool
	day      quota.Day
	fine     ring
	coarse   ring
	minute   point // being summed, not yet in coarse
	index    map[string]int
	names    []string
	lastSeen map[*limiter.Caller][limiter.Outcomes + 1]int64 // the last is refused by Pusher
	midnight map[*limiter.Caller][limiter.Outcomes]int64     // counters at the begin of the day
	rules    map[*limiter.CompiledRule]*ruleWindow

	usuals  []float64 // see usual
	usualAt time.Time

	events  []Event
	was     standing
	told    map[string]string // of incidents: by id, what was last told
	touched time.Time         // a lever changed what is used; the pace before it says nothing
}

// standing is what is compared from second to second to find events.
type standing struct {
	level    limiter.Level
	since    time.Time
	brake    string
	plan     int64
	storeUp  bool
	upstream map[string]string
}

// ruleWindow is what a rule did in each of the last 60 seconds.
type ruleWindow struct {
	asked, held int64 // counters when last looked at
	slots       [60]pair
	at          [60]int64
	seen        int64 // when the rule was last in force
}

func (w *ruleWindow) sum(now int64) (p pair) {
	for i := range w.slots {
		if w.at[i] > now-60 {
			p.asked += w.slots[i].asked
			p.held += w.slots[i].held
		}
	}
	return p
}

func newBook() *book {
	return &book{
		fine: newRing(finePoints), coarse: newRing(coarsePoints), index: map[string]int{},
		lastSeen: map[*limiter.Caller][limiter.Outcomes + 1]int64{},
		midnight: map[*limiter.Caller][limiter.Outcomes]int64{},
		rules:    map[*limiter.CompiledRule]*ruleWindow{},
	}
}

func (b *book) callerIndex(name string) int {
	if i, ok := b.index[name]; ok {
		return i
	}
	if len(b.names) >= maxBookCallers-1 && name != limiter.OtherCallers {
		return b.callerIndex(limiter.OtherCallers)
	}
	b.index[name] = len(b.names)
	b.names = append(b.names, name)
	return b.index[name]
}

// sample writes the second that ends at now into the book.
func (b *book) sample(now time.Time, a Account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	snap := a.Ledger.Snapshot(now)
	// With nothing published nobody else brings the breaker up to date.
	a.Breaker.Update(now, snap.Used, snap.Plan.MessagesPerDay)
	state := a.Breaker.State(now)
	newDay := snap.Day != b.day
	b.day = snap.Day
	p := point{
		at: now.Unix(), used: snap.Used, plan: snap.Plan.MessagesPerDay, level: state.State,
		braked: snap.Brake != nil, callers: make([]pair, len(b.names), len(b.names)+1),
	}
	for _, app := range a.Apps {
		for _, c := range app.Limiter.Callers() {
			b.caller(now, c, newDay, &p)
		}
		for _, r := range app.Limiter.Rules() {
			b.rule(now, r)
		}
	}
	for r, w := range b.rules {
		if w.seen != now.Unix() {
			delete(b.rules, r)
		}
	}
	b.notice(now, a, snap, state)
	b.seen = true
	b.fine.add(p)
	b.sum(p)
}

func (b *book) caller(now time.Time, c *limiter.Caller, newDay bool, p *point) {
	st := c.Stats(now)
	if _, known := b.midnight[c]; newDay && (b.seen || !known) {
		if b.seen {
			b.midnight[c] = st.Outcomes
		} else {
			b.midnight[c] = [limiter.Outcomes]int64{}
		}
	}
	last, known := b.lastSeen[c]
	var is [limiter.Outcomes + 1]int64
	copy(is[:], st.Outcomes[:])
	is[limiter.Outcomes] = st.Refused
	b.lastSeen[c] = is
	if !known && !b.seen {
		return // it was counted before anybody looked; when is not known
	}
	i := b.callerIndex(c.Name())
	for len(p.callers) <= i {
		p.callers = append(p.callers, pair{})
	}
	for o := range limiter.Outcome(limiter.Outcomes) {
		n := is[o] - last[o]
		p.groups[groupOf[o]] += n
		p.callers[i].asked += n
		if o.Refuses() {
			p.callers[i].held += n
		}
	}
	rejected := is[limiter.Outcomes] - last[limiter.Outcomes]
	p.groups[groupFailed] += rejected
	p.callers[i].asked += rejected
	p.callers[i].held += rejected
}

func (b *book) rule(now time.Time, r *limiter.CompiledRule) {
	st := r.Stats()
	is := pair{asked: st.Matched}
	for o := range limiter.Outcome(limiter.Outcomes) {
		if o.Refuses() {
			is.held += st.Outcomes[o]
		}
	}
	w := b.rules[r]
	if w == nil {
		w = &ruleWindow{asked: is.asked, held: is.held}
		b.rules[r] = w
	}
	i := now.Unix() % int64(len(w.slots))
	if w.at[i] != now.Unix() { // a look that came late can be in the same second as the next
		w.slots[i] = pair{}
	}
	w.slots[i].asked += max(is.asked-w.asked, 0)
	w.slots[i].held += max(is.held-w.held, 0)
	w.at[i], w.seen = now.Unix(), now.Unix()
	w.asked, w.held = is.asked, is.held
}

// sum adds a second to the minute under way, and closes the minute before.
func (b *book) sum(p point) {
	if b.minute.at != 0 && b.minute.at/60 != p.at/60 {
		b.coarse.add(b.minute)
		b.minute = point{}
	}
	m := &b.minute
	m.at, m.used, m.plan = p.at, p.used, p.plan
	m.level = max(m.level, p.level)
	m.braked = m.braked || p.braked
	for i := range p.groups {
		m.groups[i] += p.groups[i]
	}
	for len(m.callers) < len(p.callers) {
		m.callers = append(m.callers, pair{})
	}
	for i, c := range p.callers {
		m.callers[i].asked += c.asked
		m.callers[i].held += c.held
	}
}

// window lists the points of the last d, by the second if that long is known by
// the second, else by the minute with the minute under way at the end.
func (b *book) window(now time.Time, d time.Duration) (step time.Duration, points []point) {
	if d <= finePoints*fineStep {
		return fineStep, b.fine.since(now.Add(-d).Unix())
	}
	points = b.coarse.since(now.Add(-d).Unix())
	if b.minute.at != 0 {
		points = append(points, b.minute)
	}
	return coarseStep, points
}
