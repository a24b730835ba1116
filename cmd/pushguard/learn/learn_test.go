package learn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

var (
	ctx   = context.Background()
	quiet = slog.New(slog.DiscardHandler)
)

// stage is a simulated Pusher and replicas of one app before it.
type stage struct {
	t      *testing.T
	pusher *sim.Server
	url    string
	redis  string
	now    time.Time
	plan   int64
}

func begin(t *testing.T, cfg sim.Config) *stage {
	t.Helper()
	s := &stage{t: t, now: time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour), plan: 100_000, redis: redistest.Start(t).URL()}
	cfg.Apps = []sim.App{{ID: "7", Key: "k", Secret: "s"}}
	cfg.Now = func() time.Time { return s.now }
	s.pusher = sim.New(cfg)
	addr, err := s.pusher.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.pusher.Close() })
	s.url = "http://" + addr
	return s
}

type replica struct {
	*stage
	*Learner
	app *proxy.App
}

func (s *stage) replica(name string) *replica {
	s.t.Helper()
	st, err := store.Open(ctx, s.redis, store.Options{Log: quiet, Timeout: 20 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { st.Close() })
	l, err := quota.Open(ctx, s.now, st, name, quota.Config{Account: "care", Plan: quota.Plan{Name: "test", MessagesPerDay: s.plan}}, quiet)
	if err != nil {
		s.t.Fatal(err)
	}
	up, err := proxy.NewUpstream(proxy.UpstreamConfig{URL: s.url, Key: pusher.NewKey("k", "s")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(up.Close)
	breaker, err := limiter.NewBreaker(s.now, limiter.BreakerConfig{}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &replica{s, New("7", quiet), &proxy.App{ID: "7", Account: "care", Upstream: up, Ledger: l, Breaker: breaker, Fanout: fanout.New(1, nil)}}
}

func (r *replica) turn(c Config) Status {
	r.t.Helper()
	if err := r.app.Ledger.Beat(ctx, r.now); err != nil {
		r.t.Fatal(err)
	}
	r.Turn(ctx, r.now, c, r.app)
	return r.Status()
}

func (r *replica) is(channel string, n int64, source fanout.Source) {
	r.t.Helper()
	if got, src, _ := r.app.Fanout.Explain(channel); got != n || src != source {
		r.t.Errorf("%s counts as %d, from %v; want %d from %v", channel, got, src, n, source)
	}
}

// One replica polls, all know, and the bill is Pusher's.
func TestAPollTeachesEveryReplica(t *testing.T) {
	s := begin(t, sim.Config{SubscribersOf: []sim.Pattern{{Pattern: "room", N: 3}, {Pattern: "presence-team", N: 7}, {Pattern: "presence-pair", N: 1}}})
	a, b := s.replica("a"), s.replica("b")
	c := Config{Poll: time.Minute, Presence: true, Budget: 0.05}
	a.turn(c)
	b.turn(c)
	s.now = s.now.Add(30 * time.Second)
	st := b.turn(c)
	if got := s.pusher.Stats(); got.ByEndpoint["channels"] != 2 || got.Messages != 2 {
		t.Errorf("Pusher was asked %v, and billed %d", got.ByEndpoint, got.Messages)
	}
	if st.Polls != 0 || st.Spent != 2 || st.Budget != 5000 || st.LastError != "" {
		t.Errorf("b: %+v", st)
	}
	for _, r := range []*replica{a, b} {
		if n, at := r.app.Fanout.Occupied(); n != 3 || at.IsZero() {
			t.Errorf("%d occupied, %v", n, at)
		}
		if _, empty := r.app.Fanout.KnownEmpty("nobody"); !empty {
			t.Error("a channel that is not in the list is not known to be empty")
		}
		if _, empty := r.app.Fanout.KnownEmpty("room"); empty {
			t.Error("room is in the list")
		}
	}
	a.is("presence-team", 7, fanout.FromPoll)
	a.is("presence-pair", 1, fanout.FromDefault) // at least one: known
	if used, _ := a.app.Ledger.Used(s.now); used != 2 {
		t.Errorf("the ledger says %d", used)
	}
	s.now = s.now.Add(31 * time.Second)
	b.turn(c)
	a.turn(c)
	if got := s.pusher.Stats().ByEndpoint["channels"]; got != 4 {
		t.Errorf("a minute later Pusher was asked %d times in all", got)
	}
}

// A busy channel is asked for once and then known; a channel that is right, or
// hardly used, is not worth it.
func TestASampleIsAskedWhereItPays(t *testing.T) {
	s := begin(t, sim.Config{Subscribers: 1, SubscribersOf: []sim.Pattern{{Pattern: "hall", N: 500}}})
	r := s.replica("a")
	c := Config{Sample: true, Budget: 0.05}
	r.turn(c)
	for range 20 {
		s.now = s.now.Add(time.Second)
		for range 64 {
			r.Note(s.now, []string{"hall"}, 2)
		}
		r.turn(c)
	}
	if n, src, age := r.app.Fanout.Explain("hall"); src != fanout.FromInfo || age > 30*time.Second || n < 490 {
		t.Errorf("hall counts as %d, from %v, %v old", n, src, age)
	}
	st := r.Status()
	if st.Samples != 1 || st.Spent != 1 || s.pusher.Stats().ByEndpoint["channel"] != 1 || st.Off["default"] < 10 {
		t.Errorf("%+v, Pusher: %v", st, s.pusher.Stats().ByEndpoint)
	}
	// When what is known grows old it becomes worth a question again, and this time it was right.
	for range 40 {
		s.now = s.now.Add(time.Second)
		for range 64 {
			r.Note(s.now, []string{"hall"}, 501)
		}
		r.app.Fanout.Tick(s.now)
		r.turn(c)
	}
	if st := r.Status(); st.Samples < 2 || st.Samples > 3 || st.Off["info"] > 0.6 {
		t.Errorf("%+v", st)
	}
	if used, _ := r.app.Ledger.Used(s.now); used != s.pusher.Stats().Messages {
		t.Errorf("the ledger says %d, Pusher %d", used, s.pusher.Stats().Messages)
	}
}

// What may not be: asking beyond the budget, under the brake, or where Pusher does not answer such questions.
func TestNothingIsAskedThatMayNotBe(t *testing.T) {
	s := begin(t, sim.Config{Subscribers: 9})
	s.plan = 1000
	r := s.replica("a")
	if err := r.app.Ledger.SetBrake(ctx, s.now, &quota.Brake{Allow: "critical", Reason: "test", By: "me"}); err != nil {
		t.Fatal(err)
	}
	c := Config{Poll: 10 * time.Second, Sample: true, Budget: 0.002} // two messages
	if st := r.turn(c); st.Why != "the brake is pulled" || s.pusher.Stats().Requests != 0 {
		t.Errorf("%+v", st)
	}
	if err := r.app.Ledger.LiftBrake(ctx, s.now, "me", ""); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		s.now = s.now.Add(time.Second)
		r.Note(s.now, []string{"hall"}, 10)
		r.turn(c)
	}
	if st := r.Status(); st.Spent != 2 || s.pusher.Stats().Messages != 2 {
		t.Errorf("a budget of two: %+v, Pusher billed %d", st, s.pusher.Stats().Messages)
	}
	s.now = s.now.AddDate(0, 0, 1)
	r.turn(Config{Poll: 10 * time.Second, Budget: 0.002})
	if s.pusher.Stats().Requests != 3 {
		t.Errorf("a new day, %d requests", s.pusher.Stats().Requests)
	}
	if r.busy.Load() != nil {
		t.Error("channels are counted although nobody samples")
	}
	r.Rest("over")
	if st := r.Status(); st.On || st.Why != "over" {
		t.Errorf("%+v", st)
	}
}

// A Pusher that answers otherwise than hoped: each time the reason is told, the money counted as billed, and the
// estimates stay.
func TestAnswersThatAreNone(t *testing.T) {
	var status atomic.Int32
	var body atomic.Value
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, body.Load().(string))
	}))
	defer up.Close()
	s := begin(t, sim.Config{})
	s.url = up.URL
	for _, c := range []struct {
		status  int
		body    string
		says    string
		samples int64 // of three turns, each after the wait for a failure
	}{
		{200, `{"occupied":true}`, "turn on subscription counting", 1},
		{400, "subscription_count is not enabled", "turn on subscription counting", 1},
		{200, `{"occupied":`, "unexpected EOF", 3},
		{200, `[]`, "not of Pusher's form: it holds array", 3},
		{500, "", "Pusher answered 500", 3},
		{302, "", "Pusher answered 302", 3},
		{200, `{"occupied":false}`, "", 3}, // an answer: nobody
	} {
		t.Run(fmt.Sprint(c.status, " ", c.body), func(t *testing.T) {
			r := s.replica("a")
			status.Store(int32(c.status))
			body.Store(c.body)
			r.turn(Config{Sample: true, Budget: 0.5})
			for range 3 {
				s.now = s.now.Add(afterFailure + askAgain)
				for range 640 {
					r.Note(s.now, []string{"hall"}, 2)
				}
				r.turn(Config{Sample: true, Budget: 0.5})
			}
			st := r.Status()
			if st.Samples != c.samples || !strings.Contains(st.LastError, c.says) || (c.says == "") != (st.LastError == "") {
				t.Errorf("%+v", st)
			}
			if c.says != "" {
				r.is("hall", 1, fanout.FromDefault)
			} else if _, empty := r.app.Fanout.KnownEmpty("hall"); !empty {
				t.Error("not known to be empty")
			}
			if strings.Contains(st.LastError, "auth_signature") {
				t.Error("the error holds a signed URL:", st.LastError)
			}
		})
	}
}

// Pusher's word that the plan is used up counts whoever hears it.
func TestPushersWordIsHeard(t *testing.T) {
	s := begin(t, sim.Config{MessagesPerDay: -1})
	r := s.replica("a")
	r.turn(Config{Poll: time.Minute, Budget: 0.5})
	if r.app.Ledger.Snapshot(s.now).Exhausted.IsZero() || r.app.Breaker.State(s.now).State != limiter.Open {
		t.Errorf("%+v", r.app.Ledger.Snapshot(s.now))
	}
	if st := r.turn(Config{Poll: time.Minute, Budget: 0.5}); st.Why != "Pusher says that the plan is used up" {
		t.Errorf("%+v", st)
	}
}

func TestTheBudgetIsSpreadOverTheDay(t *testing.T) {
	midnight := time.Date(2026, 5, 11, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		at   time.Duration
		c    Config
		want int64
	}{
		{0, Config{}, 100}, // an hour's worth at once
		{11 * time.Hour, Config{}, 1200},
		{23*time.Hour + 59*time.Minute, Config{}, 2400},
		{0, Config{Poll: time.Minute}, 100},
		{12 * time.Hour, Config{Poll: time.Minute, Presence: true}, 960}, // 1,440 polls are to come
		{23 * time.Hour, Config{Poll: time.Minute, Presence: true}, 2280},
	} {
		if got := (&Learner{}).allowance(midnight.Add(c.at), c.c, 1, 2400); got != c.want {
			t.Errorf("%v after midnight, %+v: %d, want %d", c.at, c.c, got, c.want)
		}
	}
	// An app of which nothing is known learns in its first hour.
	young := &Learner{began: midnight}
	if got := young.allowance(midnight.Add(time.Minute), Config{}, 1, 2400); got != 480 {
		t.Errorf("a new app may ask %d questions in its first hour, a fifth of 2,400 wanted", got)
	}
	if got := young.allowance(midnight.Add(time.Hour), Config{}, 1, 2400); got != 200 {
		t.Errorf("after its first hour it may have asked %d", got)
	}
}

// An app has more channels than can be asked for: what the others count for is the mean of those that were drawn at
// random, so the sum is right although no single one is. It survives a restart.
func TestTheMeanOfTheUnknownIsLearned(t *testing.T) {
	s := begin(t, sim.Config{Subscribers: 20, SubscribersOf: []sim.Pattern{{Pattern: "user-*7", N: 120}, {Pattern: "user-*1", N: 0}, {Pattern: "presence-*", N: 40}}})
	s.plan = 10_000_000
	r := s.replica("a")
	c := Config{Sample: true, Budget: 0.01}
	n := 0
	for range 60 {
		r.turn(c)
		s.now = s.now.Add(time.Second)
		for range 50 {
			n++
			r.Note(s.now, []string{fmt.Sprint("user-", n)}, 21)
			h, _ := r.app.Ledger.Reserve(ctx, s.now, nil, quota.Normal, 40)
			r.app.Ledger.Settle(s.now, h, 40)
		}
		r.Note(s.now, []string{"presence-team"}, 21)
	}
	counted := func(f *fanout.Table) (sum float64) {
		for i := range 10_000 {
			sum += float64(f.Estimate(fmt.Sprint("user-x", i)))
		}
		return sum / 10_000
	}
	if mean := counted(r.app.Fanout); mean < 20 || mean > 36 { // it is 28
		t.Errorf("a channel counts for %.1f in the mean", mean)
	}
	r.is("presence-team", 40, fanout.FromInfo)
	if st := r.Status(); st.Samples < 60 || float64(st.Samples) > 0.005*60*50*40 || !st.NoCounts.IsZero() {
		t.Errorf("%+v", st)
	}
	s.now = s.now.Add(keepEvery)
	r.turn(c)
	again := s.replica("b")
	again.turn(c)
	if mean := counted(again.app.Fanout); mean < 20 || mean > 36 {
		t.Errorf("after a restart a channel counts for %.1f in the mean", mean)
	}
}

// Where the app's settings count no subscriptions that is known, and asked again an hour later at the soonest.
func TestNoCountsAreToBeHad(t *testing.T) {
	s := begin(t, sim.Config{Subscribers: 20, NoCounts: true})
	r := s.replica("a")
	for range 600 {
		s.now = s.now.Add(time.Second)
		r.Note(s.now, []string{fmt.Sprint("user-", s.now.Unix())}, 2)
		r.turn(Config{Sample: true, Budget: 0.01})
	}
	if st := r.Status(); st.NoCounts.IsZero() || st.Samples > askEach || !strings.Contains(st.LastError, "every subscriber") {
		t.Errorf("%+v", st)
	}
}
