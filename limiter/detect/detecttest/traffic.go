package detecttest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// Account is the healthy traffic of one account: callers whose rates differ
// by orders of magnitude, each with some events on some channel patterns;
// day and night, weekend, slow drift, noise that lasts hours, bursts of
// seconds, deploys (silence, then what was held back), jobs on the hour, and
// now and then a new event.
type Account struct {
	Leaves []Leaf
	// Rate is the mean rate of the whole account, messages a second.
	Rate float64

	rand    *rand.Rand
	callers []callerTraffic
	day     [2]float64 // amplitude and phase of the day
	weekend float64
	growth  float64 // a second
	minute  int64
	start   int64
}

// Leaf is one combination that is sent.
type Leaf struct {
	Key    detect.Key
	Caller int
	// Base is the mean rate, messages a second.
	Base float64
	// Sent is what the last step sent.
	Sent int64

	cron   int64 // seconds a job on the hour lasts; 0: none
	born   int64 // the second of the first message, relative to the start
	noise  float64
	mean   float64 // this minute's rate
	factor float64 // of an incident
	pulse  float64 // of a burst
	until  int64
}

// Sends reports whether the leaf has anything to send in this minute: a job
// on the hour is silent for most of it, and a new event until it is there.
func (l *Leaf) Sends() bool { return l.mean > 0 }

type callerTraffic struct {
	noise, spread float64
	bursts        float64 // a day
	owed          float64 // how much more is sent while catching up
	silent, catch int64   // a deploy: until when silent, until when catching up
}

// NewAccount makes the account that belongs to seed with that many callers
// (5 to 200 if 0).
func NewAccount(seed uint64, callers int) *Account {
	r := rand.New(rand.NewPCG(seed, 0x6a09e667f3bcc908))
	if callers == 0 {
		callers = int(5 * math.Pow(40, r.Float64()))
	}
	a := &Account{rand: r, Rate: 20 * math.Pow(100, r.Float64()), weekend: 0.3 + 0.7*r.Float64(), growth: (r.Float64() - 0.3) * 0.02 / (7 * 86400)}
	a.day = [2]float64{0.2 + 0.6*r.Float64(), 12 + 6*r.Float64()}
	a.callers = make([]callerTraffic, callers)
	var sum float64
	for c := range a.callers {
		a.callers[c] = callerTraffic{spread: 0.03 + 0.05*r.Float64(), bursts: 6 * r.Float64() * r.Float64()}
		weight := math.Exp(1.1 * r.NormFloat64())
		for range 1 + r.IntN(5) {
			l := Leaf{Caller: c, Base: weight * math.Exp(0.8*r.NormFloat64())}
			l.Key = detect.Key{
				Caller: fmt.Sprintf("caller-%c%c", 'a'+c/26, 'a'+c%26), Event: eventNames[r.IntN(len(eventNames))],
				Channel: channelNames[r.IntN(len(channelNames))],
			}
			dup := false
			for i := range a.Leaves {
				dup = dup || a.Leaves[i].Key == l.Key
			}
			if dup {
				continue
			}
			sum += l.Base
			a.Leaves = append(a.Leaves, l)
		}
	}
	for i := range a.Leaves {
		l := &a.Leaves[i]
		l.Base *= a.Rate / sum
		l.factor, l.pulse = 1, 1
	}
	if r.IntN(5) == 0 {
		l := &a.Leaves[r.IntN(len(a.Leaves))]
		l.cron = 40 + r.Int64N(80)
	}
	if r.IntN(3) == 0 {
		l := &a.Leaves[r.IntN(len(a.Leaves))]
		if l.Base < 0.1*a.Rate {
			l.born = r.Int64N(60 * 86400)
		}
	}
	return a
}

// SetRate makes the account's mean rate so many messages a second.
func (a *Account) SetRate(rate float64) {
	for i := range a.Leaves {
		a.Leaves[i].Base *= rate / a.Rate
	}
	a.Rate = rate
}

var (
	eventNames   = []string{"notification.refresh", "message.new", "typing", "presence.sync", "order.updated", "alarm.raised", "badge", "chat.read", "score", "job.progress"}
	channelNames = []string{"private-user-*", "private-team-*", "presence-room-*", "private-order-*", "news", "private-encrypted-chat-*", "cache-board-*", "dashboard"}
)

// Step counts the messages of the dt seconds that end at the second now. The
// rates are those at their beginning, so dt should divide a minute.
func (a *Account) Step(now, dt int64, observe func(leaf int, n int64)) {
	at := now - dt
	if a.start == 0 {
		a.start = at
	}
	if m := at / 60; m != a.minute {
		a.turnMinute(at, m-a.minute)
		a.minute = m
	}
	for i := range a.Leaves {
		l := &a.Leaves[i]
		mean := l.mean
		l.Sent = 0
		if mean == 0 {
			continue
		}
		c := &a.callers[l.Caller]
		if at < c.silent {
			continue
		}
		if at < c.catch {
			mean *= 1 + c.owed
		}
		if over := l.until - at; over > 0 {
			mean *= 1 + (l.pulse-1)*float64(min(over, dt))/float64(dt)
		}
		if n := a.poisson(mean * l.factor * float64(dt)); n > 0 {
			l.Sent = n
			observe(i, n)
		}
	}
}

func (a *Account) turnMinute(now, minutes int64) {
	r := a.rand
	t := time.Unix(now, 0).UTC()
	hour := float64(t.Hour()) + float64(t.Minute())/60
	shape := 1 + a.day[0]*math.Cos((hour-a.day[1])/24*2*math.Pi)
	if d := t.Weekday(); d == time.Saturday || d == time.Sunday {
		shape *= a.weekend
	}
	shape *= math.Exp(a.growth * float64(now-a.start))
	keep := math.Pow(0.995, min(float64(minutes), 1e5)) // noise of about three hours
	fresh := math.Sqrt(1 - keep*keep)
	for i := range a.callers {
		c := &a.callers[i]
		c.noise = c.noise*keep + c.spread*fresh*r.NormFloat64()
		if work := t.Weekday() != time.Saturday && t.Weekday() != time.Sunday && hour > 8 && hour < 18; work && minutes == 1 && r.Float64() < 0.7/600 {
			down, catch := 5+r.Int64N(15), 10+r.Int64N(30)
			c.silent, c.catch, c.owed = now+down, now+down+catch, float64(down)/float64(catch)
		}
	}
	for i := range a.Leaves {
		l := &a.Leaves[i]
		c := &a.callers[l.Caller]
		l.noise = l.noise*keep + c.spread*fresh*r.NormFloat64()
		l.mean = l.Base * shape * math.Exp(c.noise+l.noise)
		if l.cron > 0 {
			// The same messages, all at the beginning of the hour.
			l.mean *= 3600 / float64(l.cron)
			if s := now % 3600; s >= l.cron {
				l.mean = 0
			}
		}
		if now-a.start < l.born {
			l.mean = 0
		}
		if minutes == 1 && r.Float64() < c.bursts/1440 {
			l.pulse, l.until = 2+4*r.Float64(), now+1+r.Int64N(5)
			if r.IntN(8) == 0 {
				l.pulse, l.until = 1.3+0.5*r.Float64(), now+20+r.Int64N(60)
			}
		}
	}
}

func (a *Account) poisson(mean float64) int64 {
	r := a.rand
	if mean > 20 {
		return max(0, int64(mean+math.Sqrt(mean)*r.NormFloat64()+0.5))
	}
	n, p := int64(0), math.Exp(-mean)
	for u := r.Float64(); u > p; n++ {
		u *= r.Float64()
	}
	return n
}

// Onset is how an incident begins.
type Onset int

const (
	Sudden   Onset = iota // at once
	Linear                // in a straight line
	Doubling              // doubling again and again, as retry storms do
	Stairs                // in four steps
)

func (o Onset) String() string { return [...]string{"sudden", "linear", "doubling", "stairs"}[o] }

// Runaway is an incident: what the culprits send is multiplied.
type Runaway struct {
	Onset  Onset
	Factor float64
	// Rise is how long it takes to get to the factor, in seconds.
	Rise int64
	// Culprits are combinations; Any stands for whatever the caller sends.
	Culprits []detect.Culprit
}

// minExcess is the least an incident costs, as a part of the account's rate.
const minExcess = 0.02

// Runaway draws an incident that costs at least two hundredths of the
// account's usual rate, with 1 to 3 culprits: leaves, events of a caller, or
// whole callers.
func (a *Account) Runaway() Runaway {
	r := a.rand
	x := Runaway{Onset: Onset(r.IntN(4)), Factor: 1.3 * math.Pow(50/1.3, r.Float64())}
	for try := 0; ; try++ {
		if try == 500 {
			x.Factor, try = min(50, 1.5*x.Factor), 0 // nobody is big enough
		}
		switch x.Onset {
		case Linear, Stairs:
			x.Rise = 60 + r.Int64N(1800)
		case Doubling:
			x.Rise = int64(math.Log2(x.Factor) * (300 + 6900*r.Float64()))
		}
		culprits := 1 + r.IntN(3)
		for range culprits {
			l := &a.Leaves[r.IntN(len(a.Leaves))]
			c := detect.Culprit{Caller: l.Key.Caller, Event: l.Key.Event, Channel: l.Key.Channel}
			switch r.IntN(4) {
			case 0:
				c.Channel = detect.Any
			case 1:
				c.Event, c.Channel = detect.Any, detect.Any
			}
			var base float64
			for i := range a.Leaves {
				if l := &a.Leaves[i]; Covers(&c, &l.Key) && l.cron == 0 && l.born == 0 {
					base += l.Base
				}
			}
			clash := false
			for _, o := range x.Culprits {
				clash = clash || o.Caller == c.Caller
			}
			if !clash && base*(x.Factor-1) >= minExcess*a.Rate && base > 0.2 {
				x.Culprits = append(x.Culprits, c)
			}
		}
		if len(x.Culprits) > 0 {
			return x
		}
	}
}

// Covers reports whether the key is one of the culprit's.
func Covers(c *detect.Culprit, k *detect.Key) bool {
	return (c.Caller == detect.Any || c.Caller == k.Caller) &&
		(c.Event == detect.Any || c.Event == k.Event) &&
		(c.Channel == detect.Any || c.Channel == k.Channel)
}

// At is the factor after so many seconds.
func (x *Runaway) At(seconds int64) float64 {
	if seconds >= x.Rise {
		return x.Factor
	}
	part := float64(seconds) / float64(x.Rise)
	switch x.Onset {
	case Linear:
		return 1 + (x.Factor-1)*part
	case Doubling:
		return math.Pow(x.Factor, part)
	case Stairs:
		return 1 + (x.Factor-1)*math.Floor(part*4+1)/4
	}
	return x.Factor
}

// Apply sets the factor of the culprits' leaves.
func (a *Account) Apply(x *Runaway, factor float64) {
	for i := range a.Leaves {
		a.Leaves[i].factor = 1
		for j := range x.Culprits {
			if Covers(&x.Culprits[j], &a.Leaves[i].Key) {
				a.Leaves[i].factor = factor
			}
		}
	}
}
