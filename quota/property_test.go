package quota

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
	"pgregory.net/rapid"
)

// world is the model: several replicas of one account, of which some are dead, and what they sent.
type world struct {
	t      *rapid.T
	srv    *redistest.Server
	st     *store.Store
	cfg    Config
	now    time.Time
	live   []*Ledger
	all    []*Ledger // dead ones too
	holds  []held
	born   int
	plan   int64
	limit  map[Day]int64 // the highest plan that was in force on a day
	set    map[Day]int64 // on days whose usage was set: what may have gone out beyond the plan
	moved  map[Day]bool  // days with such a correction: only the upper bound is checked
	exact  bool          // nobody corrects plan or usage, so the count is checked at the end
	kept   bool          // a state of the store is in its database 1
	known  bool          // all live replicas have heard what dead ones took
	booked map[Day]int64 // sent above the hold
	hidden map[Day]int64 // the part of it that died with a replica before a heartbeat could tell
	lost   bool          // the store refuses everything
}

type held struct {
	l    *Ledger
	h    Hold
	cost int64
}

func (w *world) start() {
	w.born++
	w.startAs(fmt.Sprint("r", w.born))
}

// startAs starts a replica of a name; with its disk, if a process of the name was killed.
func (w *world) startAs(name string) {
	l, err := Open(ctx, w.now, w.st, name, w.cfg, quiet)
	if err != nil {
		w.t.Fatal(err)
	}
	w.live, w.all = append(w.live, l), append(w.all, l)
	w.kept = false // what joined after it was kept, and holds a lease, nobody would know of
}

// pots are the plan's pots of a day, of all replicas that ever were.
func (w *world) pots(day Day) (ps []*pot) {
	seen := map[string]bool{}
	for _, l := range slices.Backward(w.all) {
		for _, b := range w.everyBook(l) {
			if b.day == day && !seen[b.id] { // of a book that another process went on with, that one knows
				ps = append(ps, b.plan)
			}
			seen[b.id] = true
		}
	}
	return ps
}

var closedBooks = map[*Ledger][]*book{}

// everyBook also remembers those that a ledger has closed and dropped.
func (w *world) everyBook(l *Ledger) []*book {
	seen := closedBooks[l]
	for _, b := range l.books {
		has := false
		for _, s := range seen {
			has = has || s == b
		}
		if !has {
			seen = append(seen, b)
		}
	}
	closedBooks[l] = seen
	return seen
}

func (w *world) note() {
	for _, l := range w.all {
		w.everyBook(l)
	}
}

// sent is what went out on a day, and what may still go out of leases and holds.
func (w *world) sent(day Day) (spent, out int64) {
	for _, p := range w.pots(day) {
		spent += p.spent.Load()
		out += p.granted.Sum() - p.returned.Sum() + p.over.Load() - p.spent.Load()
	}
	return spent, out
}

func (w *world) check(*rapid.T) {
	w.note()
	days := map[Day]bool{}
	for _, l := range w.all {
		for _, b := range w.everyBook(l) {
			days[b.day] = true
		}
	}
	for d, today := DayOf(w.now)-1, DayOf(w.now); d <= today+1; d++ {
		w.limit[d] = max(w.limit[d], w.plan)
	}
	for day := range days {
		spent, out := w.sent(day)
		if over := w.booked[day] + w.set[day]; spent+out > w.limit[day]+over {
			w.t.Fatalf("%v: %d went out and %d are out, of a plan of %d (corrections %d)", day, spent, out, w.limit[day], over)
		}
	}
	for _, l := range w.live {
		for _, b := range l.books {
			for c := range b.plan.lease {
				if n := b.plan.lease[c].Load(); n < 0 {
					w.t.Fatalf("a lease of %d", n)
				}
			}
		}
	}
}

func (w *world) pick() *Ledger {
	return w.live[rapid.IntRange(0, len(w.live)-1).Draw(w.t, "replica")]
}

func (w *world) mustBeat(l *Ledger) {
	if err := l.Beat(ctx, w.now); err != nil && !w.lost {
		w.t.Fatal(err)
	}
	w.note()
}

func (w *world) beatAll() {
	for range 2 {
		for _, l := range w.live {
			w.mustBeat(l)
		}
	}
	w.known = w.known || !w.lost
	for _, l := range w.all { // what a dead one took of tomorrow is known to those that have begun with tomorrow
		for _, b := range w.everyBook(l) {
			for _, x := range w.live {
				if mine := x.books[b.day]; b.day > DayOf(w.now) && b.plan.granted.Sum() > 0 && (mine == nil || mine.acked() == 0) {
					w.known = false
				}
			}
		}
	}
}

func (w *world) reserve(*rapid.T) {
	l := w.pick()
	p := Priority(rapid.IntRange(0, 2).Draw(w.t, "priority"))
	cost := int64(rapid.SampledFrom([]int{1, 1, 1, 2, 7, 40}).Draw(w.t, "cost"))
	h, d := l.Reserve(ctx, w.now, nil, p, cost)
	w.note()
	day := DayOf(w.now)
	switch d {
	case Granted:
		w.holds = append(w.holds, held{l, h, cost})
	case PlanSpent, FloorReserved, NotYet:
		// Refused on fresh news, it was truly not there: neither in the store nor in this replica's lease.
		if w.lost {
			w.t.Fatalf("refused with %v, and nobody can know", d)
		}
		w.mustBeat(l)
		if h, d := l.Reserve(ctx, w.now, nil, p, cost); d == Granted {
			w.holds = append(w.holds, held{l, h, cost})
			return
		}
		if w.moved[day] {
			return
		}
		limits := l.limits(l.cfg.Load(), l.find(w.now).plan)
		spent, out := w.sent(day)
		if room := limits[p] - spent - out + l.find(w.now).plan.holds(p); room >= cost {
			w.t.Fatalf("%v of %d refused (%v) although %d were left", p, cost, d, room)
		}
		if d == NotYet {
			return
		}
		for _, x := range w.live { // and nobody holds it unspent
			if b := x.find(w.now); b != nil {
				out -= b.plan.own(p)
			}
		}
		if room := limits[p] - spent - out; room >= cost {
			w.t.Fatalf("%v of %d was told %v although the replicas hold %d unspent", p, cost, d, room)
		}
	case StoreLost:
		if w.lost {
			if b := l.find(w.now); b != nil && p == Critical && b.plan.inHand() >= cost {
				w.t.Fatalf("a critical one of %d was refused with %d in hand", cost, b.plan.inHand())
			}
			return
		}
		if !l.Snapshot(w.now).Healing {
			w.t.Fatalf("refused with %v while the store is well", d)
		}
	default:
		w.t.Fatalf("refused with %v", d)
	}
}

func (w *world) settle(*rapid.T) {
	if len(w.holds) == 0 {
		w.t.Skip("nothing held")
	}
	i := rapid.IntRange(0, len(w.holds)-1).Draw(w.t, "hold")
	x := w.holds[i]
	w.holds = append(w.holds[:i], w.holds[i+1:]...)
	actual := rapid.Int64Range(0, x.cost+3).Draw(w.t, "actual")
	if actual > x.cost {
		w.booked[x.h.pot.day] += actual - x.cost
	}
	if actual == 0 {
		x.l.Refund(w.now, x.h)
	} else {
		x.l.Settle(w.now, x.h, actual)
	}
}

func (w *world) actions() map[string]func(*rapid.T) {
	all := w.everything()
	for _, name := range []string{"uneven", "apart", "returns", "keep", "rewind", "plan", "usage", "flush", "reclaim", "join", "leave", "crash", "trickle", "eve", "beat"} {
		act := all[name]
		all[name] = func(t *rapid.T) {
			if w.lost {
				w.t.Skip("the store is away")
			}
			act(t)
		}
	}
	return all
}

func (w *world) everything() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":         w.check,
		"reserve":  w.reserve,
		"reserve2": w.reserve,
		"reserve3": w.reserve,
		"settle":   w.settle,
		"beat":     func(*rapid.T) { w.mustBeat(w.pick()) },
		"burst": func(*rapid.T) {
			n, _ := spend(w.pick(), w.now, nil, Priority(rapid.IntRange(0, 2).Draw(w.t, "p")), rapid.IntRange(1, 300).Draw(w.t, "n"))
			_ = n
		},
		"tick": func(*rapid.T) {
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(w.t, "ms")) * time.Millisecond)
		},
		"midnight": func(*rapid.T) {
			w.now = DayOf(w.now).End().Add(time.Duration(rapid.IntRange(-2000, 2000).Draw(w.t, "ms")) * time.Millisecond)
		},
		"join": func(*rapid.T) {
			if len(w.live) >= 4 {
				w.t.Skip("enough")
			}
			w.start()
		},
		"leave": func(*rapid.T) { w.remove(true) },
		"lose":  func(*rapid.T) { w.lose(true) },
		"find":  func(*rapid.T) { w.lose(false) },
		"lossOf": func(*rapid.T) { // with a kill in it, or midnight, or all at once
			w.lose(true)
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(w.t, "ms")) * time.Millisecond)
			if rapid.Bool().Draw(w.t, "kill") {
				w.revive(true)
			}
			if rapid.Bool().Draw(w.t, "midnight") {
				w.now = DayOf(w.now).End().Add(time.Second)
			}
			w.everybodySends()
			w.lose(false)
		},
		"eve": func(*rapid.T) { // the last minutes of a day, in which tomorrow's standby is taken
			if DayOf(w.now).End().Sub(w.now) < 10*time.Second {
				w.t.Skip("it is that late")
			}
			for w.now = DayOf(w.now).End().Add(-10 * time.Second); w.now.Before(DayOf(w.now).End().Add(-time.Second)); w.now = w.now.Add(3 * time.Second) {
				w.everybodySends()
				w.beatAll()
			}
		},
		"kill":     func(*rapid.T) { w.revive(true) },
		"blackout": func(*rapid.T) { w.revive(false) },
		"suspend": func(*rapid.T) { // one is stopped, is taken for dead, and wakes
			if len(w.live) < 2 || w.lost {
				w.t.Skip("too few")
			}
			i := rapid.IntRange(0, len(w.live)-1).Draw(w.t, "who")
			l := w.live[i]
			w.live = append(w.live[:i:i], w.live[i+1:]...)
			w.now = w.now.Add(11 * time.Second)
			w.beatAll()
			w.everybodySends()
			w.live = append(w.live, l)
			spend(l, w.now, nil, Critical, 50)
		},
		"trickle": func(*rapid.T) { // long enough for a standby to be taken and armed
			for range 6 {
				w.everybodySends()
				w.now = w.now.Add(300 * time.Millisecond)
				w.beatAll()
			}
		},
		"crash": func(*rapid.T) { w.remove(false) },
		"reclaim": func(*rapid.T) {
			w.now = w.now.Add(11 * time.Second)
			w.beatAll()
		},
		"uneven": func(*rapid.T) { // one hears that a dead one was closed, the others do not, and the store loses everything
			if len(w.live) < 3 {
				w.t.Skip("too few")
			}
			w.remove(rapid.Bool().Draw(w.t, "orderly"))
			if rapid.Bool().Draw(w.t, "all know what it took") {
				w.beatAll()
			}
			w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{0, 4000, 6000}).Draw(w.t, "ms")) * time.Millisecond)
			for _, l := range w.live {
				w.mustBeat(l)
			}
			w.known = true
			w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{0, 5000, 7000}).Draw(w.t, "ms")) * time.Millisecond)
			w.mustBeat(w.pick())
			w.flush()
		},
		"apart": func(*rapid.T) { // some hear what becomes of the others, some do not
			w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{100, 4000, 6000}).Draw(w.t, "ms")) * time.Millisecond)
			for range rapid.IntRange(1, 2).Draw(w.t, "n") {
				w.mustBeat(w.pick())
			}
		},
		"returns": func(*rapid.T) { // some hear that one was taken for dead, some that it lives, and the store loses everything
			if len(w.live) < 2 || !w.known {
				w.t.Skip("too few, or a dead one took what nobody knows")
			}
			silent := w.pick()
			someBeat := func(most int) {
				for range rapid.IntRange(0, most).Draw(w.t, "n") {
					if l := w.pick(); l != silent {
						w.mustBeat(l)
					}
				}
			}
			for range rapid.IntRange(1, 2).Draw(w.t, "times") {
				for range 2 {
					w.now = w.now.Add(6 * time.Second)
					someBeat(3)
				}
				if rapid.Bool().Draw(w.t, "speaks") {
					w.mustBeat(silent)
					someBeat(1)
				}
			}
			w.flush()
		},
		"keep": func(*rapid.T) {
			w.mustDo("redis.call('SELECT', 1) redis.call('FLUSHDB') redis.call('SELECT', 0)",
				"for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', 1) end")
			w.kept = true
		},
		"rewind": func(*rapid.T) { // the store fails over to a server that has what was kept
			if !w.kept || !w.known {
				w.t.Skip("nothing kept, or a dead one took what nobody knows")
			}
			w.mustDo("redis.call('FLUSHDB') redis.call('SELECT', 1)",
				"for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', 0) end redis.call('SELECT', 0)",
				"redis.call('HSET', 'pg:{"+w.cfg.Account+"}:state', 'run', 'another')")
			w.hear()
		},
		"plan": func(*rapid.T) {
			if w.exact {
				w.t.Skip("the count is checked to the message at the end")
			}
			n := rapid.Int64Range(200, 3000).Draw(w.t, "plan")
			l := w.pick()
			if err := l.SetPlan(ctx, w.now, n, "model", ""); err != nil {
				w.t.Fatal(err)
			}
			if n < w.plan { // what is out already may still go out
				day := DayOf(w.now)
				for d := day - 1; d <= day+1; d++ {
					w.moved[d] = true
				}
			}
			w.plan = n
			w.beatAll()
		},
		"usage": func(*rapid.T) {
			if w.exact {
				w.t.Skip("the count is checked to the message at the end")
			}
			w.beatAll()
			l, day := w.pick(), DayOf(w.now)
			before, _ := l.Used(w.now)
			n := rapid.Int64Range(0, 2000).Draw(w.t, "usage")
			if err := l.SetUsage(ctx, w.now, n, "model", ""); err != nil {
				w.t.Fatal(err)
			}
			if used, _ := l.Used(w.now); used != n {
				w.t.Fatalf("usage set to %d, shows %d", n, used)
			}
			w.moved[day] = true
			w.set[day] += max(before-n, 0)
			w.beatAll()
		},
		"flush": func(*rapid.T) {
			if !w.known {
				w.t.Skip("what a dead replica took in its last moment is known to nobody")
			}
			w.flush()
		},
	}
}

// everybodySends spends a little on each replica.
func (w *world) everybodySends() {
	for _, l := range w.live {
		spend(l, w.now, nil, Priority(rapid.IntRange(0, 2).Draw(w.t, "p")), rapid.IntRange(0, 20).Draw(w.t, "n"))
	}
	w.note()
}

// lose makes the store refuse everything, or ends that.
func (w *world) lose(lost bool) {
	if lost == w.lost {
		w.t.Skip("it is so")
	}
	limit := "0"
	if lost {
		limit = "1"
	}
	if got := w.srv.Do("CONFIG SET maxmemory " + limit); got != "+OK" {
		w.t.Fatal(got)
	}
	w.lost = lost
	w.beatAll()
}

// revive kills a replica and starts it again on its disk; without memory the machine was started anew, too.
func (w *world) revive(memory bool) {
	i := rapid.IntRange(0, len(w.live)-1).Draw(w.t, "who")
	l := w.live[i]
	w.live = append(w.live[:i:i], w.live[i+1:]...)
	w.note()
	crash(l)
	if !memory {
		pages, _ := filepath.Glob(filepath.Join(w.cfg.RecordDir, "*"+l.replica+".*.page-*"))
		for _, p := range pages {
			os.Remove(p)
		}
		for _, b := range l.books {
			w.hidden[b.day] += b.plan.over.Load() - b.plan.saved
		}
		w.known = false
	}
	kept := w.holds[:0]
	for _, x := range w.holds { // on their way as it died: they count as sent
		if x.l != l {
			kept = append(kept, x)
		}
	}
	w.holds = kept
	w.startAs(l.replica)
	if memory && w.lost && len(l.books) > 0 && l.find(w.now) != nil && l.find(w.now).acked() > 0 {
		if n := w.live[len(w.live)-1]; n.find(w.now) == nil || n.find(w.now).plan.unspent() > l.find(w.now).plan.unspent() {
			w.t.Fatal("what it held is lost")
		}
	}
}

// flush loses all that the store has. Who speaks first knows more or less than the others, and some time passes before
// all have.
func (w *world) flush() {
	w.srv.Do("FLUSHALL")
	w.kept = false
	w.hear()
}

func (w *world) mustDo(lua ...string) {
	if answer := w.srv.Do(`EVAL "` + strings.Join(lua, " ") + ` return 'done'" 0`); answer != "done" {
		w.t.Fatal(answer)
	}
}

// hear lets all beat, in any order.
func (w *world) hear() {
	for _, i := range rapid.Permutation(indices(len(w.live))).Draw(w.t, "order") {
		w.mustBeat(w.live[i])
		w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 100, 1000}).Draw(w.t, "pause")) * time.Millisecond)
	}
	w.beatAll()
}

func indices(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func (w *world) remove(orderly bool) {
	if len(w.live) < 2 {
		w.t.Skip("the last one stays")
	}
	i := rapid.IntRange(0, len(w.live)-1).Draw(w.t, "who")
	l := w.live[i]
	w.live = append(w.live[:i:i], w.live[i+1:]...)
	w.note()
	if orderly {
		if err := l.Close(ctx); err != nil {
			w.t.Fatal(err)
		}
	} else {
		for _, b := range l.books {
			w.hidden[b.day] += b.plan.over.Load() - b.plan.sent.Over
		}
	}
	w.known = false
	kept := w.holds[:0]
	for _, x := range w.holds {
		if x.l != l {
			kept = append(kept, x)
		}
	}
	w.holds = kept
}

// Any interleaving of reserve, settle, refund, crash, reclaim, restart, day change, plan change, usage set and loss
// of the store's data: what went out, with what may still go out, stays within the plan; and what is refused was
// not available.
func TestLedgerModel(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{})
	run, disks := 0, t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := &world{t: t, srv: srv, st: st, now: noon, plan: 1000, set: map[Day]int64{}, limit: map[Day]int64{}, moved: map[Day]bool{}, booked: map[Day]int64{}, hidden: map[Day]int64{}}
		w.cfg = plan(1000)
		w.cfg.Account = fmt.Sprint("care", run)
		w.cfg.Wait = -1
		w.exact = rapid.Bool().Draw(t, "exact")
		w.cfg.RecordDir, w.cfg.Patient = filepath.Join(disks, fmt.Sprint(run)), true
		if rapid.Bool().Draw(t, "standby") {
			w.cfg.Standby = 15 * time.Minute
		}
		if got := srv.Do("CONFIG SET maxmemory 0"); got != "+OK" {
			t.Fatal(got)
		}
		if rapid.Bool().Draw(t, "floors") {
			w.cfg.Floors = [Priorities]float64{Normal: 0.2, Critical: 0.1}
		}
		for range rapid.IntRange(1, 3).Draw(t, "replicas") {
			w.start()
		}
		w.beatAll()
		t.Repeat(w.actions())

		// At the end one replica gets all that is left: exactly the plan goes out, less the leases of the dead.
		if w.lost {
			w.lose(false)
		}
		day := DayOf(w.now)
		for _, x := range w.holds {
			x.l.Refund(w.now, x.h)
		}
		for range 4 {
			w.now = w.now.Add(4 * time.Second)
			w.beatAll()
		}
		if DayOf(w.now) != day || w.moved[day] {
			return
		}
		for range 30 {
			spend(w.live[0], w.now, nil, Critical, 5000)
			w.now = w.now.Add(50 * time.Millisecond)
			w.beatAll()
		}
		w.check(t)
		var lost, spent int64
		dead := map[*pot]bool{}
		for _, l := range w.all {
			for _, b := range w.everyBook(l) {
				dead[b.plan] = true
			}
		}
		for _, l := range w.live {
			for _, b := range l.books {
				dead[b.plan] = false
			}
		}
		for _, p := range w.pots(day) {
			spent += p.spent.Load()
			if dead[p] {
				lost += p.granted.Sum() - p.returned.Sum() + p.over.Load() - p.spent.Load()
			}
		}
		if spent+lost < w.plan {
			t.Fatalf("%d went out and %d died, of %d: some were stranded", spent, lost, w.plan)
		}
		if used, _ := w.live[0].Used(w.now); used != spent+lost-w.hidden[day] {
			t.Fatalf("the ledger says %d used, it was %d and %d lost, %d hidden", used, spent, lost, w.hidden[day])
		}
	})
}
