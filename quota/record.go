package quota

import (
	"context"
	"errors"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// A replica's own record: which leases it took, written to disk before a token of them is spent. Redis forgets its
// newest writes when it is killed, or all of them by its default settings; if the replicas die with it, these records
// are what the count is healed from. With the cells (cells.go) beside it the next process of this replica goes on where a
// killed one ended: it takes over the entry in the store and spends the rest of the tokens.
type record struct {
	Format  int
	Account string
	ID      string
	Epoch   string
	Day     Day
	Seq     int64
	State   store.State
	Pots    []store.Knowledge
	More    []*record `json:",omitempty"` // of the other days; a release before this one reads the first alone
	Closed  bool      `json:",omitempty"` // handed back
}

const recordFormat = 1

// legacy is a record whose process is dead and whose tokens count as spent: the store is told so.
type legacy struct {
	record *record
	page   *page // not nil: what was left is known, and handed back
	on     *store.Record
}

// openRecords opens this replica's record. What a process before this one held it goes on to hold, where its cells can be
// trusted. Of others of the same name that are dead the store is told when it answers.
func (l *Ledger) openRecords(now time.Time) {
	cfg := l.cfg.Load()
	if cfg.RecordDir == "" || l.st.Exclusive() {
		return // the embedded store's journal remembers as much
	}
	mine, others, err := store.OpenRecord(cfg.RecordDir, cfg.Account+"@"+l.replica)
	if err != nil {
		l.log.Warn("no durable record of the leases: after a crash together with the store, what was sent may be counted too low",
			"dir", cfg.RecordDir, "err", err)
		return
	}
	l.record = mine
	for _, on := range append([]*store.Record{mine}, others...) {
		pages := on.Pages()
		for _, r := range l.readRecord(on.Left, now) {
			p := readPage(pages[pageName(r.Day)], r.ID)
			if p != nil {
				delete(pages, pageName(r.Day))
			}
			switch {
			case r.Closed:
				p.remove()
			case p != nil && on == mine && l.books[r.Day] == nil:
				l.adopt(r, p)
			default:
				l.dead = append(l.dead, &legacy{r, p, on})
			}
		}
		for _, p := range pages {
			p.Remove() // of a day that is over, or of another run of the machine
		}
	}
	for _, on := range others {
		wanted := false
		for _, d := range l.dead {
			wanted = wanted || d.on == on
		}
		if !wanted {
			on.Close()
		}
	}
}

// readRecord is what a record says of the days that still matter.
func (l *Ledger) readRecord(data []byte, now time.Time) (all []*record) {
	var r record
	if data == nil || store.Unpack(data, &r) != nil || r.Format != recordFormat || r.Account != l.cfg.Load().Account {
		return nil
	}
	more := r.More
	r.More = nil
	for _, x := range append([]*record{&r}, more...) {
		if today := l.dayOf(now); x != nil && x.Day >= today-1 && x.Day <= today+1 {
			all = append(all, x)
		}
	}
	return all
}

// adopt goes on with the book of a process that was killed.
func (l *Ledger) adopt(r *record, p *page) {
	b := &book{day: r.Day, start: r.Day.Start().Unix(), end: r.Day.End().Unix(), id: r.ID, epoch: r.Epoch, page: p, shares: map[string]*pot{}, recorded: r}
	for _, k := range r.Pots {
		c := p.find(k.Report.Name)
		if c == nil {
			continue // its tokens count as spent
		}
		t := &pot{name: k.Report.Name, day: r.Day, cells: c, acked: k.Report.Acked, sent: k.Report, heard: k.Last}
		for i := range t.granted {
			t.granted[i], t.returned[i] = c.granted[i].Load(), c.returned[i].Load()
			t.arming[0][i] = c.arming[i].Load()
		}
		t.spent.Store(c.used())
		t.saved = k.Report.Over
		t.lent.Store(k.Last.Idle)
		t.usedBase.Store(k.Last.Spent - k.Report.Spent)
		t.acked = max(t.acked, c.acked.Load())
		if t.name == "" {
			b.plan, b.seq, b.lived = t, max(r.Seq, c.seq.Load()), c.used()
		} else {
			b.shares[t.name] = t
		}
	}
	if b.plan == nil {
		return
	}
	for _, t := range b.shares {
		t.acked = b.plan.acked // one report has all of them
	}
	l.books[r.Day] = b
	if l.adopted == nil || r.Day > l.adopted.Day {
		l.adopted = r
	}
	l.log.Info("going on with what the process before this one left", "id", r.ID, "day", r.Day.String(), "sent", b.plan.spent.Load(),
		"lease", b.plan.holds(Critical), "standby", b.plan.standbyFor(Critical)+b.plan.cells.armingSum())
}

// goOn makes the adopted books the ones to spend from while the store does not answer.
func (l *Ledger) goOn(now time.Time) {
	r := l.adopted
	if r == nil {
		return
	}
	l.plan.Store(r.State.Plan)
	for _, b := range l.books {
		for _, p := range append(mapValues(b.shares), b.plan) {
			limits := l.limits(l.cfg.Load(), p)
			for c := range limits {
				p.room[c].Store(limits[c] - p.heard.Taken)
			}
		}
	}
	v := *l.view.Load()
	v.state, v.epoch, v.replicas = r.State, r.Epoch, 1+len(r.Pots[0].Last.Others)
	v.taken, v.spent, v.adjust, v.sentSpent = r.Pots[0].Last.Taken, r.Pots[0].Last.Spent, r.Pots[0].Last.Adjust, r.Pots[0].Report.Spent
	v.exhausted = exhaustedBy(&r.State)
	l.view.Store(&v)
	l.setBrake(r.State.Brake)
	l.setBurn(r.State.Burn)
	l.setGate(gateExhausted, v.exhausted != nil && v.exhausted.day >= l.dayOf(now))
	l.openBook(now)
	l.opened.Store(true)
	if b := l.books[l.dayOf(now)+1]; b != nil {
		l.showNext(b)
	}
}

func mapValues(m map[string]*pot) (all []*pot) {
	for _, p := range m {
		all = append(all, p)
	}
	return all
}

// tellOfTheDead tells the store what dead processes of this name took. It belongs to the flight.
func (l *Ledger) tellOfTheDead(ctx context.Context, now time.Time) {
	for len(l.dead) > 0 {
		d := l.dead[0]
		if err := l.bury(ctx, now, d); err != nil {
			l.log.Warn("could not tell the store what a process before this one took", "id", d.record.ID, "err", err)
			if !errors.Is(err, store.ErrLost) {
				return // later
			}
		}
		l.dead = l.dead[1:]
		d.page.remove()
		last := d.on != l.record
		for _, other := range l.dead {
			last = last && other.on != d.on
		}
		if last {
			d.on.Close()
		}
	}
}

func (l *Ledger) bury(ctx context.Context, now time.Time, d *legacy) error {
	r := d.record
	b := &store.Beat{
		Account: r.Account, ID: r.ID, Day: int32(r.Day), Now: now, Seq: r.Seq + 1, Epoch: r.Epoch, Bury: true,
		TTL: l.cfg.Load().DeadIn, Plan: r.State.Plan, PlanName: r.State.PlanName,
	}
	pots := r.Pots
	if d.page != nil { // hand back what was left
		pots = nil
		for _, k := range r.Pots {
			if c := d.page.find(k.Report.Name); c != nil {
				k.Granted, k.Report.Ret = store.Counts{}, 0
				for i := range k.Granted {
					k.Granted[i] = c.granted[i].Load()
					k.Report.Ret += c.returned[i].Load()
				}
				k.Report.Spent, k.Report.Over, k.Report.Idle = c.used(), c.over.Load(), 0
				k.Report.Ret += c.unspent()
				b.Bury, b.Leave, b.Seq = false, true, max(r.Seq, c.seq.Load(), b.Seq-1)+1
			}
			pots = append(pots, k)
		}
	}
	for _, k := range pots {
		b.Pots = append(b.Pots, k.Report)
	}
	_, err := l.st.Beat(ctx, b)
	if !errors.Is(err, store.ErrLost) {
		return err
	}
	epoch, err := l.st.Heal(ctx, b, r.State, pots)
	if err != nil {
		return err
	}
	l.log.Error("the store lost data; it was told from this replica's record on disk what the process before took",
		"id", r.ID, "day", r.Day.String(), "epoch", epoch)
	b.Epoch = epoch
	_, err = l.st.Beat(ctx, b)
	return err
}

// remember puts the leases that the store just granted on disk, before they are spent, and the last report of a book that
// was closed, or the next process would take what was handed back for spent if the store forgot it.
func (l *Ledger) remember(b *book, pots []*pot, pulse *store.Pulse, left bool) {
	if l.record == nil {
		return
	}
	r := record{Format: recordFormat, Account: l.cfg.Load().Account, ID: b.id, Epoch: pulse.Epoch, Day: b.day, Seq: b.seq, State: pulse.State, Closed: left}
	fresh := left || b.recorded == nil
	for i, p := range pots {
		k := store.Knowledge{Report: p.sent, Granted: pulse.Pots[i].Granted, Last: p.complete(pulse.Pots[i])}
		k.Report.Acked = b.seq
		fresh = fresh || k.Granted != p.granted || p.sent.Over != p.saved || p.acked == 0
		r.Pots = append(r.Pots, k)
	}
	if !fresh {
		return
	}
	b.recorded = &r
	all := r
	for _, other := range l.books {
		if other != b && other.recorded != nil {
			all.More = append(all.More, other.recorded)
		}
	}
	data, err := store.Pack(all)
	if err == nil {
		err = l.record.Save(data)
	}
	if err != nil {
		if !l.recordFailed {
			l.log.Warn("the durable record of the leases cannot be written", "err", err)
		}
		l.recordFailed = true
		return
	}
	l.recordFailed = false
	for _, p := range pots {
		p.saved = p.sent.Over
	}
}
