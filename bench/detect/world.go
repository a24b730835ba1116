package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
)

// world is an account whose background is given from outside: publishes one by
// one through watch.Watch, one second a tick, as a guard runs.
type world struct {
	rand       *rand.Rand
	w          *watch.Watch
	app        *limiter.App
	now        time.Time
	background func(time.Time) float64 // publishes a second of the account
	clump      float64                 // publishes a request, on average
	streams    []*stream
	extra      []*change
	plan       int64
	used       int64 // today
	busiest    int64 // day that ended
	held       func(time.Time, *limiter.Claim) bool

	offered, refused int64 // healthy ones
	opened           []watch.Change
}

// stream is one combination.
type stream struct {
	caller, event, channel string
	weight                 float64 // of the background
	price                  int64
	serial                 uint64
}

// change is what happens to some streams for a time: their rate is multiplied, or,
// for a stream of its own, rate a second is sent.
type change struct {
	from, to time.Time
	on       func(*stream) bool
	factor   func(since time.Duration) float64
	price    int64   // if not 0, what they cost meanwhile
	rate     float64 // of a stream that is not part of the background
	own      *stream
	fault    bool // it is what is to be found
}

func newWorld(seed uint64, mode watch.Mode, start time.Time) *world {
	x := &world{rand: rand.New(rand.NewPCG(seed, 0x5bd1e995)), now: start, clump: 1, plan: 1 << 40}
	x.attach(mode, nil)
	return x
}

// attach begins a guard that knows what blob says.
func (x *world) attach(mode watch.Mode, blob []byte) {
	x.w = watch.New(watch.Config{Account: "a", Apps: []string{"1"}, Mode: mode, Used: func(time.Time) (int64, int64) { return x.used, x.plan }})
	app, err := limiter.New(limiter.Policy{App: "1"}, nil, nil)
	if err != nil {
		panic(err)
	}
	x.app, x.held = app, x.w.Containment("1")
	if blob != nil {
		if err := x.w.Load(blob); err != nil {
			panic(err)
		}
	}
}

// zipf are callers whose rates fall as Zipf's law says, each with one to three
// combinations; mixed gives some of them high prices.
func (x *world) zipf(callers int, mixed bool) {
	sum := 0.0
	for c := range callers {
		sum += 1 / float64(c+1)
	}
	prices := []int64{2, 2, 2, 5, 21, 101}
	for c := range callers {
		n := 1 + x.rand.IntN(3)
		for e := range n {
			s := &stream{caller: fmt.Sprintf("svc-%c", 'a'+c), event: fmt.Sprintf("event.%c", 'a'+e), channel: "private-user-", weight: 1 / float64(c+1) / sum / float64(n), price: 2}
			if mixed {
				s.price = prices[x.rand.IntN(len(prices))]
			}
			x.streams = append(x.streams, s)
		}
	}
}

func (x *world) poisson(mean float64) int {
	if mean > 30 {
		return max(0, int(mean+math.Sqrt(mean)*x.rand.NormFloat64()+0.5))
	}
	n, p := 0, math.Exp(-mean)
	for u := x.rand.Float64(); u > p; n++ {
		u *= x.rand.Float64()
	}
	return n
}

// second sends what a second brings and ticks.
func (x *world) second() {
	rate := x.background(x.now)
	for _, s := range x.streams {
		mean, price, fault := rate*s.weight, s.price, false
		for _, c := range x.extra {
			if c.on != nil && !x.now.Before(c.from) && x.now.Before(c.to) && c.on(s) {
				if c.factor != nil {
					mean *= c.factor(x.now.Sub(c.from))
				}
				if c.price > 0 {
					price = c.price
				}
				fault = fault || c.fault
			}
		}
		x.send(s, mean, price, fault)
	}
	for _, c := range x.extra {
		if c.own != nil && !x.now.Before(c.from) && x.now.Before(c.to) {
			f := 1.0
			if c.factor != nil {
				f = c.factor(x.now.Sub(c.from))
			}
			x.send(c.own, c.rate*f, c.own.price, c.fault)
		}
	}
	x.now = x.now.Add(time.Second)
	if x.now.Unix()%86400 == 0 {
		x.busiest, x.used = max(x.busiest, x.used), 0
	}
	for _, ch := range x.w.Tick(x.now) {
		if ch.Phase == detect.Opened {
			x.opened = append(x.opened, ch)
		}
	}
}

func (x *world) send(s *stream, mean float64, price int64, fault bool) {
	for range x.poisson(mean / x.clump) {
		n := 1
		for x.clump > 1 && x.rand.Float64() < 1-1/x.clump {
			n++
		}
		for range n {
			s.serial++
			digest := s.serial*0x9e3779b97f4a7c15 | 1
			channels := []string{s.channel + strconv.Itoa(int(digest>>40%1000))}
			x.w.Observe(x.now, "1", s.caller, s.event, channels, digest, price)
			claim := limiter.Claim{Caller: x.app.Caller(s.caller), Event: s.event, Channels: channels, Digest: [2]uint64{digest, digest}, Cost: price}
			ok := x.held(x.now, &claim)
			if ok {
				x.used += price
			}
			if !fault {
				x.offered++
				if !ok {
					x.refused++
				}
			}
		}
	}
}

// run goes on until then.
func (x *world) run(ctx context.Context, until time.Time) {
	for x.now.Before(until) && ctx.Err() == nil {
		x.second()
	}
}

// trace is a CSV of times and counts as a rate in time: mean 1, repeated from its beginning, by
// weekday and time of day.
func trace(path string) (func(time.Time) float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var at []int64
	var n []float64
	for i, row := range rows {
		if len(row) < 2 {
			continue
		}
		t, err := stamp(row[0])
		v, err2 := strconv.ParseFloat(row[1], 64)
		if err != nil || err2 != nil {
			if i == 0 {
				continue // the names of the columns
			}
			return nil, fmt.Errorf("%s:%d: want a time and a count, have %q", path, i+1, row)
		}
		if len(at) > 0 && t <= at[len(at)-1] {
			continue
		}
		at, n = append(at, t), append(n, v)
	}
	if len(at) < 100 {
		return nil, fmt.Errorf("%s: %d times are too few", path, len(at))
	}
	// Monday 00:00 of the trace's second week is where it begins.
	const week, monday = 7 * 86400, 4 * 86400
	first := (at[0]-monday+week-1)/week*week + monday
	span := (at[len(at)-1] - first) / week * week
	if span == 0 {
		span = at[len(at)-1] - first
	}
	mean := 0.0
	for _, v := range n {
		mean += v / float64(len(n))
	}
	var i int
	return func(t time.Time) float64 {
		when := first + ((t.Unix()-first)%span+span)%span
		if i >= len(at)-1 || at[i] > when {
			i = 0
		}
		for i < len(at)-2 && at[i+1] <= when {
			i++
		}
		return n[i] / mean
	}, nil
}

func stamp(s string) (int64, error) {
	for _, layout := range []string{"2006-01-02 15:04:05", time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Unix(), nil
		}
	}
	f, err := strconv.ParseFloat(s, 64) // Unix seconds or milliseconds
	if f > 1e11 {
		f /= 1000
	}
	return int64(f), err
}
