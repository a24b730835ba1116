package limiter

import "testing"

// The words are read by programs outside; they do not change.
func TestOutcomeWords(t *testing.T) {
	for o, want := range map[Outcome]string{
		Sent: "sent", Deduplicated: "deduplicated", Conflated: "conflated", Digested: "digested", Vacant: "vacant",
		Throttled: "throttled", Contained: "contained", OverBudget: "over_budget", Braked: "braked",
		Unavailable: "unavailable", Outcomes: "unknown",
	} {
		if o.String() != want {
			t.Errorf("outcome %d is %q, want %q", o, o, want)
		}
		if o < Outcomes && o.Refuses() != (o != Sent && o != Deduplicated && o != Conflated && o != Digested && o != Vacant) {
			t.Errorf("%v: Refuses is %v", o, o.Refuses())
		}
	}
}

func TestReasonWords(t *testing.T) {
	seen := map[string]Reason{}
	for r := NoReason; r < Reasons; r++ {
		w := r.String()
		if other, twice := seen[w]; twice {
			t.Errorf("reasons %d and %d are both %q", other, r, w)
		}
		if (w == "") != (r == NoReason) {
			t.Errorf("reason %d is %q", r, w)
		}
		seen[w] = r
	}
	for r, want := range map[Reason]string{
		Duplicate: "duplicate", ChannelRate: "channel_rate", CriticalOnly: "critical_only", StoreLost: "store_lost",
		BrakePulled: "brake_pulled", UpstreamFailing: "upstream_failing", NobodyThere: "nobody_there",
		Draining: "draining", Reasons: "unknown",
	} {
		if r.String() != want {
			t.Errorf("reason %d is %q, want %q", r, r, want)
		}
	}
}

func TestOtherWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Enforce.String(), "enforce"}, {Observe.String(), "observe"},
		{AnswerDefault.String(), "default"}, {Answer403.String(), "403"}, {Answer429.String(), "429"}, {AnswerOK.String(), "ok"},
		{Delivered.String(), "delivered"}, {NotSent.String(), "not_sent"}, {Refused.String(), "refused"}, {Unknown.String(), "unknown"},
		{ScopeReplica.String(), "replica"}, {ScopeCluster.String(), "cluster"},
		{PerApp.String(), "app"}, {PerChannel.String(), "channel"}, {Per(9).String(), "unknown"},
		{Closed.String(), "closed"}, {ShedBulk.String(), "shed_bulk"}, {ShedNormal.String(), "shed_normal"},
		{OnlyCritical.String(), "critical_only"}, {Open.String(), "open"}, {HalfOpen.String(), "half_open"}, {Level(9).String(), "unknown"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

// Strictness is a total order: whatever judges first, the same outcome stands.
func TestStricterIsATotalOrder(t *testing.T) {
	for a := Sent; a < Outcomes; a++ {
		if Stricter(a, a) != a || Stricter(a, Sent) != a {
			t.Fatalf("%v: not idempotent, or sent is not its neutral element", a)
		}
		for b := Sent; b < Outcomes; b++ {
			ab := Stricter(a, b)
			if ab != Stricter(b, a) {
				t.Fatalf("%v, %v: not commutative", a, b)
			}
			if ab != a && ab != b {
				t.Fatalf("%v, %v: gives a third, %v", a, b, ab)
			}
			if a.Refuses() && !ab.Refuses() {
				t.Fatalf("%v, %v: a refusal is lost", a, b)
			}
			for c := Sent; c < Outcomes; c++ {
				if Stricter(ab, c) != Stricter(a, Stricter(b, c)) {
					t.Fatalf("%v, %v, %v: not associative", a, b, c)
				}
			}
		}
	}
}
