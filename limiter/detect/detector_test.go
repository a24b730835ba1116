package detect_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// monday begins virtual time.
var monday = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// plant sends fixed rates, evenly: no noise, so that a story's times follow
// from the rules alone.
type plant struct {
	t    *testing.T
	d    *detect.Detector
	now  time.Time
	rate map[detect.Key]float64
	owed map[detect.Key]float64
	log  []detect.Event
}

func newPlant(t *testing.T, rate map[detect.Key]float64) *plant {
	return &plant{t: t, d: detect.New(detect.Config{}), now: monday, rate: rate, owed: map[detect.Key]float64{}}
}

func (p *plant) run(length, step time.Duration) *plant {
	for end := p.now.Add(length); p.now.Before(end); {
		p.now = p.now.Add(step)
		for k, r := range p.rate {
			p.owed[k] += r * step.Seconds()
			n := math.Floor(p.owed[k])
			p.owed[k] -= n
			if n > 0 {
				p.d.Observe(&k, uint32(n))
			}
		}
		p.log = append(p.log, p.d.Tick(p.now)...)
	}
	return p
}

func (p *plant) opened() (out []detect.Event) {
	for _, e := range p.log {
		if e.Phase == detect.Opened {
			out = append(out, e)
		}
	}
	return out
}

var (
	chat   = detect.Key{Caller: "chat", Event: "message.new", Channel: "private-room-*"}
	typing = detect.Key{Caller: "chat", Event: "typing", Channel: "private-room-*"}
	badge  = detect.Key{Caller: "web", Event: "badge", Channel: "private-user-*"}
	orders = detect.Key{Caller: "shop", Event: "order.updated", Channel: "private-order-*"}
	alarm  = detect.Key{Caller: "ward", Event: "alarm.raised", Channel: "private-ward-*"}
)

func usual() map[detect.Key]float64 {
	return map[detect.Key]float64{chat: 20, typing: 30, badge: 40, orders: 10, alarm: 3}
}

// week is a plant after ten quiet days. All take up what one of them learned.
func week(t *testing.T) *plant {
	st := learned()
	p := newPlant(t, usual())
	if !p.d.Restore(&st) {
		t.Fatal("refused")
	}
	p.now = st.At
	return p.run(time.Hour-time.Minute, 15*time.Second).run(time.Minute, time.Second)
}

var learned = sync.OnceValue(func() detect.State {
	p := newPlant(nil, usual()).run(239*time.Hour, 15*time.Second)
	if len(p.log) > 0 {
		panic(fmt.Sprintf("in ten quiet days: %+v", p.log))
	}
	return p.d.State()
})

func TestRunaway(t *testing.T) {
	p := week(t)
	if len(p.log) != 0 {
		t.Fatalf("ten quiet days: %+v", p.log)
	}
	p.rate[badge] = 200
	start := p.now
	p.run(20*time.Second, time.Second)
	ev := p.opened()
	if len(ev) != 1 {
		t.Fatalf("20 s after ×5: %+v", p.log)
	}
	in := ev[0].Incident
	if d := in.DetectedAt.Sub(start); d > 10*time.Second {
		t.Errorf("noticed after %v", d)
	}
	if d := in.StartedAt.Sub(start).Abs(); d > 2*time.Second {
		t.Errorf("said to have started %v off", d)
	}
	if in.Kind != detect.Runaway || len(in.Culprits) != 1 || in.Culprits[0].Caller != "web" {
		t.Errorf("named %s %+v", in.Kind, in.Culprits)
	}

	// It might be a burst, so it is only named at first. When it lasts, the
	// culprit is held to half more than its usual rate, and nobody else is.
	if h, ok := p.d.Contained(&badge); ok {
		t.Errorf("held to %v after 20 s", h)
	}
	p.run(25*time.Second, time.Second)
	if last := p.log[len(p.log)-1]; last.Phase != detect.Updated || !last.Incident.Held {
		t.Errorf("that it is held is told by %+v", last)
	}
	h, ok := p.d.Contained(&detect.Key{Caller: "web", Event: "badge", Channel: "private-user-77"})
	if !ok || h.Rate < 55 || h.Rate > 65 {
		t.Errorf("the culprit is held to %v, %v; want about 60", h, ok)
	}
	for _, k := range []detect.Key{chat, typing, orders, alarm} {
		if h, ok := p.d.Contained(&k); ok {
			t.Errorf("%v is held to %v", k, h)
		}
	}
	// A day of it teaches nothing.
	p.run(24*time.Hour, 30*time.Second)
	if h, _ := p.d.Contained(&badge); h.Rate > 61 {
		t.Errorf("after a day the culprit is allowed %v", h.Rate)
	}
	if n := len(p.opened()); n != 1 {
		t.Errorf("%d incidents", n)
	}

	// It calms, is released gently, and the incident ends.
	p.rate[badge] = 40
	p.run(2*time.Minute, time.Second)
	if h, ok := p.d.Contained(&badge); !ok || h.Rate < 65 {
		t.Errorf("calm for two minutes, held to %v, %v", h, ok)
	}
	p.run(5*time.Minute, time.Second)
	last := p.log[len(p.log)-1]
	if last.Phase != detect.Resolved || last.Incident.ResolvedAt.IsZero() {
		t.Errorf("the last event is %+v", last)
	}
	// 160 a second too many, for a day.
	if ex := last.Incident.Excess; ex < 0.9*160*86400 || ex > 1.1*160*86400 {
		t.Errorf("excess %.0f", ex)
	}
	if f := last.Incident.Factor; f < 4.5 || f > 5.5 {
		t.Errorf("factor %v", f)
	}
	if _, ok := p.d.Contained(&badge); ok {
		t.Error("still held")
	}
}

func TestStories(t *testing.T) {
	ramp := func(p *plant, k detect.Key, double time.Duration, upTo float64) {
		from := p.rate[k]
		for f := 1.0; f < upTo; f *= math.Exp2(10 / double.Seconds()) {
			p.rate[k] = from * f
			p.run(10*time.Second, time.Second)
		}
	}
	for _, tc := range []struct {
		name  string
		story func(p *plant)
		// want is the first culprit's caller, or the kind, or "" for no
		// incident.
		want string
	}{
		{"a retry storm that doubles every two hours is named before it is ×3", func(p *plant) { ramp(p, orders, 2*time.Hour, 3) }, "shop"},
		{"half more, for hours", func(p *plant) { p.rate[chat] *= 1.5; p.rate[typing] *= 1.5; p.run(3*time.Hour, time.Second) }, "chat"},
		{"a burst of four seconds", func(p *plant) {
			p.rate[badge] = 400
			p.run(4*time.Second, time.Second)
			p.rate[badge] = 40
			p.run(time.Minute, time.Second)
		}, ""},
		{"a deploy: silence, then what was held back", func(p *plant) {
			p.rate[badge] = 0
			p.run(20*time.Second, time.Second)
			p.rate[badge] = 120
			p.run(10*time.Second, time.Second)
			p.rate[badge] = 40
			p.run(2*time.Minute, time.Second)
		}, ""},
		{"a new caller of modest size", func(p *plant) {
			p.rate[detect.Key{Caller: "mailer", Event: "sent", Channel: "ops"}] = 10
			p.run(3*time.Hour, time.Second)
		}, ""},
		{"a new caller that sends more than all others", func(p *plant) {
			p.rate[detect.Key{Caller: "mailer", Event: "sent", Channel: "ops"}] = 300
			p.run(time.Minute, time.Second)
		}, "mailer"},
		{"a new event of a known caller that doubles its rate many times", func(p *plant) {
			p.rate[detect.Key{Caller: "ward", Event: "alarm.retry", Channel: "private-ward-*"}] = 60
			p.run(time.Minute, time.Second)
		}, "ward"},
		{"Black Friday: everybody rises over hours", func(p *plant) {
			for range 180 {
				for k := range p.rate {
					p.rate[k] *= 1.005
				}
				p.run(time.Minute, 5*time.Second)
			}
		}, "everybody"},
		{"everybody at once ×4", func(p *plant) {
			for k := range p.rate {
				p.rate[k] *= 4
			}
			p.run(time.Minute, time.Second)
		}, "everybody"},
		{"an announced load test", func(p *plant) {
			p.d.Plan([]detect.Planned{{From: p.now, To: p.now.Add(time.Hour), Caller: "shop", Factor: 20}})
			p.rate[orders] *= 15
			p.run(30*time.Minute, time.Second)
		}, ""},
		{"one payload over and over", func(p *plant) {
			p.rate[detect.Key{Caller: "web", Event: "badge", Channel: "private-user-*", Payload: 42}] = 150
			p.run(time.Minute, time.Second)
		}, "duplicates"},
		{"a night of silence", func(p *plant) {
			for k := range p.rate {
				p.rate[k] = 0
			}
			p.run(8*time.Hour, 10*time.Second)
			p.rate = usual()
			p.run(time.Hour, time.Second)
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := week(t)
			tc.story(p)
			ev := p.opened()
			switch {
			case tc.want == "" && len(ev) > 0:
				t.Errorf("opened %+v", ev)
			case tc.want == "":
			case len(ev) == 0:
				t.Error("nothing was noticed")
			default:
				in := p.log[len(p.log)-1].Incident
				if string(in.Kind) != tc.want && in.Culprits[0].Caller != tc.want {
					t.Errorf("%s: %+v", in.Kind, in.Culprits)
				}
			}
		})
	}
}

// The first minutes of an account are for learning; then a runaway is seen
// though there was no yesterday.
func TestColdStart(t *testing.T) {
	p := newPlant(t, usual()).run(30*time.Minute, time.Second)
	p.rate[orders] = 80
	p.run(time.Minute, time.Second)
	if ev := p.opened(); len(ev) != 1 || ev[0].Incident.Culprits[0].Caller != "shop" {
		t.Errorf("log %+v", p.log)
	}
	// From the very first second on: nobody can tell.
	p = newPlant(t, usual()).run(5*time.Minute, time.Second)
	if len(p.log) != 0 {
		t.Errorf("log %+v", p.log)
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	p := week(t)
	p.rate[badge] = 200
	p.run(45*time.Second, time.Second)
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(p.d.State()); err != nil {
		t.Fatal(err)
	}
	var st detect.State
	if err := gob.NewDecoder(&buf).Decode(&st); err != nil {
		t.Fatal(err)
	}
	p.d = detect.New(detect.Config{})
	if !p.d.Restore(&st) {
		t.Fatal("refused")
	}
	if h, ok := p.d.Contained(&badge); !ok || h.Rate < 55 || h.Rate > 65 {
		t.Errorf("after the restart the culprit is held to %v, %v", h, ok)
	}
	p.log = nil
	p.rate[badge] = 40
	p.run(10*time.Minute, time.Second)
	if len(p.log) == 0 || p.log[len(p.log)-1].Phase != detect.Resolved || p.log[len(p.log)-1].Incident.ID != st.Open.ID {
		t.Errorf("the incident went on as %+v", p.log)
	}
	// What was learned is there: ×3 is seen at once.
	p.rate[orders] = 40
	p.run(12*time.Second, time.Second)
	if len(p.opened()) != 1 {
		t.Errorf("×4 after the restart: %+v", p.log)
	}
	st.Version++
	if detect.New(detect.Config{}).Restore(&st) {
		t.Error("took up a state of another version")
	}
}

func TestLevers(t *testing.T) {
	p := week(t)
	p.rate[badge] = 200
	p.run(20*time.Second, time.Second)
	in, ok := p.d.Incident()
	if !ok {
		t.Fatal("no incident")
	}
	if !p.d.Release(in.ID) || p.d.Release(in.ID+1) {
		t.Error("Release took the wrong incident")
	}
	p.run(10*time.Second, time.Second)
	if _, held := p.d.Contained(&badge); held {
		t.Error("held after Release")
	}
	p.d.Contain(in.ID)
	if _, held := p.d.Contained(&badge); !held {
		t.Error("not held after Contain")
	}
	p.run(3*time.Minute, time.Second)
	if !p.d.Accept(in.ID) {
		t.Error("Accept")
	}
	p.log = nil
	p.run(30*time.Minute, time.Second)
	if len(p.log) != 0 {
		t.Errorf("accepted, and yet %+v", p.log)
	}
}

// A job on the hour surprises once on the short scales and once on the long
// ones; then it is known.
func TestJobOnTheHour(t *testing.T) {
	p := newPlant(t, usual())
	job := detect.Key{Caller: "cron", Event: "report", Channel: "ops"}
	for range 30 {
		p.rate[job] = 100
		p.run(90*time.Second, time.Second)
		p.rate[job] = 0
		p.run(58*time.Minute+30*time.Second, 10*time.Second)
	}
	if n := len(p.opened()); n > 2 {
		t.Errorf("%d incidents in 30 hours", n)
	}
	// What was learned of the hour survives a restart.
	st := p.d.State()
	p.d, p.log = detect.New(detect.Config{}), nil
	if !p.d.Restore(&st) {
		t.Fatal("refused")
	}
	for range 5 {
		p.rate[job] = 100
		p.run(90*time.Second, time.Second)
		p.rate[job] = 0
		p.run(58*time.Minute+30*time.Second, 10*time.Second)
	}
	if len(p.log) > 0 {
		t.Errorf("after the restart: %+v", p.opened())
	}
	// Five times as much of it is more than it brought before.
	p.rate[job] = 500
	p.run(40*time.Second, time.Second)
	if len(p.opened()) != 1 {
		t.Errorf("a job five times as big: %+v", p.log)
	}
	p.rate[job] = 0
	p.run(time.Hour-40*time.Second, time.Second)
	p.rate[job] = 100
	p.run(30*time.Minute, time.Second)
	if in, ok := p.d.Incident(); !ok || in.Culprits[0].Caller != "cron" {
		t.Error("the job that does not end is not noticed")
	}
}

func TestTop(t *testing.T) {
	p := newPlant(t, usual()).run(10*time.Minute, time.Second)
	want := map[detect.By]string{
		detect.ByCaller: "[{chat 3000} {web 2400}]", detect.ByEvent: "[{badge 2400} {typing 1800}]",
		detect.ByChannel: "[{private-room-* 3000} {private-user-* 2400}]",
		detect.ByAll:     "[{web badge private-user-* 2400} {chat typing private-room-* 1800}]",
	}
	for by, w := range want {
		var got []string
		for _, c := range p.d.Top(by, time.Minute, 2) {
			got = append(got, fmt.Sprintf("{%s %d}", c.Key, c.Count))
			if c.Error != 0 || c.Share <= 0 || c.Share > 1 {
				t.Errorf("%s: %+v", by, c)
			}
		}
		if g := "[" + strings.Join(got, " ") + "]"; g != w {
			t.Errorf("by %s: %s, want %s", by, g, w)
		}
	}
	if c := p.d.Top(detect.ByCaller, 10*time.Minute, 1)[0]; c.Count < 27000 || c.Count > 30000 {
		t.Errorf("in ten minutes: %+v", c)
	}
	p.run(2*time.Minute, time.Second)
	for k := range p.rate {
		p.rate[k] = 0
	}
	p.run(65*time.Second, time.Second)
	if got := p.d.Top(detect.ByCaller, time.Minute, 0); len(got) != 0 {
		t.Errorf("after a minute of silence: %+v", got)
	}
}

// Somebody who makes up names fills only his own room: the others are told
// apart as before, his own total stays exact, and memory stays bounded.
func TestMadeUpNames(t *testing.T) {
	d := detect.New(detect.Config{MaxSeries: 4000, MaxPerCaller: 1000})
	now := monday
	d.Tick(now)
	word := func(i int) string {
		return strings.Map(func(r rune) rune { return 'g' + r - '0' }, fmt.Sprint(i)) // no digits: does not fold
	}
	const made = 200_000
	for i := range made {
		d.Observe(&detect.Key{Caller: "evil", Event: word(i % 5000), Channel: "x-" + word(i)}, 1)
	}
	for i := range 100 {
		d.Observe(&detect.Key{Caller: "good", Event: "e" + word(i), Channel: "news"}, 1)
	}
	d.Tick(now.Add(time.Second))
	by := map[string]detect.Count{}
	for _, c := range d.Top(detect.ByCaller, time.Minute, 0) {
		by[c.Key] = c
	}
	if by["evil"].Count != made || by["good"].Count != 100 {
		t.Errorf("by caller: %+v", by)
	}
	seen, folded := 0, uint64(0)
	for _, c := range d.Top(detect.ByAll, time.Minute, 0) {
		if strings.HasPrefix(c.Key, "good ") {
			seen++
			if c.Count != 1 {
				t.Errorf("%+v", c)
			}
		}
		folded = max(folded, c.Error)
	}
	if seen != 100 {
		t.Errorf("%d of 100 events of the other caller told apart", seen)
	}
	if folded < made*9/10 {
		t.Errorf("the error given is %d; %d names were not told apart", folded, made-1000)
	}
	if n := len(d.State().Series); n > 1300 {
		t.Errorf("%d series", n)
	}
}

// A million channels of all sorts cost no more than 64 MB.
func TestMemoryOfAMillionChannels(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := detect.New(detect.Config{})
	buf := []byte("private-xxxxxxxx")
	for i := range 1_000_000 {
		for j := range 8 {
			buf[8+j] = 'g' + byte(i>>(j*3)&7)
		}
		d.Observe(&detect.Key{Caller: "c" + string(rune('a'+i%20)), Event: "e", Channel: string(buf), Payload: uint64(i) + 1}, 1)
	}
	d.Tick(monday)
	runtime.GC()
	runtime.ReadMemStats(&after)
	mb := float64(after.HeapAlloc-before.HeapAlloc) / 1e6
	t.Logf("%.1f MB, %d series", mb, len(d.State().Series))
	if mb > 64 {
		t.Errorf("%.1f MB", mb)
	}
	runtime.KeepAlive(d)
}

func TestReplicasAddUp(t *testing.T) {
	a, b := detect.New(detect.Config{}), detect.New(detect.Config{})
	now := monday
	for range 60 {
		now = now.Add(time.Second)
		a.Observe(&chat, 3)
		b.Observe(&chat, 4)
		a.Tick(now)
		b.Tick(now)
		fromA, fromB := a.Export(0), b.Export(0)
		a.Import(fromB)
		b.Import(fromA)
	}
	now = now.Add(time.Second)
	a.Tick(now)
	b.Tick(now)
	if len(a.Export(0))+len(b.Export(0)) != 0 {
		t.Error("what was imported was exported again")
	}
	for _, d := range []*detect.Detector{a, b} {
		if c := d.Top(detect.ByCaller, 10*time.Minute, 1)[0]; c.Count != 420 {
			t.Errorf("%+v, want 420", c)
		}
	}
}

func TestPayloadCountsBoundTheTruth(t *testing.T) {
	d := detect.New(detect.Config{MaxPayloads: 2048})
	d.Tick(monday)
	truth := map[string]uint64{}
	k := chat
	for i := range uint64(60_000) {
		k.Payload = 1 + i*0x9e3779b97f4a7c15>>1
		if i%10 == 0 {
			k.Payload = 1 + i/10%5 // five payloads, 1,200 times each
		}
		truth[fmt.Sprintf("%016x", k.Payload)]++
		d.Observe(&k, 1)
	}
	d.Tick(monday.Add(time.Second))
	top := d.Top(detect.ByPayload, time.Minute, 0)
	for i, c := range top {
		if n := truth[c.Key]; n > c.Count || n+c.Error < c.Count {
			t.Fatalf("%s: counted %d with error %d, truly %d", c.Key, c.Count, c.Error, n)
		}
		if i < 5 && truth[c.Key] != 1200 {
			t.Errorf("place %d: %+v", i+1, c)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	d := detect.New(detect.Config{MaxSeries: 500})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				k := detect.Key{Caller: fmt.Sprint("c", g), Event: "e", Channel: "x" + strings.Repeat("y", i%50), Payload: uint64(i)}
				d.Observe(&k, 1)
				d.Contained(&k)
			}
		})
	}
	for i := range 50 {
		d.Tick(monday.Add(time.Duration(i) * time.Second))
		d.Top(detect.ByAll, time.Minute, 10)
		d.Export(0)
	}
	wg.Wait()
	d.Tick(monday.Add(time.Minute))
	var sum uint64
	for _, c := range d.Top(detect.ByCaller, 10*time.Minute, 0) {
		sum += c.Count
	}
	if sum != 20000 {
		t.Errorf("counted %d of 20000", sum)
	}
}

// Held-out seeds of the generator behind bench/detect.
func TestGeneratedHealthyWeeks(t *testing.T) {
	for seed := range uint64(2) {
		a := detecttest.NewAccount(900000+seed, 6)
		d := detect.New(detect.Config{})
		opened := 0
		for now := monday.Unix(); now < monday.Unix()+10*86400; now += 30 {
			a.Step(now, 30, func(leaf int, n int64) { d.Observe(&a.Leaves[leaf].Key, uint32(n)) })
			for _, e := range d.Tick(time.Unix(now, 0)) {
				if e.Phase == detect.Opened {
					opened++
					t.Logf("seed %d, day %d: %+v", seed, (now-monday.Unix())/86400, e.Incident)
				}
			}
		}
		if opened > 1 {
			t.Errorf("seed %d: %d incidents in ten healthy days", seed, opened)
		}
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	d := detect.New(detect.Config{})
	k := detect.Key{Caller: "web", Event: "badge", Channel: "private-user-1234567", Payload: 7}
	d.Observe(&k, 1)
	if n := testing.AllocsPerRun(100, func() { d.Observe(&k, 1); d.Contained(&k) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	d := detect.New(detect.Config{})
	keys := make([]detect.Key, 1024)
	for i := range keys {
		keys[i] = detect.Key{Caller: fmt.Sprint("caller", i%20), Event: "notification.refresh", Channel: fmt.Sprintf("private-user-%d", i*7919), Payload: uint64(i) * 0x9e3779b97f4a7c15}
		d.Observe(&keys[i], 1)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		d.Observe(&keys[i&1023], 1)
	}
}

func BenchmarkContained(b *testing.B) {
	d := detect.New(detect.Config{})
	k := detect.Key{Caller: "web", Event: "badge", Channel: "private-user-1234567"}
	p := d.Locate(&k)
	b.ReportAllocs()
	for b.Loop() {
		p.Contained()
	}
}
