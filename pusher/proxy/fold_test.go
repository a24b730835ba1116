package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
)

// together sends all bodies at the same moment and returns their answers, in
// their order.
func (r *rig) together(bodies []string) []reply {
	r.t.Helper()
	out := make([]reply, len(bodies))
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, b := range bodies {
		all.Go(func() {
			<-start
			got, err := r.try(r.caller, "POST", "/apps/7/events", nil, b)
			if err != nil {
				r.t.Error(err)
			}
			out[i] = got
		})
	}
	close(start)
	all.Wait()
	return out
}

func repeat(n int, f func(i int) string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = f(i)
	}
	return out
}

func TestAnIdleLineDoesNotFold(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Hour}})
	for i := range 20 {
		want(t, r.publish("e", "c", fmt.Sprint(i)), 200, "sent")
	}
	if st := r.sim.Stats(); st.Requests != 20 || st.ByEndpoint["batch_events"] != 0 {
		t.Errorf("%+v: 20 publishes one after another must be 20 calls", st)
	}
}

func TestTheSamePayloadToManyChannelsIsOnePublish(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 30 * time.Millisecond}})
	got := r.together(repeat(64, func(i int) string { return eventBody("news", fmt.Sprint("user-", i), "same") }))
	for _, g := range got {
		want(t, g, 200, "sent")
		if g.body != "{}" {
			t.Errorf("body %q", g.body)
		}
	}
	st := r.sim.Stats()
	if st.Requests > 4 || st.Deliveries != 128 {
		t.Errorf("64 publishes made %d calls and %d deliveries, want at most 4 and 128", st.Requests, st.Deliveries)
	}
	r.agree()
	if fs := r.app.FoldStats(); fs.Publishes != 64 || fs.Calls != st.Requests {
		t.Errorf("stats %+v, %d calls arrived", fs, st.Requests)
	}
}

// Pusher leaves the excluded socket out once in a call, however many publishes
// share it.
func TestASharedTriggerExcludesASocketOnce(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 20 * time.Millisecond}})
	r.together(repeat(30, func(i int) string {
		return fmt.Sprintf(`{"name":"e","channel":"c%d","data":"same","socket_id":"1.2"}`, i)
	}))
	if st := r.sim.Stats(); st.Requests > 5 {
		t.Errorf("%d calls: nothing was shared", st.Requests)
	}
	r.agree()
}

func TestDifferentEventsShareABatch(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 30 * time.Millisecond}})
	for _, g := range r.together(repeat(61, func(i int) string { return eventBody("e", fmt.Sprint("c", i), fmt.Sprint(i)) })) {
		want(t, g, 200, "sent")
	}
	st := r.sim.Stats()
	if st.Events != 61 || st.Requests > 15 {
		t.Errorf("61 publishes made %d calls with %d events", st.Requests, st.Events)
	}
	r.agree()
}

func TestNeverFolded(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 20 * time.Millisecond}})
	bodies := repeat(10, func(i int) string { return eventBody("e", fmt.Sprint("private-encrypted-", i), "x") })
	bodies = append(bodies, repeat(10, func(i int) string { return eventBody("e", fmt.Sprint("#server-to-user-", i), "x") })...)
	for _, g := range r.together(bodies) {
		want(t, g, 200, "sent")
	}
	if st := r.sim.Stats(); st.Requests != 20 {
		t.Errorf("%d calls, want 20", st.Requests)
	}
}

func TestEachAskerOfInfoGetsItsOwn(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 20 * time.Millisecond,
		SubscribersOf: []sim.Pattern{{Pattern: "c3", N: 33}, {Pattern: "c7", N: 77}}}})
	for _, data := range []string{"same", ""} { // one publish to several channels, and batches
		bodies := repeat(20, func(i int) string {
			d := data
			if d == "" {
				d = fmt.Sprint(i)
			}
			return fmt.Sprintf(`{"name":"e","channel":"c%d","data":%q,"info":"subscription_count"}`, i, d)
		})
		for i, g := range r.together(bodies) {
			n := map[int]int{3: 33, 7: 77}[i]
			if n == 0 {
				n = 2
			}
			if want := fmt.Sprintf(`{"channels":{"c%d":{"subscription_count":%d}}}`, i, n); strings.TrimSpace(g.body) != want {
				t.Errorf("publish %d got %s, want %s", i, g.body, want)
			}
		}
	}
	r.agree()
}

// Pusher refuses one event of a folded call, and with it the whole call.
func TestOneBadEventDoesNotFailItsNeighbours(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 10 * time.Millisecond, Limits: pusher.Limits{EventName: 20}}})
	long := strings.Repeat("n", 50)
	bodies := repeat(40, func(i int) string {
		name := "e"
		if i%13 == 5 {
			name = long
		}
		return eventBody(name, fmt.Sprint("c", i), fmt.Sprint(i))
	})
	for i, g := range r.together(bodies) {
		switch {
		case i%13 == 5 && (g.status != 400 || !strings.Contains(g.body, "20")):
			t.Errorf("the event at fault got %d %q", g.status, g.body)
		case i%13 != 5 && g.status != 200:
			t.Errorf("a neighbour got %d %q", g.status, g.body)
		}
	}
	if st := r.sim.Stats(); st.Events != 37 {
		t.Errorf("%d events arrived, want 37", st.Events)
	}
	if r.app.FoldStats().Splits == 0 {
		t.Error("nothing was split: the test did not test")
	}
}

func TestUnknownFateIsOfThoseInTheCall(t *testing.T) {
	r := newRig(t, rigConfig{fold: &FoldConfig{Window: time.Second}, sim: sim.Config{Latency: 10 * time.Millisecond}})
	r.sim.SetFail(sim.FailErrorAfter)
	for _, g := range r.together(repeat(30, func(i int) string { return eventBody("e", fmt.Sprint("c", i), fmt.Sprint(i)) })) {
		want(t, g, 502, "unavailable")
	}
	if got := r.used(); got != 90 {
		t.Errorf("%d messages booked for 30 publishes of unknown fate, want their whole price, 90", got)
	}
	if n := r.sim.Stats().Events; n != 30 {
		t.Errorf("%d events arrived of 30: something was sent twice or never", n)
	}
}

// For any mix of publishes and any behaviour of Pusher's, what callers are told
// and what arrives is what sending one by one would have given.
func TestFoldingIsInvisible(t *testing.T) { rapid.Check(t, foldingIsInvisible(t)) }

// FuzzFolding has the fuzzer choose the publishes and what goes wrong with their calls.
func FuzzFolding(f *testing.F) {
	for n := range 8 {
		choices := make([]byte, 4096)
		rand.NewChaCha8([32]byte{byte(n)}).Read(choices)
		f.Add(choices)
	}
	f.Fuzz(func(t *testing.T, choices []byte) { rapid.MakeFuzz(foldingIsInvisible(t))(t, choices) })
}

func foldingIsInvisible(tb testing.TB) func(*rapid.T) {
	r := newRig(tb, rigConfig{fold: &FoldConfig{Window: 2 * time.Millisecond}, sim: sim.Config{Latency: 2 * time.Millisecond, Limits: pusher.Limits{EventName: 8}}})
	return func(t *rapid.T) {
		defer r.sim.SetFail(sim.FailNone)
		fail := rapid.SampledFrom([]sim.Fail{sim.FailNone, sim.FailNone, sim.FailError, sim.FailErrorAfter, sim.FailDropAfter, sim.FailDisabled}).Draw(t, "fail")
		n := rapid.IntRange(1, 40).Draw(t, "publishes")
		type publish struct{ event, channel, data, socket string }
		all := make([]publish, n)
		bodies := make([]string, n)
		for i := range all {
			p := publish{
				event:   rapid.SampledFrom([]string{"a", "b", "a", "muchtoolong"}).Draw(t, "event"),
				channel: rapid.SampledFrom([]string{"c1", "c2", "c3", "private-encrypted-x", "#server-to-user-9"}).Draw(t, "channel"),
				data:    rapid.SampledFrom([]string{"same", "same", `{"x":1}`, "<&>", fmt.Sprint(i)}).Draw(t, "data"),
				socket:  rapid.SampledFrom([]string{"", "", "1.2"}).Draw(t, "socket"),
			}
			all[i] = p
			bodies[i] = fmt.Sprintf(`{"name":%q,"channels":[%q],"data":%q`, p.event, p.channel, p.data)
			if p.socket != "" {
				bodies[i] += fmt.Sprintf(`,"socket_id":%q`, p.socket)
			}
			bodies[i] += "}"
		}
		r.sim.Reset()
		r.sim.SetFail(fail)
		got := r.together(bodies)
		arrived := map[publish]int{}
		for _, e := range r.sim.Events(10_000) {
			for _, ch := range e.Channels {
				arrived[publish{e.Name, ch, string(e.Data), e.SocketID}]++
			}
		}
		expected := map[publish]int{}
		for i, p := range all {
			bad := p.event == "muchtoolong"
			status := 200
			switch {
			case fail == sim.FailDisabled:
				status = 403
			case fail == sim.FailError, fail == sim.FailErrorAfter, fail == sim.FailDropAfter:
				status = 502
			case bad:
				status = 400
			}
			if got[i].status != status && !(bad && fail != sim.FailNone) {
				t.Fatalf("%+v under %q: got %d %q, want %d", p, fail, got[i].status, got[i].body, status)
			}
			if !bad && (fail == sim.FailNone || fail == sim.FailErrorAfter || fail == sim.FailDropAfter) {
				expected[p]++
			}
		}
		for p, want := range expected {
			// A call of unknown fate that one bad event would have made Pusher
			// refuse has no effect; whose fate is unknown may also not arrive.
			if n := arrived[p]; n > want || (fail == sim.FailNone && n != want) {
				t.Fatalf("%+v under %q arrived %d times, sent %d", p, fail, n, want)
			}
		}
		for p := range arrived {
			if expected[p] == 0 {
				t.Fatalf("%+v arrived, but nobody sent it, or it was to be refused", p)
			}
		}
	}
}

func BenchmarkFoldForm(b *testing.B) {
	for _, same := range []bool{true, false} {
		b.Run(map[bool]string{true: "same", false: "distinct"}[same], func(b *testing.B) {
			f := newFolder(foldable7(), FoldConfig{})
			ws := make([]*waiter, 64)
			for i := range ws {
				ws[i] = &waiter{publish: &pusher.Publish{Name: []byte("e"), Data: []byte("d"), Channels: [][]byte{fmt.Appendf(nil, "c%d", i)}, Raw: []byte("{}")}, channel: uint64(i)}
				if !same {
					ws[i].same = uint64(i)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				f.queue = append(f.queue[:0], ws...)
				for _, l := range f.form(true) {
					f.calls--
					l.group = l.group[:0]
				}
			}
			b.ReportMetric(64, "publishes/op")
		})
	}
}

// foldable7 is an app to whose fold a test does everything by hand.
func foldable7() *App {
	return &App{ID: "7", Upstream: &Upstream{url: &url.URL{Host: "pusher.invalid"}, timeout: 4 * time.Second, admission: newAdmission(4*time.Second, paceMost)}}
}

// Whoever waits leaves when the window ends or the last call does, in groups of which
// none is larger than a call may be, and none holds a publish that would pass an earlier
// one to its channel.
func TestTheLineOfAFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// The window ends when the story says so; the clock must not end it beside it.
		f := newFolder(foldable7(), FoldConfig{Batch: 4, Channels: 6, Window: time.Hour})
		f.timer.Stop()
		f.timer = time.NewTimer(time.Hour)
		f.left = moment()
		defer f.timer.Stop()
		number := map[*waiter]int{}
		gone := map[uint64]int{} // the highest number that left, by channel
		joined, flying := 0, 0
		leave := func(leaders []*waiter) {
			for _, l := range leaders {
				flying++
				channels := map[uint64]bool{}
				for _, w := range l.group {
					if number[w] < gone[w.channel] {
						t.Fatalf("publish %d to channel %d left after %d", number[w], w.channel, gone[w.channel])
					}
					gone[w.channel] = number[w]
					if l.kind == sharesTrigger && channels[w.channel] {
						t.Fatal("one publish names a channel twice")
					}
					channels[w.channel] = true
				}
				if n := len(l.group); n > 6 || (l.kind == sharesBatch && n > 4) || (l.kind == bearsCall && n != 1) {
					t.Fatalf("a group of %d as %d", n, l.kind)
				}
			}
		}
		step := map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				channel := rapid.Uint64Range(1, 4).Draw(t, "channel")
				w := &waiter{j: newJob(), channel: channel, sending: 1}
				if rapid.IntRange(0, 4).Draw(t, "alone") > 0 {
					same := rapid.Uint64Range(1, 2).Draw(t, "same")
					w.publish, w.same = &pusher.Publish{Data: fmt.Append(nil, same), Channels: [][]byte{fmt.Append(nil, channel)}}, same
				} else { // it has no channel of its own
					w.channel = 100 + uint64(joined)
				}
				joined++
				number[w] = joined
				if !f.mayGo(w) {
					f.queue = append(f.queue, w)
					return
				}
				if idle := f.calls == 0 && len(f.queue) == 0; !idle && w.publish != nil {
					t.Fatal("a publish left alone that could have shared a call")
				}
				w.group, w.kind = append(w.group[:0], w), bearsCall
				f.depart(w)
				leave([]*waiter{w})
			},
			"window ends": func(t *rapid.T) {
				leave(f.form(true))
				if len(f.queue) > 0 {
					t.Fatal("somebody stayed behind whose window is over")
				}
			},
			"call ends": func(t *rapid.T) {
				if flying > 0 {
					flying--
					f.calls--
				}
				leave(f.form(f.calls == 0))
			},
		}
		t.Repeat(step)
		for range joined + 1 { // everything leaves in the end
			step["call ends"](t)
		}
		if len(f.queue) != 0 || f.calls != 0 {
			t.Fatalf("%d still wait, %d calls", len(f.queue), f.calls)
		}
	})
}

// An equal hash is a hint, not a proof: what differs is never merged.
func TestAHashIsNoProof(t *testing.T) {
	one := &waiter{same: 7, publish: &pusher.Publish{Name: []byte("e"), Data: []byte("a"), Channels: [][]byte{[]byte("c")}}}
	for what, other := range map[string]pusher.Publish{
		"data":   {Name: []byte("e"), Data: []byte("b")},
		"name":   {Name: []byte("f"), Data: []byte("a")},
		"socket": {Name: []byte("e"), Data: []byte("a"), SocketID: []byte("1.1")},
		"info":   {Name: []byte("e"), Data: []byte("a"), HasInfo: true},
	} {
		if sameButChannel(one, &waiter{same: 7, publish: &other}) {
			t.Errorf("merged although %s differs", what)
		}
	}
}
