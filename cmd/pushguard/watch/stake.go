package watch

import (
	"fmt"
	"math"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/quota"
)

// Under auto a culprit is held only while there is something at stake: while the
// forecast with its excess passes what the plan bears, while the quota breaker
// sheds others because of it, or while this replica does because it is full. It is
// held to the highest rate that fits, which is worked out again every ten seconds.
//
// The forecast is what is used, what the account usually sends until the reset,
// and the excess. An excess is taken to last as long again as it has lasted, and
// half an hour at least: how much longer something goes on is best told by how long
// it went on (Gott, Nature 363, 1993). So an import of half an hour that the plan
// bears is not held, and a runaway is before it has used the room that others need.
//
// While the day's shape is not known there is no such forecast. Then the plan is at
// stake when what is left is gone within the hour at the present pace, and the
// culprit is held to what a straight line to the reset leaves.
const (
	shortestExcess = 30 * time.Minute
	soonGone       = time.Hour
	// restMargin is how much more than usual the others may need.
	restMargin = 1.1
	// calmer is the part of what began a containment below which it ends.
	calmer = 0.8
	// crowdedFor is how long a replica that shed publishes is taken to be full.
	crowdedFor = 30 * time.Second
)

// stake is what the open incident endangers, and what its culprits may do.
type stake struct {
	held   bool
	room   float64 // messages a second beyond the usual that the culprits may send
	why    string  // it is held, or not
	kind   stakeKind
	full   time.Time // when this replica shed others last
	part   float64   // of the excess that passes while it is full
	before int64     // messages that containment had refused when the incident opened
	spent
}

// spent measures how fast the plan would be spent if nothing was contained.
type spent struct {
	at            time.Time
	used, refused int64   // messages, at the last look
	pace          float64 // a second; 0: not known
	calm          float64 // the same while no incident was open, over a minute
}

type stakeKind uint8

const (
	nothingAtStake stakeKind = iota
	planAtStake
	levelAtStake
	placesAtStake
)

// Bears says how much of a plan may be used before others are refused: Mark is
// where bulk is, by the breaker's first mark or the floors above it; Floor is where
// what is kept for critical publishes begins.
type Bears struct{ Mark, Floor int64 }

// BearsOf is Bears of a plan with these floors, of which the breaker sheds bulk from
// the part shedBulkAt on.
func BearsOf(plan int64, shedBulkAt float64, floors [quota.Priorities]float64) Bears {
	floor := 1 - floors[quota.Critical]
	return Bears{int64(float64(plan) * min(shedBulkAt, floor-floors[quota.Normal])), int64(float64(plan) * floor)}
}

// weighStake works out what is at stake, and tells the detector what the culprits
// may send. It returns whether containment began or ended by it. w.mu is held.
func (w *Watch) weighStake(now time.Time) (changed bool) {
	s := &w.stakes
	in := w.current
	mode := Mode(w.mode.Load())
	if in == nil || mode != Auto {
		*s = stake{held: mode != Auto, spent: s.spent}
		w.det.SetAllowance(0)
		return false
	}
	before := s.held
	excess := w.det.Excess()
	s.judge(w, now, in, excess)
	room := math.Inf(1)
	if s.held {
		room = s.room
	}
	w.det.SetAllowance(room)
	in.Why = s.why
	return before != s.held
}

// judge decides. excess is in messages a second.
func (s *stake) judge(w *Watch, now time.Time, in *Incident, excess float64) {
	was := *s
	s.held, s.room, s.kind = false, 0, nothingAtStake
	hold := func(kind stakeKind, room float64, why string) {
		// Of several reasons the one that leaves least decides.
		if !s.held || room < s.room {
			s.held, s.room, s.kind, s.why = true, room, kind, why
		}
	}
	if s.part == 0 {
		s.part = 1
	}
	s.why = "nothing is at stake: the plan bears it"
	w.planStake(now, in, excess, was, hold)
	if w.cfg.Level != nil {
		l := w.cfg.Level(now)
		if l >= limiter.ShedNormal || l == limiter.ShedBulk && w.because(now, in) {
			hold(levelAtStake, 0, fmt.Sprintf("the quota breaker is %s", l))
		}
	}
	if w.cfg.Full != nil {
		if w.cfg.Full(now) {
			s.full, s.part = now, s.part/2
		} else {
			s.part = min(1, s.part*1.1)
		}
	}
	if now.Sub(s.full) < crowdedFor && excess > 0.1*max(s.offered(excess)-excess, 0) {
		hold(placesAtStake, excess*s.part, "publishes of others are refused because this replica is full")
	}
}

// because reports whether bulk would not be shed but for what the incident has sent.
func (w *Watch) because(now time.Time, in *Incident) bool {
	if w.cfg.Used == nil {
		return false
	}
	used, plan := w.cfg.Used(now)
	mark := plan
	if w.cfg.Bears != nil {
		mark = w.cfg.Bears(plan).Mark
	}
	return used-max(0, in.Excess-(w.cells.messages.Load()-w.stakes.before)) < mark
}

// planStake holds if the plan does not bear the excess.
func (w *Watch) planStake(now time.Time, in *Incident, excess float64, was stake, hold func(stakeKind, float64, string)) {
	if w.cfg.Used == nil {
		return
	}
	used, plan := w.cfg.Used(now)
	if plan <= 0 {
		return
	}
	end := quota.DayOf(now).End()
	reset := end.Sub(now)
	bears := Bears{plan, plan}
	if w.cfg.Bears != nil {
		bears = w.cfg.Bears(plan)
	}
	left := float64(bears.Floor - used)
	rest, known := w.rest(now, end)
	before := was.held && was.kind == planAtStake
	if !known {
		w.det.SetCostly(true)
		pace := w.stakes.offered(excess)
		if pace == 0 { // just begun
			if before {
				hold(planAtStake, was.room, was.why)
			}
			return
		}
		lasts := time.Duration(min(left/max(pace, 1e-9), 86400) * float64(time.Second))
		limit := min(soonGone, reset)
		if before {
			limit = min(2*soonGone, reset)
		}
		if left > 0 && lasts >= limit {
			return
		}
		usual := max(0, pace-excess)
		hold(planAtStake, max(0, left/max(reset.Seconds(), 1)-usual),
			fmt.Sprintf("at this pace the rest of the plan lasts %s", max(lasts, 0).Round(time.Second)))
		return
	}
	rest *= restMargin
	if float64(used)+rest <= float64(bears.Mark) {
		left = float64(bears.Mark - used) // nobody else comes near the mark
	}
	day := (rest/max(reset.Seconds(), 1) + excess) * 86400
	w.det.SetCostly(excess*reset.Seconds() > left-rest || day > float64(bears.Mark))
	lasts := min(max(now.Sub(in.StartedAt), shortestExcess), reset)
	spare := left - rest
	needs := excess * lasts.Seconds()
	if before {
		needs /= calmer
	}
	if needs <= spare {
		return
	}
	hold(planAtStake, max(0, spare)/max(lasts.Seconds(), reset.Seconds()/2, 1), fmt.Sprintf("with this excess %s messages would be used by %s UTC, and the plan bears %s",
		grouped(float64(used)+rest*lasts.Seconds()/max(reset.Seconds(), 1)+excess*lasts.Seconds()), now.Add(lasts).Format("15:04"), grouped(float64(used)+left)))
}

// rest is how many messages the account needs until the end of the day when all
// send as usual.
func (w *Watch) rest(now, end time.Time) (messages float64, known bool) {
	if w.cfg.Rest != nil {
		return w.cfg.Rest(now)
	}
	return w.det.Rest(end)
}

// measure looks at the plan, every five seconds.
func (s *spent) measure(now time.Time, used, refused int64, open bool) {
	dt := now.Sub(s.at).Seconds()
	if dt > 0 && dt < 5 {
		return
	}
	if !s.at.IsZero() && dt > 0 && dt <= 60 && used >= s.used && quota.DayOf(now) == quota.DayOf(s.at) {
		s.pace = float64(used-s.used+refused-s.refused) / dt
		switch {
		case open:
		case s.calm == 0:
			s.calm = s.pace
		default:
			s.calm += (s.pace - s.calm) * (1 - math.Exp2(-dt/60))
		}
	}
	s.used, s.refused, s.at = used, refused, now
}

// offered is the pace with the excess, which may be seconds old.
func (s *spent) offered(excess float64) float64 {
	if s.calm == 0 {
		return s.pace
	}
	return max(s.pace, s.calm+excess)
}

// restake looks at what is at stake every ten seconds of an incident, and when
// it opens, and tells of a containment that began or ended by it.
func (w *Watch) restake(now time.Time) (Change, bool) {
	changed := w.weighStake(now)
	in := w.current
	if in == nil || !changed {
		return Change{}, false
	}
	before := in.Action
	w.publish()
	if in.Action == before {
		return Change{}, false
	}
	w.noteHold(now, in, false)
	return Change{detect.Updated, now, in.copy()}, true
}

// noteHold writes into the timeline why the culprits are held, or no longer. Pressed
// says that it was too late to wait whether the excess lasts.
func (w *Watch) noteHold(at time.Time, in *Incident, pressed bool) {
	text := "it lasts"
	switch {
	case w.forced || w.released:
		return
	case in.Action != Contained:
		text = "let go: " + w.stakes.why
	case pressed:
		text = fmt.Sprintf("at this pace the rest of the plan lasts %s, so there is no waiting", w.lasts.Round(time.Second))
	case Mode(w.mode.Load()) == Auto:
		text = w.stakes.why
	}
	if in.Action == Contained {
		text += ": contained by itself, the culprit alone is held to "
		if Mode(w.mode.Load()) == Auto {
			text += "what fits"
		} else {
			text += "its usual rate and a half"
		}
	}
	in.note(at, "contain", text)
}

// grouped writes a number of messages for people.
func grouped(n float64) string {
	text := fmt.Sprintf("%.0f", max(n, 0))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
