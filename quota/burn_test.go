package quota

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// What one replica decides is with the other after that one's next heartbeat; of two decisions the higher number holds;
// it is in the audit trail once; and a store that lost it is told again.
func TestBurnIsShared(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
	if a.CurrentBurn() != nil || a.BurnStored() {
		t.Fatal("there is a state before anything happened")
	}
	s := Burn{Seq: 2, Day: DayOf(noon), Level: 1, Since: noon, Until: noon.Add(time.Minute), Trips: 1, Reason: "it burns"}
	if err := a.SetBurn(ctx, noon, s, "breaker shed_bulk"); err != nil {
		t.Fatal(err)
	}
	beat(t, noon, b)
	want := s
	want.By = "a"
	if got := b.CurrentBurn(); got == nil || *got != want || !b.BurnStored() {
		t.Fatalf("%+v", got)
	}
	s.Reason = "b saw it too"
	if err := b.SetBurn(ctx, noon, s, "breaker shed_bulk"); err != nil {
		t.Fatal(err)
	}
	if got := b.CurrentBurn(); got.By != "a" {
		t.Fatalf("the second decision of one number took over: %+v", got)
	}
	trail, err := a.Audit(ctx, 10)
	if err != nil || len(trail) != 1 || trail[0].Who != "breaker@a" || trail[0].Why != "it burns" {
		t.Fatal(trail, err)
	}
	srv.Do("FLUSHALL")
	beat(t, noon, a, b)
	if got := b.CurrentBurn(); got == nil || got.By != "a" || b.BurnStored() {
		t.Fatalf("what is known is lost with the store: %+v", got)
	}
	if err := b.SetBurn(ctx, noon, *b.CurrentBurn(), "breaker shed_bulk"); err != nil || !b.BurnStored() {
		t.Fatal(err)
	}
}

// A count that a person corrected is no burst.
func TestSentLeavesCorrectionsOut(t *testing.T) {
	st := open(t, "embedded", store.Options{})
	l := join(t, st, noon, "a", plan(1000))
	spend(l, noon, nil, Normal, 30)
	beat(t, noon, l)
	if err := l.SetUsage(ctx, noon, 700, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if used, _ := l.Used(noon); used != 700 || l.Sent(noon) != 30 {
		t.Fatal(used, l.Sent(noon))
	}
}
