package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

// throng is a crowd as a story tells of it: who waits is named by app, class and
// number.
type throng struct {
	t     *testing.T
	crowd crowd
	apps  map[string]*App
	names map[*laneConn]string
	full  map[string]bool // apps whose upstreams take no more
}

func newThrong(t *testing.T) *throng {
	return &throng{t: t, apps: map[string]*App{}, names: map[*laneConn]string{}, full: map[string]bool{}}
}

func (g *throng) put(at time.Duration, app string, class quota.Priority, name string) (out string) {
	if g.apps[app] == nil {
		g.apps[app] = &App{ID: app}
	}
	c := &laneConn{seems: seeming{app: g.apps[app], class: class}}
	g.names[c] = name
	if c = g.crowd.put(epoch.Add(at), c); c != nil {
		return g.names[c]
	}
	return ""
}

// take tells who is next, in brackets if he has waited for too long.
func (g *throng) take(at time.Duration) string {
	c, late := g.crowd.take(epoch.Add(at), func(a *App, _ quota.Priority) bool { return !g.full[a.ID] })
	switch {
	case c == nil:
		return ""
	case late:
		return "(" + g.names[c] + ")"
	}
	return g.names[c]
}

func (g *throng) all(at time.Duration) string {
	var who []string
	for name := g.take(at); name != ""; name = g.take(at) {
		who = append(who, name)
	}
	return strings.Join(who, " ")
}

// What is critical goes first, apps take turns, and who came first of an app's
// publishes of one priority goes first of them.
func TestTheCrowdGoesByPriorityAndByTurns(t *testing.T) {
	g := newThrong(t)
	for _, who := range []struct {
		app   string
		class quota.Priority
		name  string
	}{
		{"a", quota.Bulk, "a:bulk1"}, {"a", quota.Normal, "a:normal1"}, {"a", quota.Normal, "a:normal2"}, {"a", quota.Normal, "a:normal3"},
		{"b", quota.Normal, "b:normal1"}, {"c", quota.Bulk, "c:bulk1"}, {"b", quota.Critical, "b:critical1"}, {"a", quota.Critical, "a:critical1"},
	} {
		if out := g.put(0, who.app, who.class, who.name); out != "" {
			t.Errorf("%s had to go", out)
		}
	}
	if got := g.all(time.Millisecond); got != "a:critical1 b:critical1 a:normal1 b:normal1 a:normal2 a:normal3 c:bulk1 a:bulk1" {
		t.Error(got)
	}
	if g.crowd.n != 0 || len(g.crowd.ring) != 0 || len(g.crowd.apps) != 0 || g.crowd.of != [quota.Priorities]int{} {
		t.Errorf("%d are left of %d apps", g.crowd.n, len(g.crowd.ring))
	}
}

// An app whose upstream takes no more holds up nobody else.
func TestAFullUpstreamHoldsUpItsOwn(t *testing.T) {
	g := newThrong(t)
	g.full["a"] = true
	g.put(0, "a", quota.Critical, "a:critical")
	g.put(0, "b", quota.Bulk, "b:bulk")
	if got := g.all(time.Millisecond); got != "b:bulk" {
		t.Error(got)
	}
	g.full["a"] = false
	if got := g.all(2 * time.Millisecond); got != "a:critical" {
		t.Error(got)
	}
}

// A burst is worked off; where a line stands, who is not critical is refused before
// long.
func TestHowLongACrowdWaits(t *testing.T) {
	g := newThrong(t)
	g.full["a"] = true
	const ms = time.Millisecond
	for i, class := range []quota.Priority{quota.Bulk, quota.Normal, quota.Critical} {
		g.put(0, "a", class, fmt.Sprint(i))
	}
	for _, step := range []struct {
		at   time.Duration
		want string
	}{
		{crowdStands, ""},              // no longer than a line may last
		{crowdStands + ms, "(0) (1)"},  // it stands, and they wait since its beginning
		{patience[quota.Critical], ""}, // what is critical is patient
		{patience[quota.Critical] + ms, "(2)"},
	} {
		if got := g.all(step.at); got != step.want {
			t.Errorf("after %v: %q, want %q", step.at, got, step.want)
		}
	}
	// The line ended, so the next one is a burst again.
	at := 2 * time.Second
	g.put(at, "a", quota.Normal, "3")
	if got := g.all(at + crowdStands); got != "" {
		t.Error(got)
	}
	g.put(at+crowdStands, "a", quota.Normal, "4")
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{ms, "(3)"}, {crowdPatience, ""}, {crowdPatience + ms, "(4)"}} {
		if got := g.all(at + crowdStands + step.after); got != step.want {
			t.Errorf("%v after the second came: %q, want %q", step.after, got, step.want)
		}
	}
}

// One too many costs the least important of the app that most wait for, never one
// that is more important.
func TestWhoGivesWayInACrowd(t *testing.T) {
	g := newThrong(t)
	for i := range crowdMost {
		class := quota.Normal
		if i%2 == 0 {
			class = quota.Bulk
		}
		app := "a"
		if i < 10 {
			app = "b"
		}
		if out := g.put(0, app, class, fmt.Sprint(i)); out != "" {
			t.Fatalf("%s had to go", out)
		}
	}
	for _, step := range []struct {
		class     quota.Priority
		name, out string
	}{{quota.Critical, "c", "10"}, {quota.Bulk, "d", "12"}, {quota.Normal, "e", "14"}} {
		if out := g.put(0, "b", step.class, step.name); out != step.out {
			t.Errorf("for %s %q went, not %q", step.name, out, step.out)
		}
	}
	g = newThrong(t)
	for i := range crowdMost {
		g.put(0, "a", quota.Critical, fmt.Sprint(i))
	}
	if out := g.put(0, "b", quota.Normal, "late"); out != "late" {
		t.Errorf("%q went for one that is less important", out)
	}
	if g.crowd.n != crowdMost {
		t.Errorf("%d wait", g.crowd.n)
	}
}

// seemsTo is what a request seems to be to a lane of the rig.
func (r *rig) seemsTo(request string) seeming {
	w := &laneWorker{lane: &lane{p: r.proxy}}
	return w.seeming([]byte(request))
}

// wire is a signed publish as bytes.
func (r *rig) wire(k *pusher.Key, path, body string, headers ...string) string {
	signed := k.AppendSigned(nil, "POST", []byte(path), nil, []byte(body), time.Now())
	return fmt.Sprintf("POST %s?%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", path, signed, strings.Join(append(headers, ""), "\r\n"), len(body), body)
}

// A request that was not verified is told apart as the rules would judge it if it
// were what it says.
func TestWhatARequestSeemsToBe(t *testing.T) {
	r := newRig(t, rigConfig{policy: limiter.Policy{Rules: []limiter.Rule{
		{Match: limiter.Match{Event: []string{"alarm.*"}}, Priority: quota.Critical},
		{Match: limiter.Match{Channel: []string{"private-bed-*"}, Caller: []string{"care-api"}}, Priority: quota.Critical},
		{Match: limiter.Match{Event: []string{"news"}}, Priority: quota.Bulk},
	}}})
	events, batch := "/apps/7/events", "/apps/7/batch_events"
	news := r.wire(r.caller, events, eventBody("news", "c", "x"))
	for name, step := range map[string]struct {
		request string
		known   bool
		class   quota.Priority
	}{
		"by event":                      {r.wire(r.caller, events, eventBody("alarm.fire", "c", "x")), true, quota.Critical},
		"by channel and caller":         {r.wire(r.caller, events, eventBody("move", "private-bed-7", "x")), true, quota.Critical},
		"of another caller":             {r.wire(pusher.NewKey("k", rigSecret), events, eventBody("move", "private-bed-7", "x")), true, quota.Normal},
		"by no rule":                    {r.wire(r.caller, events, eventBody("other", "c", "x")), true, quota.Normal},
		"bulk":                          {news, true, quota.Bulk},
		"the most important of a batch": {r.wire(r.caller, batch, `{"batch":[`+eventBody("news", "c", "x")+`,`+eventBody("alarm.fire", "c", "x")+`]}`), true, quota.Critical},
		"forged":                        {r.wire(pusher.NewKey("ck", "another"), events, eventBody("alarm.fire", "c", "x")), true, quota.Critical},
		"of no known key":               {r.wire(pusher.NewKey("nobody", "x"), events, eventBody("alarm.fire", "c", "x")), false, quota.Bulk},
		"of another app":                {r.wire(r.caller, "/apps/8/events", eventBody("alarm.fire", "c", "x")), false, quota.Bulk},
		"no event":                      {r.wire(r.caller, events, `{"name":"alarm.fire"`), true, quota.Bulk},
		"a question":                    {strings.Replace(r.wire(r.caller, "/apps/7/channels", ""), "POST", "GET", 1), true, quota.Normal},
		"nothing of Channels":           {"GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n", false, quota.Bulk},
		"no query":                      {"POST /apps/7/events HTTP/1.1\r\nHost: x\r\n\r\n", false, quota.Bulk},
	} {
		got := r.seemsTo(step.request)
		if (got.app == r.app) != step.known || got.class != step.class {
			t.Errorf("%s: known %v, %v", name, got.app == r.app, got.class)
		}
	}
	for request, want := range map[string]bool{
		news: false,
		strings.Replace(news, "Host", "Connection: close\r\nHost", 1):             true,
		strings.Replace(news, "Host", "connection:  Keep-Alive \r\nHost", 1):      false,
		strings.Replace(news, "Host", "Connection: keep-alive, close\r\nHost", 1): true,
		strings.Replace(news, `"x"`, `"\r\nConnection: close\r\n"`, 1):            false,
	} {
		if wire.Closes([]byte(request)) != want {
			t.Errorf("closes: %v of %q", !want, request)
		}
	}
}

// While the processor is what is full and Pusher's side takes no more, who is not
// critical is refused without having been verified, in words that SDKs understand and
// on a connection that stays; what is critical goes through; and a sample stands for
// those that were refused where rates are watched.
func TestACrowdIsTurnedAwayUnverified(t *testing.T) {
	var seen atomic.Int64
	r := newRig(t, rigConfig{policy: limiter.Policy{Rules: []limiter.Rule{{Match: limiter.Match{Event: []string{"alarm"}}, Priority: quota.Critical}}}})
	r.app.Observe = func(_ time.Time, _, caller, event string, _ []string, _ uint64, _ int64) {
		if caller == "care-api" && event == "news" {
			seen.Add(1)
		}
	}
	eventually(t, "a lane", func() bool { return r.proxy.lane.Load() != nil })
	l, door := r.proxy.lane.Load(), r.app.Upstream.admission
	door.limit.Store(0)
	door.ahead.Store(100)
	door.busy.Store(true)
	const many = 20 * crowdSample
	l.wary.Store(1 << 30)
	var all sync.WaitGroup
	var answered [2]atomic.Int64
	for i := range 8 {
		all.Go(func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for n := range many / 8 {
				if _, err := c.Write([]byte(r.wire(r.caller, "/apps/7/events", eventBody("news", "c", fmt.Sprint(i, n))))); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				var body bytes.Buffer
				_, _ = body.ReadFrom(resp.Body)
				h := resp.Header
				if resp.StatusCode != 503 || h.Get("Pushguard-Outcome") != "unavailable" || h.Get("Pushguard-Reason") != "overloaded" || h.Get("Retry-After") != "1" || body.String() != overloadText || resp.Close {
					t.Errorf("%d %v %q", resp.StatusCode, h, body.String())
					return
				}
				answered[0].Add(1)
			}
		})
	}
	for n := range 10 { // fewer than make it think of the limit anew
		if got := r.publish("alarm", "c", fmt.Sprint(n)); got.status != 200 || got.outcome != "sent" {
			t.Errorf("critical: %+v", got)
		}
		answered[1].Add(1)
	}
	all.Wait()
	if got := answered[0].Load(); got != many {
		t.Fatalf("%d answers", got)
	}
	if got := door.shed[quota.Normal][ShedProcessor].Load(); got != many {
		t.Errorf("%d are counted as shed, of %d", got, many)
	}
	if got := l.turnedAway.Load(); got != many {
		t.Errorf("%d were turned away unverified, of %d", got, many)
	}
	if got := seen.Load(); got != many {
		t.Errorf("the watch of rates saw %d, of %d", got, many)
	}
	var rule limiter.RuleStats
	for _, s := range r.app.Limiter.Rules() {
		if s.Name() == "default" {
			rule = s.Stats()
		}
	}
	if got := rule.Outcomes[limiter.Unavailable]; got != many/crowdSample {
		t.Errorf("%d were judged, want one in %d of %d", got, crowdSample, many)
	}
	if got := r.sim.Stats(); got.Events != 10 {
		t.Errorf("Pusher got %d", got.Events)
	}
	// Forged ones are not told apart from others, but a sample is.
	forged := pusher.NewKey("ck", "wrong")
	var statuses []int
	for range crowdSample {
		got, err := r.try(forged, "POST", "/apps/7/events", nil, eventBody("news", "c", "x"))
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, got.status)
	}
	slices.Sort(statuses)
	if statuses[0] != 401 || statuses[1] != 503 || seen.Load() != many {
		t.Errorf("forged: %v, and %d seen", statuses, seen.Load()-many)
	}
	// It is over: nobody is told apart any more.
	l.wary.Store(0)
	door.limit.Store(100)
	if got := r.publish("news", "c", "at last"); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

// While there is a crowd the poller looks again after some have been done; and if it
// sleeps, nobody waits for it.
func TestThePollerHasItsTurnInACrowd(t *testing.T) {
	l := &lane{woken: true, poll: new(netpoll.Poller)}
	w := &laneWorker{lane: l, run: make(chan struct{}, 1)}
	done := func() (n int) {
		for w.run != nil && w.next(false) != nil {
			n++
		}
		l.resting = nil
		return n
	}
	few := func(n int) {
		for range n {
			l.arrive(&laneConn{lane: l})
		}
	}
	few(crowdFrom + crowdTurn + 20)
	if n := done(); n != crowdTurn {
		t.Errorf("%d before the poller looked", n)
	}
	if !l.paused.Load() {
		t.Error("nobody waits for the poller")
	}
	l.poll.Turns.Add(1)
	l.Looked()
	if n := done(); n != crowdFrom+20 {
		t.Errorf("%d after it looked", n)
	}
	few(3 * crowdTurn)
	if !l.Pressed() {
		t.Error("the poller would sleep beside a crowd")
	}
	l.poll.Asleep.Store(true)
	if n := done(); n != 3*crowdTurn {
		t.Errorf("%d while it sleeps", n)
	}
	if l.Pressed() {
		t.Error("nobody is left, and the poller must not sleep")
	}
}

// Two threads on one processor: each waits for the other, and the process knows.
func TestWaitingForAProcessorIsSeen(t *testing.T) {
	if _, waited := processorTime(); waited == 0 && threadsWaited() == 0 {
		t.Fatal("this kernel does not say how long threads wait for a processor (schedstat)")
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	var one unix.CPUSet
	for i := range 1024 {
		if set.IsSet(i) {
			one.Set(i)
			break
		}
	}
	before := threadsWaited()
	var both, measured sync.WaitGroup
	measured.Add(1)
	enough := make(chan struct{})
	for range 2 {
		both.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				t.Error(err)
			}
			for n := 0; ; n++ {
				select {
				case <-enough:
					measured.Wait()
					return
				default:
				}
			}
		})
	}
	eventually(t, "waiting to be counted", func() bool { return threadsWaited() > before+20*time.Millisecond })
	measured.Done()
	close(enough)
	both.Wait()
}

// Whatever frames as a request can be told apart and refused without a fault, and what is
// refused as one that stays is one that fasthttp reads as such.
func FuzzSeeming(f *testing.F) {
	judge, err := limiter.New(limiter.Policy{App: "7", Rules: []limiter.Rule{{Match: limiter.Match{Event: []string{"alarm.*"}}, Priority: quota.Critical}}}, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	p := New(Config{})
	p.table.Store(&table{byKey: map[string]*principal{"ck": {app: &App{ID: "7", Limiter: judge}, caller: judge.Caller("care-api")}}})
	r := &rig{}
	key := pusher.NewKey("ck", "secret")
	for _, seed := range []string{
		r.wire(key, "/apps/7/events", eventBody("alarm.fire", "c", "x")), r.wire(key, "/apps/7/batch_events", `{"batch":[`+eventBody("a", "c", "x")+`]}`),
		r.wire(key, "/apps/7/channels/c/events", `{"data":"x"}`), r.wire(key, "/apps/7/events", "{}", "Connection: close"), ask, "POST / HTTP/1.1\r\nConnection:\r\n\r\n",
		"GET http://x/apps/7/channels?auth_key=ck HTTP/1.1\r\nhost: x\r\nconnection: Keep-Alive\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if wire.Frame(b, laneRoom) != wire.Whole {
			return
		}
		w := &laneWorker{lane: &lane{p: p}}
		if is := w.seeming(b); is.app == nil && is.class == quota.Critical {
			t.Error("critical, of nobody")
		}
		last := wire.Closes(b)
		var h fasthttp.RequestHeader
		if h.Read(bufio.NewReaderSize(bytes.NewReader(b), laneRoom)) == nil && h.IsHTTP11() && h.ConnectionClose() && !last {
			t.Errorf("a connection that is to be closed would stay: %q", b)
		}
	})
}
