package rates

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// every is between exchanges while there is something to say.
	every = 500 * time.Millisecond
	// idle is between exchanges that only say that this replica lives.
	idle = time.Second
	// most is how many buckets one exchange carries; what is more waits for the next.
	most = 2000
	// claimMost bounds the buckets that a replica claims its share of when it joins. Others are claimed as they are used.
	claimMost = 20_000
	// wait bounds one exchange.
	wait = 2 * time.Second
	// lostFor is for how long a store that lost its data is filled before it gives anything.
	lostFor = 10 * time.Second
	// awayAfter is for how long exchanges fail before the replica lives on its last share.
	awayAfter = 2 * time.Second
)

// Shares is an account's shares of buckets on one replica. It is fed by Sources and run by Run, or by Step in virtual
// time. Safe for concurrent use.
type Shares struct {
	store   Store
	replica string
	name    string
	parts   int // config: replicas, 0 if not given
	log     *slog.Logger

	sources atomic.Pointer[[]Source]
	kicks   chan struct{}
	kicked  atomic.Bool
	status  atomic.Pointer[Status]

	mu        sync.Mutex // one exchange at a time
	seq       int64
	version   int64 // of the membership, heard last
	news      int64
	split     Split
	failing   time.Time
	lostAt    time.Time
	away      bool
	claim     []string // still to be claimed
	foreign   []Report // buckets of rates that only others have
	forgotten int64
	buf       []Report
	closed    bool
}

// Status is what a replica knows of its shares.
type Status struct {
	Replicas  int
	Active    bool // it holds its part of buckets that nobody spoke of
	Away      bool // the store does not answer
	Since     time.Time
	Exchanges int64
	Reports   int64
	Forgotten int64 // buckets that the store forgot before they were full again
	Err       string
}

// New makes the shares of replica, a name that no other process has; name is what people call it. replicas is the number
// of replicas by config, for the time before the store was heard; 0: it gets nothing until then.
func New(st Store, replica, name string, replicas int, log *slog.Logger) *Shares {
	s := &Shares{store: st, replica: replica, name: name, parts: replicas, log: log, kicks: make(chan struct{}, 1)}
	s.split = s.before()
	s.status.Store(&Status{})
	s.sources.Store(&[]Source{})
	return s
}

// before is the split of a replica that has not heard.
func (s *Shares) before() Split {
	switch {
	case s.parts > 0:
		return Split{Replicas: s.parts, Rank: s.parts - 1, Shared: true}
	}
	return Split{None: true, Shared: true}
}

// Attach adds a source; it has its part from then on.
func (s *Shares) Attach(src Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src.Resplit(s.split)
	src.Kick(s.Kick)
	all := append(append([]Source(nil), *s.sources.Load()...), src)
	s.sources.Store(&all)
}

// Detach takes a source out.
func (s *Shares) Detach(src Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Source
	for _, x := range *s.sources.Load() {
		if x != src {
			all = append(all, x)
		}
	}
	s.sources.Store(&all)
}

// Status is cheap.
func (s *Shares) Status() Status { return *s.status.Load() }

// Kick asks for an exchange soon. It never blocks.
func (s *Shares) Kick() {
	if s.kicked.Load() || !s.kicked.CompareAndSwap(false, true) {
		return
	}
	select {
	case s.kicks <- struct{}{}:
	default:
	}
}

// Run exchanges until ctx ends: twice a second while there is something to say, else once. A kick comes before its
// turn as long as there are no more than two exchanges a second over time.
func (s *Shares) Run(ctx context.Context) {
	pace := rate.NewLimiter(rate.Every(every), 4)
	if s.store.Exclusive() {
		pace = rate.NewLimiter(rate.Every(every/5), 4) // it is no round trip there
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.kicks:
			if pace.Wait(ctx) != nil {
				return
			}
		}
		more, _ := s.Step(ctx, time.Now())
		next := idle
		if more {
			next = every
		}
		tick.Reset(next)
	}
}

// Begin makes this replica known before it is in use, for a few seconds at most: until the others obey the new number of
// replicas, and it has its part of what the store knows.
func (s *Shares) Begin(ctx context.Context, now func() time.Time) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		_, err := s.Step(ctx, now())
		s.mu.Lock()
		done := err == nil && !s.split.None && len(s.claim) == 0
		s.mu.Unlock()
		if done {
			return
		}
		if err != nil {
			s.log.Warn("rates are not shared yet: the store does not answer", "err", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Step is one exchange. It says whether the next should follow after every rather than idle.
func (s *Shares) Step(ctx context.Context, now time.Time) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, errClosed
	}
	s.kicked.Store(false)
	return s.exchange(ctx, now, false)
}

var errClosed = errors.New("the shares are closed")

// Close says what was spent and leaves.
func (s *Shares) Close(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.seq == 0 {
		return nil
	}
	_, err := s.exchange(ctx, now, true)
	if s.closed = true; err != nil {
		s.log.Warn("shares of rates could not be handed back; the other replicas have them in a few seconds", "err", err)
	}
	return err
}

func (s *Shares) exchange(ctx context.Context, now time.Time, leave bool) (more bool, err error) {
	sources := *s.sources.Load()
	reports := s.buf[:0]
	counts := make([]int, len(sources))
	for i, src := range sources {
		before := len(reports)
		reports = src.Collect(now, most-len(reports), reports)
		counts[i] = len(reports) - before
	}
	own := len(reports)
	foreign := min(most-own, len(s.foreign))
	reports = append(reports, s.foreign[:foreign]...)
	claims := 0
	if said := len(reports); said < most {
		claims = min(most-said, len(s.claim))
		for _, id := range s.claim[:claims] {
			reports = append(reports, Report{ID: id, Claim: true, Managed: true, Fill: LongWindow})
		}
	}
	s.buf = reports
	if st := s.status.Load(); s.store.Exclusive() && len(reports) == 0 && s.seq > 0 && !leave && !st.Away {
		return false, nil // nobody else is there to hear it
	}
	s.seq++
	x := &Exchange{Replica: s.replica, Name: s.name, Now: now, Seq: s.seq, Version: s.version, News: s.news, Leave: leave, Reports: reports}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	a, err := s.store.Rates(ctx, x)
	if err == nil && len(a.Grants) != len(reports) {
		err = errors.New("the store did not answer for every bucket: " + a.State)
	}
	st := *s.status.Load()
	if err != nil {
		for _, src := range sources {
			src.Granted(now, nil)
		}
		if s.failing.IsZero() {
			s.failing = now
		}
		if !s.away && now.Sub(s.failing) >= awayAfter {
			s.away = true
			st.Since = s.failing
			s.log.Warn("the store does not answer: rates go on with this replica's last shares", "since", s.failing, "err", err)
			for _, src := range sources {
				src.Away(now, true)
			}
		}
		st.Away, st.Err = s.away, err.Error()
		s.status.Store(&st)
		return true, err
	}
	s.failing = time.Time{}
	if s.away {
		s.away = false
		s.log.Info("the store answers again: rates are shared by demand", "away_for", now.Sub(st.Since).String())
		for _, src := range sources {
			src.Away(now, false)
		}
	}
	at := 0
	for i, src := range sources {
		src.Granted(now, a.Grants[at:at+counts[i]])
		at += counts[i]
	}
	if claims > 0 {
		known := make(map[ID]int64, claims)
		for i, g := range a.Grants[own+foreign:] {
			if !g.None {
				known[ID(reports[own+foreign+i].ID)] = g.Tokens
			}
		}
		s.claim = s.claim[claims:]
		for _, src := range sources {
			src.Known(known)
		}
	}
	s.foreign = s.foreign[foreign:]
	s.heard(ctx, now, a, sources)
	if a.Forgotten > s.forgotten {
		s.log.Warn("the store forgot buckets before they were full again: there is no room for more", "forgotten", a.Forgotten)
	}
	s.forgotten = a.Forgotten
	st.Replicas, st.Active, st.Away, st.Err, st.Forgotten = a.Replicas, !s.split.None, false, "", a.Forgotten
	st.Exchanges++
	st.Reports += int64(len(reports))
	s.status.Store(&st)
	return own > 0 || len(s.claim) > 0 || s.split.None, nil
}

// heard follows the membership and the news.
func (s *Shares) heard(ctx context.Context, now time.Time, a *Answer, sources []Source) {
	switch {
	case a.State == "fresh":
		s.log.Warn("the store lost its rates; this replica tells it what it holds")
		for _, src := range sources {
			src.Lost(now)
		}
	case a.State == "joined" && s.seq > 1:
		// It was taken for dead, and others have its shares.
		s.log.Warn("this replica was silent for too long, so its shares of rates were given to others; it asks for new ones")
		for _, src := range sources {
			src.Forget(now)
		}
		s.split = Split{None: true, Shared: true}
		s.resplit(sources)
	}
	first := s.version == 0 || a.State != "known"
	changed := a.Version != s.version
	s.version, s.news = a.Version, a.News
	if a.Missed {
		for _, src := range sources {
			src.Told(now, "", "", false)
		}
	}
	for _, line := range a.Told {
		f := strings.SplitN(line, " ", 4)
		if len(f) != 4 {
			continue
		}
		own := false
		for _, src := range sources {
			own = src.Told(now, f[2], f[3], f[0] == "r") || own
		}
		if !own && f[0] == "h" && len(s.foreign) < most {
			// A rate that this replica's config does not have: its even part is for the others.
			s.foreign = append(s.foreign, Report{ID: f[1], Rate: f[2], Name: f[3], Managed: true, Fill: LongWindow, Cap: 1})
			for _, src := range sources {
				src.Known(map[ID]int64{ID(f[1]): 0})
			}
		}
		if f[0] == "h" {
			s.Kick()
		}
	}
	if first && a.State == "joined" || a.Replicas < s.split.Replicas && now.Sub(s.lostAt) >= lostFor {
		// What others keep in the store is not ours to hand out; what it is must be known before a larger part is taken.
		ids, err := s.store.RateIDs(ctx, claimMost)
		if err != nil {
			s.version = 0 // again, next time
			return
		}
		known := make(map[ID]int64, len(ids))
		for _, id := range ids {
			known[ID(id)] = 0
		}
		for _, src := range sources {
			src.Known(known)
		}
		s.claim = ids
	}
	next := Split{Replicas: a.Replicas, Rank: a.Rank, Shared: true}
	if a.State == "fresh" {
		s.lostAt = now
	}
	switch {
	case next == s.split:
	case !s.lostAt.IsZero() && now.Sub(s.lostAt) < lostFor && next.Replicas < s.split.Replicas:
		return // the others have yet to say that they are there
	case s.split.None && !a.Acked:
		s.Kick()
		return
	default:
		s.split = next
		s.resplit(sources)
	}
	if changed {
		s.Kick() // the others wait to hear that this one obeys
	}
}

func (s *Shares) resplit(sources []Source) {
	for _, src := range sources {
		src.Resplit(s.split)
	}
}
