package quota

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// A flight is one exchange with the store. There is never more than one at a time; who comes while it is under
// way waits for it. It runs in a goroutine of its own, so that a store that hangs holds nobody.
type flight struct {
	done chan struct{}
	err  error
}

// flightTimeout bounds a flight beyond the store's own timeout an operation.
const flightTimeout = 5 * time.Second

func (l *Ledger) fly(now time.Time) *flight {
	l.fmu.Lock()
	defer l.fmu.Unlock()
	if l.inflight != nil {
		return l.inflight
	}
	return l.startLocked(func(ctx context.Context) error { return l.beat(ctx, now) })
}

func (l *Ledger) startLocked(work func(ctx context.Context) error) *flight {
	f := &flight{done: make(chan struct{})}
	l.inflight = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), flightTimeout)
		defer cancel()
		f.err = work(ctx)
		l.fmu.Lock()
		l.inflight = nil
		l.fmu.Unlock()
		close(f.done)
	}()
	return f
}

// exclusive runs work as a flight of its own. When ctx ends the wait ends, not the work.
func (l *Ledger) exclusive(ctx context.Context, work func(ctx context.Context) error) error {
	for {
		l.fmu.Lock()
		f := l.inflight
		mine := f == nil
		if mine {
			f = l.startLocked(work)
		}
		l.fmu.Unlock()
		select {
		case <-f.done:
			if mine {
				return f.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Beat is one heartbeat: it tells the store what was spent, renews the leases, hears of plan, brake and the other
// replicas. Run calls it; so does who drives the ledger in virtual time.
func (l *Ledger) Beat(ctx context.Context, now time.Time) error {
	return l.exclusive(ctx, func(ctx context.Context) error { return l.beat(ctx, now) })
}

// dayGrace is for how long after its day a book keeps its lease, for publishes that were judged just before
// midnight and for clocks that differ.
const dayGrace = 5 * time.Second

// closeAfter is when a book of another day is closed although holds on it were never settled.
const closeAfter = 2 * time.Minute

func (l *Ledger) beat(ctx context.Context, now time.Time) error {
	l.kicked.Store(false)
	if l.closed.Load() {
		return errClosed
	}
	b := l.openBook(now)
	l.listening = now.Before(l.listenUntil) || !l.joined && l.listens() > 0
	err := l.exchange(ctx, now, b, false)
	if err == nil && !l.listening {
		l.opened.Store(true)
	}
	if err == nil && !l.joined {
		l.joined = true
		if l.fresh && l.listens() > 0 {
			l.listenUntil = now.Add(l.listens())
		}
		l.tellOfTheDead(ctx, now)
	}
	if err == nil {
		l.tally.tell(ctx, l, now)
		err = l.prepare(ctx, now, b)
	}
	for day, old := range l.books {
		if old == b || err != nil {
			continue
		}
		away := max(now.Sub(day.End()), day.Start().Sub(now))
		if day > b.day && day.Start().Sub(now) <= l.ahead() {
			away = 0
		}
		if away < dayGrace {
			// Today's exchange finds a loss of the store's data for today alone. Each other day is told too before
			// anything else happens, and what others took ahead of tomorrow is listened to, or a loss and a crash
			// together would make their leases unknown to all.
			if old.acked() > 0 && (old.epoch != b.epoch || day > b.day) {
				err = l.exchange(ctx, now, old, false)
			}
			continue
		}
		old.closing = true
		leave := old.plan.pending() <= 0 || away > closeAfter
		if old.changed() || leave || old.epoch != b.epoch {
			err = l.exchange(ctx, now, old, leave)
		}
		if leave && err == nil {
			old.page.remove()
			delete(l.books, day)
			l.prev.CompareAndSwap(old, nil)
			l.next.CompareAndSwap(old, nil)
		}
	}
	return err
}

// changed says that the store's picture of a closing book is out of date.
func (b *book) changed() bool {
	p := b.plan
	return p.unspent() > 0 || p.spent.Load() != p.sent.Spent || p.over.Load() != p.sent.Over
}

// bookOf is the book of a day, made if need be, with a pot for every share.
func (l *Ledger) bookOf(day Day) *book {
	b := l.books[day]
	if b == nil {
		l.bookCount++
		b = &book{day: day, start: day.Start().Unix(), end: day.End().Unix(), shares: map[string]*pot{}}
		b.id = l.replica + "/" + l.inc + "/" + strconv.Itoa(l.bookCount)
		b.page = l.newPage(b)
		b.plan = &pot{day: day, cells: b.page.cells("")}
		if cur := l.cur.Load(); cur != nil {
			b.epoch = cur.epoch
		}
		l.books[day] = b
		l.allowAlone(b.plan)
	}
	for caller, s := range *l.shares.Load() {
		if b.shares[caller] == nil && s.ppm.Load() > 0 {
			b.shares[caller] = &pot{name: caller, day: day, cells: b.page.cells(caller)}
			l.allowAlone(b.shares[caller])
		}
	}
	b.closing = false
	return b
}

// allowAlone sets what a pot may lend that begins while the store is out of reach.
func (l *Ledger) allowAlone(p *pot) {
	if v := l.view.Load(); !v.up && v.err != "" && (l.joined || l.adopted != nil) {
		p.allow(l.limits(l.cfg.Load(), p), 0, v.replicas)
	}
}

// openBook makes the book of now's day the current one.
func (l *Ledger) openBook(now time.Time) *book {
	b := l.bookOf(l.dayOf(now))
	for caller, s := range *l.shares.Load() {
		if p := b.shares[caller]; p != nil && s.cur.Load() != p {
			s.prev.Store(s.cur.Load())
			s.cur.Store(p)
		}
	}
	if cur := l.cur.Load(); cur != b {
		l.prev.Store(cur)
		l.cur.Store(b)
	}
	return b
}

// dayAhead is how long before midnight a lease of the next day is taken, so that its first publishes find one.
const dayAhead = 2 * time.Second

// prepare takes a first lease, and a standby, of the day that is about to begin: if the store is away at midnight, they are
// what it begins with.
func (l *Ledger) prepare(ctx context.Context, now time.Time, today *book) error {
	next := l.dayOf(now.Add(l.ahead()))
	if next == today.day || l.view.Load().withheld {
		return nil // while a loss is being healed, tomorrow's leases may not all be known either
	}
	b := l.bookOf(next)
	if age := now.Sub(l.aheadAt); b.acked() > 0 && age >= 0 && age < aheadEvery {
		return nil
	}
	l.aheadAt = now
	// It begins with today's demand.
	b.plan.rate = today.plan.rate
	for caller, p := range b.shares {
		if t := today.shares[caller]; t != nil {
			p.rate = t.rate
		}
	}
	if err := l.exchange(ctx, now, b, false); err != nil {
		return err
	}
	l.showNext(b)
	return nil
}

// showNext lets tomorrow's book be found.
func (l *Ledger) showNext(b *book) {
	for caller, s := range *l.shares.Load() {
		s.next.Store(b.shares[caller])
	}
	l.next.Store(b)
}

// openLocal opens the book of now's day without the store; its lease is empty. A flight under way opens it as well.
func (l *Ledger) openLocal(now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), pause)
	defer cancel()
	l.exclusive(ctx, func(context.Context) error {
		if !l.closed.Load() {
			l.openBook(now)
		}
		return nil
	})
}

func (b *book) acked() int64 { return b.plan.acked }

// allow sets what may be lent while the store is out of reach: this replica's part of what is left.
func (t *pot) allow(limits store.Counts, taken int64, replicas int) {
	for c := range t.allowed {
		t.allowed[c].Store(max(limits[c]-taken, 0) / int64(max(replicas, 1)))
	}
}

// limits is how far each class may fill a pot.
func (l *Ledger) limits(cfg *Config, p *pot) store.Counts {
	plan := l.plan.Load()
	if p.name != "" {
		n := p.heard.Limit
		if n == 0 {
			n = part(plan, ppm(cfg.Shares[p.name]))
		}
		return store.Counts{n, n, n}
	}
	critical, normal := part(plan, ppm(cfg.Floors[Critical])), part(plan, ppm(cfg.Floors[Normal]))
	return store.Counts{plan - critical - normal, plan - critical, plan}
}

// part is ppm millionths of n, without overflow.
func part(n, ppm int64) int64 { return n/million*ppm + n%million*ppm/million }

// keep is the lease of a replica that sends nothing.
func keep(plan int64) int64 { return min(max(plan/10_000, 1), 100) }

// exchange does one Beat for one book, healing the store if it lost data.
func (l *Ledger) exchange(ctx context.Context, now time.Time, b *book, leave bool) error {
	cfg := l.cfg.Load()
	names := make([]string, 0, len(b.shares))
	for caller := range b.shares {
		names = append(names, caller)
	}
	pots := make([]*pot, 1, 1+len(names))
	pots[0] = b.plan
	for _, n := range names {
		pots = append(pots, b.shares[n])
	}
	l.live(b)
	like := b.plan
	if cur := l.cur.Load(); cur != nil && b.day > cur.day {
		like = cur.plan
	}
	v := l.view.Load()
	lost := !v.up && v.err != "" || v.withheld
	for attempt := 0; ; attempt++ {
		join := l.takeJoin()
		b.seq++
		beat := &store.Beat{
			Account: cfg.Account, ID: b.id, Day: int32(b.day), Now: now, Seq: b.seq, Epoch: b.epoch, Join: join, Leave: leave,
			TTL: cfg.DeadIn, Plan: cfg.Plan.MessagesPerDay, PlanName: cfg.Plan.Name,
			Floors: store.Counts{0, ppm(cfg.Floors[Normal]), ppm(cfg.Floors[Critical])},
		}
		if join && b.acked() == 0 && l.st.Exclusive() {
			beat.TTL = -time.Second // what else is in there is of processes that are gone
		}
		b.plan.cells.seq.Store(b.seq)
		plan := l.plan.Load()
		for _, p := range pots {
			a := asks{keep: keep(plan), horizon: cfg.Horizon, most: p.leaseMost(), drain: b.closing || leave, lost: lost}
			if !a.drain {
				a.standby = l.standbyWanted(cfg, p, like)
			}
			r := p.report(now, a)
			if p.name != "" {
				if r.PPM = ppm(cfg.Shares[p.name]); r.PPM == 0 {
					r.PPM = million
				}
			}
			if l.listening {
				r.Want, r.Need = store.Counts{}, store.Counts{}
			}
			beat.Pots = append(beat.Pots, r)
		}
		pulse, err := l.st.Beat(ctx, beat)
		if err == nil {
			l.apply(now, b, pots, pulse, leave)
			if err := l.sayExhausted(ctx, b); err != nil {
				return err
			}
			return l.sayBrake(ctx, b)
		}
		if join {
			l.setJoin()
		}
		if errors.Is(err, store.ErrLost) && attempt < 2 {
			var herr error
			if herr = l.heal(ctx, now, b, pots, beat, err); herr == nil {
				continue
			}
			err = herr
		}
		l.down(now, err)
		return err
	}
}

func (l *Ledger) takeJoin() bool {
	l.fmu.Lock()
	defer l.fmu.Unlock()
	j := l.join
	l.join = false
	return j
}

func (l *Ledger) setJoin() {
	l.fmu.Lock()
	l.join = true
	l.fmu.Unlock()
}

// heal gives a store that lost data all that this replica knows of the book's day.
func (l *Ledger) heal(ctx context.Context, now time.Time, b *book, pots []*pot, beat *store.Beat, why error) error {
	v := *l.view.Load()
	known := make([]store.Knowledge, len(pots))
	for i, p := range pots {
		known[i] = store.Knowledge{Report: p.sent, Granted: p.granted, Last: p.heard}
	}
	epoch, err := l.st.Heal(ctx, beat, v.state, known)
	if err != nil {
		return fmt.Errorf("healing the store: %w", err)
	}
	l.log.Error("the store lost data; this replica told it what it knows. No new lease until every replica has done so. "+
		"Look at the store's persistence: Redis needs appendonly yes to keep counts over a crash",
		"why", why.Error(), "day", b.day.String(), "old_epoch", b.epoch, "epoch", epoch,
		"taken", b.plan.heard.Taken, "spent", b.plan.heard.Spent)
	b.epoch = epoch
	v.faults++
	l.view.Store(&v)
	return nil
}

func (l *Ledger) apply(now time.Time, b *book, pots []*pot, pulse *store.Pulse, left bool) {
	cfg := l.cfg.Load()
	b.epoch = pulse.Epoch
	l.fresh = l.fresh || pulse.Fresh
	l.remember(b, pots, pulse, left)
	l.plan.Store(pulse.State.Plan)
	again := false
	for i, p := range pots {
		borrowed := p.emergency.Swap(0)
		p.heard.Limit = pulse.Pots[i].Limit
		limits := l.limits(cfg, p)
		p.apply(now, cfg.Every, b.seq, pulse.Pots[i], limits)
		p.allow(limits, pulse.Pots[i].Taken, pulse.Replicas)
		again = again || (p.heard.Hungry && p.unspent() > 0)
		if borrowed > 0 {
			l.log.Warn("sent beyond the lease while the store was out of reach; now settled", "messages", borrowed, "share", p.name)
		}
	}
	if l.cur.Load() != b {
		return
	}
	old := l.view.Load()
	v := &view{
		at: now, up: true, since: old.since, epoch: pulse.Epoch, faults: old.faults, withheld: pulse.Withheld,
		replicas: pulse.Replicas, state: pulse.State,
		taken: pulse.Pots[0].Taken, spent: pulse.Pots[0].Spent, adjust: pulse.Pots[0].Adjust, sentSpent: b.plan.sent.Spent,
	}
	if !old.up {
		v.since = now
		if old.err != "" {
			l.log.Info("the store is back", "down_for", now.Sub(old.since).String())
		}
	}
	v.exhausted = exhaustedBy(&pulse.State)
	l.view.Store(v)
	l.forecaster.Observe(now, v.spent-pulse.Pots[0].Adjust)
	if l.owed == nil {
		l.setBrake(pulse.State.Brake)
	}
	l.setBurn(pulse.State.Burn)
	l.setGate(gateLost, false)
	l.spent.Store(false)
	l.setGate(gateExhausted, l.pending.Load() != nil || v.exhausted != nil && v.exhausted.day >= b.day)
	if again {
		l.kick()
	}
}

func exhaustedBy(st *store.State) *mark {
	if st.ExhaustedDay == "" {
		return nil
	}
	day, _ := strconv.ParseInt(st.ExhaustedDay, 10, 32)
	ms, _ := strconv.ParseInt(st.ExhaustedAt, 10, 64)
	return &mark{Day(day), time.UnixMilli(ms).UTC(), st.ExhaustedWhy}
}

// setBrake takes over the brakes as stored.
func (l *Ledger) setBrake(text string) {
	if text == l.brakeJSON {
		return
	}
	b, aims, err := parseBrake(text)
	if err != nil {
		l.log.Error("the store holds a brake that cannot be read; it is ignored", "brake", text, "err", err)
	}
	l.brakeJSON = text
	l.brake.Store(b)
	l.aims.Store(aims)
}

// down records that the store is out of reach.
func (l *Ledger) down(now time.Time, err error) {
	v := *l.view.Load()
	if v.up || v.err == "" {
		v.since = now
		for _, b := range l.books {
			b.plan.ration(l.cfg.Load().Floors)
		}
		l.log.Error("the store is out of reach", "err", err, "policy", l.cfg.Load().OnStoreLoss.String())
	}
	v.up, v.err = false, err.Error()
	l.view.Store(&v)
	l.setGate(gateLost, true)
}

// sayExhausted tells the store what Pusher said while it could not be told.
func (l *Ledger) sayExhausted(ctx context.Context, b *book) error {
	m := l.pending.Load()
	if m == nil || m.day != b.day {
		return nil
	}
	at := store.At{Account: l.cfg.Load().Account, Epoch: b.epoch, Day: int32(m.day)}
	audit := &store.AuditEntry{At: m.at, Who: "pusher", What: "account exhausted", Why: m.why}
	if err := l.st.SetExhausted(ctx, at, m.at, m.why, audit); err != nil {
		return err
	}
	v := *l.view.Load()
	v.exhausted = m
	l.view.Store(&v)
	l.pending.CompareAndSwap(m, nil)
	return l.bookShortfall(ctx, at, m)
}

// leave reports and closes every book.
func (l *Ledger) leave(ctx context.Context) error {
	return l.exclusive(ctx, func(ctx context.Context) error {
		var errs []error
		for day, b := range l.books {
			if err := l.exchange(ctx, l.view.Load().at, b, true); err != nil {
				errs = append(errs, fmt.Errorf("handing back the lease of %s: %w", day, err))
				continue
			}
			b.page.remove()
		}
		if l.record != nil {
			errs = append(errs, l.record.Close())
			l.record = nil
		}
		return errors.Join(errs...)
	})
}
