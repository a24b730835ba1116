package trial

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

var noon = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)

func inForce(rules ...limiter.Rule) limiter.Policy {
	return limiter.Policy{App: "1", Rules: rules, Callers: []limiter.CallerPolicy{{Name: "web"}, {Name: "lab"}}}
}

func try(t *testing.T, h *History, now time.Time, q Question) Answer {
	t.Helper()
	q.App = "1"
	a, err := h.Try(context.Background(), now, q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A storm of the same payload, and a caller that publishes something new each
// time: what a rule would have done with both, to the publish.
func TestARuleTriedOnWhatIsRemembered(t *testing.T) {
	h := NewHistory()
	for s := range 300 {
		at := noon.Add(time.Duration(s) * time.Second)
		for range 10 {
			h.Note(at, "1", "web", "notification.refresh", []string{"private-user-1"}, 77, 3)
		}
		h.Note(at, "1", "lab", "result", []string{"private-lab-1"}, uint64(s), 2)
		h.Note(at, "2", "web", "notification.refresh", []string{"private-user-1"}, 77, 3) // another app
	}
	end := noon.Add(301 * time.Second)
	dedupe := limiter.Rule{Match: limiter.Match{Event: []string{"notification.*"}}, Priority: quota.Normal, Dedupe: 2 * time.Second}
	a := try(t, h, end, Question{Policy: inForce(), Rule: dedupe})
	// The first at 0.05 s, then each 2 s from the one that was sent: 20 publishes
	// apart, of 3000.
	if a.Publishes.Count != 3300 || a.Sampled != 1 || a.Matched != (Estimate{3000, 0}) || a.After["sent"] != 300+150 || a.After["deduplicated"] != 2850 {
		t.Errorf("%+v", a)
	}
	if a.Spared.Count != 2850*3 || a.Refused.Count != 0 || a.Spent != 3000*3+300*2 {
		t.Errorf("%+v", a)
	}
	if len(a.Touched) != 1 || a.Touched[0] != (Touched{"web", "notification.refresh", "sent", "deduplicated", 2850}) {
		t.Errorf("touched %+v", a.Touched)
	}
	// Two a second and a burst of two, for each channel.
	rate := limiter.Rule{Match: limiter.Match{Caller: []string{"web"}}, Rates: []limiter.Rate{{PerSecond: 2, Burst: 2, Per: limiter.PerChannel}}}
	a = try(t, h, end, Question{Policy: inForce(), Rule: rate})
	if a.After["throttled"] != a.Refused.Count || a.Refused.Count < 3000-602 || a.Refused.Count > 3000-598 {
		t.Errorf("%+v", a)
	}
	// Instead of a rule that holds much back: less would have been refused.
	a = try(t, h, end, Question{Policy: inForce(rate), Rule: limiter.Rule{Match: rate.Match, Conflate: 10 * time.Second}, Instead: true})
	if a.Refused.Count != -a.Before["throttled"] || a.After["conflated"] != 2999 || a.Spared.Count != (a.Before["sent"]-300-1-30)*3 {
		t.Errorf("%+v", a)
	}
	// After a rule that matches it is never reached.
	a = try(t, h, end, Question{Policy: inForce(dedupe), Rule: rate, At: 1})
	if a.Matched.Count != 0 || a.Refused.Count != 0 || a.Spared.Count != 0 || len(a.Touched) != 0 {
		t.Errorf("%+v", a)
	}
}

// Money with conflation: one goes out at once and one at each window's end.
func TestConflationIsPricedByTheWindow(t *testing.T) {
	h := NewHistory()
	for s := range 100 {
		for n := range 5 {
			h.Note(noon.Add(time.Duration(s)*time.Second), "1", "web", "x", []string{"c"}, uint64(5*s+n), 4)
		}
	}
	a := try(t, h, noon.Add(101*time.Second), Question{Policy: inForce(), Rule: limiter.Rule{Conflate: time.Second}})
	// 500 publishes for 2,000 messages; with windows of a second about 100 of them.
	if a.Spared.Count < 4*(500-201) || a.Spared.Count > 4*(500-99) {
		t.Errorf("%+v", a)
	}
}

// Ten times what fits: channels are sampled, and the true numbers lie inside the
// stated error.
func TestASampleStatesItsError(t *testing.T) {
	h := NewHistory()
	rng := rand.New(rand.NewPCG(1, 2))
	truth := 0
	const channels = 6000
	last := make([]int, channels)
	for s := range 300 {
		at := noon.Add(time.Duration(s) * time.Second)
		for range 600 {
			c := rng.IntN(channels)
			h.Note(at, "1", "web", "x", []string{fmt.Sprintf("private-user-%d", c)}, rng.Uint64(), 2)
			last[c]++
		}
	}
	for _, n := range last {
		truth += max(0, n-10) // one token in an hour, a bucket of ten
	}
	rule := limiter.Rule{Rates: []limiter.Rate{{PerSecond: 1.0 / 36000, Burst: 10, Per: limiter.PerChannel}}}
	a := try(t, h, noon.Add(300*time.Second), Question{Policy: inForce(), Rule: rule})
	if a.Sampled < 2 || a.Sampled > 16 || len(a.Notes) < 2 {
		t.Fatalf("one channel in %d: %+v", a.Sampled, a.Notes)
	}
	for _, c := range []struct {
		name  string
		got   Estimate
		truth int
	}{{"publishes", a.Publishes, 180_000}, {"matched", a.Matched, 180_000}, {"refused", a.Refused, truth}, {"spared", a.Spared, 2 * truth}} {
		off := int(c.got.Count) - c.truth
		if c.got.Error == 0 || int(c.got.Error) > c.truth/5 || max(off, -off) > 2*int(c.got.Error) {
			t.Errorf("%s: %d ± %d, truly %d", c.name, c.got.Count, c.got.Error, c.truth)
		}
	}
	if h.size() > shards*shardEntries {
		t.Errorf("%d entries", h.size())
	}
	// A quiet hour later everything is remembered again.
	for s := range 3600 {
		h.Note(noon.Add(time.Duration(700+s)*time.Second), "1", "web", "x", []string{fmt.Sprintf("private-user-%d", s%channels)}, uint64(s), 2)
	}
	a = try(t, h, noon.Add(4300*time.Second), Question{Policy: inForce(), Rule: rule})
	if a.Sampled != 1 || a.Publishes != (Estimate{600, 0}) {
		t.Errorf("one channel in %d, publishes %+v", a.Sampled, a.Publishes)
	}
}

// One channel with ever new payloads must not crowd out the others, and is
// counted whole.
func TestOneLoudChannelIsFolded(t *testing.T) {
	h := NewHistory()
	serial := uint64(0)
	for s := range 100 {
		at := noon.Add(time.Duration(s) * time.Second)
		for range 2000 {
			serial++
			h.Note(at, "1", "web", "x", []string{"loud"}, serial, 1)
		}
		h.Note(at, "1", "lab", "y", []string{"quiet"}, uint64(s), 1)
	}
	a := try(t, h, noon.Add(101*time.Second), Question{Policy: inForce(), Rule: limiter.Rule{Dedupe: time.Minute}})
	if a.Sampled != 1 || a.Publishes.Count != 200_100 || a.After["deduplicated"] != 0 {
		t.Errorf("%+v", a)
	}
}

// A storm is remembered by a sample from its first second on, and still counted.
func TestAStormCostsLittle(t *testing.T) {
	h := NewHistory()
	for n := range 60_000 {
		h.Note(noon, "1", "web", "x", []string{fmt.Sprint("private-user-", n)}, uint64(n), 1)
	}
	if n := h.size(); n > shards*secondEntries || n < shards*secondEntries/4 {
		t.Errorf("%d entries in a second", n)
	}
	a := try(t, h, noon.Add(2*time.Second), Question{Policy: inForce(), Rule: limiter.Rule{Dedupe: time.Minute}})
	off := a.Publishes.Count - 60_000
	if a.Sampled < 16 || a.Publishes.Error == 0 || a.Publishes.Error > 12_000 || max(off, -off) > 2*a.Publishes.Error {
		t.Errorf("one channel in %d: %+v", a.Sampled, a.Publishes)
	}
}

// Memory is bounded whatever callers name things.
func TestTheHistoryIsBounded(t *testing.T) {
	h := NewHistory()
	for n := range 400_000 {
		h.Note(noon.Add(time.Duration(n/4000)*time.Second), "1", fmt.Sprint("c", n), fmt.Sprint("e", n), []string{fmt.Sprint("ch", n)}, uint64(n), 1)
	}
	names := 0
	for i := range h.shards {
		names += len(h.shards[i].names)
	}
	if h.size() > shards*shardEntries || names > shards*4*shardEntries {
		t.Errorf("%d entries, %d names", h.size(), names)
	}
}

func (h *History) size() (n int) {
	for i := range h.shards {
		n += len(h.shards[i].entries)
	}
	return n
}

func TestWhatCannotBeTried(t *testing.T) {
	h := NewHistory()
	if _, err := h.Try(context.Background(), noon, Question{App: "1", Policy: inForce()}); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
	h.Note(noon, "1", "web", "x", []string{"c"}, 1, 1)
	h.Note(noon, "1", "web", "x", nil, 1, 1)
	for _, q := range []Question{{At: 1}, {At: -1}, {Instead: true}, {Rule: limiter.Rule{Rates: []limiter.Rate{{PerSecond: -1}}}}} {
		q.App, q.Policy = "1", inForce()
		if _, err := h.Try(context.Background(), noon.Add(2*time.Second), q); err == nil {
			t.Errorf("%+v was tried", q)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.Try(ended, noon.Add(2*time.Second), Question{App: "1", Policy: inForce()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func BenchmarkNote(b *testing.B) {
	channels := make([][]string, 1000)
	for i := range channels {
		channels[i] = []string{fmt.Sprintf("private-user-%d", i)}
	}
	for name, distinct := range map[string]bool{"repeats": false, "distinct": true} {
		b.Run(name, func(b *testing.B) {
			h := NewHistory()
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				n++
				payload := uint64(7)
				if distinct {
					payload = n
				}
				h.Note(noon.Add(time.Duration(n)*100*time.Microsecond), "1", "web", "notification.refresh", channels[n%1000], payload, 2)
			}
		})
	}
}
