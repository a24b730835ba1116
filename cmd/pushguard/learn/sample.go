package learn

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
)

const (
	// askTimeout bounds one sample, and askEach how many are asked in one turn, which comes every second.
	askTimeout = 4 * time.Second
	askEach    = 8
	// askAgain is the least between two questions about one channel.
	askAgain = 30 * time.Second
	// candidates are how many of the busiest channels are weighed.
	candidates = 256
	// headStart is how much of the day's budget samples may use before its time: it is spread evenly over the day.
	headStart = time.Hour
	// firstHour is for how long an app of which nothing is known may spend firstPart of the day's budget.
	firstHour = time.Hour
	firstPart = 0.2
	// price is of one message. Both sides of the rule are paid from the same plan, so any figure does.
	price = 1
	// worthOfBill is the part of what the account sends that questions may cost, and creditAtFirst and creditMost how
	// many they may be before something was sent, and after much was.
	worthOfBill   = 0.003
	creditAtFirst = 40
	creditMost    = 400
	// kindKnown answers make the mean of a kind of channels good enough; then one question in kindLater turns keeps it so.
	kindKnown = 100
	kindLater = 10
	keepEvery = time.Minute
)

// How long nothing is sampled after a failure, and where Pusher gives no counts.
const (
	afterFailure = 10 * time.Second
	afterRefusal = time.Hour
)

// advice is a reason that is told in whole sentences.
type advice string

func (a advice) Error() string { return string(a) }

// noCounts is what to do where Pusher gives no counts, and what that costs.
const noCounts = "Pusher gives no subscriber counts: turn on subscription counting in the app's settings at Pusher. " +
	"It has a price: each subscription and unsubscription then sends a subscription_count event to every subscriber of the channel (above 100 subscribers every 5 s)"

// publishes is what the hot path tells.
type publishes struct {
	top  fanout.TopChannels
	draw fanout.Draw
}

// candidate is a channel whose count may be worth asking for.
type candidate struct {
	channel  string
	estimate int64
	source   fanout.Source
	gain     float64 // messages
	drawn    bool    // at random, from publishes: the answer stands for its kind
}

// worthwhile are the channels that are worth a question, the most expensive doubt first.
func (l *Learner) worthwhile(now time.Time, a *proxy.App, busy []fanout.TopChannel) []candidate {
	var out []candidate
	for _, b := range busy {
		if at, ok := l.asked[b.Channel]; ok && now.Sub(at) < askAgain {
			continue
		}
		n, source, age := a.Fanout.Explain(b.Channel)
		off, _ := l.surprise.Off(source)
		d := fanout.SamplingValue{Publishes: b.PerSecond * fanout.WorthFor.Seconds(), Subscribers: n, Source: source, Age: age, Off: off}
		if d.Worth(price, cost(a)) {
			out = append(out, candidate{b.Channel, n, source, d.ExpectedError(), false})
		}
	}
	slices.SortStableFunc(out, func(x, y candidate) int { return cmp.Compare(y.gain, x.gain) })
	return out
}

// unknown are channels of publishes that were drawn at random and priced without knowledge of the channel. Asked
// enough of them, their mean is that of all such publishes: an app may have more channels than could ever be asked for.
func (l *Learner) unknown(now time.Time, a *proxy.App, drawn []string) []candidate {
	var out []candidate
	for _, ch := range drawn {
		if _, ok := l.asked[ch]; ok || slices.ContainsFunc(out, func(c candidate) bool { return c.channel == ch }) {
			continue
		}
		n, source, _ := a.Fanout.Explain(ch)
		if source != fanout.FromDefault && source != fanout.FromSimilar {
			continue
		}
		if a.Fanout.Sampled(ch) >= kindKnown && now.Unix()%kindLater != 0 {
			continue
		}
		out = append(out, candidate{ch, n, source, 0, true})
	}
	return out
}

// choose puts the two together: half of a turn's questions each, what one does not need goes to the other.
func choose(drawn, busy []candidate, most int) []candidate {
	half := min(len(drawn), max(most/2, most-len(busy)))
	out := slices.Clone(drawn[:half])
	for _, c := range busy {
		if len(out) >= most {
			break
		}
		if !slices.ContainsFunc(out, func(o candidate) bool { return o.channel == c.channel }) {
			out = append(out, c)
		}
	}
	return out
}

// askable leaves out what Pusher counts no subscriptions of: presence channels have users, others only where
// subscription counting is on.
func (l *Learner) askable(now time.Time, all []candidate) []candidate {
	if !now.Before(l.quiet) {
		return all
	}
	return slices.DeleteFunc(all, func(c candidate) bool { return !isPresence(c.channel) })
}

func isPresence(channel string) bool { return strings.HasPrefix(channel, "presence-") }

func (l *Learner) sample(ctx context.Context, now time.Time, c Config, a *proxy.App, most int64) {
	for ch, at := range l.asked {
		if now.Sub(at) >= askAgain || now.Before(at) {
			delete(l.asked, ch)
		}
	}
	if now.Add(2*afterRefusal).Before(l.quiet) || now.Add(2*afterFailure).Before(l.rest) { // a clock that was set back
		l.quiet, l.rest = now, now
	}
	sent := a.Ledger.Sent(now)
	l.credit = min(l.credit+worthOfBill*float64(max(sent-l.sent, 0)), creditMost)
	l.sent = sent
	if now.Before(l.rest) {
		return
	}
	seen := l.busy.Load()
	drawn := l.unknown(now, a, seen.draw.Take())
	busy := l.worthwhile(now, a, seen.top.Top(now, candidates))
	ask := choose(l.askable(now, drawn), l.askable(now, busy), min(askEach, int(l.credit)))
	if len(ask) == 0 {
		return
	}
	price := cost(a)
	ok, spent, err := a.Ledger.MayAsk(ctx, now, a.ID, price*int64(len(ask)), l.allowance(now, c, price, most))
	l.note(func(s *Status) {
		if s.Spent = spent; !ok && err == nil {
			s.Why = "the budget up to this time of the day is used up"
		}
	})
	if err != nil {
		l.failed(now, "how many subscribe", err)
	}
	if err != nil || !ok {
		l.rest = now.Add(afterFailure)
		return
	}
	l.credit -= float64(price * int64(len(ask)))
	answers := make([]answer, len(ask))
	var asking sync.WaitGroup
	for i, x := range ask {
		l.asked[x.channel] = now
		asking.Go(func() { answers[i] = l.count(ctx, now, a, x.channel) })
	}
	asking.Wait()
	for i, x := range ask {
		l.learn(now, a, x, answers[i])
	}
}

// answer is Pusher's to one sample.
type answer struct {
	n       int64
	counted bool
	err     error
}

func (l *Learner) count(ctx context.Context, now time.Time, a *proxy.App, channel string) (out answer) {
	info, read := "subscription_count", pusher.ReadChannel
	if isPresence(channel) {
		info, read = "user_count", pusher.ReadUserCount
	}
	out.err = l.ask(ctx, now, a, askTimeout, "/channels/"+channel, "info="+info, func(r io.Reader) (err error) {
		out.n, out.counted, err = read(r)
		return err
	})
	return out
}

// learn takes one answer.
func (l *Learner) learn(now time.Time, a *proxy.App, x candidate, got answer) {
	var refused *proxy.AskError
	l.note(func(s *Status) { s.Samples++ })
	if got.err == nil && got.counted {
		if x.drawn {
			a.Fanout.LearnKind(x.channel, got.n)
		}
		l.surprise.Note(x.source, x.estimate, got.n)
		if isPresence(x.channel) {
			a.Fanout.LearnAtLeast(now, x.channel, got.n, fanout.FromInfo)
			return
		}
		a.Fanout.Learn(now, x.channel, got.n, fanout.FromInfo)
		l.note(func(s *Status) { s.NoCounts = time.Time{} })
		return
	}
	err := got.err
	switch {
	case err == nil, errors.As(err, &refused) && refused.Status == 400:
		err = errors.Join(advice(noCounts), err)
		if !isPresence(x.channel) {
			l.quiet = now.Add(afterRefusal)
			l.note(func(s *Status) {
				if s.NoCounts.IsZero() {
					s.NoCounts = now.UTC()
				}
			})
		}
	default:
		l.rest = now.Add(afterFailure)
	}
	l.note(func(s *Status) { s.SamplesFailed++ })
	l.failed(now, "how many subscribe", err)
}

// allowance is what all questions may have cost by now, so that a sample may be asked: the day's budget evenly over
// the day, and what the polls of the rest of the day will need left alone. An app of which nothing is known yet may
// spend a fifth of the day's budget in its first hour, whatever the time of the day.
func (l *Learner) allowance(now time.Time, c Config, cost, most int64) int64 {
	day := quota.DayOf(now)
	part := (now.Sub(day.Start()) + headStart).Hours() / 24
	if !l.began.IsZero() && now.Sub(l.began) < firstHour {
		part = max(part, firstPart)
	}
	even := int64(float64(most) * min(part, 1))
	if c.Poll > 0 {
		polls := int64(day.End().Sub(now)/c.Poll) * cost
		if c.Presence {
			polls *= 2
		}
		return min(even, most-polls)
	}
	return even
}

// keep reads what an earlier process learned of kinds of channels, once, and stores what this one did, now and then.
func (l *Learner) keep(ctx context.Context, now time.Time, a *proxy.App) {
	name := "fanout." + a.ID
	if !l.opened {
		kept, err := a.Ledger.Kept(ctx, name)
		if err != nil {
			return // tried again in a second
		}
		l.opened, l.kept, l.credit, l.sent = true, now, creditAtFirst, a.Ledger.Sent(now)
		if kept == nil {
			l.began = now
		} else if err := a.Fanout.LoadKinds(kept); err != nil {
			l.log.Warn("learned numbers of subscribers cannot be read; learning them anew", "app", a.ID, "err", err)
		}
		return
	}
	if now.Sub(l.kept) < keepEvery && !now.Before(l.kept) {
		return
	}
	l.kept = now
	if kept := a.Fanout.SaveKinds(); kept != nil {
		if err := a.Ledger.Keep(ctx, name, kept); err != nil {
			l.log.Warn("learned numbers of subscribers cannot be stored; a restart learns them anew", "app", a.ID, "err", err)
		}
	}
}
