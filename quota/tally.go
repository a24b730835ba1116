package quota

import (
	"context"
	"sync"
	"time"
)

// Kind is what messages of the day were for, or why they count as many as they do. The kinds explain the count; the
// count itself is the ledger's.
type Kind uint8

// The kinds. Their numbers are stored: new ones come at the end.
const (
	SpentBulk         Kind = iota // by publishes of that priority
	SpentNormal                   //
	SpentCritical                 //
	Guessed                       // of publishes to channels whose number of subscribers is a default
	GuessedDeliveries             // the part of Guessed that the default stands for
	Browser                       // beside publishes: webhook calls, presence, subscription counts, client events
	Unseen                        // booked for traffic that never passes here, by its learned profile
	ByPusher                      // booked because Pusher said that the plan is spent
	Questions                     // asked by the guard itself
	kinds
)

// SpentBy is the kind of a publish's priority.
func SpentBy(p Priority) Kind { return SpentBulk + Kind(min(p, Critical)) }

// Tally is one number a kind.
type Tally [kinds]int64

// Of is the count of a kind.
func (t Tally) Of(k Kind) int64 { return t[k] }

// Spent is what publishes of all priorities cost.
func (t Tally) Spent() int64 { return t[SpentBulk] + t[SpentNormal] + t[SpentCritical] }

// minus is what was added since before; a count that began anew counts whole.
func (t Tally) minus(before Tally) (d Tally) {
	for k := range t {
		if d[k] = t[k] - before[k]; d[k] < 0 {
			d[k] = t[k]
		}
	}
	return d
}

const (
	tallyEvery  = 5 * time.Second
	tallyWindow = 10 * time.Minute
)

// tally counts by kind. Count is for the hot path; the rest is the flight's, but for what mu guards.
type tally struct {
	here [kinds]counter // since the start of the process
	told Tally          // the part of here that the store was told
	next time.Time

	mu    sync.Mutex
	day   Day
	all   Tally // of day, of all replicas, when last told
	base  Tally // told at that moment
	past  [11]tallyPoint
	total Tally // as all, over midnights
}

// tallyPoint is the total at the beginning of a minute.
type tallyPoint struct {
	minute int64
	total  Tally
}

// Count adds n messages of a kind to the day's tally. For the hot path: one atomic.
func (l *Ledger) Count(k Kind, n int64) {
	if n != 0 && k < kinds {
		l.tally.here[k].Add(n)
	}
}

// Tally is what the day's messages of all replicas were for; this replica's to the message, the others' some seconds
// old.
func (l *Ledger) Tally(now time.Time) Tally {
	t := &l.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	var out Tally
	if t.day == DayOf(now) {
		out = t.all
	}
	for k := range out {
		out[k] += t.here[k].Load() - t.base[k]
	}
	return out
}

// LatelyTallied is the same for the last ten minutes, or as long as this replica has watched.
func (l *Ledger) LatelyTallied(now time.Time) Tally {
	t := &l.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.total
	for k := range out {
		out[k] += t.here[k].Load() - t.base[k]
	}
	oldest, from := int64(0), Tally{}
	for _, p := range t.past {
		if p.minute > 0 && p.minute*60 >= now.Add(-tallyWindow).Unix()-60 && (oldest == 0 || p.minute < oldest) {
			oldest, from = p.minute, p.total
		}
	}
	return out.minus(from)
}

// GuessedRatio is the part of the messages that were priced by a default, today and in the last ten minutes: 0 when
// nothing was sent.
func (l *Ledger) GuessedRatio(now time.Time) (today, lately float64) {
	return l.Tally(now).guessed(), l.LatelyTallied(now).guessed()
}

func (t Tally) guessed() float64 {
	all := t.Spent() + t[Browser] + t[Unseen]
	if all <= 0 {
		return 0
	}
	return min(float64(t[Guessed])/float64(all), 1)
}

// tell exchanges the counts with the other replicas, every few seconds. It belongs to the flight.
func (t *tally) tell(ctx context.Context, l *Ledger, now time.Time) {
	if now.Before(t.next) && now.Add(2*tallyEvery).After(t.next) {
		return
	}
	t.next = now.Add(tallyEvery)
	var here, add Tally
	for k := range here {
		here[k] = t.here[k].Load()
		add[k] = here[k] - t.told[k]
	}
	day := DayOf(now)
	all, err := l.st.AddTally(ctx, l.cfg.Load().Account, int32(day), add[:])
	if err != nil {
		return // told the next time
	}
	t.told = here
	l.bookUnseen(now)
	l.noteCount(ctx, now)
	var sum Tally
	copy(sum[:], all)
	l.protected.observe(now, sum)
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.all
	if t.day != day {
		before = Tally{}
	}
	for k, n := range sum.minus(before) {
		t.total[k] += n
	}
	t.day, t.all, t.base = day, sum, here
	m := now.Unix() / 60
	if p := &t.past[m%int64(len(t.past))]; p.minute != m {
		*p = tallyPoint{m, t.total}
	}
}
