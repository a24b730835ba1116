package quota

import (
	"fmt"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

func isEmpty(f *Fanout, ch string) bool { _, ok := f.KnownEmpty(ch); return ok }

// More news than one message holds: the others are told that there was more,
// and believe no old emptiness.
func TestWhatIsNotToldIsDistrusted(t *testing.T) {
	a, b := NewFanout(1, nil), NewFanout(1, nil)
	b.Learn(noon, "c", 0, FromWebhook)
	b.Fresh()
	later := noon.Add(time.Minute)
	b.Tick(later)
	for n := range maxFresh {
		a.Learn(later, fmt.Sprint("x", n), 3, FromWebhook)
	}
	told := a.Fresh()
	b.Merge(told)
	if !isEmpty(b, "c") {
		t.Fatal("forgotten although all was told")
	}
	for n := range maxFresh + 1 {
		a.Learn(later, fmt.Sprint("x", n), 4, FromWebhook)
	}
	b.Merge(a.Fresh())
	if isEmpty(b, "c") {
		t.Error("still empty, though who came to it may not have been told")
	}
	b.Learn(later.Add(time.Second), "c", 0, FromWebhook)
	if !isEmpty(b, "c") {
		t.Error("news is not believed either")
	}
}

// A replica that cannot hear the others, or missed a part, takes nothing for empty.
func TestWhoHearsNothingKnowsNoEmptyChannel(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: 2 * time.Second})
	l := join(t, st, noon, "a", plan(1000))
	f := NewFanout(1, nil)
	l.ShareFanout("7", f)
	f.Learn(noon, "c", 0, FromWebhook)
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
	f.Learn(noon.Add(2*time.Second), "c", 0, FromWebhook)
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
