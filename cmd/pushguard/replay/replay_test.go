package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

const head = `accounts:
  - name: care
    plan: { messages_per_day: 100000 }
    apps:
      - { id: "1", key: k, secret: "${file:/not/there}", cluster: eu, subscribers: { default: 1 } }
`

func none(string) string { return "" }

func parse(t *testing.T, section string) *Scenario {
	t.Helper()
	s, err := Parse("s.yaml", []byte(head+section), none)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run takes a scenario through Pusher alone and a guard with that policy.
func run(t *testing.T, s *Scenario, seed uint64, p limiter.Policy) *Result {
	t.Helper()
	return runWith(t, s, seed, p, limiter.BreakerConfig{})
}

func runWith(t *testing.T, s *Scenario, seed uint64, p limiter.Policy, b limiter.BreakerConfig) *Result {
	t.Helper()
	p.App = "1"
	r, err := Run(t.Context(), s, seed, []Side{{Name: "alone"}, {Name: "guarded", Guard: &Guard{
		Policy: p, Breaker: b, Ledger: quota.Config{Account: "care", Plan: quota.Plan(s.Account.Plan)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const calm = `replay:
  from: 2026-03-10T00:00Z
  until: 2026-03-10T06:00Z
  seed: 5
  traffic:
    - { caller: api, event: news, channel: "private-user-{1..100}", rate: 2/s }
    - { caller: lab, event: result, channel: ward, rate: 1/s, shape: day-night }
`

func TestTheSameSeedGivesTheSame(t *testing.T) {
	text := func(seed uint64) string {
		r := run(t, parse(t, calm), seed, limiter.Policy{})
		r.WallSeconds, r.PerSecond = 0, 0
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one, two, other := text(5), text(5), text(6)
	if one != two {
		t.Error("two runs of one seed differ")
	}
	if one == other {
		t.Error("another seed gives the same")
	}
}

// A calm night: nobody is refused on either side, and all three counts agree.
func TestCalm(t *testing.T) {
	s := parse(t, calm)
	s.Account.Plan.MessagesPerDay = 1_000_000
	r := run(t, s, 0, limiter.Policy{})
	alone, guarded := r.Sides[0], r.Sides[1]
	if alone.Healthy != guarded.Healthy || alone.HealthyDelivered != 1 || len(guarded.Incidents) > 0 {
		t.Errorf("alone %+v, guarded %+v, incidents %+v", alone.Healthy, guarded.Healthy, guarded.Incidents)
	}
	if guarded.Total != 2*guarded.Healthy.Offered || *guarded.LedgerUsed != guarded.Total {
		t.Errorf("billed %d for %d publishes of two messages, the ledger has %d", guarded.Total, guarded.Healthy.Offered, *guarded.LedgerUsed)
	}
	// 2/s constant, and 1/s with a cosine around 13:00 whose first six hours have
	// 6 h · (1 + 0.6·(sin(−7π/12)+sin(13π/12))/(π/2)) = 6 h · 0.532.
	want := 6 * 3600 * (2 + 1 + 0.6*(math.Sin(-7*math.Pi/12)+math.Sin(13*math.Pi/12))/(math.Pi/2))
	if got := float64(guarded.Healthy.Offered); math.Abs(got-want) > 5*math.Sqrt(want) {
		t.Errorf("%v publishes were drawn, want %.0f", got, want)
	}
}

// The plan runs out: Pusher alone serves everybody and then nobody; the guard
// sheds bulk, so that critical goes on: by the threshold, or long before it, when
// twelve minutes have shown how fast the plan burns.
func TestPlanRunsOut(t *testing.T) {
	s := parse(t, `replay:
  from: 2026-03-10T00:00Z
  until: 2026-03-10T12:00Z
  traffic:
    - { caller: api, event: bulk.x, channel: c, rate: 4/s }
    - { caller: api, event: alarm.x, channel: c, rate: 0.2/s }
`)
	p := limiter.Policy{Rules: []limiter.Rule{
		{Name: "a", Match: limiter.Match{Event: []string{"alarm.*"}}, Priority: quota.Critical},
		{Name: "b", Match: limiter.Match{Event: []string{"bulk.*"}}, Priority: quota.Bulk},
	}}
	r := runWith(t, s, 0, p, limiter.BreakerConfig{Burn: limiter.BurnOff})
	alone, guarded := r.Sides[0], r.Sides[1]
	if alone.UsedUpAt == nil || alone.Days[0].Billed > 100_000 || alone.Days[0].Billed < 99_990 {
		t.Errorf("alone: used up at %v, %+v", alone.UsedUpAt, alone.Days)
	}
	if guarded.UsedUpAt != nil || len(guarded.Transitions) != 1 || guarded.Transitions[0].To != "shed_bulk" {
		t.Errorf("guarded: used up at %v, %+v", guarded.UsedUpAt, guarded.Transitions)
	}
	// 100,000 at 8.4 messages a second are used up after 3.3 h, 80 % after 2.6 h.
	if at := alone.UsedUpAt.Sub(r.From); at < 3*time.Hour || at > 4*time.Hour {
		t.Errorf("alone: used up after %v", at)
	}
	if at := guarded.Transitions[0].At.Sub(r.From); at < 150*time.Minute || at > 170*time.Minute {
		t.Errorf("guarded: shedding after %v", at)
	}
	if n := guarded.Outcomes["over_budget"]; n < 4*9*3600*9/10 {
		t.Errorf("guarded: %d shed", n)
	}
	guarded = run(t, s, 0, p).Sides[1]
	if at := guarded.Transitions[0].At.Sub(r.From); at > 15*time.Minute || !strings.Contains(guarded.Transitions[0].Reason, "times its even rate") {
		t.Errorf("by burn rate: shedding after %v: %s", at, guarded.Transitions[0].Reason)
	}
	if guarded.UsedUpAt != nil || guarded.Days[0].Billed > 60_000 || len(guarded.Transitions) > 5*limiter.BurnTripsPerDay {
		t.Errorf("by burn rate: %+v, %d changes", guarded.Days, len(guarded.Transitions))
	}
}

func TestPeopleAndFaults(t *testing.T) {
	s := parse(t, `replay:
  from: 2026-03-10T00:00Z
  until: 2026-03-10T02:00Z
  traffic:
    - { caller: api, event: news, channel: c, rate: 10/s }
  faults:
    - { upstream: failing, part: 50%, from: 2026-03-10T00:10Z, until: 2026-03-10T00:20Z }
  actions:
    - { at: 2026-03-10T00:30Z, do: stop, why: "drill" }
    - { at: 2026-03-10T00:40Z, do: resume }
    - { when: { used: 80% }, do: plan, plan: startup, only: guarded }
    - { when: { used: 100% }, do: note, why: "too late", only: unguarded }
`)
	r := runWith(t, s, 0, limiter.Policy{}, limiter.BreakerConfig{Burn: limiter.BurnOff})
	alone, guarded := r.Sides[0], r.Sides[1]
	for _, o := range []Outcome{alone, guarded} {
		if n := o.Outcomes["unavailable"]; n < 2700 || n > 3300 {
			t.Errorf("%s: %d publishes without an answer, want half of 6,000", o.Name, n)
		}
		if n := o.Outcomes["braked"]; n < 5700 || n > 6300 {
			t.Errorf("%s: %d braked, want 6,000", o.Name, n)
		}
	}
	said := func(o Outcome, text string) bool {
		for _, l := range o.Timeline {
			if strings.Contains(l.Text, text) {
				return true
			}
		}
		return false
	}
	if guarded.Days[0].Plan != 1_000_000 || alone.Days[0].Plan != 100_000 || !said(guarded, "plan raised from 100,000 to 1,000,000") {
		t.Errorf("plans: guarded %+v, alone %+v", guarded.Days, alone.Days)
	}
	if !said(alone, "too late") || said(guarded, "too late") {
		t.Error("the unguarded side alone uses its plan up")
	}
}

func TestShapes(t *testing.T) {
	from := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC) // a Monday
	for _, c := range []struct {
		yaml string
		at   time.Duration
		want float64
	}{
		{"constant", 5 * time.Hour, 1},
		{"day-night", 13 * time.Hour, 1.6},
		{"day-night", time.Hour, 0.4},
		{`{ day-night: { low: 50%, peak: "06:00" } }`, 6 * time.Hour, 4.0 / 3},
		{"weekly", 26 * time.Hour, 1},
		{"weekly", 5*24*time.Hour + time.Hour, 0.4},
		{"{ bursts: { every: 10m, for: 20s, factor: 8 } }", 10*time.Minute + 5*time.Second, 8},
		{"{ bursts: { every: 10m, for: 20s, factor: 8 } }", 25 * time.Second, 1},
		{"{ ramp: { over: 2h, to: 5 } }", time.Hour, 3},
		{"{ ramp: { over: 2h, to: 5 } }", 9 * time.Hour, 5},
		{"{ step: { after: 1h, to: 3 } }", 59 * time.Minute, 1},
		{"{ step: { after: 1h, to: 3 } }", time.Hour, 3},
		{"{ double: { every: 2h } }", 6 * time.Hour, 8},
		{"{ double: { every: 2h, max: 5 } }", 600 * time.Hour, 5},
		{"[weekly, { step: { to: 3 } }]", 5 * 24 * time.Hour, 1.2},
	} {
		s := parse(t, "replay:\n  from: 2026-03-09\n  until: 2026-03-20\n  traffic:\n    - { caller: a, event: e, channel: c, rate: 1/s, shape: "+c.yaml+" }\n")
		if got := s.Traffic[0].Shape.factor(from.Add(c.at), from); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s after %v: %v, want %v", c.yaml, c.at, got, c.want)
		}
	}
}

// Mistakes have a place and say what to do; those of the config's part are the
// guard's own, at the place where they are in the whole file.
func TestMistakes(t *testing.T) {
	traffic := "  traffic: [ { caller: a, event: e, channel: c, rate: 1/s } ]\n"
	span := "replay:\n  from: 2026-03-10\n  until: 2026-03-11\n"
	for _, c := range []struct{ yaml, place, says string }{
		{head + span + "  traffic:\n    - { caller: a, event: e, channel: c, rate: 1 }\n", "10:48", `"1" is not a rate`},
		{head + span + "  trafic: []\n", "9:3", "unknown field"},
		{head + span + "  traffic:\n    - { caller: a, event: e, channel: c, rate: 1/s, shape: wavy }\n", "10:60", `"wavy" is no shape`},
		{head + span + "  traffic:\n    - { caller: a, event: e, channel: c, rate: 1/s, shape: { ramp: { to: 3 } } }\n", "10:", "a ramp needs over and to"},
		{head + span + "  traffic:\n    - { caller: a, event: e, channel: c, rate: 1/s, shape: { rampp: { to: 3 } } }\n", "10:62", "unknown field"},
		{head + span + traffic + "  actions: [ { do: jump, at: 2026-03-10 } ]\n", "7:", `do is "jump"`},
		{head + span + traffic + "  actions: [ { do: note } ]\n", "7:", "either at or when"},
		{head + span + traffic + "  actions: [ { do: plan, at: 2026-03-10 } ]\n", "7:", "needs plan"},
		{head + span, "7:", "neither traffic nor a trace"},
		{head + "replay:\n  from: 2026-03-11\n  until: 2026-03-10\n" + traffic, "7:", "is not after"},
		{head + "replay:\n  from: yesterday\n", "7:9", "is no time"},
		{head, "1:1", "no section replay"},
		{head + span + "  app: \"9\"\n" + traffic, "7:", "is no app"},
		{head + span + "  traffic:\n    - { caller: a, event: e, channel: \"c-{5..1}\", rate: 1/s }\n", "10:39", "spans no channels"},
		{"mode: obserev\n" + head + span + traffic, "1:7", `did you mean "observe"?`},
		{span + traffic + head + "contain: outo\n", "10:10", `did you mean "auto"?`},
		{"a: [", "1:", ""},
		{"", "1:1", "empty"},
	} {
		_, err := Parse("s.yaml", []byte(c.yaml), none)
		var p config.Problem
		if err == nil || !errors.As(err, &p) {
			t.Errorf("%q: %v", c.says, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "s.yaml:"+c.place) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want s.yaml:%s … %s, got %v", c.place, c.says, err)
		}
	}
}

// What the recorder wrote is read again, publish for publish.
func TestRecordAndReplay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder(f, 0, nil)
	at := time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)
	for i := range 600 {
		r.Note(at.Add(time.Duration(i)*time.Second), "1", "api \"x\"\n", "e\x01\xff<é>", []string{"c1", "c2"}, [2]uint64{uint64(i), ^uint64(0)}, 77, 3, "sent")
		r.Note(at.Add(time.Duration(i)*time.Second), "1", "lab", "result", []string{"c"}, [2]uint64{}, 1, 2, "throttled")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	tr, err := openTrace(path, "1")
	if err != nil {
		t.Fatal(err)
	}
	p, err := tr.peek()
	tr.close()
	if err != nil || p.caller != "api \"x\"\n" || p.event != "e\x01\ufffd<é>" || len(p.channels) != 2 || p.digest != [2]uint64{0, ^uint64(0)} || p.size != 77 || p.cost != 3 {
		t.Fatalf("%v: %+v", err, p)
	}
	cfg := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(cfg, []byte(head), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OfTrace(cfg, path, "", none)
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, s, 0, limiter.Policy{})
	if o := got.Sides[1]; got.Publishes != 1200 || o.Total != 600*5 || o.Outcomes["sent"] != 1200 || *o.LedgerUsed != 3000 {
		t.Errorf("%d publishes, %+v", got.Publishes, got.Sides[1])
	}
	if !got.From.Equal(at) || got.Until.Sub(at) != 600*time.Second {
		t.Errorf("from %v until %v", got.From, got.Until)
	}
	for _, bad := range []string{"{", "{}", `{"at":"2026-03-10T09:00:00Z","event":"e"}`, `{"at":"2026-03-10T09:00:00Z","event":"e","channel":"c","payload":"xyz"}`, `{"at":"2026-03-10T09:00:00Z","event":"e","channel":"c","cost":-1}`} {
		if err := os.WriteFile(path, []byte("\n"+bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(context.Background(), s, 0, []Side{{Name: "alone"}}); err == nil || !strings.Contains(err.Error(), "trace.jsonl:2:") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// stuck is a disk that hangs until it is let go.
type stuck struct {
	bytes.Buffer
	began chan struct{}
	free  chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	select {
	case s.began <- struct{}{}:
	default:
	}
	<-s.free
	return s.Buffer.Write(b)
}

func (s *stuck) Close() error { return nil }

// A disk that hangs blocks nobody; what is lost is counted, logged, and noted
// in the trace where it is missing.
func TestRecorderDropsAloud(t *testing.T) {
	var log bytes.Buffer
	disk := &stuck{began: make(chan struct{}, 1), free: make(chan struct{})}
	r := NewRecorder(disk, 1000, slog.New(slog.NewTextHandler(&log, nil)))
	note := func(n int) {
		for range n {
			r.Note(time.Unix(1e9, 0), "1", "api", "e", []string{"c"}, [2]uint64{1, 2}, 3, 4, "sent")
		}
	}
	note(1)
	<-disk.began
	note(500)
	if r.Dropped() < 400 || r.Written()+r.Dropped() != 501 || !strings.Contains(log.String(), "gaps") {
		t.Fatalf("written %d, dropped %d\n%s", r.Written(), r.Dropped(), log.String())
	}
	close(disk.free)
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), fmt.Sprint(r.Dropped())) {
		t.Errorf("Close says %v", err)
	}
	if !strings.Contains(disk.String(), fmt.Sprintf(`{"dropped":%d}`, r.Dropped())) {
		t.Error("the gap is not in the trace")
	}
	lines := strings.Count(disk.String(), "\n")
	if want := int(r.Written()) + 1; lines != want {
		t.Errorf("%d lines, want %d", lines, want)
	}
	r.Note(time.Now(), "1", "api", "e", nil, [2]uint64{}, 0, 0, "") // after the end: nothing
}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

func TestRecorderDoesNotAllocate(t *testing.T) {
	r := NewRecorder(discard{io.Discard}, 1<<20, nil)
	defer r.Close()
	ch := []string{"private-user-1"}
	now := time.Unix(1e9, 123)
	for range 10_000 {
		r.Note(now, "1", "api", "news", ch, [2]uint64{1, 2}, 3, 4, "sent")
	}
	if n := testing.AllocsPerRun(1000, func() { r.Note(now, "1", "api", "news", ch, [2]uint64{1, 2}, 3, 4, "sent") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTableAndCharts(t *testing.T) {
	s := parse(t, calm)
	s.Name = "<b>&"
	s.Account.Plan.MessagesPerDay = 1_000_000
	r := run(t, s, 0, limiter.Policy{})
	var text, svg, page bytes.Buffer
	if err := errors.Join(r.Text(&text), r.SVG(&svg), r.HTML(&page)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"messages billed", "alone", "guarded", "plan used up at", "never", "100.000 %"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, text.String())
		}
	}
	d := xml.NewDecoder(&svg)
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the SVG is no XML: %v", err)
		}
	}
	if strings.Contains(page.String(), "<b>") || strings.Contains(page.String(), "NaN") {
		t.Error("the page shows markup or numbers that are none")
	}
}

func BenchmarkNote(b *testing.B) {
	r := NewRecorder(discard{io.Discard}, 0, nil)
	defer r.Close()
	ch := []string{"private-user-1"}
	now := time.Unix(1e9, 123)
	b.ReportAllocs()
	for b.Loop() {
		r.Note(now, "1", "api", "news", ch, [2]uint64{1, 2}, 3, 4, "sent")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + calm))
	f.Add([]byte(head + "replay: { from: 2026-03-10, until: 2026-03-11, traffic: [ { caller: a, event: e, channel: 'c-{1..9}', rate: 1/s, shape: [weekly, { double: { every: 1h } }] } ] }"))
	f.Add([]byte("replay:\n  *a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("s.yaml", data, none)
		if (s == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"at":"2026-03-10T09:00:00Z","caller":"a","event":"e","channels":["c","d"],"payload":"00000000000000010000000000000002","size":3,"cost":4,"outcome":"sent"}`))
	f.Add([]byte(`{"dropped":3}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		p, err := parseRecord(line, "1")
		if err == nil && p != nil && (p.at.IsZero() || len(p.channels) == 0 || p.cost < 0) {
			t.Errorf("%s was read as %+v", line, p)
		}
	})
}
