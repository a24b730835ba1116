package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

// A silence as it is met behind a fold of two calls: who waits there is asked for by
// priority, and waits no longer than its patience from when it was judged.
func TestAFoldInASilence(t *testing.T) {
	const ms = time.Millisecond
	const lost = "sent and lost"
	story := []struct {
		at      time.Duration
		event   string // its priority
		channel string
		then    time.Duration
		what    string
		why     string
	}{
		{0, "bulk", "a", 4000 * ms, lost, "the line was idle"},
		{1 * ms, "normal", "b", 4006 * ms, lost, "after its window, by the second call"},
		{10 * ms, "bulk", "c", 285 * ms, "upstream_silent", "in want of a call since 31 ms; after 250 ms more it is called a silence, and its patience is over already"},
		{20 * ms, "critical", "d", 4285 * ms, lost, "asked for at once, as the most important"},
		{30 * ms, "bulk", "d", 285 * ms, "upstream_silent", "likewise"},
		{40 * ms, "critical", "a", 4385 * ms, lost, "asked for 100 ms later: that the first to its channel hangs is nothing to it"},
		{50 * ms, "critical", "e", 4485 * ms, lost, "and the next"},
		{60 * ms, "normal", "f", 310 * ms, "upstream_silent", "others were more important"},
		{400 * ms, "critical", "g", 4585 * ms, lost, "before the places: in the fold nobody as important may go"},
		{401 * ms, "normal", "h", 651 * ms, "upstream_silent", "its turn had not come"},
		{410 * ms, "normal", "a", 660 * ms, "upstream_silent", "nor this one's"},
		{700 * ms, "critical", "a", 4785 * ms, lost, "nobody else is left"},
		{750 * ms, "normal", "i", 4885 * ms, lost, "after it"},
		{2100 * ms, "bulk", "j", 2195 * ms, "sent", "when the silence is over it has a place"},
		{2110 * ms, "normal", "k", 2190 * ms, "sent", "asked for at 2185 ms, and answered"},
		{2200 * ms, "normal", "d", 2205 * ms, "sent", "a call to its channel hangs, and it passes it by"},
	}
	synctest.Test(t, func(t *testing.T) {
		judge, err := limiter.New(limiter.Policy{App: "7", Callers: []limiter.CallerPolicy{{Name: "x"}}, Rules: []limiter.Rule{
			{Name: "b", Match: limiter.Match{Event: []string{"bulk"}}, Priority: quota.Bulk},
			{Name: "n", Match: limiter.Match{Event: []string{"normal"}}, Priority: quota.Normal},
			{Name: "c", Match: limiter.Match{Event: []string{"critical"}}, Priority: quota.Critical},
		}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := foldable7()
		f := newFolder(a, FoldConfig{Calls: 2, Batch: 1, Channels: 1})
		a.fold = f
		began := time.Now()
		f.call = func(*job, outgoing, time.Time) answer {
			if at := time.Since(began); at >= 2100*ms {
				time.Sleep(5 * ms)
				return answer{fate: limiter.Delivered, outcome: limiter.Sent, ended: moment()}
			}
			time.Sleep(4 * time.Second)
			return answer{fate: limiter.Unknown, word: lost, silent: true, ended: moment()}
		}
		pr := &principal{app: a, caller: judge.Caller("x")}
		var all sync.WaitGroup
		for i, s := range story {
			all.Go(func() {
				time.Sleep(s.at)
				j := newJob()
				channels := []string{s.channel}
				rule := judge.Match(s.event, channels, pr.caller)
				p := &pusher.Publish{Name: []byte(s.event), Data: fmt.Append(nil, i), Channels: [][]byte{[]byte(s.channel)}, Raw: []byte("{}")}
				j.items = append(j.items, item{state: toSend, publish: p, claim: limiter.Claim{Channels: channels}, verdict: limiter.Verdict{Rule: rule}})
				j.judged = moment()
				got := a.carry(j, pr, false, 1, outgoing{}, time.Now())
				what := got.word
				if got.fate == limiter.Delivered {
					what = "sent"
				}
				if took := time.Since(began); took != s.then || what != s.what || (what == "upstream_silent") != (got.fate == limiter.NotSent) {
					t.Errorf("%s on %s of %s: %q at %s, not %q at %s: %s", s.event, s.channel, s.at, what, took, s.what, s.then, s.why)
				}
				if j.wait.j != nil {
					j.wait.release()
				}
			})
		}
		all.Wait()
		var shed int64
		for c := range f.door.shed {
			shed += f.door.shed[c][ShedSilent].Load()
		}
		var refused, out int64
		for _, s := range story {
			if s.what == "upstream_silent" {
				refused++
			} else {
				out++
			}
		}
		if n := f.publishes.Load(); n != out || shed != refused {
			t.Errorf("%d left of %d, %d are counted as refused of %d", n, out, shed, refused)
		}
		if d := f.door; d.under.Load() != 0 || d.waiting.Load() != 0 || d.silence.lost.Load() != 0 || f.calls != 0 || len(f.queue) != 0 {
			t.Errorf("%d under way, %d in line, %d lost, %d calls", d.under.Load(), d.waiting.Load(), d.silence.lost.Load(), f.calls)
		}
	})
}

// The same with real calls, on connections of the express lane: everybody who is not
// at Pusher is told before anything that hangs ends, and only what was answered is
// paid for.
func TestNobodyWaitsInAFoldForASilentPusher(t *testing.T) {
	const many = 60
	var hang atomic.Int64
	release := make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hang.Add(1)
		<-release
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(up.Close)
	end := sync.OnceFunc(func() { close(release) })
	t.Cleanup(end)
	r := newRig(t, rigConfig{upstream: up.URL, fold: &FoldConfig{Calls: 2}, conns: 2, timeout: time.Minute, policy: limiter.Policy{Rules: []limiter.Rule{
		{Name: "alarms", Match: limiter.Match{Event: []string{"alarm"}}, Priority: quota.Critical}, {Name: "rest", Priority: quota.Bulk}}}})
	var all sync.WaitGroup
	var sent, told atomic.Int64
	for i := range many {
		event := "refresh"
		if i%3 == 0 {
			event = "alarm"
		}
		all.Go(func() {
			switch got := r.publish(event, fmt.Sprint("c", i%20), fmt.Sprint(i)); {
			case got.status == 200:
				sent.Add(1)
			case got.status == 503 && got.outcome == "unavailable" && got.header.Get("Pushguard-Reason") == "upstream_silent" &&
				got.header.Get("Retry-After") == "1" && strings.Contains(got.body, "cost no message"):
				told.Add(1)
			default:
				t.Errorf("%d %s %v %s", got.status, got.outcome, got.header, got.body)
			}
		})
	}
	// Those that left together are one call, so fewer hang there than are sent. Who was
	// asked for has found a connection, although the two calls have all that there may be.
	eventually(t, "whoever is not at Pusher is told", func() bool {
		return told.Load()+r.app.FoldStats().Publishes == many && r.app.FoldStats().Calls == hang.Load()
	})
	if o := r.app.Upstream.Overload(); told.Load() == 0 || hang.Load() < 3 || sent.Load() != 0 || !o.Silent || o.Waiting != 0 || o.UnderWay != many-told.Load() ||
		o.Shed[quota.Critical]+o.Shed[quota.Bulk] != told.Load() {
		t.Errorf("%d told, %d sent, %d hang, %+v", told.Load(), sent.Load(), hang.Load(), o)
	}
	end()
	all.Wait()
	if n := r.app.FoldStats(); sent.Load()+told.Load() != many || n.Publishes != sent.Load() {
		t.Errorf("%d told, %d sent, %+v", told.Load(), sent.Load(), n)
	}
	// A call and its deliveries; what shares a call pays for no call of its own.
	if n := r.used(); n > 3*sent.Load() || n < 2*sent.Load() {
		t.Errorf("%d were sent, the ledger booked %d", sent.Load(), n)
	}
	if o := r.app.Upstream.Overload(); o.UnderWay != 0 || o.Silent {
		t.Errorf("afterwards %+v", o)
	}
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
		}{{0, "slow", 1000 * ms}, {1 * ms, "slow", 1006 * ms}, {20 * ms, "a", 30 * ms}, {22 * ms, "b", 30 * ms}, {40 * ms, "c", 50 * ms}, {500 * ms, "d", 510 * ms}} {
			all.Go(func() {
				time.Sleep(s.at)
				j := newJob()
				channels := []string{s.channel}
				p := &pusher.Publish{Name: []byte("e"), Data: []byte(s.channel), Channels: [][]byte{[]byte(s.channel)}, Raw: []byte("{}")}
				j.items = append(j.items, item{state: toSend, publish: p, claim: limiter.Claim{Channels: channels}, verdict: limiter.Verdict{Rule: judge.Match("e", channels, pr.caller)}})
				j.judged = moment()
				a.carry(j, pr, false, 1, outgoing{}, time.Now())
				if took := time.Since(began); took != s.then {
					t.Errorf("%s of %s was answered at %s, not %s", s.channel, s.at, took, s.then)
				}
			})
		}
		all.Wait()
	})
}
