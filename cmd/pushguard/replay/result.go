package replay

import (
	"math"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
)

// Result is what came of a replay. Its JSON form is what --json prints. Times
// are UTC, counts are messages as Pusher bills them unless they say publishes.
type Result struct {
	Scenario    string    `json:"scenario"`
	Account     string    `json:"account"`
	Seed        uint64    `json:"seed"`
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
	Publishes   int64     `json:"publishes"` // generated or read, warm-up included
	WallSeconds float64   `json:"wall_s"`
	PerSecond   float64   `json:"publishes_per_s"` // simulated, each through all sides, a second of wall time
	Sides       []Outcome `json:"sides"`
}

// Outcome is what came of one side.
type Outcome struct {
	Name  string `json:"name"`
	Days  []Day  `json:"days"`
	Total int64  `json:"billed"`
	// UsedUpAt is when the plan was first used up; null: never.
	UsedUpAt         *time.Time       `json:"used_up_at"`
	Publishes        int64            `json:"publishes"`
	Outcomes         map[string]int64 `json:"outcomes"`
	Healthy          Traffic          `json:"healthy"`
	HealthyDelivered float64          `json:"healthy_delivered"` // part of the publishes, 0–1
	Culprit          Traffic          `json:"culprit"`
	LostToCulprit    float64          `json:"lost_to_culprit"` // messages billed for it, of the plan that the account began with
	Naming           []Naming         `json:"naming"`
	Contained        int64            `json:"contained"` // publishes
	WarmupIncidents  int              `json:"warmup_incidents"`
	Incidents        []Incident       `json:"incidents"`
	Transitions      []Transition     `json:"transitions"`
	Timeline         []Line           `json:"timeline"`
	// LedgerUsed is the ledger's own count of the last day; with a guard it must
	// be what was billed.
	LedgerUsed *int64 `json:"ledger_used,omitempty"`
	Chart      Chart  `json:"chart"`

	// Details are the incidents with all that is known of them.
	Details []watch.Incident `json:"-"`

	truth *truth
}

// Day is one UTC day's bill.
type Day struct {
	Day      string     `json:"day"`
	Billed   int64      `json:"billed"`
	Plan     int64      `json:"plan"` // at its end
	UsedUpAt *time.Time `json:"used_up_at"`
}

// Traffic is a part of the publishes.
type Traffic struct {
	Offered   int64 `json:"offered"`
	Delivered int64 `json:"delivered"`
	Billed    int64 `json:"billed"` // messages
}

// Naming is how long one culprit went unnamed. What is null did not happen.
type Naming struct {
	Caller  string     `json:"caller"`
	Event   string     `json:"event"`
	Channel string     `json:"channel"`
	BeganAt *time.Time `json:"began_at"`
	// PassedAt is when its caller passed three times what it usually sends.
	PassedAt *time.Time `json:"passed_at"`
	NamedAt  *time.Time `json:"named_at"`
	// AfterSeconds is NamedAt − PassedAt; below 0: it was named before.
	AfterSeconds *float64 `json:"after_s"`
	// Lost is the part of the plan billed for it when it was named.
	Lost float64 `json:"lost"`
}

// Incident is one line about an incident.
type Incident struct {
	ID         string     `json:"id"`
	State      string     `json:"state"`
	StartedAt  time.Time  `json:"started_at"`
	DetectedAt time.Time  `json:"detected_at"`
	ResolvedAt *time.Time `json:"resolved_at"`
	Factor     float64    `json:"factor"`
	Culprits   []string   `json:"culprits"`
	Action     string     `json:"action"`
	Refused    int64      `json:"contained"`
}

// Transition is a change of the quota breaker's level.
type Transition struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
}

// Line is one line of the course of things.
type Line struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
}

// finish works the totals out.
func (w *world) finish(plan int64) Outcome {
	o := w.out
	for _, d := range o.Days {
		if d.UsedUpAt != nil && o.UsedUpAt == nil {
			o.UsedUpAt = d.UsedUpAt
		}
	}
	o.Total = o.Healthy.Billed + o.Culprit.Billed
	o.HealthyDelivered = part(o.Healthy.Delivered, o.Healthy.Offered)
	o.LostToCulprit = part(o.Culprit.Billed, plan)
	o.Contained = o.Outcomes["contained"]
	for _, c := range o.truth.culprits {
		n := Naming{Caller: c.caller, Event: c.event, Channel: c.pattern, BeganAt: stamp(c.began), PassedAt: stamp(c.passed), NamedAt: stamp(c.named[w])}
		if n.NamedAt != nil && n.PassedAt != nil {
			after := n.NamedAt.Sub(*n.PassedAt).Seconds()
			n.AfterSeconds = &after
		}
		if n.NamedAt != nil {
			n.Lost = part(c.lost[w], plan)
		}
		o.Naming = append(o.Naming, n)
	}
	if w.g != nil {
		used, _ := w.g.ledger.Used(w.g.now.Add(-1))
		o.LedgerUsed = &used
		o.Details = w.g.watch.Incidents()
		for _, in := range o.Details {
			if in.DetectedAt.Before(o.truth.from) && in.State == watch.Resolved && in.ResolvedAt.Before(o.truth.from) {
				continue // of the warm-up
			}
			line := Incident{
				ID: in.ID, State: string(in.State), StartedAt: in.StartedAt, DetectedAt: in.DetectedAt, ResolvedAt: stamp(in.ResolvedAt),
				Factor: in.Factor, Action: string(in.Action), Refused: in.Refused,
			}
			for _, c := range in.Culprits {
				line.Culprits = append(line.Culprits, c.String())
			}
			o.Incidents = append(o.Incidents, line)
		}
	}
	o.Chart = w.chart.chart()
	return o
}

func part(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Chart is the course of one side in even steps.
type Chart struct {
	From  time.Time `json:"from"`
	StepS int       `json:"step_s"`
	// Used and Plan are messages at each step's end; the rest are publishes a
	// second.
	Used, Plan                []int64   `json:",omitempty"`
	Healthy, HealthyLost      []float64 `json:",omitempty"`
	Culprit, CulpritRefused   []float64 `json:",omitempty"`
	healthyN, lostN, cul, ref []int64
}

// series gathers a Chart.
type series struct {
	c    Chart
	from int64
}

const steps = 480

func newSeries(from, until time.Time) *series {
	span := int(until.Sub(from) / time.Second)
	if span <= 0 {
		span = 86400
	}
	step := max(60, (span/steps+59)/60*60)
	return &series{c: Chart{From: from.UTC(), StepS: step}, from: from.Unix()}
}

// maxSteps bounds a chart whose end is not known when it begins.
const maxSteps = 100_000

func (s *series) at(t time.Time) int {
	i := int(t.Unix()-s.from) / s.c.StepS
	if i < 0 || i >= maxSteps {
		return -1
	}
	for len(s.c.Used) <= i {
		s.c.Used, s.c.Plan = append(s.c.Used, 0), append(s.c.Plan, 0)
		s.c.healthyN, s.c.lostN = append(s.c.healthyN, 0), append(s.c.lostN, 0)
		s.c.cul, s.c.ref = append(s.c.cul, 0), append(s.c.ref, 0)
	}
	return i
}

func (s *series) publish(t time.Time, incident, delivered bool, _ int64) {
	i := s.at(t)
	if i < 0 {
		return
	}
	switch {
	case !incident && delivered:
		s.c.healthyN[i]++
	case !incident:
		s.c.lostN[i]++
	case delivered:
		s.c.cul[i]++
	default:
		s.c.ref[i]++
	}
}

func (s *series) used(t time.Time, used, plan int64) {
	if i := s.at(t.Add(-time.Second)); i >= 0 {
		s.c.Used[i], s.c.Plan[i] = used, plan
	}
}

func (s *series) chart() Chart {
	rates := func(n []int64) []float64 {
		out := make([]float64, len(n))
		for i := range n {
			out[i] = math.Round(1000*float64(n[i])/float64(s.c.StepS)) / 1000
		}
		return out
	}
	c := s.c
	c.Healthy, c.HealthyLost, c.Culprit, c.CulpritRefused = rates(c.healthyN), rates(c.lostN), rates(c.cul), rates(c.ref)
	return c
}
