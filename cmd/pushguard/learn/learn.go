// Package learn asks Pusher, of the guard's own accord, how many subscribe to what, so that what a publish costs is
// estimated better. Each question is a message of the plan, so it is asked only within a budget, and only where
// the answer is worth its price.
//
// Two kinds are asked. A poll is the list of occupied channels: one replica asks, every so often, and all learn.
// A sample is the count of a single busy channel (fanout.SamplingValue.Worth is the rule). It is a GET of its own and not info
// added to a caller's publish: it costs the same message, and no caller's answer changes for it.
package learn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
)

// Config says what may be asked for an app.
type Config struct {
	Poll     time.Duration // between two lists of occupied channels; 0: none are asked for
	Presence bool          // with each, the users of presence channels
	Sample   bool          // single channels
	Budget   float64       // part of the day's plan that all questions of all replicas may cost
}

const (
	pollTimeout = 45 * time.Second // shorter than a claim on the poll lasts
)

// Learner is one app's. Note is for the hot path; Turn is for one goroutine; Status for any.
type Learner struct {
	app      string
	log      *slog.Logger
	busy     atomic.Pointer[publishes] // nil: nobody samples
	surprise fanout.EstimatorError

	// These belong to Turn.
	look   time.Time            // when to look at the poll next
	polled time.Time            // the newest list that was taken
	quiet  time.Time            // no count of subscriptions is asked for before: Pusher gives none
	rest   time.Time            // nothing is sampled before
	asked  map[string]time.Time // samples of the last askAgain; bounded, as they are
	began  time.Time            // the first turn of an app of which nothing was known; zero: something was
	credit float64              // questions that the bill pays for; see worthOfBill
	sent   int64                // the account's count at the last turn
	kept   time.Time            // when what was learned of kinds was stored last
	opened bool                 // what was stored was read

	mu     sync.Mutex // of status
	status Status
}

// Status is what a Learner did, for people and metrics.
type Status struct {
	// On is false while the config asks for nothing; Why then, or while it rests, says why nothing is asked.
	On  bool
	Why string
	// Budget is the most messages that all replicas may spend on questions today, Spent what they did, as of this
	// replica's last question.
	Budget, Spent int64
	// Polls, Samples: asked by this replica since it started, and how many of them failed.
	Polls, PollsFailed, Samples, SamplesFailed int64
	// NoCounts is since when Pusher answers without counts, because subscription counting is off in the app's
	// settings; zero: it counts, or was not asked.
	NoCounts    time.Time
	LastError   string
	LastErrorAt time.Time
	// Off is by how much estimates from a source turned out wrong, as a part of them, by source; only those that were
	// ever checked.
	Off map[string]float64
}

// New knows nothing yet.
func New(app string, log *slog.Logger) *Learner {
	return &Learner{app: app, log: log, asked: map[string]time.Time{}}
}

// Note tells of a publish to channels that costs messages. It allocates nothing and waits for nobody.
func (l *Learner) Note(now time.Time, channels []string, messages int64) {
	if b := l.busy.Load(); b != nil {
		b.top.Note(now, channels, messages)
		b.draw.Note(channels)
	}
}

// Status is for people.
func (l *Learner) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Off = map[string]float64{}
	for _, src := range fanout.Sources() {
		if off, checked := l.surprise.Off(src); checked {
			s.Off[src.String()] = off
		}
	}
	return s
}

func (l *Learner) note(change func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.status)
}

// Rest is a turn in which nothing may be asked.
func (l *Learner) Rest(why string) {
	l.busy.Store(nil)
	l.note(func(s *Status) { s.On, s.Why = false, why })
}

// Turn asks what is due and worth it. It returns when all is answered.
func (l *Learner) Turn(ctx context.Context, now time.Time, c Config, a *proxy.App) {
	if has := l.busy.Load() != nil; has != c.Sample {
		if c.Sample {
			l.busy.Store(&publishes{})
		} else {
			l.busy.Store(nil)
		}
	}
	a.Fanout.Tick(now)
	l.keep(ctx, now, a)
	_, plan := a.Ledger.Used(now)
	most := int64(c.Budget * float64(plan))
	why := forbidden(now, a)
	l.note(func(s *Status) { s.On, s.Why, s.Budget = true, why, most })
	if why != "" {
		return
	}
	if c.Poll > 0 && (!now.Before(l.look) || now.Add(time.Minute).Before(l.look)) {
		l.look = now.Add(min(max(c.Poll/10, time.Second), 10*time.Second))
		if err := l.poll(ctx, now, c, a, most); err != nil {
			l.failed(now, "the list of occupied channels", err)
		}
	}
	if c.Sample {
		l.sample(ctx, now, c, a, most)
	}
}

// forbidden says why nothing of the guard's own may be spent now.
func forbidden(now time.Time, a *proxy.App) string {
	snap := a.Ledger.Snapshot(now)
	switch {
	case snap.Brake != nil:
		return "the brake is pulled"
	case !snap.Exhausted.IsZero():
		return "Pusher says that the plan is used up"
	case !snap.StoreUp:
		return "the store is out of reach"
	case a.Breaker != nil && a.Breaker.State(now).State >= limiter.OnlyCritical && a.Breaker.State(now).State != limiter.HalfOpen:
		return "the quota breaker lets only critical publishes pass"
	}
	return ""
}

func (l *Learner) failed(now time.Time, what string, err error) {
	text := what + ": " + err.Error()
	news := false
	l.note(func(s *Status) {
		news = s.LastError != text
		s.LastError, s.LastErrorAt = text, now.UTC()
	})
	if news {
		l.log.Warn("subscriber query to Pusher failed; keeping previous estimates", "app", l.app, "asked", what, "err", err)
	}
}

// ask pays for one question and asks it.
func (l *Learner) ask(ctx context.Context, now time.Time, a *proxy.App, timeout time.Duration, path, query string, read func(io.Reader) error) error {
	hold, no := a.Ledger.Reserve(ctx, now, nil, quota.Bulk, cost(a))
	if no != quota.Granted {
		return fmt.Errorf("%w: the plan has nothing left for it (%v)", proxy.ErrNotAsked, no)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := a.Upstream.Ask(ctx, now, "/apps/"+a.ID+path, query, read)
	var refused *proxy.AskError
	switch {
	case errors.Is(err, proxy.ErrNotAsked):
		a.Ledger.Refund(now, hold)
	case errors.As(err, &refused):
		a.Ledger.Settle(now, hold, a.Billing.Cost(pusher.Shape{OwnCall: true, Failed: true}))
		if pusher.IsQuotaExceeded(refused.Status, []byte(refused.Text)) {
			if a.Breaker != nil {
				a.Breaker.Trip(now, refused.Text)
			}
			err = errors.Join(err, a.Ledger.Exhaust(ctx, now, "Pusher answered 403: "+refused.Text))
		}
	default:
		a.Ledger.Settle(now, hold, hold.Cost())
		a.Ledger.Count(quota.Questions, hold.Cost())
	}
	return err
}

func cost(a *proxy.App) int64 { return a.Billing.Cost(pusher.Shape{OwnCall: true}) }

// poll asks for the occupied channels if it is this replica's turn; otherwise it takes what another was told.
func (l *Learner) poll(ctx context.Context, now time.Time, c Config, a *proxy.App, most int64) error {
	price := cost(a)
	if c.Presence {
		price *= 2
	}
	mine, spent, last, err := a.Ledger.MayPoll(ctx, now, a.ID, c.Poll, price, most)
	if err != nil {
		return err
	}
	l.note(func(s *Status) { s.Spent = spent })
	if !mine {
		if !last.After(l.polled) {
			return nil
		}
		list, err := a.Ledger.LastPoll(ctx, a.ID)
		if err == nil && len(list) > 0 {
			err = a.Fanout.MergeOccupied(list)
		}
		if err == nil {
			l.polled = last
		}
		return err
	}
	err = l.takeList(ctx, now, c, a)
	l.note(func(s *Status) {
		if s.Polls++; err != nil {
			s.PollsFailed++
		}
	})
	return err
}

func (l *Learner) takeList(ctx context.Context, now time.Time, c Config, a *proxy.App) error {
	var all fanout.ChannelList
	whole := true
	err := l.ask(ctx, now, a, pollTimeout, "/channels", "", func(r io.Reader) error {
		return pusher.ReadChannels(r, func(channel string, _ int64) bool {
			whole = all.Add(channel)
			return whole
		})
	})
	if err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("more than %d channels are occupied, which is more than can be kept", all.Len())
	}
	list := a.Fanout.LearnOccupied(now, &all)
	l.polled = now
	if err := a.Ledger.Polled(ctx, now, a.ID, now, list); err != nil {
		return err
	}
	if c.Presence {
		return l.presence(ctx, now, a)
	}
	return nil
}

// presenceKept bounds how many presence channels one poll learns: those whose estimates are lowest beside what was
// counted. More could not be told to the other replicas in one message.
const presenceKept = 2000

func (l *Learner) presence(ctx context.Context, now time.Time, a *proxy.App) error {
	type low struct {
		channel    string
		users, gap int64
	}
	var found []low
	keep := func() {
		slices.SortFunc(found, func(x, y low) int { return cmp.Compare(y.gap, x.gap) })
		found = found[:min(len(found), presenceKept)]
	}
	err := l.ask(ctx, now, a, pollTimeout, "/channels", "filter_by_prefix=presence-&info=user_count", func(r io.Reader) error {
		return pusher.ReadChannels(r, func(channel string, users int64) bool {
			if gap := users - a.Fanout.Estimate(channel); gap > 0 {
				if found = append(found, low{channel, users, gap}); len(found) == 2*presenceKept {
					keep()
				}
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	keep()
	for _, x := range found {
		a.Fanout.LearnAtLeast(now, x.channel, x.users, fanout.FromPoll)
	}
	return nil
}
