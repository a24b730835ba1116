package quota

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/pushguard/pushguard/quota/store"
)

const (
	unseenBlob = "unseen"
	countsBlob = "counts"
	weekHours  = 7 * 24
)

// unseen is the traffic of the account that never passes here, as corrections showed it: messages an hour, by the hour of
// the week. From then on it is booked by itself, a part by each replica.
type unseen struct {
	mu        sync.Mutex
	Hours     [weekHours]float64
	Seen      [weekHours]float64 // hours of it that were corrected, up to a few weeks' worth
	corrected time.Time          // the last correction

	// These belong to the flight.
	booked time.Time
	part   float64 // of a message that is not booked yet
}

type unseenState struct {
	Hours [weekHours]float64 `json:"hours"`
	Seen  [weekHours]float64 `json:"seen"`
}

const unseenKept = 4 // weeks that an hour's mean is made of, about

func hourOfWeek(t time.Time) int { return int(t.Unix() / 3600 % weekHours) }

// perHour is what an hour of the week has: by itself, or as that hour of other days, or as the mean of what is known.
func (u *unseen) perHour(i int) float64 {
	if u.Seen[i] > 0 {
		return u.Hours[i]
	}
	sum, n := 0.0, 0.0
	for d := i % 24; d < weekHours; d += 24 {
		if u.Seen[d] > 0 {
			sum, n = sum+u.Hours[d], n+1
		}
	}
	if n > 0 {
		return sum / n
	}
	for d := range u.Hours {
		if u.Seen[d] > 0 {
			sum, n = sum+u.Hours[d], n+1
		}
	}
	if n > 0 {
		return sum / n
	}
	return 0
}

// learn takes messages that were missing from the count between two times, beyond what was booked there already; fewer
// than none were too many. u.mu is held.
func (u *unseen) learn(from, to time.Time, missing int64) {
	if !to.After(from) {
		return
	}
	// What a few minutes lacked says little of an hour.
	more := float64(missing) / max(to.Sub(from).Hours(), 1)
	var was [weekHours]float64
	for i := range was {
		was[i] = u.perHour(i)
	}
	for at := from; at.Before(to); {
		end := at.Truncate(time.Hour).Add(time.Hour)
		if end.After(to) {
			end = to
		}
		i, part := hourOfWeek(at), end.Sub(at).Hours()
		now := max(was[i]+more, 0)
		if u.Seen[i] == 0 {
			u.Hours[i] = now
		} else {
			u.Hours[i] += (now - u.Hours[i]) * part / min(u.Seen[i]+part, unseenKept)
		}
		u.Seen[i] = min(u.Seen[i]+part, unseenKept)
		at = end
	}
}

// learnUnseen takes a correction into the profile, and stores it.
func (l *Ledger) learnUnseen(ctx context.Context, from, to time.Time, missing int64) {
	u := &l.unseen
	if l.cfg.Load().NoUnseen {
		return
	}
	u.mu.Lock()
	if u.corrected.After(from) {
		from = u.corrected
	}
	u.learn(from, to, missing)
	u.corrected = to
	state := unseenState{u.Hours, u.Seen}
	u.mu.Unlock()
	text, err := store.Pack(state)
	if err == nil {
		err = l.st.PutBlob(ctx, l.cfg.Load().Account, unseenBlob, text)
	}
	if err != nil {
		l.log.Warn("the profile of unseen traffic could not be stored; a restart forgets the last correction", "err", err)
	}
}

// bookUnseen books this replica's part of what passes elsewhere at this hour. It belongs to the flight.
func (l *Ledger) bookUnseen(now time.Time) {
	u := &l.unseen
	since := now.Sub(u.booked)
	first := u.booked.IsZero()
	u.booked = now
	if first || since <= 0 || since > time.Hour {
		return
	}
	u.mu.Lock()
	// Never more than an even part of the plan: an hour's mistake must not use up the day.
	rate := min(u.perHour(hourOfWeek(now)), float64(l.plan.Load())/24)
	u.mu.Unlock()
	if l.cfg.Load().NoUnseen {
		return
	}
	u.part += rate * since.Hours() / float64(max(l.view.Load().replicas, 1))
	if n := int64(u.part); n > 0 {
		u.part -= float64(n)
		l.book(now, n)
		l.Count(Unseen, n)
	}
}

// UnseenPerHour is what is booked an hour at now for traffic that never passes here, on all replicas.
func (l *Ledger) UnseenPerHour(now time.Time) float64 {
	l.unseen.mu.Lock()
	defer l.unseen.mu.Unlock()
	return l.unseen.perHour(hourOfWeek(now))
}

// counts are what the account had used at the beginning of each minute of the day, for a person who read Pusher's count
// some time ago.
type counts struct {
	mu   sync.Mutex
	day  Day
	used [1440]int64 // and one, so that 0 is not known
	kept int
}

func (c *counts) note(now time.Time, used int64) (minute int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	day := DayOf(now)
	if day != c.day {
		c.day, c.used, c.kept = day, [1440]int64{}, -1
	}
	minute = int(now.Sub(day.Start()).Minutes())
	if c.used[minute] == 0 {
		c.used[minute] = used + 1
	}
	return minute
}

// at is what was used at a time of the day, the nearest known minute at most five away.
func (c *counts) at(t time.Time) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if DayOf(t) != c.day {
		return 0, false
	}
	m := int(t.Sub(c.day.Start()).Minutes())
	if m == 0 {
		return 0, true
	}
	for off := range 6 {
		for _, i := range [...]int{m - off, m + off} {
			if i >= 0 && i < len(c.used) && c.used[i] > 0 {
				return c.used[i] - 1, true
			}
		}
	}
	return 0, false
}

type countsState struct {
	Day  Day     `json:"day"`
	Used []int64 `json:"used"` // each fifth minute
}

const countsEvery = 5

// noteCount remembers the count, and stores it each few minutes, for a process that starts later. It belongs to the flight.
func (l *Ledger) noteCount(ctx context.Context, now time.Time) {
	used, _ := l.Used(now)
	minute := l.counts.note(now, used)
	if minute/countsEvery == l.counts.kept {
		return
	}
	l.counts.kept = minute / countsEvery
	s := countsState{Day: l.counts.day}
	l.counts.mu.Lock()
	for i := 0; i < len(l.counts.used); i += countsEvery {
		n := int64(0)
		for j := i; j < i+countsEvery && n == 0; j++ {
			n = l.counts.used[j]
		}
		s.Used = append(s.Used, n)
	}
	l.counts.mu.Unlock()
	if text, err := store.Pack(s); err == nil {
		_ = l.st.PutBlob(ctx, l.cfg.Load().Account, countsBlob, text) // the next one tells it again
	}
}

// SetUsageAt is SetUsage for a count that was read at an earlier time of the day: what was counted since is added.
func (l *Ledger) SetUsageAt(ctx context.Context, now time.Time, used int64, at time.Time, who, why string) error {
	since, err := l.CountedSince(now, at)
	if err != nil {
		return err
	}
	return l.SetUsage(ctx, now, used+since, who, why)
}

// ErrUnknownThen says that the count of that time is not known.
var ErrUnknownThen = errors.New("what was counted by then is not known")

// CountedSince is what was counted since an earlier time of now's day.
func (l *Ledger) CountedSince(now, at time.Time) (int64, error) {
	if at.After(now) || DayOf(at) != DayOf(now) {
		return 0, fmt.Errorf("%w: %s is not earlier today (UTC)", ErrUnknownThen, at.UTC().Format("2006-01-02 15:04"))
	}
	used, _ := l.Used(now)
	then, ok := l.counts.at(at)
	if !ok {
		return 0, fmt.Errorf("%w: no replica kept the count of %s UTC", ErrUnknownThen, at.UTC().Format("15:04"))
	}
	return max(used-then, 0), nil
}

// AddUsage adds messages that the guard has not seen to the day's count.
func (l *Ledger) AddUsage(ctx context.Context, now time.Time, more int64, who, why string) error {
	used, _ := l.Used(now)
	if more == 0 || used+more < 0 {
		return fmt.Errorf("usage add %s: %d are used today", strconv.FormatInt(more, 10), used)
	}
	return l.SetUsage(ctx, now, used+more, who, why)
}

// Hear asks the store what other replicas, or earlier processes, learned of the bill: unseen traffic, and Pusher's
// refusals. For a background task.
func (l *Ledger) Hear(ctx context.Context) error {
	account := l.cfg.Load().Account
	text, err := l.st.GetBlob(ctx, account, unseenBlob)
	if err == nil && text != nil {
		var s unseenState
		if err = store.Unpack(text, &s); err == nil {
			l.unseen.mu.Lock()
			l.unseen.Hours, l.unseen.Seen = s.Hours, s.Seen
			l.unseen.mu.Unlock()
		}
	}
	if l.counts.unknown() {
		var s countsState
		if text, e := l.st.GetBlob(ctx, account, countsBlob); e == nil && text != nil && store.Unpack(text, &s) == nil {
			l.counts.take(s)
		}
	}
	return errors.Join(err, l.HearShortfall(ctx))
}

func (c *counts) unknown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.day == 0
}

func (c *counts) take(s countsState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.day != 0 {
		return
	}
	c.day, c.kept = s.Day, -1
	for i, n := range s.Used {
		if m := i * countsEvery; m < len(c.used) && n > 0 {
			c.used[m] = n
		}
	}
}
