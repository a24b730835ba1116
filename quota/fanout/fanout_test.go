package fanout

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)

func TestFanoutByConfiguration(t *testing.T) {
	f := New(3, []Pattern{{"private-user-*", 2}, {"*-x?", 7}, {"news", 0}, {"bad", -5}})
	for ch, want := range map[string]int64{
		"private-user-1": 2, "private-user-": 2, "private-users": 3, "a-x1": 7, "a-x": 3, "-x1-x2": 7, "news": 0, "newsy": 3, "bad": 0, "": 3,
	} {
		n, src, age := f.Explain(ch)
		if n != want || src != FromDefault || age != 0 || f.Estimate(ch) != want {
			t.Errorf("%q: %d from %v, want %d", ch, n, src, want)
		}
	}
	if n := New(-1, nil).Estimate("x"); n != 0 {
		t.Error(n)
	}
}

func TestFanoutLearnsAndForgets(t *testing.T) {
	f := New(10, nil)
	at := func(min int) time.Time { return noon.Add(time.Duration(min) * time.Minute) }
	for _, step := range []struct {
		min    int
		n      int64 // -1: nothing is learned, the clock ticks
		source Source
		want   int64
		from   Source
	}{
		{0, 100, FromInfo, 100, FromInfo},
		{1, 50, FromPoll, 98, FromInfo}, // a less trusted source is not believed so soon (and 100 drifts already)
		{2, 200, FromWebhook, 200, FromWebhook},
		{3, 100, FromInfo, 200, FromWebhook},
		{62, -1, 0, 190, FromWebhook},
		{722, -1, 0, 105, FromWebhook},      // half of the way back after half a day
		{723, 0, FromInfo, 0, FromInfo},     // by now anybody is believed
		{753, -1, 0, 5, FromInfo},           // an empty channel drifts back up
		{600, 77, FromWebhook, 5, FromInfo}, // old news
		{754, 10, FromInfo, 10, FromInfo},
		{9999, -1, 0, 10, FromInfo},
	} {
		if step.n < 0 {
			f.Tick(at(step.min))
		} else {
			f.Learn(at(step.min), "news", step.n, step.source)
		}
		if n, src, _ := f.Explain("news"); n != step.want || src != step.from {
			t.Fatalf("minute %d: %d from %v, want %d from %v", step.min, n, src, step.want, step.from)
		}
	}
	if n := f.Estimate("other"); n != 10 {
		t.Fatal(n)
	}
	f.Learn(at(0), "plain", 10, FromInfo)
	if n := f.Learned(); n != 2 {
		t.Fatalf("%d places taken; a count as configured was learned too, and is no guess any more", n)
	}
	f.Learn(at(9999), "huge", 1<<62, FromInfo)
	if n := f.Estimate("huge"); n != maxCount {
		t.Fatal(n)
	}
	f.Learn(at(9999), "negative", -4, FromInfo)
	if n := f.Estimate("negative"); n != 0 {
		t.Fatal(n)
	}
}

func TestFanoutIsShared(t *testing.T) {
	a, b := New(1, nil), New(1, nil)
	a.Learn(noon, "news", 40, FromWebhook)
	b.Learn(noon.Add(time.Minute), "sport", 50, FromWebhook)
	a.Learn(noon, "sport", 60, FromWebhook) // older than what b knows
	b.Tick(noon)
	msg := a.Fresh()
	b.Merge(msg)
	b.Merge(append(msg, 1, 2, 3))
	b.Merge(make([]byte, 16))
	if b.Estimate("news") != 40 || b.Estimate("sport") != 50 {
		t.Fatal(b.Estimate("news"), b.Estimate("sport"))
	}
	if a.Fresh() != nil {
		t.Fatal("told twice")
	}
}

// A million channels stay within the stated memory, and the estimates stay right.
func TestFanoutMillionChannels(t *testing.T) {
	f := New(1, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 1_000_000
	for i := range n {
		f.Learn(noon, "private-user-"+strconv.Itoa(i), int64(i%1000)+2, FromInfo)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 40<<20 {
		t.Fatalf("%d MB", used>>20)
	}
	known := 0
	for i := range n {
		switch got := f.Estimate("private-user-" + strconv.Itoa(i)); got {
		case int64(i%1000) + 2:
			known++
		case 1: // forgotten
		default:
			t.Fatalf("channel %d: %d", i, got)
		}
	}
	if known < n*99/100 || f.Learned() > MaxLearned {
		t.Fatalf("%d of a million are known, %d places", known, f.Learned())
	}
	// And as many others again cannot grow it further.
	for i := range n {
		f.Learn(noon.Add(time.Minute), "c"+strconv.Itoa(i), 9, FromInfo)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 40<<20 {
		t.Fatalf("%d MB after an attack", used>>20)
	}
}

func TestFanoutConcurrently(t *testing.T) {
	f := New(1, nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				ch := fmt.Sprint("ch", (i*7+w)%3000)
				f.Learn(noon, ch, 5, FromInfo)
				if n := f.Estimate(ch); n != 5 && n != 1 {
					t.Errorf("%s: %d", ch, n)
				}
			}
		})
	}
	wg.Wait()
}

func TestEstimateAllocatesNothing(t *testing.T) {
	f := New(1, []Pattern{{"private-*", 2}})
	f.Learn(noon, "private-user-1", 5, FromInfo)
	f.Tick(noon.Add(time.Hour))
	name := strings.Clone("private-user-1")
	if n := testing.AllocsPerRun(100, func() { f.Estimate(name) }); n != 0 {
		t.Fatal(n)
	}
}

func BenchmarkEstimate(b *testing.B) {
	f := New(1, []Pattern{{"private-*", 2}})
	for i := range 100_000 {
		f.Learn(noon, fmt.Sprint("private-user-", i), 5, FromInfo)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Estimate("private-user-777")
	}
}
