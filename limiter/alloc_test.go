//go:build !race

package limiter

import (
	"strconv"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// The hot path does not allocate for a caller whose keys are known, whatever the verdict.
func TestAdmitDoesNotAllocate(t *testing.T) {
	l := newLedger(t, plan(1<<45))
	a := newApp(t, Policy{
		Callers:   []CallerPolicy{{Name: "api", Rate: &Rate{PerSecond: 1e6, Burst: 1e6}}},
		EventRate: &Rate{PerSecond: 1e6, Burst: 1e6},
		AppRate:   &Rate{PerSecond: 1e6, Burst: 1e6},
		Rules: []Rule{
			normal(Rule{Match: Match{Event: []string{"news"}, Channel: []string{"private-*"}}, Dedupe: time.Millisecond,
				Rates: []Rate{{PerSecond: 1e6, Burst: 1e6, Per: PerChannel}, {PerSecond: 1e6, Burst: 1e6, Per: PerCaller}}}),
			normal(Rule{Match: Match{Event: []string{"slow"}}, Rates: []Rate{{PerSecond: 1e-6, Burst: 1}}}),
			normal(Rule{Match: Match{Event: []string{"twice"}}, Dedupe: time.Hour}),
			normal(Rule{Name: "trial", Match: Match{Event: []string{"tried"}}, Mode: Observe, Dedupe: time.Millisecond, Rates: []Rate{{PerSecond: 1, Burst: 1, Per: PerChannel}}}),
		},
	}, l, newBreaker(t, BreakerConfig{}, nil))
	api := a.Caller("api")
	hundred := make([]string, 100)
	for i := range hundred {
		hundred[i] = "private-" + strconv.Itoa(i)
	}
	for _, c := range []struct {
		what     string
		event    string
		channels []string
		o        Outcome
		repeat   bool
	}{
		{"sent", "news", hundred[:1], Sent, false},
		{"sent to a hundred", "news", hundred, Sent, false},
		{"throttled", "slow", hundred[:1], Throttled, false},
		{"deduplicated", "twice", hundred[:1], Deduplicated, true},
		{"observed", "tried", hundred[:1], Sent, false},
	} {
		now, digest := at(0), uint64(1)
		var v Verdict
		cl := Claim{Caller: api, Event: c.event, Channels: c.channels, Cost: 2}
		one := func() {
			now = now.Add(time.Millisecond)
			if !c.repeat {
				digest++
			}
			cl.Rule, cl.Digest = nil, [2]uint64{digest << 20, digest}
			v = a.Admit(background, now, &cl)
			a.Done(now, &cl, &v, Delivered, 2)
		}
		// A lease that lasts for all of it: what is counted are the allocations of the whole process, and a heartbeat's would
		// be among them.
		h, d := l.Reserve(background, now, nil, quota.Normal, 1<<30)
		if d != quota.Granted {
			t.Fatal(d)
		}
		l.Settle(now, h, 0)
		for range 5000 {
			one() // until every key is known and the window has its size
		}
		if n := testing.AllocsPerRun(2000, one); n != 0 {
			t.Errorf("%s: %v allocations", c.what, n)
		}
		if v.Outcome != c.o {
			t.Errorf("%s: %v", c.what, v.Outcome)
		}
	}
}
