package proxy

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
)

// However far away Pusher is, publishes of one caller to one channel that overlap wait
// for a round trip and not for each other.
func TestNobodyWaitsForAnAnswerToAnother(t *testing.T) {
	const far = 500 * time.Millisecond
	for name, fold := range map[string]*FoldConfig{"folded": {}, "alone": nil} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigConfig{fold: fold, sim: sim.Config{Latency: far}})
			began := time.Now()
			for _, g := range r.together(repeat(50, func(i int) string { return eventBody("e", "one", fmt.Sprint(i)) })) {
				if g.status != 200 {
					t.Fatalf("%d %s, %+v", g.status, g.body, r.app.Upstream.Overload())
				}
			}
			if took := time.Since(began); took > 3*far { // one after the other, ten at a time: 6
				t.Errorf("50 publishes to one channel took %s at %s", took, far)
			}
		})
	}
}

// strictRig is an app of which a test does everything by hand: each call takes took, and
// what was called is noted with its channels, in order.
type strictRig struct {
	app     *App
	judge   *limiter.App
	pr      *principal
	mu      sync.Mutex
	began   time.Time
	called  []string
	timeout time.Duration
}

func newStrictRig(t *testing.T, fold bool, took func(call string) time.Duration) *strictRig {
	t.Helper()
	judge, err := limiter.New(limiter.Policy{App: "7", Callers: []limiter.CallerPolicy{{Name: "x"}}, Rules: []limiter.Rule{
		{Name: "strict", Match: limiter.Match{Event: []string{"strict"}}, Priority: quota.Normal, Strict: true},
		{Name: "watched", Match: limiter.Match{Event: []string{"watched"}}, Priority: quota.Normal, Strict: true, Mode: limiter.Observe},
	}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := foldable7()
	s := &strictRig{app: a, judge: judge, pr: &principal{app: a, caller: judge.Caller("x")}, began: time.Now(), timeout: time.Hour}
	a.fold = newFolder(a, FoldConfig{Batch: 4})
	a.order = newOrder(map[bool]int{true: 4, false: 1}[fold])
	a.fold.call = func(j *job, out outgoing, _ time.Time) answer {
		what := string(out.body)
		s.mu.Lock()
		s.called = append(s.called, fmt.Sprint(time.Since(s.began).Milliseconds(), " ", what))
		s.mu.Unlock()
		time.Sleep(took(what))
		return answer{fate: limiter.Delivered, outcome: limiter.Sent, status: 200, ended: moment()}
	}
	return s
}

func (s *strictRig) publish(event, data string, channels ...string) answer {
	j := newJob()
	p := &pusher.Publish{Name: []byte(event), Data: []byte(data), Raw: []byte("{}")}
	for _, ch := range channels {
		p.Channels = append(p.Channels, []byte(ch))
	}
	j.items = append(j.items, item{state: toSend, publish: p, claim: limiter.Claim{Channels: channels}, verdict: limiter.Verdict{Rule: s.judge.Match(event, channels, s.pr.caller)}})
	j.judged = moment()
	j.due.begin(j.judged, s.timeout)
	got := s.app.carry(j, s.pr, false, 1, outgoing{body: []byte(data)}, time.Now())
	if j.wait.j != nil {
		j.wait.release()
	}
	return got
}

// What waits behind a call of its lane leaves when that is answered, together where it
// can be; other lanes, and what is not strict, are not held up; a publish to several
// channels waits for all of them.
func TestStrictOrder(t *testing.T) {
	const ms = time.Millisecond
	story := []struct {
		at       time.Duration
		event    string
		data     string
		channels []string
		then     time.Duration
	}{
		{0, "strict", "1", []string{"a"}, 100 * ms},
		{10 * ms, "strict", "2", []string{"a"}, 200 * ms},
		{11 * ms, "strict", "3", []string{"a"}, 200 * ms},
		{12 * ms, "strict", "4", []string{"a", "b"}, 300 * ms},
		{13 * ms, "strict", "5", []string{"a"}, 400 * ms},
		{14 * ms, "strict", "6", []string{"b"}, 400 * ms},
		{50 * ms, "other", "7", []string{"a"}, 155 * ms},
		{60 * ms, "watched", "8", []string{"a"}, 165 * ms},
		{150 * ms, "strict", "9", []string{"c"}, 255 * ms},
		{1000 * ms, "strict", "10", []string{"a"}, 1100 * ms},
	}
	synctest.Test(t, func(t *testing.T) {
		s := newStrictRig(t, true, func(string) time.Duration { return 100 * ms })
		var all sync.WaitGroup
		for _, x := range story {
			all.Go(func() {
				time.Sleep(x.at)
				got := s.publish(x.event, x.data, x.channels...)
				if took := time.Since(s.began); got.fate != limiter.Delivered || (took-x.then).Abs() > 5*ms {
					t.Errorf("%s %s to %v was answered at %s, not %s: %+v", x.event, x.data, x.channels, took, x.then, got)
				}
			})
		}
		all.Wait()
		if len(s.app.order.lanes) != 0 || s.app.fold.calls != 0 {
			t.Errorf("left behind: %v", s.app.order.lanes)
		}
		if n := len(s.called); n != 9 {
			t.Errorf("%d calls: %q", n, s.called)
		}
	})
}

// Without folding one goes after the other.
func TestStrictOrderWithoutFolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrictRig(t, false, func(string) time.Duration { return 10 * time.Millisecond })
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				s.publish("strict", fmt.Sprintf("%02d", i), "a")
			})
		}
		all.Wait()
		for i, what := range s.called {
			if what != fmt.Sprintf("%d %02d", i*10, i) {
				t.Fatalf("call %d: %q", i, s.called)
			}
		}
		if len(s.called) != 20 {
			t.Errorf("%d calls", len(s.called))
		}
	})
}

// A place that is refused is refused to all that would have left together, and the next
// go on.
func TestStrictOrderWhereThereIsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrictRig(t, true, func(string) time.Duration { return 100 * time.Millisecond })
		door := s.app.Upstream.admission
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				got := s.publish("strict", fmt.Sprint(i), "a")
				if sent := got.fate == limiter.Delivered; sent != (i == 0) {
					t.Errorf("publish %d: %+v", i, got)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		door.mu.Lock()
		door.may, door.most, door.pace.limit, door.pace.bound, door.pace.fully = 0, 0, 0, true, moment()
		door.open()
		door.mu.Unlock()
		all.Wait()
		if len(s.app.order.lanes) != 0 || len(s.called) != 1 {
			t.Errorf("left behind: %v, %q", s.app.order.lanes, s.called)
		}
	})
}

// A call that takes long keeps nobody waiting, also not to its own channel: others leave
// when their window is over.
func TestASlowCallDelaysNobody(t *testing.T) {
	const ms = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		judge, err := limiter.New(limiter.Policy{App: "7", Callers: []limiter.CallerPolicy{{Name: "x"}}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := foldable7()
		a.fold = newFolder(a, FoldConfig{Batch: 1, Channels: 1})
		a.order = newOrder(1)
		began := time.Now()
		a.fold.call = func(j *job, _ outgoing, _ time.Time) answer {
			took := 5 * ms
			if j.items[0].claim.Channels[0] == "slow" {
				took = time.Second
			}
			time.Sleep(took)
			return answer{fate: limiter.Delivered, outcome: limiter.Sent, ended: moment()}
		}
		pr := &principal{app: a, caller: judge.Caller("x")}
		var all sync.WaitGroup
		for _, s := range []struct {
			at      time.Duration
			channel string
			then    time.Duration
		}{{0, "slow", 1000 * ms}, {1 * ms, "slow", 1003 * ms}, {20 * ms, "a", 25 * ms}, {22 * ms, "b", 28 * ms}, {40 * ms, "c", 45 * ms}, {500 * ms, "d", 505 * ms}} {
			all.Go(func() {
				time.Sleep(s.at)
				j := newJob()
				channels := []string{s.channel}
				p := &pusher.Publish{Name: []byte("e"), Data: []byte(s.channel), Channels: [][]byte{[]byte(s.channel)}, Raw: []byte("{}")}
				j.items = append(j.items, item{state: toSend, publish: p, claim: limiter.Claim{Channels: channels}, verdict: limiter.Verdict{Rule: judge.Match("e", channels, pr.caller)}})
				j.judged = moment()
				j.due.begin(j.judged, time.Hour)
				a.carry(j, pr, false, 1, outgoing{}, time.Now())
				if took := time.Since(began); took != s.then {
					t.Errorf("%s of %s was answered at %s, not %s", s.channel, s.at, took, s.then)
				}
			})
		}
		all.Wait()
	})
}

// What is still behind another one when its time is over leaves the queue and is never
// sent, wherever it stands; the others keep their order.
func TestStrictOrderHasADeadline(t *testing.T) {
	const ms = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s := newStrictRig(t, false, func(string) time.Duration { return 300 * ms })
		s.timeout = 500 * ms
		var all sync.WaitGroup
		for _, x := range []struct {
			at       time.Duration
			data     string
			channels []string
			then     time.Duration
			sent     bool
		}{
			{0, "1", []string{"a"}, 300 * ms, true},
			{1 * ms, "2", []string{"a"}, 501 * ms, true}, // sent at 300, and then it takes as long as it may
			{2 * ms, "3", []string{"a", "b"}, 502 * ms, false},
			{3 * ms, "4", []string{"a"}, 503 * ms, false},
			{250 * ms, "5", []string{"b"}, 750 * ms, true}, // behind the third, until that gives up at 502
			{260 * ms, "6", []string{"a"}, 760 * ms, true}, // behind the second, the third and the fourth
		} {
			all.Go(func() {
				time.Sleep(x.at)
				got := s.publish("strict", x.data, x.channels...)
				took := time.Since(s.began)
				if sent := got.fate != limiter.NotSent; sent != x.sent || !sent && (took != x.then || got.word != "waited_for_order" || got.status != 503) {
					t.Errorf("%s: %+v after %s, not %s", x.data, got, took, x.then)
				}
			})
		}
		all.Wait()
		if got := fmt.Sprint(s.called); got != "[0 1 300 2 502 5 600 6]" {
			t.Errorf("called %s", got)
		}
		if len(s.app.order.lanes) != 0 {
			t.Errorf("left behind: %v", s.app.order.lanes)
		}
	})
}
