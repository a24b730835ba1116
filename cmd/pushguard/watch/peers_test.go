package watch

import (
	"slices"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// pair is two replicas that tell each other what they count, with the callers'
// traffic led to both.
type pair struct {
	t      *testing.T
	a, b   *town
	told   []Change
	linked bool
	mute   bool   // the first one tells nobody
	same   uint64 // the runaway's one payload; 0: each publish has its own
}

func newPair(t *testing.T) *pair {
	return &pair{t: t, a: newTown(t, Strict), b: newTown(t, Strict), linked: true}
}

func (p *pair) run(d time.Duration, extraA, extraB int) {
	held, passed := [2]map[string]int{{}, {}}, [2]map[string]int{{}, {}}
	for range int(d / time.Second) {
		p.a.run(time.Second, extraA, "news", p.same)
		p.b.run(time.Second, extraB, "news", p.same)
		for i, c := range []*town{p.a, p.b} {
			for k, n := range c.held {
				held[i][k] += n
			}
			for k, n := range c.passed {
				passed[i][k] += n
			}
		}
		if p.linked {
			fromA, fromB := p.a.w.Share(p.a.now, "a"), p.b.w.Share(p.b.now, "b")
			for _, m := range [][]byte{fromA, fromB} { // both come back to both
				for i, c := range []*town{p.a, p.b} {
					if err := c.w.Hear(c.now, string(rune('a'+i)), m); err != nil {
						p.t.Fatal(err)
					}
				}
			}
		}
		if !p.mute {
			p.told = append(p.told, p.a.w.Tell(p.a.now, "a")...)
		}
		p.told = append(p.told, p.b.w.Tell(p.b.now, "b")...)
	}
	p.a.held, p.b.held, p.a.passed, p.b.passed = held[0], held[1], passed[0], passed[1]
}

// A runaway that the load balancer leads to two replicas is seen by both as a
// whole, and what both let pass together is what one alone would.
func TestReplicasSeeTheWhole(t *testing.T) {
	p := newPair(t)
	p.run(25*time.Minute, 0, 0)
	if len(p.told) > 0 {
		t.Fatalf("a calm morning: %+v", p.told)
	}
	for range 60 {
		if p.run(time.Second, 30, 30); p.a.w.current != nil && p.b.w.current != nil {
			break
		}
	}
	if p.a.w.current == nil || p.b.w.current == nil {
		t.Fatal("not both noticed")
	}
	p.run(time.Minute, 30, 30)
	p.run(5*time.Minute, 30, 30)
	passed := 0
	for _, c := range []*town{p.a, p.b} {
		passed += c.passed["runaway"] + c.passed["jobs"]
	}
	// Eight a second is the caller's usual rate on both together, twelve what it
	// is held to.
	if passed > 300*14 || passed < 300*8 {
		t.Errorf("held to %d in five minutes, want about %d", passed, 300*12)
	}
	opened := 0
	for _, c := range p.told {
		if c.Phase == detect.Opened {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("people were told %d times that an incident opened", opened)
	}

	// What a person orders of one replica holds for both.
	if err := p.b.w.Release(p.b.now, p.b.w.current.ID, "bob", "it is a migration"); err != nil {
		t.Fatal(err)
	}
	p.run(2*time.Second, 30, 30)
	p.run(time.Minute, 30, 30)
	if p.a.held["runaway"]+p.b.held["runaway"] > 0 {
		t.Errorf("released on one, but held: %v %v", p.a.held, p.b.held)
	}
	in := p.a.w.Incidents()[0]
	if in.Action != Released || in.Timeline[len(in.Timeline)-1].Text != "released by bob: it is a migration" {
		t.Errorf("the other replica has it as %s, %+v", in.Action, in.Timeline)
	}

	// When it is over, one of them says so.
	p.told = nil
	p.run(8*time.Minute, 0, 0)
	if len(p.told) == 0 || p.told[len(p.told)-1].Phase != detect.Resolved {
		t.Errorf("told at the end: %+v", p.told)
	}
	for _, c := range p.told[:max(0, len(p.told)-1)] {
		if c.Phase == detect.Resolved {
			t.Error("told twice that it is over")
		}
	}
}

// The load balancer leads the retries of one payload to one replica. The other
// names them as well, and lets the caller's ordinary traffic pass.
func TestReplicasNameRetriesOfOnePayload(t *testing.T) {
	p := newPair(t)
	p.same = 7
	p.run(12*time.Minute, 0, 0)
	for range 60 {
		if p.run(time.Second, 60, 0); p.a.w.current != nil && p.b.w.current != nil {
			break
		}
	}
	p.run(time.Minute, 60, 0)
	p.run(2*time.Minute, 60, 0)
	for i, c := range []*town{p.a, p.b} {
		in := c.w.current
		if in == nil {
			t.Fatalf("replica %d noticed nothing", i)
		}
		if in.Kind != detect.Duplicates || len(in.Culprits) != 1 || in.Culprits[0].Caller != "jobs" || !slices.Equal(in.Culprits[0].Payloads, []uint64{7}) {
			t.Errorf("replica %d has it as %s %+v", i, in.Kind, in.Culprits)
		}
		if c.held["jobs"] > c.passed["jobs"]/20 {
			t.Errorf("replica %d held %d of %d ordinary publishes", i, c.held["jobs"], c.held["jobs"]+c.passed["jobs"])
		}
		top := c.w.Top(detect.ByPayload, time.Minute, 1)
		if len(top) == 0 || top[0].Key != "0000000000000007" || top[0].Count > 60*120 {
			t.Errorf("replica %d lists %+v", i, top)
		}
	}
}

// The first by name says nothing: another tells. So does one that hears nobody.
func TestAnotherReplicaTells(t *testing.T) {
	p := newPair(t)
	p.run(25*time.Minute, 0, 0)
	p.mute = true
	p.run(20*time.Second, 30, 30)
	if len(p.told) == 0 || p.told[0].Phase != detect.Opened {
		t.Errorf("told in the place of the first: %+v", p.told)
	}
	p = newPair(t)
	p.run(25*time.Minute, 0, 0)
	p.linked, p.mute = false, true
	p.run(staleAfter+time.Second, 0, 0)
	p.run(15*time.Second, 0, 60)
	if len(p.told) == 0 || p.told[0].Phase != detect.Opened {
		t.Errorf("told when cut off: %+v", p.told)
	}
}

func TestHearRefusesWhatItCannotTrust(t *testing.T) {
	c := newTown(t, Auto)
	c.run(time.Minute, 0, "", 0)
	before := len(c.w.Top(detect.ByCaller, time.Minute, 0))
	late := []byte(`{"v":1,"from":"b","at":"2026-03-09T07:00:00Z","unit":1,"counts":[{"Caller":"x","Event":"e","Channel":"c","Count":9}]}`)
	newer := []byte(`{"v":2,"from":"b","at":"2026-03-09T08:01:00Z","counts":"of another kind"}`)
	negative := []byte(`{"v":1,"from":"b","at":"2026-03-09T08:01:00Z","counts":[{"Caller":"api","Event":"news","Channel":"private-user-*","Count":-500}]}`)
	for _, m := range [][]byte{late, negative} {
		if err := c.w.Hear(c.now, "a", m); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
	if err := c.w.Hear(c.now, "a", newer); err != nil {
		t.Errorf("what a newer release says is an error: %v", err)
	}
	for _, m := range [][]byte{nil, []byte("{"), make([]byte, maxShared+1)} {
		if c.w.Hear(c.now, "a", m) == nil {
			t.Errorf("took %d bytes that are nothing", len(m))
		}
	}
	c.now = c.now.Add(time.Second)
	c.w.Tick(c.now)
	after := c.w.Top(detect.ByCaller, time.Minute, 0)
	if len(after) != before {
		t.Errorf("callers %+v", after)
	}
	for _, x := range after {
		if x.Key == "api" && x.Count < 230 {
			t.Errorf("api was counted down to %d", x.Count)
		}
	}
}
