package watch

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/quota"
)

// State is where an incident stands.
type State string

// The states.
const (
	Open     State = "open"
	Resolved State = "resolved"
)

// Action is what is being done about an incident's culprits.
type Action string

// The actions.
const (
	Contained Action = "contained" // held to their usual rate
	Suggested Action = "suggested" // containment waits for a person
	Released  Action = "released"  // let go by a person, or because it is over
	None      Action = "none"      // named only
)

// Incident is a rise of the rate, and who makes it. It is a value: what is
// handed out does not change any more. Times are UTC.
type Incident struct {
	ID                                string
	Account                           string
	State                             State
	Kind                              detect.Kind
	StartedAt, DetectedAt, ResolvedAt time.Time // ResolvedAt is zero while it is open
	// Factor is the culprits' rate over their usual one at its highest; Rate
	// and Usual are the present ones in publishes a second, or the last ones.
	Factor, Rate, Usual float64
	Excess              int64   // messages offered beyond the usual
	Refused             int64   // publishes that containment held back
	Confidence          float64 // that the culprits explain the excess, 0–1
	Culprits            []Culprit
	Action              Action
	AckedBy             string
	Forecast            Forecast
	Samples             []Sample
	Timeline            []Entry
	// Lasting says that the excess has lasted, or cost, enough to hold the
	// culprits, or that the plan would not last; until then it may be a burst,
	// and they are only named.
	Lasting bool
	// Waiting says that they are going to be held by themselves once it lasts.
	Waiting bool
	// Why says, under auto, why the culprits are held or not.
	Why string

	number int    // the detector's
	named  string // the culprits when they were told last
}

// Culprit is a combination that makes a part of the excess. What does not
// matter, or is not one alone, is detect.Any.
type Culprit struct {
	App, Caller, Event, Channel string
	Payloads                    []uint64 // digests that come over and over, if any
	Share                       float64  // of the excess, 0–1
	Rate, Usual                 float64  // publishes a second
	Callers                     []string // who takes part, where they are many
}

// String names the culprit in one line.
func (c Culprit) String() string {
	var words []string
	for _, w := range []string{c.Caller, c.Event, c.Channel} {
		if w != "" && w != detect.Any {
			words = append(words, w)
		}
	}
	if len(words) == 0 {
		return "everybody"
	}
	return strings.Join(words, " · ")
}

// Forecast is what becomes of the plan when things go on as in the last minutes.
type Forecast struct {
	ExhaustedAt time.Time // zero: not before the reset
	UsedAtReset int64     // messages; 0: not known
}

// Sample is one publish of a culprit. Its payload is not kept.
type Sample struct {
	At                          time.Time
	App, Caller, Event, Channel string
	Digest                      uint64
	Bytes                       int
}

// Entry is a line of an incident's timeline.
type Entry struct {
	At   time.Time
	Kind string // opened, culprits, contain, release, ack, breaker, resolved
	Text string
}

// What is kept: incidents, and in each samples and lines.
const (
	maxIncidents = 200
	maxSamples   = 10
	maxEntries   = 100
)

// Change is one step of an incident, for those who are to be told.
type Change struct {
	Phase    detect.Phase
	At       time.Time
	Incident Incident
}

// Tick takes the time on: once a second. It returns what happened to incidents.
func (w *Watch) Tick(now time.Time) []Change {
	now = now.UTC()
	rest := w.hurry(now)
	events := w.det.Tick(now)
	w.stake.Store(w.cfg.Level != nil && atStake(w.cfg.Level(now)))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lasts = rest
	if w.cfg.Used != nil {
		used, plan := w.cfg.Used(now)
		w.trend.add(now, used, plan)
		w.stakes.measure(now, used, w.cells.messages.Load(), w.current != nil)
	}
	var out []Change
	for _, e := range events {
		if c, ok := w.step(now, e); ok {
			out = append(out, c)
		}
	}
	if now.Unix()%10 == 0 {
		if c, ok := w.restake(now); ok {
			out = append(out, c)
		}
	}
	if in := w.current; in != nil {
		if now.Unix()%10 == 0 {
			if live, ok := w.det.Incident(); ok && live.ID == in.number {
				w.update(in, &live)
			}
			in.Forecast = w.trend.forecast(now)
		}
		w.publish()
	}
	w.peers.wait(out)
	if now.Unix()%60 == 0 {
		w.cells.sweep(now, w.current == nil)
	}
	return out
}

// hurry tells the detector how long it may wait before a culprit is held. It
// returns how long the rest of the plan lasts at the present pace, 0 if that is
// not known.
func (w *Watch) hurry(now time.Time) (rest time.Duration) {
	if w.cfg.Used == nil || w.cfg.Pace == nil {
		return 0
	}
	used, plan := w.cfg.Used(now)
	pace, known := w.cfg.Pace(now)
	if !known || plan <= 0 {
		pace = 0
	}
	left := float64(plan - used)
	w.det.SetPatience(detect.Patience(left, pace, quota.DayOf(now).End().Sub(now)))
	if pace > 0 && left > 0 {
		rest = time.Duration(min(left/pace, 86400) * float64(time.Second))
	}
	return rest
}

func atStake(l limiter.Level) bool { return l >= limiter.ShedNormal }

func (w *Watch) step(now time.Time, e detect.Event) (Change, bool) {
	in := w.current
	if in == nil || in.number != e.Incident.ID {
		if e.Phase == detect.Resolved {
			return Change{}, false // of an incident that ended here already
		}
		w.end(now)
		e.Phase = detect.Opened
		in = &Incident{
			ID: e.Incident.DetectedAt.UTC().Format("20060102t150405z") + "-" + w.cfg.Account, Account: w.cfg.Account, State: Open,
			StartedAt: e.Incident.StartedAt.UTC(), DetectedAt: e.Incident.DetectedAt.UTC(), number: e.Incident.ID,
		}
		w.incidents = append(w.incidents, in)
		if len(w.incidents) > maxIncidents {
			w.incidents = slices.Delete(w.incidents, 0, len(w.incidents)-maxIncidents)
		}
		w.current, w.released, w.forced = in, false, false
		w.stakes.before = w.cells.messages.Load()
		w.update(in, &e.Incident)
		w.weighStake(now)
	}
	w.update(in, &e.Incident)
	in.Forecast = w.trend.forecast(now)
	names := make([]string, len(in.Culprits))
	for i, c := range in.Culprits {
		names[i] = fmt.Sprintf("%s (%.0f %%)", c, c.Share*100)
	}
	named := strings.Join(names, ", ")
	before := in.Action
	if e.Phase != detect.Resolved {
		w.publish()
	}
	switch e.Phase {
	case detect.Opened:
		in.note(e.At, "opened", fmt.Sprintf("noticed: %.3g times the usual rate; culprit: %s", in.Factor, named))
	case detect.Updated:
		if in.named != named {
			in.note(e.At, "culprits", "culprit: "+named)
		}
	case detect.Resolved:
		in.ResolvedAt = e.Incident.ResolvedAt.UTC()
		if e.Incident.Adopted {
			in.note(e.At, "adopted", "it goes on at the same rate and the plan bears it: taken for the new usual rate")
		}
		in.note(e.At, "resolved", fmt.Sprintf("over: %d messages beyond the usual were offered, %d publishes held back", in.Excess, in.Refused))
		w.end(now)
	}
	in.named = named
	if in.Action == Contained && before != Contained && !w.forced {
		w.noteHold(e.At, in, e.Incident.Pressed)
	}
	return Change{e.Phase, e.At.UTC(), in.copy()}, true
}

// update takes over what the detector says.
func (w *Watch) update(in *Incident, d *detect.Incident) {
	in.Kind, in.Confidence = d.Kind, d.Confidence
	in.Lasting = in.Lasting || d.Held
	if !math.IsInf(d.Factor, 0) && !math.IsNaN(d.Factor) {
		in.Factor = max(in.Factor, d.Factor)
	}
	in.Excess = int64(d.Excess)
	in.Culprits = in.Culprits[:0:0]
	in.Rate, in.Usual = 0, 0
	for _, c := range d.Culprits {
		app, caller := w.split(c.Caller)
		c := Culprit{app, caller, c.Event, c.Channel, slices.Clone(c.Payloads), c.Share, c.Rate, c.Usual, slices.Clone(c.Callers)}
		in.Culprits = append(in.Culprits, c)
		in.Rate += c.Rate
		in.Usual += c.Usual
	}
}

func (in *Incident) note(at time.Time, kind, text string) {
	if len(in.Timeline) < maxEntries {
		in.Timeline = append(in.Timeline, Entry{at.UTC(), kind, text})
	}
}

// Note puts a line about the whole account, such as a move of its breaker, into the timeline of the open incident id, or,
// where id is empty, of every one that is open.
func (w *Watch) Note(at time.Time, id, kind, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, in := range w.incidents {
		if in.State == Open && (id == "" || id == in.ID) {
			in.note(at, kind, text)
		}
	}
}

func (in *Incident) copy() Incident {
	c := *in
	c.Culprits = slices.Clone(in.Culprits)
	c.Samples = slices.Clone(in.Samples)
	c.Timeline = slices.Clone(in.Timeline)
	return c
}

// end closes the current incident. w.mu is held.
func (w *Watch) end(now time.Time) {
	in := w.current
	if in == nil {
		return
	}
	if in.State = Resolved; in.ResolvedAt.IsZero() {
		in.ResolvedAt = now
	}
	if in.Action == Contained {
		in.Action = Released
	}
	w.refusals()
	w.current = nil
	w.publish()
}

// refusals takes over how much was held back.
func (w *Watch) refusals() {
	if w.current != nil {
		w.current.Refused += w.cells.refused.Swap(0)
	}
}

// publish tells the hot path what holds now. w.mu is held.
func (w *Watch) publish() {
	in := w.current
	if in == nil {
		w.open.Store(nil)
		return
	}
	w.refusals()
	h := &hold{forced: w.forced}
	mode := Mode(w.mode.Load())
	byItself := mode == Auto || mode == Strict
	in.Waiting = false
	switch {
	case in.Kind == detect.Everybody && !w.forced:
		in.Action = None // nobody is to blame, so nobody is held
	case byItself && !w.released && !w.forced && !w.stakes.held:
		in.Action = None // the plan bears it
	case byItself && !w.released && !w.forced && !in.Lasting:
		in.Action, in.Waiting = None, true
	case w.forced, byItself && !w.released:
		in.Action, h.holding = Contained, true
	case w.released:
		in.Action = Released
	case mode == Suggest:
		in.Action = Suggested
	default:
		in.Action = None
	}
	all := true // every culprit is a few payloads
	for _, c := range in.Culprits {
		all = all && len(c.Payloads) > 0
		h.payloads = append(h.payloads, c.Payloads...)
	}
	if !all {
		h.payloads = nil
	}
	if old := w.open.Load(); old == nil || old.holding != h.holding || old.forced != h.forced || !slices.Equal(old.payloads, h.payloads) {
		w.open.Store(h)
	}
}

// sample keeps one publish a second of a culprit, and no more than maxSamples.
// Of many at once all but one pass by without waiting.
func (w *Watch) sample(now time.Time, app string, c *limiter.Claim, channel string) {
	if second := now.Unix(); w.sampled.Load() == second || w.sampled.Swap(second) == second || !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	if in := w.current; in != nil && len(in.Samples) < maxSamples {
		in.Samples = append(in.Samples, Sample{
			At: now.UTC(), App: app, Caller: c.Caller.Name(), Event: strings.Clone(c.Event), Channel: strings.Clone(channel),
			Digest: c.Digest[0], Bytes: c.Size,
		})
	}
}

// Incidents lists what is known, newest first.
func (w *Watch) Incidents() []Incident {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals()
	out := make([]Incident, 0, len(w.incidents))
	for _, in := range slices.Backward(w.incidents) {
		out = append(out, in.copy())
	}
	return out
}

// Incident finds one.
func (w *Watch) Incident(id string) (Incident, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if in := w.find(id); in != nil {
		w.refusals()
		return in.copy(), true
	}
	return Incident{}, false
}

func (w *Watch) find(id string) *Incident {
	for _, in := range w.incidents {
		if in.ID == id {
			return in
		}
	}
	return nil
}

// Contain holds the culprits of the open incident because a person says so:
// whatever the mode, and critical publishes too. who and why go into the timeline.
func (w *Watch) Contain(now time.Time, id, who, why string) error {
	return w.order(now, id, "contain", by("contained", who, why), w.contain)
}

// Release lets the culprits of the open incident go, until it is over.
func (w *Watch) Release(now time.Time, id, who, why string) error {
	return w.order(now, id, "release", by("released", who, why), w.release)
}

func (w *Watch) contain(in *Incident) {
	w.det.Contain(in.number)
	w.forced, w.released = true, false
}

func (w *Watch) release(in *Incident) {
	w.det.Release(in.number)
	w.forced, w.released = false, true
}

func (w *Watch) accept(in *Incident) { w.det.Accept(in.number) }

// Ack notes that somebody looks after it. It works on resolved incidents too.
func (w *Watch) Ack(now time.Time, id, who string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.find(id)
	if in == nil {
		return fmt.Errorf("there is no incident %q", id)
	}
	in.AckedBy = who
	in.note(now, "ack", "acknowledged by "+who)
	return nil
}

func by(what, who, why string) string {
	if why == "" {
		return what + " by " + who
	}
	return what + " by " + who + ": " + why
}

func (w *Watch) order(now time.Time, id, kind, text string, do func(*Incident)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := w.find(id)
	switch {
	case in == nil:
		return fmt.Errorf("there is no incident %q", id)
	case in != w.current:
		return fmt.Errorf("incident %q is over: nothing is held any more", id)
	}
	do(in)
	in.note(now, kind, text)
	if kind == "accepted" {
		w.end(now)
	}
	w.publish()
	w.peers.order(Order{kind, text, now})
	return nil
}

// Accept ends the open incident as something that is usual from now on.
func (w *Watch) Accept(now time.Time, id, who string) error {
	return w.order(now, id, "accepted", "accepted as usual from now on by "+who, w.accept)
}

// Plan announces rises, such as load tests and campaigns; it replaces what was
// announced before.
func (w *Watch) Plan(p []detect.Planned) { w.det.Plan(p) }

// Top lists the busiest keys; see detect.Detector.Top.
func (w *Watch) Top(by detect.By, window time.Duration, limit int) []detect.Count {
	return w.det.Top(by, window, limit)
}

// Current is the open incident, if there is one.
func (w *Watch) Current() (Incident, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current == nil {
		return Incident{}, false
	}
	return w.current.copy(), true
}
