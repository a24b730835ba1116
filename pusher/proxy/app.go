package proxy

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/delayed"
	"github.com/pushguard/pushguard/quota/fanout"
)

// App is one Pusher app as the proxy serves it. Its fields are set before
// Apply and not changed after.
type App struct {
	// ID is the app's id in paths and at Pusher.
	ID string
	// Account is the name of the Pusher account that pays for the app.
	Account string
	// Keys are the pairs that callers sign with, the app's own among them.
	Keys []CallerKey
	// Upstream is where accepted publishes go.
	Upstream *Upstream
	// Limiter judges, Ledger pays; Breaker is the account's, told of Pusher's own
	// word that the plan is used up. It may be nil.
	Limiter *limiter.App
	Ledger  *quota.Ledger
	Breaker *limiter.Breaker
	// Fanout estimates what a publish costs before it is sent.
	Fanout *fanout.Table
	// Webhooks is where Pusher's webhooks go on to, once they have taught what they can; nil: nowhere.
	Webhooks *Endpoint
	// Billing and Limits are Pusher's rules, as this account has them.
	Billing pusher.Billing
	Limits  pusher.Limits

	// Seed keys the digests that replicas compare, so it is the same on all of
	// them and unknown outside; nil takes one that only this process knows.
	Seed *pusher.Seed
	// Observe, if set, is told of every publish as it was offered, whatever
	// becomes of it. It runs on the hot path and keeps none of its arguments.
	Observe func(now time.Time, app, caller, event string, channels []string, payload uint64, messages int64)
	// Record, if set, is told of every publish with what became of it, in the
	// words of limiter.Outcome. It runs on the hot path and keeps none of its
	// arguments. digest is keyed: nobody can try payloads out on it.
	Record func(now time.Time, caller, event string, channels []string, digest [2]uint64, size int, messages int64, outcome string)
	// LoadTest serves the callers whose keys are marked as a load test: an App of
	// the same id with a Limiter, an Upstream and counters of its own, so that
	// nothing of a test reaches Pusher, the plan, the detector or the buckets of
	// others. nil: no key is.
	LoadTest *App
	// Shelf keeps what rules conflate until their windows end; nil conflates
	// nothing. Apps of one account share it. Whoever sets it runs Proxy.Release.
	Shelf *delayed.Queue
	// HeldExpiry is how old a held publish may become: while the brake is on,
	// Pusher is down or the budget spent, it waits; older news is no news. 0: ten
	// minutes.
	// HeldMost and HeldMostCaller bound in bytes what this replica holds for the account, and for one caller. 0 means 64 MiB
	// and 32 MiB. What is beyond goes out at once.
	HeldMost, HeldMostCaller int64
	HeldExpiry               time.Duration
	// Refresh is the event that a channel gets when publishes to it are shed
	// (limiter.Digested); nil: none, and they are refused. It needs Shelf.
	Refresh *RefreshConfig
	// Fold lets publishes that wait at the same moment share calls; nil sends
	// each by itself.
	Fold *FoldConfig

	refreshes             refreshes
	fold                  *folder
	order                 *order
	eventsPath, batchPath []byte
	seed                  pusher.Seed
	origins               origins
	webhookOdd            atomic.Bool // a webhook held what cannot be read: the log said so

	exhausting atomic.Bool
	hooks      hooks
}

// CallerKey says which caller signs with a key. Two entries may have the same
// key name and caller while a secret is being rotated.
type CallerKey struct {
	Key    *pusher.Key
	Caller string
	// Own marks the app's own pair: who signs with it is told apart by SDK
	// header and peer address.
	Own bool
	// LoadTest marks a key of whom App.LoadTest serves.
	LoadTest bool
}

func (a *App) prepare(p *Proxy) error {
	switch {
	case a.ID == "":
		return errors.New("proxy: an app has no id")
	case a.Upstream == nil, a.Limiter == nil, a.Ledger == nil, a.Fanout == nil:
		return fmt.Errorf("proxy: app %s is not complete", a.ID)
	}
	if a.LoadTest != nil {
		if a.LoadTest.ID != a.ID || a.LoadTest.LoadTest != nil {
			return fmt.Errorf("proxy: app %s: what serves its load tests is another app", a.ID)
		}
		if err := a.LoadTest.prepare(p); err != nil {
			return err
		}
	}
	if a.eventsPath != nil { // a reload kept it: it is being served
		return nil
	}
	a.seed = p.stats.seed
	if a.Seed != nil {
		a.seed = *a.Seed
	}
	a.eventsPath, a.batchPath = []byte("/apps/"+a.ID+"/events"), []byte("/apps/"+a.ID+"/batch_events")
	if a.Fold != nil && a.fold == nil {
		a.fold = newFolder(a, *a.Fold)
	}
	share := 1
	if a.fold != nil {
		share = a.fold.cfg.Batch
	}
	a.order = newOrder(share)
	return nil
}

// deliveries estimates how many subscribers a publish reaches.
func (a *App) deliveries(channels []string) int64 { return a.weigh(channels).deliveries }

// weight is how many subscribers a publish reaches, and how much of that is a guess: channels of which nothing was ever
// learned count as the config says.
type weight struct {
	deliveries, guessed int64
	channels, defaults  int
}

func (a *App) weigh(channels []string) weight {
	w := weight{channels: len(channels)}
	for _, c := range channels {
		n, source, _ := a.Fanout.Explain(c)
		w.deliveries += n
		if source == fanout.FromDefault && c[0] != '#' { // of a user's own connections nothing can be learned
			w.guessed += n
			w.defaults++
		}
	}
	return w
}

// noteGuess tells how much of what a publish cost is a guess.
func (a *App) noteGuess(w weight, actual int64) {
	if w.defaults > 0 && actual > 0 {
		a.Ledger.Count(quota.Guessed, actual*int64(w.defaults)/int64(w.channels))
		a.Ledger.Count(quota.GuessedDeliveries, min(w.guessed, actual))
	}
}

// sharing says how an event shares the price of the call that carries it.
type sharing uint8

const (
	bearsCall     sharing = iota // it pays for the call
	sharesBatch                  // one more event of a batch_events call
	sharesTrigger                // one more channel of a publish to several
)

// price is what one event adds to the bill. For the one that bears the call it
// is the call's price with nothing else in it; for the others, what Pusher adds
// for one more.
func (a *App) price(ev *pusher.Publish, channels []string, deliveries int64, share sharing) int64 {
	s := pusher.Shape{Events: 1, Channels: len(channels), Deliveries: deliveries}
	if ev.HasInfo {
		s.Info = 1
	}
	one := a.Billing.Cost(pusher.Shape{Events: 1, Channels: 1})
	switch share {
	case sharesBatch:
		return a.Billing.Cost(s) - one + a.Billing.Cost(pusher.Shape{Events: 2, Channels: 2}) - one
	case sharesTrigger:
		s.Info = 0 // asked for once, by the one that bears the call
		return a.Billing.Cost(s) - one + a.Billing.Cost(pusher.Shape{Events: 1, Channels: 2}) - one
	}
	return a.Billing.Cost(s)
}

// CallerOrigins lists who signs with the app's own pair, told apart by SDK and
// address, with what each sent so far.
func (a *App) CallerOrigins() []Origin { return a.origins.list() }

// utcMidnight is when Pusher's day ends.
func utcMidnight(now time.Time) time.Time { return quota.DayOf(now).End() }
