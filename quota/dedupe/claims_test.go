package dedupe

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

var (
	ctx   = context.Background()
	noon  = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
)

func embedded(t testing.TB) *store.Store {
	t.Helper()
	return open(t, "embedded", store.Options{})
}

func open(t testing.TB, url string, o store.Options) *store.Store {
	t.Helper()
	o.Log = quiet
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second // the machine may be busy with other tests
	}
	st, err := store.Open(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// eachStore runs a story on the embedded store and on a real Redis.
func eachStore(t *testing.T, story func(t *testing.T, st *store.Store)) {
	t.Run("embedded", func(t *testing.T) { story(t, embedded(t)) })
	t.Run("redis", func(t *testing.T) { story(t, open(t, redistest.Start(t).URL(), store.Options{})) })
}

func id(n int) (id ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// claimsOn runs n replicas' records on one store.
func claimsOn(t *testing.T, st *store.Store, n int) []*Claims {
	t.Helper()
	run, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	all := make([]*Claims, n)
	for i := range all {
		all[i] = New(st, "care", quiet)
		running.Go(func() { all[i].Run(run) })
		soon(t, "a running record", func() bool { return all[i].Stats().Up })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return all
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never came: " + what)
		}
		<-tick.C
	}
}

// claim asks until the store answered: on a busy machine a round trip may take longer than the record waits.
func claim(t *testing.T, tw *Claims, now time.Time, id ID, window, hold time.Duration) (got Claim) {
	t.Helper()
	soon(t, "an answer of the store", func() bool {
		got = tw.Claim(now, id, window, hold)
		return got.As != Alone
	})
	return got
}

func TestClaims(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		r := claimsOn(t, st, 2)
		at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
		for _, x := range []struct {
			step    string
			replica int
			at      int // ms
			id      int
			window  time.Duration
			want    Answer
			until   int
			settle  string
		}{
			{step: "the first may", replica: 0, at: 0, id: 1, window: 2 * time.Second, want: Yours, settle: "delivered"},
			{step: "its twin elsewhere may not", replica: 1, at: 500, id: 1, window: 2 * time.Second, want: Delivered, until: 2000},
			{step: "of two windows the shorter counts", replica: 1, at: 500, id: 1, window: 600 * time.Millisecond, want: Delivered, until: 600},
			{step: "and when that is over it may", replica: 1, at: 700, id: 1, window: 600 * time.Millisecond, want: Yours, settle: "failed"},
			{step: "what failed may be tried by anybody", replica: 0, at: 800, id: 1, window: 2 * time.Second, want: Yours, settle: "delivered"},
			{step: "after the window it is new", replica: 1, at: 2801, id: 1, window: 2 * time.Second, want: Yours, settle: ""},
			{step: "while it is under way it waits", replica: 0, at: 2900, id: 1, window: 2 * time.Second, want: Elsewhere},
			{step: "another one does not", replica: 0, at: 2900, id: 2, window: 2 * time.Second, want: Yours, settle: ""},
			{step: "a claimant of whom nothing is heard loses it", replica: 0, at: 3802, id: 1, window: 2 * time.Second, want: Yours, settle: "delivered"},
			{step: "and its twin knows", replica: 1, at: 3900, id: 1, window: 2 * time.Second, want: Delivered, until: 5802},
		} {
			got := claim(t, r[x.replica], at(x.at), id(x.id), x.window, time.Second)
			if got.As != x.want {
				t.Fatalf("%s: answer %d, want %d", x.step, got.As, x.want)
			}
			if x.want == Delivered && !got.Until.Equal(at(x.until)) {
				t.Errorf("%s: until %s, want %s", x.step, got.Until, at(x.until))
			}
			if x.settle != "" {
				// Told in order: the next claim of this replica comes after it.
				r[x.replica].Settle(at(x.at), id(x.id), got.Token, x.window, x.settle == "delivered")
				claim(t, r[x.replica], at(x.at), id(1_000_000+x.at), time.Second, time.Second)
			}
		}
	})
}

// A failure that comes late must not undo another's claim.
func TestOnlyTheClaimantEndsItsClaim(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		r := claimsOn(t, st, 2)
		old := claim(t, r[0], noon, id(1), time.Minute, time.Second)
		late := noon.Add(1500 * time.Millisecond)
		if got := claim(t, r[1], late, id(1), time.Minute, time.Second); got.As != Yours {
			t.Fatalf("after the claim's end: %d", got.As)
		}
		r[0].Settle(late, id(1), old.Token, time.Minute, false)
		claim(t, r[0], late, id(2), time.Minute, time.Second)
		if got := claim(t, r[0], late, id(1), time.Minute, time.Second); got.As != Elsewhere {
			t.Errorf("a late failure of an old claim freed another's: %d", got.As)
		}
	})
}

func TestClaimsWatch(t *testing.T) {
	eachStore(t, func(t *testing.T, st *store.Store) {
		r := claimsOn(t, st, 2)
		type fate struct {
			delivered bool
			until     time.Time
		}
		for _, delivered := range []bool{true, false} {
			which := id(1)
			if !delivered {
				which = id(2)
			}
			now := time.Now().Truncate(time.Millisecond)
			mine := claim(t, r[0], now, which, time.Minute, time.Minute)
			if got := claim(t, r[1], now, which, time.Minute, time.Minute); got.As != Elsewhere {
				t.Fatalf("answer %d", got.As)
			}
			heard := make(chan fate, 2)
			for range 2 {
				r[1].Watch(which, func(d bool, until time.Time) { heard <- fate{d, until} })
			}
			r[0].Settle(now, which, mine.Token, time.Minute, delivered)
			for range 2 {
				got := <-heard
				if got.delivered != delivered || delivered && !got.until.Equal(now.Add(time.Minute)) {
					t.Errorf("heard %+v of a publish with delivered %v", got, delivered)
				}
			}
		}
	})
}

// Whoever waits for a replica that died is told when its claim ends.
func TestClaimsOfADeadReplica(t *testing.T) {
	r := claimsOn(t, embedded(t), 2)
	now := time.Now()
	claim(t, r[0], now, id(1), time.Minute, 200*time.Millisecond) // and nothing more is heard
	heard := make(chan bool, 1)
	if got := claim(t, r[1], now, id(1), time.Minute, time.Minute); got.As != Elsewhere {
		t.Fatalf("answer %d", got.As)
	}
	r[1].Watch(id(1), func(d bool, _ time.Time) { heard <- d })
	if <-heard {
		t.Error("it was called delivered")
	}
}

// However many replicas want to send the same at the same time, one does; and
// the store sees a few batches, not every request.
func TestClaimsRace(t *testing.T) {
	st := open(t, redistest.Start(t).URL(), store.Options{})
	r := claimsOn(t, st, 4)
	const ids, each = 200, 8
	var mine [ids]atomic.Int64
	var alone atomic.Int64
	var all sync.WaitGroup
	for n := range ids {
		for i := range each {
			all.Go(func() {
				switch r[i%len(r)].Claim(noon, id(n), time.Minute, time.Minute).As {
				case Yours:
					mine[n].Add(1)
				case Alone:
					alone.Add(1)
				}
			})
		}
	}
	all.Wait()
	for n := range mine {
		if got := mine[n].Load(); got != 1 && alone.Load() == 0 {
			t.Fatalf("publish %d was given to %d", n, got)
		}
	}
	var ops, trips int64
	for _, tw := range r {
		ops, trips = ops+tw.Stats().Ops, trips+tw.Stats().Trips
	}
	t.Logf("%d questions in %d round trips, %d not answered in time", ops, trips, alone.Load())
	if ops > 100 && trips > ops/4 {
		t.Errorf("%d questions took %d round trips", ops, trips)
	}
}

// asked is how many times a server was asked about publishes since the last call.
func asked(m *redistest.Monitor) (n int) {
	for _, c := range m.Commands() {
		if strings.HasPrefix(c, `"evalsha"`) && strings.Contains(c, ":twins:") {
			n++
		}
	}
	return n
}

// What one request wants to send is one question, and so is what many ask while another question is under way.
func TestClaimsAreAskedAboutTogether(t *testing.T) {
	srv := redistest.Start(t)
	r := claimsOn(t, open(t, srv.URL(), store.Options{}), 1)[0]
	claim(t, r, noon, id(-1), time.Minute, time.Minute) // the script is loaded
	m := srv.Monitor(t)
	ten := func(from int) (wants []Want) {
		for n := range 10 {
			wants = append(wants, Want{ID: id(from + n), Window: time.Minute, Hold: time.Minute})
		}
		return wants
	}
	var first []Want
	soon(t, "an answer of the store", func() bool { // on a busy machine it may take longer than anybody waits
		asked(m)
		first = ten(10 * int(r.Stats().Trips)) // others than those whose answer came too late
		r.ClaimAll(noon, first)
		return first[0].Got.As != Alone
	})
	if n := asked(m); n != 1 {
		t.Errorf("the server was asked %d times for ten claims of one request", n)
	}
	for i, w := range first {
		if w.Got.As != Yours {
			t.Errorf("claim %d was answered %d", i, w.Got.As)
		}
		r.Settle(noon, w.ID, w.Got.Token, time.Minute, i != 3)
	}
	claim(t, r, noon, id(-2), time.Minute, time.Minute) // after it all are told
	second := append(slices.Clone(first), Want{ID: id(-2), Window: time.Minute, Hold: time.Minute})
	r.ClaimAll(noon, second)
	for i, w := range second {
		want := Delivered
		switch i {
		case 3:
			want = Yours
		case 10:
			want = Elsewhere
		}
		if w.Got.As != want && w.Got.As != Alone {
			t.Errorf("claim %d once more was answered %d, want %d", i, w.Got.As, want)
		}
	}

	// While the server holds its answer back, a hundred others come.
	const many = 100
	for try := 0; ; try++ {
		soon(t, "a store that answers", func() bool { return r.Stats().Up })
		before, from := r.Stats(), (try+1)*1_000_000
		asked(m)
		srv.Stop()
		queued := func(n int) func() bool {
			return func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(r.queue) == n || r.state.Load() != stateUp
			}
		}
		r.Settle(noon, id(from), 1, time.Minute, true)
		soon(t, "the first on its way", queued(0))
		var all sync.WaitGroup
		for n := range many {
			all.Go(func() { r.Claim(noon, id(from+1+n), time.Minute, time.Minute) })
		}
		soon(t, "all the others waiting", queued(many))
		srv.Continue()
		all.Wait()
		if after := r.Stats(); after.Alone == before.Alone {
			if n := asked(m); n != 2 {
				t.Errorf("%d claims were asked in %d round trips, want the first and the rest", many, n)
			}
			return
		}
		if try == 20 {
			t.Fatal("the machine is too slow to say anything")
		}
	}
}

// A store that is away, or does not answer, costs a bounded wait once; then
// every replica decides alone, at once, until the store is back.
func TestClaimsWithoutAStore(t *testing.T) {
	srv := redistest.Start(t)
	r := claimsOn(t, open(t, srv.URL(), store.Options{}), 1)[0]
	mine := claim(t, r, noon, id(1), time.Minute, time.Minute)
	srv.Stop()
	began := time.Now()
	if got := r.Claim(noon, id(2), time.Minute, time.Minute); got.As != Alone {
		t.Errorf("a silent store answered %d", got.As)
	}
	if took := time.Since(began); took < tripWait/2 || took > 20*tripWait {
		t.Errorf("the first wait took %s", took)
	}
	if s := r.Stats(); s.Up || s.Why == "" {
		t.Errorf("lost, and the stats say %+v", s)
	}
	r.Settle(noon, id(1), mine.Token, time.Minute, true)
	watched := make(chan bool, 1)
	r.Watch(id(1), func(d bool, _ time.Time) { watched <- d })
	if <-watched {
		t.Error("a lost store let something pass for delivered")
	}
	for n := range 1000 { // at once: a thousand waits would take minutes
		if got := r.Claim(noon, id(100+n), time.Minute, time.Minute); got.As != Alone {
			t.Fatalf("answer %d", got.As)
		}
	}
	srv.Continue()
	soon(t, "the store's return", func() bool { return r.Stats().Up })
	if got := claim(t, r, noon, id(1), time.Minute, time.Minute); got.As != Delivered {
		t.Errorf("what was told while the store was away is lost: %d", got.As)
	}
	if got := (&Claims{}).Claim(noon, id(1), time.Minute, time.Minute); got.As != Alone {
		t.Errorf("a record that does not run answered %d", got.As)
	}
}

func TestClaimsAreBounded(t *testing.T) {
	st := embedded(t)
	ask := func(now time.Time, do store.TwinDo, n int) store.TwinIs {
		t.Helper()
		got, err := st.Twins(ctx, "care", now, 10, []store.TwinOp{{Do: do, ID: id(n), Token: uint64(n), At: now, Window: time.Second, Hold: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		return got[0].Is
	}
	for n := range 10 {
		if got := ask(noon, store.TwinClaim, n); got != store.TwinClaimed {
			t.Fatalf("claim %d: %c", n, got)
		}
	}
	if got := ask(noon, store.TwinClaim, 10); got != store.TwinNoRoom {
		t.Errorf("an eleventh of ten: %c", got)
	}
	ask(noon, store.TwinFailed, 3)
	if got := ask(noon, store.TwinClaim, 10); got != store.TwinClaimed {
		t.Errorf("in the place of one that failed: %c", got)
	}
	if got := ask(noon.Add(1001*time.Millisecond), store.TwinClaim, 11); got != store.TwinClaimed {
		t.Errorf("in the place of those whose time is over: %c", got)
	}
}
