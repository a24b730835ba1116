package fanout

import (
	"iter"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

func listOf(channels iter.Seq[string]) *ChannelList {
	c := &ChannelList{}
	for ch := range channels {
		c.Add(ch)
	}
	return c
}

// What is known of one channel, as webhooks, answers and polls come in.
func TestKnownEmpty(t *testing.T) {
	f := New(2, nil)
	at := func(sec int) time.Time { return noon.Add(time.Duration(sec) * time.Second) }
	poll := func(sec int, channels ...string) { f.LearnOccupied(at(sec), listOf(slices.Values(channels))) }
	is := func(when string, since, asOf int, from Source) {
		t.Helper()
		e, ok := f.KnownEmpty("room")
		if since < 0 {
			if ok {
				t.Fatalf("%s: known to be empty, %+v", when, e)
			}
			return
		}
		if !ok || !e.Since.Equal(at(since)) || !e.AsOf.Equal(at(asOf)) || e.Source != from {
			t.Fatalf("%s: %+v, %v", when, e, ok)
		}
	}
	is("at first", -1, 0, 0)
	f.Learn(at(10), "room", 0, FromWebhook)
	is("vacated", 10, 10, FromWebhook)
	f.Learn(at(20), "room", 0, FromWebhook)
	is("said twice", 10, 20, FromWebhook)
	if n := f.Estimate("room"); n != 0 {
		t.Fatal(n)
	}
	f.Learn(at(30), "room", 1, FromWebhook)
	is("occupied", -1, 0, 0)
	f.Learn(at(25), "room", 0, FromWebhook)
	is("old news that comes late", -1, 0, 0)
	f.Learn(at(30), "room", 0, FromWebhook)
	is("both in one second", -1, 0, 0)
	poll(35, "other")
	is("a poll that may have been asked before", -1, 0, 0)
	poll(60, "other")
	is("a newer poll", 35, 60, FromPoll) // the poll before did not see it either
	poll(90, "other")
	is("another", 60, 90, FromPoll)
	if n, src, age := f.Explain("room"); n != 0 || src != FromPoll || age != 0 {
		t.Fatal(n, src, age)
	}
	f.Tick(at(90 + 600))
	if n := f.Estimate("room"); n != 1 {
		t.Fatal("does not drift back", n)
	}
	f.Learn(at(91), "room", 3, FromWebhook)
	is("somebody came after the poll", -1, 0, 0)
	f.Learn(at(100), "room", 0, FromWebhook)
	poll(200, "room")
	is("the poll knows of somebody whose webhook was lost", -1, 0, 0)
	if n, src, _ := f.Explain("room"); n != 2 || src != FromDefault {
		t.Fatal(n, src)
	}
	poll(199)
	is("an older poll comes late", -1, 0, 0)
}

func TestPlainCountsOfZeroAreKeptToo(t *testing.T) {
	f := New(0, nil)
	f.Learn(noon, "room", 0, FromInfo)
	if e, ok := f.KnownEmpty("room"); !ok || e.Source != FromInfo {
		t.Fatal(e, ok)
	}
}

// No channel that is occupied is ever taken for empty, few that are empty for occupied, another replica sees the same,
// and a million take as much memory as stated.
func TestOccupiedOfAMillion(t *testing.T) {
	const n = 1_000_000
	rng := rand.New(rand.NewPCG(1, 2))
	names := map[string]bool{}
	for len(names) < n {
		names["private-user-"+strconv.FormatUint(rng.Uint64(), 36)] = true
	}
	f, other := New(1, nil), New(1, nil)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f.LearnOccupied(noon, listOf(maps.Keys(names)))
	msg := f.LearnOccupied(noon.Add(time.Minute), listOf(maps.Keys(names)))
	size := len(msg)
	if err := other.MergeOccupied(msg); err != nil {
		t.Fatal(err)
	}
	msg = nil
	other2 := other.occupied.Swap(nil)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 5<<20 || size > 1<<20+300<<10 {
		t.Fatalf("%d kB for two polls and another replica's, a message of %d bytes", used>>10, size)
	}
	other.occupied.Store(other2)
	for ch := range names {
		if _, empty := f.KnownEmpty(ch); empty {
			t.Fatal(ch, "is occupied")
		}
		if _, empty := other.KnownEmpty(ch); empty {
			t.Fatal(ch, "is occupied, says the other replica")
		}
	}
	wrong := 0
	for i := range 100_000 {
		if _, empty := f.KnownEmpty("nobody-" + strconv.Itoa(i)); !empty {
			wrong++
		}
	}
	if wrong > 1500 {
		t.Fatalf("%d of 100,000 empty channels are taken for occupied", wrong)
	}
	if got, asOf := other.Occupied(); got != n || !asOf.Equal(noon.Add(time.Minute)) {
		t.Fatal(got, asOf)
	}
	for _, bad := range [][]byte{nil, make([]byte, 15), make([]byte, 16), make([]byte, 25)} {
		if other.MergeOccupied(bad) == nil {
			t.Fatalf("%d bytes are accepted", len(bad))
		}
	}
}
