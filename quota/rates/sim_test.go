package rates_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota/rates"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

var (
	background = context.Background()
	noon       = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)
	quiet      = slog.New(slog.NewTextHandler(io.Discard, nil))
)

var grid = flag.Bool("grid", false, "print the whole table: 3, 10 and 50 replicas, all rates and shapes")

// fleet is several replicas of one account in virtual time, on a real Redis.
type fleet struct {
	t       interface{ Fatal(...any) }
	st      *store.Store
	account string
	policy  limiter.Policy
	now     time.Time
	all     []*replica
	born    int
	lost    bool // the store does not answer
	trips   int
}

type replica struct {
	f      *fleet
	name   string
	app    *limiter.App
	shares *rates.Shares
	next   time.Time
	pace   *rate.Limiter
	skew   time.Duration
	kicked bool
	dead   bool
	cut    bool // it does not reach the store
	drop   float64
	rng    *rand.Rand
}

// way is a replica's way to the store.
type way struct {
	r  *replica
	st *store.Store
}

func (w *way) Exclusive() bool { return false }
func (w *way) RateIDs(ctx context.Context, most int) ([]string, error) {
	return w.st.RateIDs(ctx, w.r.f.account, most)
}

func (w *way) Rates(ctx context.Context, x *rates.Exchange) (*rates.Answer, error) {
	if w.r.cut || w.r.f.lost {
		return nil, errors.New("out of reach")
	}
	lostBefore := w.r.drop > 0 && w.r.rng.Float64() < w.r.drop
	if lostBefore {
		return nil, errors.New("the question was lost")
	}
	w.r.f.trips++
	in := store.RateExchange{Account: w.r.f.account, Replica: x.Replica, Name: x.Name, Now: w.r.f.now, Seq: x.Seq, Version: x.Version, News: x.News,
		TTL: rates.TTL, Most: store.RatesMost, Leave: x.Leave}
	for i := range x.Reports {
		in.Reports = append(in.Reports, store.RateReport(x.Reports[i]))
	}
	out, err := w.st.Rates(ctx, &in)
	if err != nil {
		return nil, err
	}
	if w.r.drop > 0 && w.r.rng.Float64() < w.r.drop {
		return nil, errors.New("the answer was lost")
	}
	a := &rates.Answer{State: out.State, Replicas: out.Replicas, Rank: out.Rank, Version: out.Version, Acked: out.Acked,
		News: out.News, Missed: out.Missed, Forgotten: out.Forgotten, Told: out.Told}
	for i := range out.Grants {
		a.Grants = append(a.Grants, rates.Grant(out.Grants[i]))
	}
	return a, nil
}

func newFleet(t interface{ Fatal(...any) }, st *store.Store, rs ...limiter.Rate) *fleet {
	st.CallersClock()
	return &fleet{t: t, st: st, account: "care", now: noon, policy: limiter.Policy{App: "1", Rules: []limiter.Rule{{Rates: rs}}}}
}

func onRedis(t testing.TB) *store.Store {
	st, err := store.Open(background, redistest.Start(t).URL(), store.Options{Log: quiet, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// join starts a replica. It is in use at once.
func (f *fleet) join() *replica {
	app, err := limiter.New(f.policy, nil, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.born++
	r := &replica{f: f, name: fmt.Sprint("r", f.born), app: app, pace: rate.NewLimiter(2, 4), rng: rand.New(rand.NewPCG(1, uint64(f.born)))}
	r.shares = rates.New(&way{r, f.st}, r.name, r.name, 0, quiet)
	r.shares.Attach(app.Shares())
	app.Shares().Kick(func() { r.kicked = true })
	r.next = f.now
	f.all = append(f.all, r)
	return r
}

// settle lets replicas that joined hear of one another.
func (f *fleet) settle() {
	for range 30 {
		f.tick(100*time.Millisecond, nil)
	}
}

func (r *replica) step() {
	if !r.kicked && r.f.now.Before(r.next) {
		return
	}
	if !r.pace.AllowN(r.f.now, 1) && r.kicked && r.f.now.Before(r.next) {
		return
	}
	r.kicked = false
	more, _ := r.shares.Step(background, r.f.now.Add(r.skew))
	r.next = r.f.now.Add(time.Second)
	if more {
		r.next = r.f.now.Add(500 * time.Millisecond)
	}
}

// publish offers one publish to channel.
func (r *replica) publish(channel string) bool {
	c := limiter.Claim{Event: "e", Channels: []string{channel}, Cost: 1}
	now := r.f.now.Add(r.skew)
	v := r.app.Admit(background, now, &c)
	r.app.Done(now, &c, &v, limiter.Delivered, 1)
	return v.Outcome == limiter.Sent
}

// tick lets d pass, then has offer publish.
func (f *fleet) tick(d time.Duration, offer func()) {
	f.now = f.now.Add(d)
	for _, r := range f.all {
		if !r.dead {
			r.step()
		}
	}
	if offer != nil {
		offer()
	}
}

// window checks that no window lets more pass than burst + extra + perSecond × its length.
type window struct {
	perSecond, burst float64
	n                int
	low              float64 // the least of count − rate·time before
	over             float64 // the most that any window was over burst
	start            time.Time
}

func (w *window) pass(now time.Time) {
	if w.n == 0 {
		w.start, w.over = now, math.Inf(-1)
		w.low = 0
	}
	at := w.perSecond * now.Sub(w.start).Seconds()
	w.low = min(w.low, float64(w.n)-at)
	w.n++
	w.over = max(w.over, float64(w.n)-at-w.low-w.burst)
}

func TestSharesPassTheWhole(t *testing.T) {
	for _, r := range []limiter.Rate{{PerSecond: 10.0 / 3600, Burst: 10}, {PerSecond: 5, Burst: 5}, {PerSecond: 200, Burst: 400}} {
		for _, n := range []int{3, 10, 50} {
			for _, shape := range []string{"balanced", "skew 90/5/5", "flip each 10 s", "sticky", "flap"} {
				if !*grid && (n > 3 || r.PerSecond < 1 && shape != "skew 90/5/5" || r.PerSecond > 5 && shape != "flip each 10 s") || n == 50 && r.PerSecond < 1 {
					continue
				}
				r.Per = limiter.PerChannel
				t.Run(fmt.Sprintf("%s burst %d, %d replicas, %s", r, r.Burst, n, shape), func(t *testing.T) {
					f := newFleet(t, onRedis(t), r)
					for range n {
						f.join()
					}
					f.settle()
					one := rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
					step, length := 10*time.Millisecond, 30*time.Second
					if *grid {
						length = 2 * time.Minute
					}
					if r.PerSecond < 1 {
						step, length = 5*time.Second, time.Hour
						if *grid {
							length = 6 * time.Hour
						}
					}
					offered := 3 * r.PerSecond * step.Seconds()
					rng := rand.New(rand.NewPCG(7, uint64(n)))
					w := window{perSecond: r.PerSecond, burst: float64(r.Burst)}
					passed, single, owed := 0, 0, 0.0
					first, firstSingle := 0, 0
					start, trips := f.now, f.trips
					for f.now.Sub(start) < length {
						f.tick(step, func() {
							owed += offered
							if f.now.Sub(start) <= step {
								owed += 6 * float64(r.Burst)
							}
							since := f.now.Sub(start)
							for ; owed >= 1; owed-- {
								i := rng.IntN(n)
								hot := 0
								switch shape {
								case "flip each 10 s":
									hot = int(since/(10*time.Second)) % n
									fallthrough
								case "skew 90/5/5":
									if rng.Float64() < 0.9 {
										i = hot
									}
								case "sticky":
									i = 0
								case "flap":
									i = int(since/(700*time.Millisecond)) % n
								}
								if f.all[i].publish("c") {
									passed++
									w.pass(f.now)
								}
								if one.AllowN(f.now, 1) {
									single++
								}
							}
							if since <= time.Second {
								first, firstSingle = passed, single
							}
						})
					}
					got := float64(passed-first) / float64(max(single-firstSingle, 1))
					whole := float64(passed) / float64(single)
					t.Logf("passed %d of one bucket's %d (%.1f %%); after the first second %.1f %%; most over one bucket's window %+.2f; %.2f trips/s a replica",
						passed, single, 100*whole, 100*got, w.over, float64(f.trips-trips)/length.Seconds()/float64(n))
					if n == 3 && shape != "flap" && (got < 0.95 || shape == "balanced" && got < 0.97) {
						t.Errorf("only %.1f %% of one bucket's pass", 100*got)
					}
					if w.over > float64(n) {
						t.Errorf("a window let %.1f more pass than one bucket, with %d replicas", w.over, n)
					}
				})
			}
		}
	}
}

// TestRestartsAddNothing: long windows, in publishes and by quotas of the day, over kills, restarts and rolling updates.
func TestRestartsAddNothing(t *testing.T) {
	day, err := limiter.ParseQuota("10/day per channel")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []limiter.Rate{{PerSecond: 10.0 / 3600, Burst: 10, Per: limiter.PerChannel}, day} {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d replicas", r, n), func(t *testing.T) {
				f := newFleet(t, onRedis(t), r)
				var live []*replica
				for range n {
					live = append(live, f.join())
				}
				f.settle()
				passed := 0
				offer := func() {
					for range 20 * n {
						for _, r := range live {
							if r.publish("c") {
								passed++
							}
						}
					}
				}
				f.tick(10*time.Millisecond, offer)
				for i := range 2 * n {
					for range 10 {
						f.tick(100*time.Millisecond, nil)
					}
					old := live[i%n]
					old.dead = true
					if i >= n { // an orderly one the second time
						old.shares.Close(background, f.now)
					}
					live[i%n] = f.join()
					for range 100 {
						f.tick(100*time.Millisecond, offer)
					}
				}
				most := 10 + int(r.PerSecond*f.now.Sub(noon).Seconds())
				if passed != most {
					t.Fatalf("%d passed, want 10 to %d", passed, most)
				}
				t.Logf("%d passed of at most %d", passed, most)
			})
		}
	}
}

// Half of a bucket is used, its only replica dies, and the next finds the other half.
func TestARestartFindsWhatIsLeft(t *testing.T) {
	f := newFleet(t, onRedis(t), limiter.Rate{PerSecond: 10.0 / 3600, Burst: 10, Per: limiter.PerChannel})
	r := f.join()
	f.settle()
	for range 5 {
		if !r.publish("c") {
			t.Fatal("refused")
		}
	}
	for range 20 {
		f.tick(100*time.Millisecond, nil)
	}
	r.dead = true
	next := f.join()
	for range 100 {
		f.tick(100*time.Millisecond, nil)
	}
	passed := 0
	for range 20 {
		f.tick(100*time.Millisecond, func() {
			if next.publish("c") {
				passed++
			}
		})
	}
	if passed < 4 || passed > 5 {
		t.Fatalf("%d passed, want the 5 that were left", passed)
	}
}

// TestModel lets replicas join, leave, die, lose the store and have their clocks step, and holds every window to what is
// promised.
func TestModel(t *testing.T) {
	st := onRedis(t)
	story := 0
	rapid.Check(t, func(t *rapid.T) {
		story++
		r := rapid.SampledFrom([]limiter.Rate{{PerSecond: 10.0 / 3600, Burst: 10}, {PerSecond: 5, Burst: 5}, {PerSecond: 40, Burst: 80}, {PerSecond: 2, Burst: 1}}).Draw(t, "rate")
		r.Per = limiter.PerChannel
		f := newFleet(t, st, r)
		channel := fmt.Sprint("c", story)
		f.policy.App = channel
		f.account = fmt.Sprint("care", story)
		long := r.PerSecond*rates.LongWindow.Seconds() < float64(r.Burst)
		var live []*replica
		for range rapid.IntRange(1, 4).Draw(t, "replicas") {
			live = append(live, f.join())
		}
		f.settle()
		w := window{perSecond: r.PerSecond, burst: float64(r.Burst)}
		extra, most := 0.0, float64(len(live))
		passed := 0
		for range rapid.IntRange(5, 16).Draw(t, "steps") {
			one := live[rapid.IntRange(0, len(live)-1).Draw(t, "which")]
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if len(live) < 6 {
					live = append(live, f.join())
					if !long {
						extra += float64(r.Burst) // its part of a window that is over soon, and theirs who follow
					}
				}
			case 1:
				if len(live) > 1 {
					one.dead = true
					if rapid.Bool().Draw(t, "orderly") {
						one.shares.Close(background, f.now)
					}
					for i := range live {
						if live[i] == one {
							live = append(live[:i], live[i+1:]...)
							break
						}
					}
					if !long {
						extra += float64(r.Burst)
					} else {
						extra += 2 // what it took of a bucket in the half second before
					}
				}
			case 2:
				one.drop = rapid.Float64Range(0, 0.5).Draw(t, "lost")
			case 3:
				if !one.cut {
					one.cut = true
					extra += float64(r.Burst) + r.PerSecond*60 // its last share beside theirs who take it over
				}
			case 4:
				for _, r := range live {
					r.cut, r.drop = false, 0
				}
			case 5:
				one.skew += time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "clock")) * time.Millisecond
				extra += r.PerSecond * 4
			}
			most = max(most, float64(len(live)))
			asks := rapid.IntRange(0, 30).Draw(t, "asks")
			for range rapid.IntRange(1, 16).Draw(t, "ticks") {
				f.tick(100*time.Millisecond, func() {
					for range asks / 3 {
						if live[rapid.IntRange(0, len(live)-1).Draw(t, "at")].publish("c") {
							passed++
							w.pass(f.now)
						}
					}
				})
			}
		}
		if passed > 0 && w.over > most+extra+1 {
			t.Fatalf("a window let %.1f more pass than one bucket; %v replicas, %.1f allowed for what happened", w.over, most, extra)
		}
	})
}

// A replica whose config does not have the rate, as while a new config is rolled out, gives its even part to the others.
func TestAReplicaWithoutTheRateGivesItsPart(t *testing.T) {
	f := newFleet(t, onRedis(t), limiter.Rate{PerSecond: 20, Burst: 20, Per: limiter.PerChannel})
	one := f.join()
	f.policy.Rules = nil
	f.join()
	f.join()
	f.settle()
	passed := 0
	for range 100 {
		f.tick(100*time.Millisecond, func() {
			for range 6 {
				if one.publish("c") {
					passed++
				}
			}
		})
	}
	if passed < 180 || passed > 223 {
		t.Fatalf("%d passed in 10 s, want about 20 + 200", passed)
	}
}
