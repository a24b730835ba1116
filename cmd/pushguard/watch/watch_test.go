package watch

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/quota"
)

var monday = time.Date(2026, 3, 9, 8, 0, 0, 0, time.UTC)

// town is an account with five callers and a real limiter, in virtual time.
type town struct {
	t     *testing.T
	w     *Watch
	app   *limiter.App
	now   time.Time
	level limiter.Level
	used  int64
	plan  int64   // 0: a million
	pace  float64 // messages a second; 0: not known
	names []string
	// what became of the publishes of the last run, by caller and payload
	passed, held map[string]int
}

func newTown(t *testing.T, mode Mode) *town {
	t.Helper()
	c := &town{t: t, now: monday, passed: map[string]int{}, held: map[string]int{}}
	app, err := limiter.New(limiter.Policy{App: "1", Rules: []limiter.Rule{
		{Name: "alarms", Match: limiter.Match{Event: []string{"alarm"}}, Priority: quota.Critical},
	}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.app = app
	c.watch(mode)
	for i := range 2000 {
		c.names = append(c.names, fmt.Sprintf("private-user-%d", i))
	}
	return c
}

func (c *town) watch(mode Mode) {
	c.w = New(Config{
		Account: "care", Apps: []string{"1"}, Mode: mode,
		Used:  func(time.Time) (int64, int64) { return c.used, cmp.Or(c.plan, 1_000_000) },
		Pace:  func(time.Time) (float64, bool) { return c.pace, c.pace > 0 },
		Level: func(time.Time) limiter.Level { return c.level },
	})
	c.app.SetContainment(c.w.Containment("1"))
	c.w.det.SetStrict(false) // nobody has to be known for a day to be held
}

// run lets the five callers send at their usual rate for d, and extra more a
// second of the runaway; it returns the changes.
func (c *town) run(d time.Duration, extra int, event string, payload uint64) (changes []Change) {
	c.passed, c.held = map[string]int{}, map[string]int{}
	for range int(d / time.Second) {
		for i, caller := range []string{"api", "jobs", "chat", "lab", "shifts"} {
			for n := range 4 {
				c.publish(caller, "news", uint64(c.now.Unix())<<8|uint64(i*8+n+1)<<3, "")
			}
		}
		for n := range extra {
			p := payload
			if p == 0 {
				p = uint64(c.now.Unix())<<20 | uint64(n+1000)
			}
			c.publish("jobs", event, p, "runaway")
		}
		c.now = c.now.Add(time.Second)
		changes = append(changes, c.w.Tick(c.now)...)
	}
	return changes
}

func (c *town) publish(caller, event string, payload uint64, tag string) {
	if tag == "" {
		tag = caller
	}
	channels := c.names[payload%2000 : payload%2000+1]
	claim := limiter.Claim{Caller: c.app.Caller(caller), Event: event, Channels: channels, Digest: [2]uint64{payload, payload}, Cost: 4}
	c.w.Observe(c.now, "1", caller, event, channels, payload, 4)
	c.used += 4
	v := c.app.Admit(c.t.Context(), c.now, &claim)
	c.app.Done(c.now, &claim, &v, limiter.Delivered, 4)
	if v.Outcome == limiter.Contained {
		c.held[tag]++
	} else {
		c.passed[tag]++
	}
}

// opened runs until an incident opens.
func (c *town) opened(extra int, event string, payload uint64) Incident {
	c.t.Helper()
	for range 60 {
		for _, ch := range c.run(time.Second, extra, event, payload) {
			if ch.Phase == detect.Opened {
				return ch.Incident
			}
		}
	}
	c.t.Fatal("no incident within a minute")
	return Incident{}
}

func TestCulpritAloneIsHeld(t *testing.T) {
	c := newTown(t, Strict)
	if got := c.run(2*time.Hour, 0, "", 0); len(got) > 0 {
		t.Fatalf("a calm morning: %+v", got)
	}
	in := c.opened(60, "refresh", 7)
	// It might be a burst: it is named now, and held when it lasts.
	if in.Action != None || !in.Waiting || in.State != Open || in.ID == "" {
		t.Fatalf("opened as %+v", in)
	}
	changes := c.run(40*time.Second, 60, "refresh", 7)
	if last := changes[len(changes)-1].Incident; last.Action != Contained || last.Waiting {
		t.Fatalf("after 40 s it is %+v", last)
	}
	c.run(10*time.Minute, 60, "refresh", 7)
	if got := c.passed["runaway"]; got > 60*600/20 {
		t.Errorf("%d of the runaway's %d publishes passed", got, 60*600)
	}
	for _, caller := range []string{"api", "chat", "lab", "shifts"} {
		if c.held[caller] > 0 {
			t.Errorf("%d publishes of %s were held, who has nothing to do with it", c.held[caller], caller)
		}
	}
	in, _ = c.w.Incident(in.ID)
	first := in.Culprits[0]
	if first.Caller != "jobs" || first.App != "1" || first.Event != "refresh" && first.Event != detect.Any {
		t.Errorf("named: %+v", in.Culprits)
	}
	if in.Refused < 60*500 {
		t.Errorf("the incident counts %d held back", in.Refused)
	}
	if in.Forecast.UsedAtReset == 0 || len(in.Samples) == 0 || in.Samples[0].Caller != "jobs" {
		t.Errorf("forecast %+v, samples %+v", in.Forecast, in.Samples)
	}
	if in.Rate < 50 {
		t.Errorf("the culprit's rate is %v publishes a second; 60 were offered", in.Rate)
	}

	changes = c.run(20*time.Minute, 0, "", 0)
	if len(changes) == 0 || changes[len(changes)-1].Phase != detect.Resolved {
		t.Fatalf("after 20 calm minutes: %+v", changes)
	}
	in, _ = c.w.Incident(in.ID)
	if in.State != Resolved || in.Action != Released || in.ResolvedAt.IsZero() {
		t.Errorf("resolved as %+v", in)
	}
	c.run(time.Minute, 0, "", 0)
	if len(c.held) > 0 {
		t.Errorf("held after the end: %v", c.held)
	}
}

// What is left of the plan would be gone in minutes: there is no waiting whether it is a burst.
func TestCulpritIsHeldAtOnceWhenThePlanIsAtStake(t *testing.T) {
	before := newTown(t, Strict)
	before.run(2*time.Hour, 0, "", 0)
	calm := before.w.Save()
	for _, c := range []struct {
		name  string
		left  int64   // of the plan when it begins
		pace  float64 // then
		after time.Duration
		text  string
	}{
		{"a minute", 19_200, 320, 0, "the rest of the plan lasts"},
		{"a quarter of an hour", 288_000, 320, 9 * time.Second, "the rest of the plan lasts"},
		{"until the reset", 320 * 86400, 320, 30 * time.Second, "it lasts: "},
		{"nobody knows", 19_200, 0, 30 * time.Second, "it lasts: "},
	} {
		town := newTown(t, Strict)
		if err := town.w.Load(calm); err != nil {
			t.Fatal(err)
		}
		town.now, town.plan = before.now, 1<<40
		town.run(3*time.Minute, 0, "", 0)
		town.plan, town.pace = town.used+c.left, c.pace
		in := town.opened(60, "refresh", 7)
		named, held := town.now, time.Duration(-1)
		if in.Action == Contained {
			held = 0
		}
		for held < 0 && town.now.Sub(named) < time.Minute {
			town.plan = town.used + c.left
			town.run(time.Second, 60, "refresh", 7)
			if got, _ := town.w.Incident(in.ID); got.Action == Contained {
				held = town.now.Sub(named)
			}
		}
		if d := (held - c.after).Abs(); held < 0 || d > 2*time.Second || c.after == 0 && held > time.Second {
			t.Errorf("the rest lasts %s: held %v after it was named, want %v", c.name, held, c.after)
		}
		got, _ := town.w.Incident(in.ID)
		if last := got.Timeline[len(got.Timeline)-1]; last.Kind != "contain" || !strings.Contains(last.Text, c.text) {
			t.Errorf("the rest lasts %s: the timeline ends with %+v, want %q", c.name, last, c.text)
		}
	}
}

// The culprit sends one payload over and over, beside its ordinary traffic of
// the same event: that goes on.
func TestOrdinaryTrafficOfTheCulpritGoesOn(t *testing.T) {
	c := newTown(t, Auto)
	c.run(2*time.Hour, 0, "", 0)
	c.opened(60, "news", 7)
	c.run(5*time.Minute, 60, "news", 7)
	in := c.w.Incidents()[0]
	if len(in.Culprits) == 0 || len(in.Culprits[0].Payloads) == 0 {
		t.Fatalf("the payload is not named: %+v", in.Culprits)
	}
	c.run(10*time.Minute, 60, "news", 7)
	if c.held["jobs"] > c.passed["jobs"]/200 {
		t.Errorf("%d of %d ordinary publishes of the culprit were held", c.held["jobs"], c.held["jobs"]+c.passed["jobs"])
	}
	if c.passed["runaway"] > c.held["runaway"]/5 {
		t.Errorf("%d of the runaway passed, %d were held", c.passed["runaway"], c.held["runaway"])
	}
	// It changes its payload with each publish: the ordinary part's bucket holds it.
	c.run(10*time.Minute, 60, "news", 0)
	if c.passed["runaway"] > c.held["runaway"]/3 {
		t.Errorf("with payloads of its own %d passed and %d were held", c.passed["runaway"], c.held["runaway"])
	}
}

func TestCriticalIsHeldOnlyWithThePlanAtStakeOrByAPerson(t *testing.T) {
	c := newTown(t, Auto)
	for range 7200 {
		c.publish("jobs", "alarm", uint64(c.now.Unix()), "usual")
		c.run(time.Second, 0, "", 0)
	}
	in := c.opened(60, "alarm", 7)
	c.run(time.Minute, 60, "alarm", 7)
	if c.held["runaway"] > 0 {
		t.Fatalf("%d critical publishes were held with the breaker closed", c.held["runaway"])
	}
	c.level = limiter.ShedBulk
	c.run(time.Minute, 60, "alarm", 7)
	if c.held["runaway"] > 0 {
		t.Fatalf("%d critical publishes were held while bulk alone is shed", c.held["runaway"])
	}
	c.level = limiter.ShedNormal
	c.run(time.Minute, 60, "alarm", 7)
	if c.held["runaway"] < 3000 {
		t.Errorf("with the plan at stake %d critical publishes were held", c.held["runaway"])
	}
	c.level = limiter.Closed
	c.run(time.Second, 60, "alarm", 7)
	if err := c.w.Contain(c.now, in.ID, "ann", "it is a loop"); err != nil {
		t.Fatal(err)
	}
	c.run(time.Minute, 60, "alarm", 7)
	if c.held["runaway"] < 3000 {
		t.Errorf("by a person's word %d critical publishes were held", c.held["runaway"])
	}
}

func TestModesAndOrders(t *testing.T) {
	for _, mode := range []Mode{Auto, Strict, Suggest, Off} {
		c := newTown(t, mode)
		c.run(2*time.Hour, 0, "", 0)
		in := c.opened(60, "refresh", 7)
		c.run(35*time.Second, 60, "refresh", 7)
		in, _ = c.w.Incident(in.ID)
		if want := map[Mode]Action{Auto: Contained, Strict: Contained, Suggest: Suggested, Off: None}[mode]; in.Action != want {
			t.Errorf("mode %d: action %s, want %s", mode, in.Action, want)
		}
		c.run(time.Minute, 60, "refresh", 7)
		if (len(c.held) > 0) != (mode == Auto || mode == Strict) {
			t.Errorf("mode %d held %v", mode, c.held)
		}
		if err := c.w.Contain(c.now, in.ID, "ann", "enough"); err != nil {
			t.Fatal(err)
		}
		c.run(time.Minute, 60, "refresh", 7)
		if c.held["runaway"] < 3000 {
			t.Errorf("mode %d: by a person's word %d were held", mode, c.held["runaway"])
		}
		if err := c.w.Release(c.now, in.ID, "bob", "it is a migration"); err != nil {
			t.Fatal(err)
		}
		c.run(time.Minute, 60, "refresh", 7)
		if len(c.held) > 0 {
			t.Errorf("mode %d: released, but held %v", mode, c.held)
		}
		if err := c.w.Ack(c.now, in.ID, "bob"); err != nil {
			t.Fatal(err)
		}
		in, _ = c.w.Incident(in.ID)
		var told []string
		for _, e := range in.Timeline {
			told = append(told, e.Text)
		}
		all := strings.Join(told, "\n")
		for _, want := range []string{"contained by ann: enough", "released by bob: it is a migration", "acknowledged by bob"} {
			if !strings.Contains(all, want) {
				t.Errorf("the timeline lacks %q:\n%s", want, all)
			}
		}
		if in.Action != Released || in.AckedBy != "bob" {
			t.Errorf("action %s, acked by %q", in.Action, in.AckedBy)
		}
	}
	w := New(Config{Account: "care"})
	if w.Contain(monday, "none", "ann", "") == nil || w.Ack(monday, "none", "ann") == nil {
		t.Error("an incident that is not there was contained")
	}
}

// After a restart the baseline is known, and an open incident goes on.
// What a person accepts is over, and the same height is no news any more; a rise from there is.
func TestWhatIsAcceptedIsUsual(t *testing.T) {
	c := newTown(t, Auto)
	c.run(2*time.Hour, 0, "", 0)
	in := c.opened(60, "refresh", 7)
	c.run(15*time.Minute, 60, "refresh", 7)
	if err := c.w.Accept(c.now, in.ID, "ann"); err != nil {
		t.Fatal(err)
	}
	in, _ = c.w.Incident(in.ID)
	if last := in.Timeline[len(in.Timeline)-1]; in.State != Resolved || !strings.Contains(last.Text+in.Timeline[max(len(in.Timeline)-2, 0)].Text, "accepted as usual from now on by ann") {
		t.Errorf("%s, timeline %+v", in.State, in.Timeline)
	}
	c.run(15*time.Minute, 60, "refresh", 7)
	if all := c.w.Incidents(); len(all) != 1 || len(c.held) > 0 {
		t.Errorf("%d incidents, held %v", len(all), c.held)
	}
	if err := c.w.Accept(c.now, in.ID, "ann"); err == nil || !strings.Contains(err.Error(), "is over") {
		t.Errorf("accepted twice: %v", err)
	}
	if again := c.opened(400, "refresh", 7); again.ID == in.ID {
		t.Error("a rise from what was accepted is not seen")
	}
}

func TestSaveAndLoad(t *testing.T) {
	c := newTown(t, Auto)
	c.run(2*time.Hour, 0, "", 0)
	calm := c.w.Save()
	in := c.opened(60, "refresh", 7)
	c.run(time.Minute, 60, "refresh", 7)
	open := c.w.Save()

	c.watch(Auto)
	if err := c.w.Load(calm); err != nil {
		t.Fatal(err)
	}
	c.opened(60, "refresh", 7) // at once, not after learning anew

	c.watch(Auto)
	if err := c.w.Load(open); err != nil {
		t.Fatal(err)
	}
	if got, ok := c.w.Incident(in.ID); !ok || got.State != Open || got.Action != Contained {
		t.Fatalf("after the restart: %+v", got)
	}
	c.run(time.Minute, 60, "refresh", 7)
	if c.held["runaway"] < 3000 {
		t.Errorf("after the restart %d were held", c.held["runaway"])
	}
	c.run(30*time.Minute, 0, "", 0)
	if got, _ := c.w.Incident(in.ID); got.State != Resolved {
		t.Errorf("the restored incident did not end: %+v", got)
	}

	fresh := New(Config{Account: "care"})
	for _, bad := range [][]byte{nil, []byte("x"), open[:len(open)/2]} {
		if fresh.Load(bad) == nil {
			t.Errorf("loaded %d bytes that are nothing", len(bad))
		}
	}
	if len(fresh.Incidents()) > 0 {
		t.Error("a refused blob left incidents")
	}
}

// Two apps of one account have a caller of the same name; one of them runs away.
func TestCallersOfTwoAppsAreToldApart(t *testing.T) {
	w := New(Config{Account: "care", Apps: []string{"1", "2"}})
	now := monday
	ch := []string{"private-user-1"}
	var named []Culprit
	for s := range 7300 {
		for n := range 4 {
			w.Observe(now, "1", "api", "news", ch, uint64(s*8+n), 2)
			w.Observe(now, "2", "api", "news", ch, uint64(s*8+n), 2)
			w.Observe(now, "2", "lab", "news", ch, uint64(s*8+n), 2)
		}
		for n := range 60 {
			if s > 7200 {
				w.Observe(now, "2", "api", "news", ch, uint64(n), 2)
			}
		}
		now = now.Add(time.Second)
		for _, c := range w.Tick(now) {
			named = c.Incident.Culprits
		}
	}
	if len(named) != 1 || named[0].App != "2" || named[0].Caller != "api" {
		t.Errorf("named %+v, want app 2's api alone", named)
	}
}

// Replicas' and cores' clocks differ: a time that was seen before makes no
// tokens, and the seconds after it are not counted twice.
func TestTimeThatGoesBackMakesNoTokens(t *testing.T) {
	var cs cells
	h := detect.Hold{Series: 1, Rate: 1}
	passed := 0
	for range 1000 {
		for _, at := range []time.Duration{10 * time.Second, 0} {
			if cs.take(monday.Add(at), h, false, 1) {
				passed++
			}
		}
	}
	if passed != fewSeconds {
		t.Errorf("%d passed at 1/s with a bucket of %d", passed, fewSeconds)
	}
}

// However many combinations are held, the buckets are bounded.
func TestCellsAreBounded(t *testing.T) {
	var cs cells
	for i := range maxCells + 100 {
		cs.take(monday, detect.Hold{Series: int32(i), Rate: 1}, false, 1)
	}
	if n := cs.len(); n != maxCells {
		t.Errorf("%d buckets", n)
	}
	cs.sweep(monday.Add(idle), false)
	if n := cs.len(); n != 0 {
		t.Errorf("%d buckets are left of what was idle", n)
	}
}

func TestForecast(t *testing.T) {
	var tr trend
	if f := tr.forecast(monday); f != (Forecast{}) {
		t.Errorf("of nothing: %+v", f)
	}
	at := monday
	for m := range 6 {
		at = monday.Add(time.Duration(m) * time.Minute)
		tr.add(at, int64(m)*6000, 1_000_000) // 100 a second
	}
	f := tr.forecast(at)
	// 970,000 left at 100 a second is 9,700 s after 08:05.
	if want := at.Add(9700 * time.Second); !f.ExhaustedAt.Equal(want) {
		t.Errorf("used up at %v, want %v", f.ExhaustedAt, want)
	}
	if want := int64(30_000 + 100*(24-8)*3600 - 100*300); f.UsedAtReset != want {
		t.Errorf("used at reset %d, want %d", f.UsedAtReset, want)
	}
	if f := tr.forecast(at.Add(24 * time.Hour)); f != (Forecast{}) {
		t.Errorf("from yesterday's points: %+v", f)
	}
}

// What a publish costs is money, and no behaviour: it counts as one. A fan-out that explodes
// is an incident of its own kind.
func TestAPublishCountsOnceWhateverItCosts(t *testing.T) {
	w := New(Config{Account: "care"})
	ch := []string{"c"}
	now := monday
	opened := 0
	send := func(seconds int, price int64) {
		for range seconds {
			for i := range 4 {
				w.Observe(now, "1", "small", "e", ch, uint64(now.Unix())<<3|uint64(i), 2)
			}
			w.Observe(now, "1", "wide", "e", ch, uint64(now.Unix())<<3|7, price)
			now = now.Add(time.Second)
			for _, c := range w.Tick(now) {
				if c.Phase == detect.Opened {
					opened++
				}
			}
		}
	}
	send(7200, 200)
	for _, r := range w.Top(detect.ByCaller, 10*time.Minute, 10) {
		if r.Key == "wide" && (r.Count < 500 || r.Count > 620) {
			t.Errorf("ten minutes of one publish a second count %d", r.Count)
		}
	}
	send(1800, 220)
	if opened > 0 {
		t.Fatalf("%d incidents: %+v", opened, w.Incidents())
	}
	send(60, 600)
	in, open := w.Current()
	if !open || in.Kind != detect.FanOut || in.Culprits[0].Caller != "wide" || in.Factor < 2 {
		t.Fatalf("a fan-out of three times as many: %v %+v", open, in)
	}
	send(600, 220)
	if in, open = w.Current(); open {
		t.Errorf("over, and yet %+v", in)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	c := newTown(t, Auto)
	c.run(2*time.Hour, 0, "", 0)
	c.opened(60, "refresh", 7)
	c.run(time.Minute, 60, "refresh", 7)
	claim := limiter.Claim{Caller: c.app.Caller("jobs"), Event: "refresh", Channels: c.names[7:8], Digest: [2]uint64{7, 7}, Cost: 4}
	contain := c.w.Containment("1")
	for name, f := range map[string]func(){
		"observe": func() { c.w.Observe(c.now, "1", "jobs", "refresh", c.names[7:8], 7, 4) },
		"several": func() { c.w.Observe(c.now, "1", "jobs", "refresh", c.names[7:17], 7, 4) },
		"contain": func() { contain(c.now, &claim) },
	} {
		if n := testing.AllocsPerRun(1000, f); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	w := New(Config{Account: "care", Apps: []string{"1"}})
	ch := []string{"private-user-12345"}
	w.Observe(monday, "1", "api", "news", ch, 1, 4)
	w.Tick(monday)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		w.Observe(monday, "1", "api", "news", ch, i, 4)
	}
}

func BenchmarkContainmentCalm(b *testing.B) {
	w := New(Config{Account: "care", Apps: []string{"1"}})
	contain := w.Containment("1")
	claim := limiter.Claim{Event: "news", Channels: []string{"private-user-12345"}}
	for b.Loop() {
		contain(monday, &claim)
	}
}

// What the breaker does stands in the timelines of what is open, and in no other.
func TestTheBreakersMovesAreInTheTimeline(t *testing.T) {
	c := newTown(t, Suggest)
	c.w.Note(c.now, "", "breaker", "before there was any incident")
	c.run(15*time.Minute, 0, "", 0)
	id := c.opened(200, "refresh", 7).ID
	c.w.Note(c.now, "", "breaker", "quota breaker closed -> shed_bulk: the plan burns")
	c.w.Note(c.now, "another", "breaker", "of another incident")
	c.w.Note(c.now.Add(time.Second), id, "breaker", "of this one")
	in, _ := c.w.Incident(id)
	var lines []string
	for _, e := range in.Timeline {
		if e.Kind == "breaker" {
			lines = append(lines, e.Text)
		}
	}
	if len(lines) != 2 || lines[0] != "quota breaker closed -> shed_bulk: the plan burns" || lines[1] != "of this one" {
		t.Errorf("%q", lines)
	}
	for c.w.Incidents()[0].State == Open {
		c.run(time.Minute, 0, "", 0)
	}
	c.w.Note(c.now, "", "breaker", "after it was over")
	if in, _ := c.w.Incident(id); in.Timeline[len(in.Timeline)-1].Text == "after it was over" {
		t.Error("an incident that is over goes on")
	}
}
