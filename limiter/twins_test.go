package limiter

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/dedupe"
	"github.com/pushguard/pushguard/quota/store"
)

// losses counts how often a record lost its store: each says so once.
type losses struct{ n atomic.Int64 }

func (l *losses) Write(p []byte) (int, error) {
	l.n.Add(1)
	return len(p), nil
}

// replicas are records of twins on one store.
func replicas(t *testing.T, n int) (records []*dedupe.Claims, lost *losses) {
	t.Helper()
	lost = &losses{}
	log := slog.New(slog.NewTextHandler(lost, &slog.HandlerOptions{Level: slog.LevelWarn}))
	st, err := store.Open(t.Context(), "embedded", store.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(background)
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := plan(1000)
	cfg.Account = "care"
	for i := range n {
		l, err := quota.Open(run, t0, st, string(rune('a'+i)), cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		r := l.Twins()
		running.Go(func() { r.Run(run) })
		records = append(records, r)
	}
	return records, lost
}

// judgeOn is a replica's judge.
func judgeOn(t interface{ Fatal(...any) }, r *dedupe.Claims, p Policy) *App {
	a, err := New(p, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.SetTwins(r)
	return a
}

// awaitStore returns when the store answers.
func awaitStore(records []*dedupe.Claims) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, r := range records {
		for !r.Stats().Up {
			<-tick.C
		}
	}
}

// inTime tells a story until the store has answered all of it in time, which on a busy machine it may not; then a
// replica decides alone, and the story is void. try is another number each time, so that each has publishes of its
// own; what it returns is what went wrong.
func inTime(t *testing.T, records []*dedupe.Claims, lost *losses, story func(try uint64) (wrong string)) {
	t.Helper()
	for try := range uint64(100) {
		awaitStore(records)
		before := lost.n.Load()
		wrong := story(try)
		if lost.n.Load() != before {
			continue
		}
		if wrong != "" {
			t.Error(wrong)
		}
		return
	}
	t.Fatal("the store never answered in time")
}

// twin gives a claim an identity that all replicas know.
func (c Claim) twin(n uint64) Claim { c.Twin = [2]uint64{n, n}; return c.saying(n) }

var among = Rule{Priority: quota.Normal, Dedupe: time.Minute, DedupeScope: ScopeCluster}

// A publish that waited for another replica's is one attempt, though it is judged twice: one token of each bucket,
// one look at the culprit's allowance, one publish to the rule that observes.
func TestWhoWaitedForATwinPaysOnce(t *testing.T) {
	one := Rate{PerSecond: 1e-6, Burst: 1}
	of := func(per Per) Rate { r := one; r.Per = per; return r }
	tight := among
	tight.Rates = []Rate{of(PerApp), of(PerChannel), of(PerEvent), of(PerCaller)}
	p := Policy{
		Rules:     []Rule{normal(Rule{Name: "trial", Mode: Observe, Rates: []Rate{{PerSecond: 1e-6, Burst: 2}}}), tight},
		EventRate: &one, ChannelRate: &one, AppRate: &one,
		Callers:    []CallerPolicy{{Name: "api", Rate: &one}},
		SentWithin: time.Hour,
	}
	records, lost := replicas(t, 2)
	there := judgeOn(t, records[0], Policy{Rules: []Rule{among}, SentWithin: time.Hour})
	for i, channels := range [][]string{{"c"}, {"c", "d"}} {
		inTime(t, records, lost, func(try uint64) string {
			now := time.Now()
			here := judgeOn(t, records[1], p)
			allowance := 1
			here.SetContainment(func(time.Time, *Claim) bool { allowance--; return allowance >= 0 })
			id := 1 + 2*try + uint64(i)<<32
			first := claim("e", channels...).twin(id)
			waits := first.by(here.Caller("api"))
			v, w := there.Admit(background, now, &first), here.Admit(background, now, &waits)
			if v.Outcome != Sent || w.Flight == nil {
				return fmt.Sprintf("%v and %v, want one that waits for the other", v.Outcome, w.Outcome)
			}
			there.Done(now, &first, &v, Refused, 0)
			if fate := fateOf(t.Context(), w.Flight); fate != NotSent {
				return fmt.Sprintf("its twin was refused, and it heard %v", fate)
			}
			w = here.Admit(background, now, &waits)
			if w.Outcome != Sent {
				return fmt.Sprintf("judged again it was %v (%v)", w.Outcome, w.Reason)
			}
			here.Done(now, &waits, &w, Delivered, 1)
			if allowance != 0 {
				return fmt.Sprintf("containment was asked %d times", 1-allowance)
			}
			if s := here.Rules()[0].Stats(); s.Matched != 1 || s.Would[Sent] != 1 {
				return fmt.Sprintf("the rule that observes saw %+v", s)
			}
			// The next one is another attempt, also in the same claim.
			allowance = 1
			next := id + 1
			waits.Rule, waits.Twin, waits.Digest = nil, [2]uint64{next, next}, [2]uint64{next, next}
			w = here.Admit(background, now, &waits)
			here.Done(now, &waits, &w, NotSent, 0)
			if w.Outcome != Throttled {
				return fmt.Sprintf("the next one was %v: the first took no token", w.Outcome)
			}
			if s := here.Rules()[0].Stats(); s.Would[Sent] != 2 {
				return fmt.Sprintf("the rule that observes took two tokens for one publish: %+v", s)
			}
			return ""
		})
	}
}

// Who waits for a twin in its own replica has paid nothing before, and pays when it is judged again.
func TestWhoWaitedForATwinHerePays(t *testing.T) {
	a := newApp(t, Policy{Rules: []Rule{normal(Rule{Dedupe: time.Minute, Rates: []Rate{{PerSecond: 1e-6, Burst: 2}}})}}, nil, nil)
	first, second := claim("e", "c").saying(1), claim("e", "c").saying(1)
	v, w := a.Admit(background, t0, &first), a.Admit(background, t0, &second)
	if v.Outcome != Sent || w.Flight == nil {
		t.Fatalf("%+v %+v", v, w)
	}
	a.Done(t0, &first, &v, Refused, 0)
	w = a.Admit(background, t0, &second)
	wantVerdict(t, w, Sent, NoReason)
	a.Done(t0, &second, &w, Delivered, 1)
	wantVerdict(t, ask(a, t0, claim("e", "c").saying(2)), Throttled, RuleRate)
}

// Who gives up waiting has paid for that attempt alone: a later one pays again.
func TestWhoGaveUpOnATwinPaysForItsNextAttempt(t *testing.T) {
	tight := among
	tight.Rates = []Rate{{PerSecond: 1e-6, Burst: 1}}
	records, lost := replicas(t, 2)
	there := judgeOn(t, records[0], Policy{Rules: []Rule{among}, SentWithin: time.Hour})
	inTime(t, records, lost, func(try uint64) string {
		now := time.Now()
		here := judgeOn(t, records[1], Policy{Rules: []Rule{tight}, SentWithin: time.Hour})
		first := claim("e", "c").twin(try + 1)
		waits := first
		v, w := there.Admit(background, now, &first), here.Admit(background, now, &waits)
		there.Done(now, &first, &v, Refused, 0)
		if w.Flight == nil {
			return fmt.Sprintf("%v, want one that waits", w.Outcome)
		}
		fateOf(t.Context(), w.Flight)
		w.Outcome, w.Reason = Unavailable, UpstreamFailing
		here.Done(now, &waits, &w, NotSent, 0)
		w = here.Admit(background, now, &waits)
		here.Done(now, &waits, &w, NotSent, 0)
		if w.Outcome != Throttled {
			return fmt.Sprintf("%v", w.Outcome)
		}
		return ""
	})
}

// What a caller's rate that observes would have done is said once, and not forgotten.
func TestWhoWaitedForATwinIsStillOverItsRate(t *testing.T) {
	p := Policy{
		Rules:      []Rule{among},
		Callers:    []CallerPolicy{{Name: "api", Mode: Observe, Rate: &Rate{PerSecond: 1e-6, Burst: 1}}},
		SentWithin: time.Hour,
	}
	records, lost := replicas(t, 2)
	there := judgeOn(t, records[0], p)
	inTime(t, records, lost, func(try uint64) string {
		now := time.Now()
		here := judgeOn(t, records[1], p)
		api := here.Caller("api")
		ask(here, now, claim("e", "c").by(api)) // its one token
		first := claim("e", "c").twin(try + 1)
		waits := first.by(api)
		v, w := there.Admit(background, now, &first), here.Admit(background, now, &waits)
		there.Done(now, &first, &v, Unknown, 0)
		if w.Flight == nil {
			return fmt.Sprintf("%v, want one that waits", w.Outcome)
		}
		fateOf(t.Context(), w.Flight)
		w = here.Admit(background, now, &waits)
		here.Done(now, &waits, &w, Delivered, 1)
		if w.Outcome != Sent || w.Would != Throttled || w.Reason != CallerRate {
			return fmt.Sprintf("%v, would %v (%v)", w.Outcome, w.Would, w.Reason)
		}
		if n := api.Stats(now).Would[Throttled]; n != 1 {
			return fmt.Sprintf("counted %d times", n)
		}
		return ""
	})
}

// All of a request that are the same have the same answer when the first of them cannot be paid, however many.
func TestRepeatsOfWhatCannotBePaid(t *testing.T) {
	records, lost := replicas(t, 1)
	cfg := plan(10)
	a := newApp(t, Policy{Rules: []Rule{among}}, newLedger(t, cfg), nil)
	a.SetTwins(records[0])
	inTime(t, records, lost, func(try uint64) string {
		var claims [8]Claim
		var verdicts [8]Verdict
		var all []Judging
		for i := range claims {
			claims[i] = claim("e", "c").twin(try + 1).costing(1000)
			all = append(all, Judging{&claims[i], &verdicts[i]})
		}
		a.AdmitAll(background, t0, all)
		for i, v := range verdicts {
			if v.Outcome != OverBudget || v.Flight != nil {
				return fmt.Sprintf("the %d. was %v, waits %v", i+1, v.Outcome, v.Flight != nil)
			}
			a.Done(t0, &claims[i], &verdicts[i], NotSent, 0)
		}
		return ""
	})
}

// The events of a request are judged together as they would be one after the other, whatever another replica has
// delivered or is sending.
func TestAdmitAllIsAdmitOneByOne(t *testing.T) {
	fast, slow, mixed := among, among, among
	fast.Match.Event, fast.Dedupe = []string{"fast"}, 2*time.Second
	slow.Match.Event, slow.Rates = []string{"slow"}, []Rate{{PerSecond: 1, Burst: 3}}
	mixed.Match.Event, mixed.Rates = []string{"mixed"}, []Rate{{PerSecond: 2, Burst: 2, Per: PerChannel}}
	p := Policy{
		Rules: []Rule{
			normal(Rule{Name: "trial", Match: Match{Event: []string{"slow", "here"}}, Mode: Observe, Dedupe: time.Second, Rates: []Rate{{PerSecond: 0.5, Burst: 1}}}),
			fast, slow, mixed,
			normal(Rule{Match: Match{Event: []string{"here"}}, Dedupe: 2 * time.Second}),
			normal(Rule{Match: Match{Event: []string{"state"}}, Dedupe: 2 * time.Second, Conflate: 3 * time.Second}),
		},
		SentWithin: time.Hour,
	}
	events := []string{"fast", "slow", "mixed", "here", "state", "rest"}
	type side struct {
		records    []*dedupe.Claims
		lost       *losses
		judge, far *App // the one that is tested, and another replica
	}
	var sides [2]side
	for i := range sides {
		sides[i].records, sides[i].lost = replicas(t, 2)
	}
	voids := func() int64 { return sides[0].lost.n.Load() + sides[1].lost.n.Load() }
	// A replica's questions are asked in order: when this one is answered the store has heard all before it.
	var flushed uint64
	flush := func(r *dedupe.Claims, now time.Time) {
		flushed++
		r.Claim(now, dedupe.ID{8: byte(flushed >> 16), 9: byte(flushed >> 8), 10: byte(flushed)}, time.Second, time.Second)
	}
	var checked, ids uint64
	began := time.Now().Add(time.Hour) // a record looks by the clock what became of others' claims: no window is over by that
	rapid.Check(t, func(t *rapid.T) {
		ids += 1 << 20
		for i := range sides {
			sides[i].judge, sides[i].far = judgeOn(t, sides[i].records[0], p), judgeOn(t, sides[i].records[1], p)
		}
		awaitStore(sides[0].records)
		awaitStore(sides[1].records)
		before := voids()
		var clock time.Duration
		for range rapid.IntRange(1, 12).Draw(t, "requests") {
			clock += time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * time.Millisecond
			now := began.Add(clock)
			one := func(what string) Claim {
				event := rapid.SampledFrom(events).Draw(t, what)
				n := ids + rapid.Uint64Range(1, 3).Draw(t, "digest")<<8 + uint64(slices.Index(events, event))<<4
				channel := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "channel")
				return claim(event, channel).twin(n + uint64(channel[0]-'a'))
			}
			// What the other replica is sending meanwhile, and its fate.
			elsewhere, fate := one("elsewhere"), Fate(rapid.IntRange(0, 3).Draw(t, "fate elsewhere"))
			var request []Claim
			var fates []Fate
			for range rapid.IntRange(1, 6).Draw(t, "events") {
				request, fates = append(request, one("event")), append(fates, Fate(rapid.IntRange(0, 3).Draw(t, "fate")))
			}
			late := rapid.Bool().Draw(t, "its fate is known only afterwards")
			var told [2]string
			for s := range sides {
				judge, far := sides[s].judge, sides[s].far
				there := elsewhere
				v := far.Admit(background, now, &there)
				if !late && v.Flight == nil {
					far.Done(now, &there, &v, fate, 1)
					flush(sides[s].records[1], now)
				}
				claims, verdicts := append([]Claim(nil), request...), make([]Verdict, len(request))
				var all []Judging
				for i := range claims {
					all = append(all, Judging{&claims[i], &verdicts[i]})
				}
				if s == 0 {
					judge.AdmitAll(background, now, all)
				} else {
					for i := range claims {
						verdicts[i] = judge.Admit(background, now, &claims[i])
					}
				}
				for i := range verdicts {
					v := &verdicts[i]
					told[s] += fmt.Sprintln(v.Outcome, v.Would, v.Reason, v.Flight != nil, v.RetryAfter, v.Due)
					if v.Flight == nil {
						judge.Done(now, &claims[i], v, fates[i], 1)
					}
				}
				if late && v.Flight == nil {
					far.Done(now, &there, &v, fate, 1)
				}
				for i := range verdicts {
					for round := 0; verdicts[i].Flight != nil; round++ {
						fate := fateOf(background, verdicts[i].Flight)
						told[s] += fmt.Sprintln(i, "heard", fate == Delivered)
						if fate != Delivered && round < 3 {
							verdicts[i] = judge.Admit(background, now, &claims[i])
							told[s] += fmt.Sprintln(i, "again", verdicts[i].Outcome, verdicts[i].Reason)
							if verdicts[i].Flight != nil {
								continue
							}
						}
						judge.Done(now, &claims[i], &verdicts[i], fates[i], 1)
						break
					}
				}
				flush(sides[s].records[0], now)
				flush(sides[s].records[1], now)
			}
			if voids() != before {
				return // the store was slower than anybody waits: void
			}
			checked++
			if told[0] != told[1] {
				t.Fatalf("together:\n%s\none by one:\n%s", told[0], told[1])
			}
		}
	})
	if checked == 0 {
		t.Error("nothing was compared")
	}
}
