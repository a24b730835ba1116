package fanout

import (
	"strconv"
	"testing"
	"time"
)

// A question is asked when the messages that would be miscounted without it are more than it costs.
func TestWhenAQuestionIsWorthItsPrice(t *testing.T) {
	for _, c := range []struct {
		name  string
		d     SamplingValue
		price float64
		ask   int64
		want  bool
	}{
		{"nothing is published", SamplingValue{0, 100, FromDefault, 0, 1}, 1, 1, false},
		{"one publish, and the guess is off by itself: no gain", SamplingValue{1, 1, FromDefault, 0, 1}, 1, 1, false},
		{"a little more", SamplingValue{1.01, 1, FromDefault, 0, 1}, 1, 1, true},
		{"where asking costs two", SamplingValue{1.01, 1, FromDefault, 0, 1}, 1, 2, false},
		{"and then it takes two", SamplingValue{2.01, 1, FromDefault, 0, 1}, 1, 2, true},
		{"a question that costs nothing still costs a call", SamplingValue{0.5, 1, FromDefault, 0, 1}, 1, 0, false},
		{"where messages cost nothing", SamplingValue{1e6, 100, FromDefault, 0, 1}, 0, 1, false},
		{"in another currency it is the same", SamplingValue{1.01, 1, FromDefault, 0, 1}, 49. / 30e6, 1, true},
		{"guesses that were never wrong", SamplingValue{1e6, 100, FromDefault, 0, 0}, 1, 1, false},
		{"counts known to be right to a hundredth", SamplingValue{100, 1, FromDefault, 0, 0.01}, 1, 1, false},
		{"for many subscribers", SamplingValue{100, 2, FromDefault, 0, 0.01}, 1, 1, true},
		{"an empty channel counts as one that could be", SamplingValue{2, 0, FromPoll, time.Hour, 1}, 1, 1, true},
		{"asked a moment ago", SamplingValue{1000, 100, FromInfo, 0, 1}, 1, 1, false},
		{"asked half a half-life ago", SamplingValue{3.5, 1, FromInfo, 15 * time.Minute, 1}, 1, 1, true},
		{"the same but less published", SamplingValue{3.4, 1, FromInfo, 15 * time.Minute, 1}, 1, 1, false},
		{"a webhook's word lasts", SamplingValue{3.5, 1, FromWebhook, 15 * time.Minute, 1}, 1, 1, false},
		{"from the future", SamplingValue{1000, 100, FromInfo, -time.Hour, 1}, 1, 1, false},
	} {
		if got := c.d.Worth(c.price, c.ask); got != c.want {
			t.Errorf("%s: %v, the expected error is %.3f messages", c.name, got, c.d.ExpectedError())
		}
	}
}

func TestEstimatorError(t *testing.T) {
	var s EstimatorError
	if off, checked := s.Off(FromDefault); off != 1 || checked {
		t.Fatal(off, checked)
	}
	s.Note(FromDefault, 1, 1)
	if off, checked := s.Off(FromDefault); off != 0.5 || !checked {
		t.Fatal("after one that was right:", off, checked)
	}
	for range 500 {
		s.Note(FromDefault, 3, 3)
	}
	if off, _ := s.Off(FromDefault); off != 0.01 {
		t.Fatal("never wrong, and still to be asked now and then:", off)
	}
	for range 500 {
		s.Note(FromDefault, 2, 6)
	}
	if off, _ := s.Off(FromDefault); off < 1.99 || off > 2.01 {
		t.Fatal("off by twice itself:", off)
	}
	s.Note(FromDefault, 1, 1e9)
	if off, _ := s.Off(FromDefault); off > 60 {
		t.Fatal("one giant makes all doubtful:", off)
	}
	if off, checked := s.Off(FromInfo); off != 1 || checked {
		t.Fatal("another source is another matter:", off, checked)
	}
	s.Note(Source(7), 1, 2)
	if off, checked := s.Off(Source(7)); off != 1 || checked {
		t.Fatal(off, checked)
	}
}

// Among a hundred thousand channels that get a publish each the few busy ones are found, with about their rates, and
// what is no longer busy is forgotten.
func TestTopChannels(t *testing.T) {
	b := &TopChannels{}
	now := noon
	names := make([][]string, 100_000)
	for i := range names {
		names[i] = []string{"quiet-" + strconv.Itoa(i)}
	}
	room, hall := []string{"room"}, []string{"hall", "#server-to-user-7"}
	for range 300 {
		now = now.Add(time.Second)
		for i := range 40 {
			b.Note(now, room, 2)
			if i%4 == 0 {
				b.Note(now, hall, 101)
			}
			b.Note(now, names[(now.Second()*1000+i*17)%len(names)], 2)
		}
		b.Top(now, 1)
	}
	top := b.Top(now, 2)
	if len(top) != 2 || top[0].Channel != "hall" || top[1].Channel != "room" {
		t.Fatal(top)
	}
	if r := top[0].PerSecond; r < 5 || r > 20 {
		t.Errorf("hall gets 10 a second, not %.1f", r)
	}
	if r := top[1].PerSecond; r < 20 || r > 80 {
		t.Errorf("room gets 40 a second, not %.1f", r)
	}
	if n := testing.AllocsPerRun(1000, func() { b.Note(now, room, 2); b.Note(now, names[len(names)-1], 2) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for range 20 {
		now = now.Add(time.Minute)
		top = b.Top(now, 10)
	}
	if len(top) != 0 {
		t.Errorf("still busy after 20 minutes of nothing: %v", top)
	}
}

func TestAtLeastThatMany(t *testing.T) {
	f := New(2, nil)
	f.LearnAtLeast(noon, "presence-a", 1, FromPoll)
	if n, src, _ := f.Explain("presence-a"); n != 2 || src != FromDefault {
		t.Fatal("two stands", n, src)
	}
	f.LearnAtLeast(noon, "presence-a", 9, FromPoll)
	if n, src, _ := f.Explain("presence-a"); n != 9 || src != FromPoll {
		t.Fatal(n, src)
	}
}
