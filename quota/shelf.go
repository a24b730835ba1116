package quota

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Shelf keeps publishes that were answered and wait to be sent, in the store, for all replicas of one account: the
// newest of an id replaces the one before, and one replica at a time may send it. Safe for concurrent use.
//
// Puts that come at the same moment share one round trip, and with the embedded store one fsync.
type Shelf struct {
	st      *store.Store
	account string
	most    int
	puts    chan put
	due     atomic.Int64 // Unix ns: the newest due time of what this replica put
	count   atomic.Pointer[store.HeldCount]
}

// ShelfMost is how many publishes an account can hold at once; beyond that they are not held.
const ShelfMost = 100_000

// ErrShelfFull says that an account holds as many publishes as it may.
var ErrShelfFull = errors.New("the account holds as many publishes as it may")

type put struct {
	item store.Held
	swap bool          // only in the place of one that waits
	pace time.Duration // not 0: once in that time
	now  time.Time     // of what is paced
	done chan putDone
}

type putDone struct {
	replaced bool
	due      time.Time // of what is paced
	err      error
}

// Shelf is the account's shelf. Run must run for Put to return.
func (l *Ledger) Shelf() *Shelf {
	return &Shelf{st: l.st, account: l.cfg.Load().Account, most: ShelfMost, puts: make(chan put, 1024)}
}

// maxPuts bounds one round trip.
const maxPuts = 256

// Run carries puts to the store until ctx ends.
func (s *Shelf) Run(ctx context.Context) {
	for {
		var batch []put
		select {
		case <-ctx.Done():
			return
		case p := <-s.puts:
			batch = append(batch, p)
		}
		for more := true; more && len(batch) < maxPuts; {
			select {
			case p := <-s.puts:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		s.carry(ctx, batch)
	}
}

func (s *Shelf) carry(ctx context.Context, batch []put) {
	ctx = context.WithoutCancel(ctx)
	var holds, swaps, paces []put
	for _, p := range batch {
		switch {
		case p.swap:
			swaps = append(swaps, p)
		case p.pace > 0:
			paces = append(paces, p)
		default:
			holds = append(holds, p)
		}
	}
	if len(paces) > 0 {
		every := make([]time.Duration, len(paces))
		now := paces[0].now
		for i, p := range paces {
			every[i] = p.pace
			if p.now.After(now) {
				now = p.now
			}
		}
		as, due, err := s.st.PaceHeld(ctx, s.account, now, s.most, every, itemsOf(paces))
		for i, p := range paces {
			d := putDone{err: err}
			if err == nil {
				d.replaced, d.due = as[i] == store.Replaced, due[i]
				if as[i] == store.NoRoom {
					d.err = ErrShelfFull
				}
			}
			p.done <- d
		}
	}
	if len(holds) > 0 {
		as, err := s.st.Hold(ctx, s.account, s.most, itemsOf(holds))
		for i, p := range holds {
			d := putDone{err: err}
			if err == nil {
				d.replaced = as[i] == store.Replaced
				if as[i] == store.NoRoom {
					d.err = ErrShelfFull
				}
			}
			p.done <- d
		}
	}
	if len(swaps) > 0 {
		swapped, err := s.st.SwapHeld(ctx, s.account, itemsOf(swaps))
		for i, p := range swaps {
			p.done <- putDone{replaced: err == nil && swapped[i], err: err}
		}
	}
}

func itemsOf(puts []put) []store.Held {
	items := make([]store.Held, len(puts))
	for i, p := range puts {
		items[i] = p.item
	}
	return items
}

// Put holds body under id until due, and returns when it survives this process. It reports whether it replaced an
// older one, which then is never sent. After an error nothing was promised; it may be held all the same.
func (s *Shelf) Put(ctx context.Context, id string, due time.Time, body []byte) (replaced bool, err error) {
	d, err := s.carried(ctx, put{item: store.Held{ID: id, Due: due, Body: body}, done: make(chan putDone, 1)})
	return d.replaced, err
}

// Pace holds body under id so that over all replicas at most one of that id goes out in every, and returns when it will:
// now, or when that much has passed since the last one was claimed. It returns when body survives this process.
func (s *Shelf) Pace(ctx context.Context, now time.Time, id string, every time.Duration, body []byte) (due time.Time, err error) {
	d, err := s.carried(ctx, put{item: store.Held{ID: id, Body: body}, pace: every, now: now, done: make(chan putDone, 1)})
	s.expect(d.due)
	return d.due, err
}

// Due is when the last of what this replica put is due; what others put they send themselves, unless they died.
func (s *Shelf) Due() time.Time { return time.Unix(0, s.due.Load()) }

func (s *Shelf) expect(due time.Time) {
	for at := due.UnixNano(); !due.IsZero(); {
		if known := s.due.Load(); at <= known || s.due.CompareAndSwap(known, at) {
			return
		}
	}
}

// Shared reports whether other replicas can hold publishes on this shelf.
func (s *Shelf) Shared() bool { return !s.st.Exclusive() }

// Swap puts body in the place of one that waits under id, whichever replica held it, and reports whether there was
// one. After an error it may have happened all the same.
func (s *Shelf) Swap(ctx context.Context, id string, body []byte) (swapped bool, err error) {
	d, err := s.carried(ctx, put{item: store.Held{ID: id, Body: body}, swap: true, done: make(chan putDone, 1)})
	return d.replaced, err
}

func (s *Shelf) carried(ctx context.Context, p put) (putDone, error) {
	s.expect(p.item.Due)
	select {
	case s.puts <- p:
	case <-ctx.Done():
		return putDone{}, ctx.Err()
	}
	select {
	case d := <-p.done:
		return d, d.err
	case <-ctx.Done():
		return putDone{}, ctx.Err()
	}
}

// Claim takes up to limit publishes that are due at now, for this caller alone until until.
func (s *Shelf) Claim(ctx context.Context, now, until time.Time, limit int) ([]store.Claimed, error) {
	claimed, count, err := s.st.ClaimHeld(ctx, s.account, now, until, limit)
	if err == nil {
		s.count.Store(&count)
	}
	return claimed, err
}

// Held is how many the account held on all replicas when this one last claimed, which is once a second at least while
// the store answers.
func (s *Shelf) Held() store.HeldCount {
	if c := s.count.Load(); c != nil {
		return *c
	}
	return store.HeldCount{}
}

// Hasten ends all windows at now: what is held goes out as soon as a replica claims it. Refresh events keep their
// interval. It returns how many that were.
func (s *Shelf) Hasten(ctx context.Context, now time.Time) (int64, error) {
	n, err := s.st.HastenHeld(ctx, s.account, now)
	s.expect(now)
	return n, err
}

// Settle forgets what was claimed.
func (s *Shelf) Settle(ctx context.Context, tokens ...string) error {
	return s.st.SettleHeld(ctx, s.account, tokens)
}

// Return gives claimed publishes back, to be claimed again from due on.
func (s *Shelf) Return(ctx context.Context, due time.Time, tokens ...string) error {
	return s.st.ReturnHeld(ctx, s.account, due, tokens)
}

// Count counts what waits and what is claimed.
func (s *Shelf) Count(ctx context.Context) (waiting, claimed int64, err error) {
	return s.st.CountHeld(ctx, s.account)
}
