package quota

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

func TestAimedBrakes(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
		first, err := a.SetAim(ctx, noon, Aim{Caller: "job", Allow: "none", Reason: "loop", By: "ann", Until: noon.Add(2 * time.Hour)}, false)
		if err != nil || first.ID != "b1" {
			t.Fatal(first, err)
		}
		// Another replica pulls another one before it heard of the first: none is lost.
		second, err := b.SetAim(ctx, noon, Aim{Event: "news", Allow: "none", To: "5/s", PerSecond: 5, Burst: 5, Reason: "half", By: "bob"}, false)
		if err != nil || second.ID != "b2" {
			t.Fatal(second, err)
		}
		if err := b.SetBrake(ctx, noon, &Brake{Allow: "none", Reason: "all", By: "eve"}); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, a, b)
		for _, l := range []*Ledger{a, b} {
			if s := l.Snapshot(noon); len(s.Aims) != 2 || s.Brake == nil {
				t.Fatalf("%+v", s.Aims)
			}
		}
		if err := a.TightenBrake(ctx, noon, &Brake{Allow: "critical", Reason: "x", By: "bob"}); !errors.Is(err, ErrMilder) {
			t.Fatal(err)
		}
		if _, err := b.SetAim(ctx, noon, Aim{Caller: "job", Allow: "none", To: "1/s", PerSecond: 1, Burst: 1, By: "bob"}, false); !errors.Is(err, ErrMilder) {
			t.Fatal(err)
		}
		if err := a.LiftBrake(ctx, noon, "eve", ""); err != nil {
			t.Fatal(err)
		}
		if err := a.LiftAims(ctx, noon, "b9", "ann", ""); err == nil || !strings.Contains(err.Error(), "b1, b2") {
			t.Fatal(err)
		}
		if err := a.LiftAims(ctx, noon, "b2", "ann", "done"); err != nil {
			t.Fatal(err)
		}
		beat(t, noon, a, b)
		if s := b.Snapshot(noon); len(s.Aims) != 1 || s.Aims[0].ID != "b1" || s.Brake != nil {
			t.Fatalf("%+v %+v", s.Aims, s.Brake)
		}
		if s := b.Snapshot(noon.Add(3 * time.Hour)); len(s.Aims) != 0 {
			t.Fatal("its time has passed")
		}
		lines, err := a.Audit(ctx, 20)
		if err != nil || len(lines) != 5 || lines[0].Who != "ann" || !strings.Contains(lines[0].Before, "b2 event news: held to 5/s") {
			t.Fatalf("%+v %v", lines, err)
		}
	})
}
