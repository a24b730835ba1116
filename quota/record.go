package quota

import (
	"context"
	"errors"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// A replica's own record: which leases it took, written to disk before a token of them is spent. Redis forgets its
// newest writes when it is killed, or all of them by its default settings; if the replicas die with it, these records
// are what the count is healed from.
type record struct {
	Format  int
	Account string
	ID      string
	Epoch   string
	Day     Day
	Seq     int64
	State   store.State
	Pots    []store.Knowledge
}

const recordFormat = 1

// openRecords opens this replica's record and lets the dead of the same name speak a last time: the store learns
// what they took, if it forgot, and closes their entries. What they did not report as spent counts as spent.
func (l *Ledger) openRecords(ctx context.Context, now time.Time) {
	cfg := l.cfg.Load()
	if cfg.RecordDir == "" || l.st.Exclusive() {
		return // the embedded store's journal remembers as much
	}
	mine, left, err := store.OpenRecord(cfg.RecordDir, cfg.Account+"@"+l.replica)
	if err != nil {
		l.log.Warn("no durable record of the leases: after a crash together with the store, what was sent may be counted too low",
			"dir", cfg.RecordDir, "err", err)
		return
	}
	l.record = mine
	for _, data := range left {
		var r record
		if err := store.Unpack(data, &r); err != nil || r.Format != recordFormat || r.Account != cfg.Account {
			continue
		}
		if today := DayOf(now); r.Day < today-1 || r.Day > today+1 {
			continue
		}
		if err := l.bury(ctx, now, &r); err != nil {
			l.log.Warn("could not tell the store what the process before this one took", "id", r.ID, "err", err)
		}
	}
}

func (l *Ledger) bury(ctx context.Context, now time.Time, r *record) error {
	b := &store.Beat{
		Account: r.Account, ID: r.ID, Day: int32(r.Day), Now: now, Seq: r.Seq + 1, Epoch: r.Epoch, Bury: true,
		TTL: l.cfg.Load().DeadIn, Plan: r.State.Plan, PlanName: r.State.PlanName,
	}
	for _, k := range r.Pots {
		b.Pots = append(b.Pots, k.Report)
	}
	_, err := l.st.Beat(ctx, b)
	if !errors.Is(err, store.ErrLost) {
		return err
	}
	epoch, err := l.st.Heal(ctx, b, r.State, r.Pots)
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
	r := record{Format: recordFormat, Account: l.cfg.Load().Account, ID: b.id, Epoch: pulse.Epoch, Day: b.day, Seq: b.seq, State: pulse.State}
	fresh := left
	for i, p := range pots {
		k := store.Knowledge{Report: p.sent, Granted: pulse.Pots[i].Granted, Last: p.complete(pulse.Pots[i])}
		k.Report.Acked = b.seq
		fresh = fresh || k.Granted != p.granted || p.sent.Over != p.saved || p.acked == 0
		r.Pots = append(r.Pots, k)
	}
	if !fresh {
		return
	}
	data, err := store.Pack(r)
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
