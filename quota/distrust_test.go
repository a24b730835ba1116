package quota

import (
	"fmt"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/fanout"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

func isEmpty(f *fanout.Table, ch string) bool { _, ok := f.KnownEmpty(ch); return ok }

// A replica that cannot hear the others, or missed a part, takes nothing for empty.
func TestWhoHearsNothingKnowsNoEmptyChannel(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: 2 * time.Second})
	l := join(t, st, noon, "a", plan(1000))
	f := fanout.New(1, nil)
	l.ShareFanout("7", f)
	f.Learn(noon, "c", 0, fanout.FromWebhook)
	l.shareLearned(ctx, noon)
	for n := range 70 { // more than the store keeps for those who are late
		if _, _, err := st.ShareLearned(ctx, "care", learnedTopic+"7", 1<<40, fmt.Append(nil, n)); err != nil {
			t.Fatal(err)
		}
	}
	if !isEmpty(f, "c") {
		t.Fatal("not known to be empty")
	}
	l.shareLearned(ctx, noon.Add(time.Second))
	if isEmpty(f, "c") {
		t.Error("a part was missed, and the channel still counts as empty")
	}
	f.Learn(noon.Add(2*time.Second), "c", 0, fanout.FromWebhook)
	l.shareLearned(ctx, noon.Add(2*time.Second))
	srv.Kill()
	for n := range distrustAfter {
		if !isEmpty(f, "c") {
			t.Fatalf("distrusted after %d failures", n)
		}
		l.shareLearned(ctx, noon.Add(time.Duration(3+n)*time.Second))
	}
	if isEmpty(f, "c") {
		t.Error("the store is lost, and the channel still counts as empty")
	}
}
