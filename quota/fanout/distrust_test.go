package fanout

import (
	"fmt"
	"testing"
	"time"
)

func isEmpty(f *Table, ch string) bool { _, ok := f.KnownEmpty(ch); return ok }

// More news than one message holds: the others are told that there was more,
// and believe no old emptiness.
func TestWhatIsNotToldIsDistrusted(t *testing.T) {
	a, b := New(1, nil), New(1, nil)
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
