package quota

import (
	"fmt"
	"testing"

	"github.com/pushguard/pushguard/quota/fanout"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

func TestFanoutThroughTheStore(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	a, b := join(t, st, noon, "a", plan(1000)), join(t, st, noon, "b", plan(1000))
	fa, fb := fanout.New(1, nil), fanout.New(1, nil)
	a.ShareFanout("app", fa)
	b.ShareFanout("app", fb)
	exchange := func() {
		a.shareLearned(ctx, noon)
		b.shareLearned(ctx, noon)
	}
	fa.Learn(noon, "news", 40, fanout.FromWebhook)
	exchange()
	if n := fb.Estimate("news"); n != 40 {
		t.Fatal(n)
	}
	for i := range 100 { // more messages than are kept
		fb.Learn(noon, fmt.Sprint("ch", i), 7, fanout.FromWebhook)
		b.shareLearned(ctx, noon)
	}
	a.shareLearned(ctx, noon)
	if fa.Estimate("ch99") != 7 || fa.Estimate("ch0") != 1 {
		t.Fatal("the log is bounded: the newest 64 arrive")
	}
	// One that joins later reads what is kept; a log that was lost begins anew.
	fc := fanout.New(1, nil)
	c := join(t, st, noon, "c", plan(1000))
	c.ShareFanout("app", fc)
	c.shareLearned(ctx, noon)
	if fc.Estimate("ch99") != 7 {
		t.Fatal("a newcomer knows nothing")
	}
	srv.Do("FLUSHALL")
	fa.Learn(noon, "after", 5, fanout.FromWebhook)
	exchange()
	if fb.Estimate("after") != 5 {
		t.Fatal("the log did not begin anew")
	}
	srv.Kill()
	fa.Learn(noon, "lost", 5, fanout.FromWebhook)
	exchange() // nothing happens, and nothing breaks
}
