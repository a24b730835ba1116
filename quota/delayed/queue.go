// Package delayed keeps publishes that were answered and wait to be sent.
package delayed

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

// Queue keeps publishes that were answered and wait to be sent, in the store, for all replicas of one account: the
// newest of an id replaces the one before, and one replica at a time may send it. Safe for concurrent use.
//
// Puts that come at the same moment share one round trip, and with the embedded store one fsync.
type Queue struct {
	st      *store.Store
	account string
	place   Place
	mine    string      // what the tokens of this process begin with
	heir    atomic.Bool // claims of the process before were taken over
	clean   atomic.Bool // nothing of them is left
	most    int
	puts    chan put
	due     atomic.Int64 // Unix ns: the newest due time of what this replica put
	count   atomic.Pointer[store.HeldCount]
}

// Most is how many publishes an account can hold at once; beyond that they are not held.
const Most = 100_000

// ErrFull says that an account holds as many publishes as it may.
var ErrFull = errors.New("the account holds as many publishes as it may")

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

// A Place is where a process stands that sends from a queue: what one before it at the same place claimed, and did not
// send because it was killed, is claimed again at once and not when the claim ends.
type Place struct {
	Name string // only one process at a time has it; "" with Known: there is one process in all
	// Known is false where nobody says which processes are dead.
	Known bool
}

// New is the account's queue on st. Run must run for Put to return.
func New(st *store.Store, account string, place Place) *Queue {
	return &Queue{st: st, account: account, place: place, mine: place.Name + rand.Text()[:10] + ".", most: Most, puts: make(chan put, 1024)}
}

// Account is whose queue it is.
func (q *Queue) Account() string { return q.account }

// maxPuts bounds one round trip.
const maxPuts = 256

// Run carries puts to the store until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	for {
		var batch []put
		select {
		case <-ctx.Done():
			return
		case p := <-q.puts:
			batch = append(batch, p)
		}
		for more := true; more && len(batch) < maxPuts; {
			select {
			case p := <-q.puts:
				batch = append(batch, p)
			default:
				more = false
			}
		}
		q.carry(ctx, batch)
	}
}

func (q *Queue) carry(ctx context.Context, batch []put) {
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
		as, due, err := q.st.PaceHeld(ctx, q.account, now, q.most, every, itemsOf(paces))
		for i, p := range paces {
			d := putDone{err: err}
			if err == nil {
				d.replaced, d.due = as[i] == store.Replaced, due[i]
				if as[i] == store.NoRoom {
					d.err = ErrFull
				}
			}
			p.done <- d
		}
	}
	if len(holds) > 0 {
		as, err := q.st.Hold(ctx, q.account, q.most, itemsOf(holds))
		for i, p := range holds {
			d := putDone{err: err}
			if err == nil {
				d.replaced = as[i] == store.Replaced
				if as[i] == store.NoRoom {
					d.err = ErrFull
				}
			}
			p.done <- d
		}
	}
	if len(swaps) > 0 {
		swapped, err := q.st.SwapHeld(ctx, q.account, itemsOf(swaps))
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
func (q *Queue) Put(ctx context.Context, id string, due time.Time, body []byte) (replaced bool, err error) {
	d, err := q.carried(ctx, put{item: store.Held{ID: id, Due: due, Body: body}, done: make(chan putDone, 1)})
	return d.replaced, err
}

// Pace holds body under id so that over all replicas at most one of that id goes out in every, and returns when it will:
// now, or when that much has passed since the last one was claimed. It returns when body survives this process.
func (q *Queue) Pace(ctx context.Context, now time.Time, id string, every time.Duration, body []byte) (due time.Time, err error) {
	d, err := q.carried(ctx, put{item: store.Held{ID: id, Body: body}, pace: every, now: now, done: make(chan putDone, 1)})
	q.expect(d.due)
	return d.due, err
}

// Due is when the last of what this replica put is due; what others put they send themselves, unless they died.
func (q *Queue) Due() time.Time { return time.Unix(0, q.due.Load()) }

func (q *Queue) expect(due time.Time) {
	for at := due.UnixNano(); !due.IsZero(); {
		if known := q.due.Load(); at <= known || q.due.CompareAndSwap(known, at) {
			return
		}
	}
}

// MayHoldOlder reports whether the queue may hold publishes that this process did not put there: of other replicas, or
// of a process before it.
func (q *Queue) MayHoldOlder() bool { return !q.st.Exclusive() || !q.clean.Load() && q.st.Durable() }

// Swap puts body in the place of one that waits under id, or behind one that is being sent, whichever replica held it, and
// reports whether there was one: then body goes out after it. After an error it may have happened all the same.
func (q *Queue) Swap(ctx context.Context, now time.Time, id string, body []byte) (swapped bool, err error) {
	d, err := q.carried(ctx, put{item: store.Held{ID: id, Due: now, Body: body}, swap: true, done: make(chan putDone, 1)})
	return d.replaced, err
}

func (q *Queue) carried(ctx context.Context, p put) (putDone, error) {
	q.expect(p.item.Due)
	select {
	case q.puts <- p:
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
func (q *Queue) Claim(ctx context.Context, now, until time.Time, limit int) ([]store.Claimed, error) {
	if q.place.Known && !q.heir.Load() && q.st.Durable() {
		if _, err := q.st.InheritHeld(ctx, q.account, q.place.Name, q.mine); err != nil {
			return nil, err
		}
		q.heir.Store(true)
	}
	claimed, count, err := q.st.ClaimHeld(ctx, q.account, q.mine, now, until, limit)
	if err == nil {
		q.count.Store(&count)
		if count.Waiting+count.Sending == 0 {
			q.clean.Store(true)
		}
	}
	return claimed, err
}

// Held is how many the account held on all replicas when this one last claimed, which is once a second at least while
// the store answers.
func (q *Queue) Held() store.HeldCount {
	if c := q.count.Load(); c != nil {
		return *c
	}
	return store.HeldCount{}
}

// Flush ends all windows at now: what is held goes out as soon as a replica claims it. Refresh events keep their
// interval. It returns how many that were.
func (q *Queue) Flush(ctx context.Context, now time.Time) (int64, error) {
	n, err := q.st.HastenHeld(ctx, q.account, now)
	q.expect(now)
	return n, err
}

// Settle forgets what was claimed.
func (q *Queue) Settle(ctx context.Context, tokens ...string) error {
	return q.st.SettleHeld(ctx, q.account, tokens)
}

// Return gives claimed publishes back, to be claimed again from due on.
func (q *Queue) Return(ctx context.Context, due time.Time, tokens ...string) error {
	return q.st.ReturnHeld(ctx, q.account, due, tokens)
}

// Count counts what waits and what is claimed.
func (q *Queue) Count(ctx context.Context) (waiting, claimed int64, err error) {
	return q.st.CountHeld(ctx, q.account)
}
