package limiter

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
)

func TestAimedBrakeStopsWhatItIsAimedAt(t *testing.T) {
	l := newLedger(t, plan(1<<40))
	a := newApp(t, Policy{App: "1", Rules: []Rule{
		{Match: Match{Event: []string{"alarm"}}, Priority: quota.Critical},
		normal(Rule{Match: Match{Event: []string{"never"}}, Deny: true}),
	}}, l, nil)
	job, api := a.Caller("job"), a.Caller("api")
	pull := func(x quota.Aim) quota.Aim {
		x.Reason, x.By = "test", "ann"
		got, err := l.SetAim(background, t0, x, false)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	wantVerdict(t, ask(a, at(0), claim("never", "c")), Braked, RuleDenies)
	pull(quota.Aim{Caller: "job", Event: "news*", Channel: "private-*", Allow: "none"})
	v := ask(a, at(0), claim("news", "x", "private-1").by(job))
	wantVerdict(t, v, Braked, BrakePulled)
	if v.Aim == nil || v.Aim.By != "ann" {
		t.Fatal("nobody is named")
	}
	for _, c := range []Claim{claim("news", "private-1").by(api), claim("other", "private-1").by(job), claim("news", "x").by(job)} {
		wantVerdict(t, ask(a, at(0), c), Sent, NoReason)
	}
	pull(quota.Aim{Caller: "api", Allow: "critical"})
	wantVerdict(t, ask(a, at(0), claim("alarm", "x").by(api)), Sent, NoReason)
	wantVerdict(t, ask(a, at(0), claim("news", "x").by(api)), Braked, BrakePulled)
	pull(quota.Aim{App: "2", Allow: "none"})
	pull(quota.Aim{App: "1", Event: "slow", Allow: "none", To: "2/s", PerSecond: 2, Burst: 2, Until: at(time.Hour)})
	passed := 0
	for i := range 100 {
		if v := ask(a, at(time.Duration(i)*100*time.Millisecond), claim("slow", "x")); v.Outcome == Sent {
			passed++
		}
	}
	if passed < 20 || passed > 22 {
		t.Fatalf("%d passed in ten seconds at 2/s", passed)
	}
	wantVerdict(t, ask(a, at(2*time.Hour), claim("slow", "x")), Sent, NoReason)
	if err := l.LiftAims(background, t0, "all", "ann", ""); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, ask(a, at(0), claim("news", "private-1").by(job)), Sent, NoReason)
}
