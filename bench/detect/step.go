package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// step measures how soon one of 200 callers is named that from one second to
// the next sends three times as much, in an account of 1,000 publishes a
// second, two days after the account began. Beside the delays stands what no
// test can beat, see bound.
func step(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("step", flag.ContinueOnError)
	seeds := seedRange{700000, 700100}
	fs.Var(&seeds, "seeds", "generated accounts, `FROM:TO`")
	wrong := fs.Bool("wrong", false, "list those that took longer than 20 s")
	before := fs.Int64("tick", 60, "seconds between ticks of the two days before; 1 is what a guard does, and takes thirty times as long")
	if err := parse(fs, args, errs); err != nil {
		return err
	}
	all := parallel(seeds, func(seed uint64) stepped {
		a := detecttest.NewAccount(seed, 200)
		a.SetRate(accountRate)
		d := detect.New(detect.Config{})
		on := func(int64, []detect.Event) bool { return true }
		begin := monday + 2*86400 + int64(seed*7919%86400)/60*60
		drive(d, a, nil, monday, begin-900, *before, on)
		sent := make([]float64, len(a.Leaves)) // in the last quarter of an hour
		drive(d, a, nil, begin-900, begin, 1, func(int64, []detect.Event) bool {
			for i := range a.Leaves {
				sent[i] += float64(a.Leaves[i].Sent)
			}
			return true
		})
		if in, ok := d.Incident(); ok {
			d.Accept(in.ID)
		}
		x := a.Runaway()
		for len(x.Culprits) != 1 || x.Culprits[0].Event != detect.Any || !dear(a, &x.Culprits[0]) {
			x = a.Runaway()
		}
		x.Factor = 3
		a.Apply(&x, 3)
		o := stepped{delay: -1}
		for i := range a.Leaves {
			if detecttest.Covers(&x.Culprits[0], &a.Leaves[i].Key) {
				o.rate += sent[i] / 900
			}
		}
		drive(d, a, nil, begin, begin+600, 1, func(now int64, ev []detect.Event) bool {
			for _, e := range ev {
				if o.delay < 0 && e.Phase != detect.Resolved && names(e.Incident.Culprits, &x) {
					o.delay = now - begin
				}
			}
			return o.delay < 0
		})
		return o
	})
	var delays, worth, bounds []int64
	missed, missedWorth := 0, 0
	for i, o := range all {
		if *wrong && (o.delay < 0 || o.delay > 20) {
			fmt.Fprintf(errs, "%d: %.1f publishes a second before, named after %d s, bound %d s\n", seeds.from+uint64(i), o.rate, o.delay, bound(o.rate))
		}
		bounds = append(bounds, bound(o.rate))
		worthy := 2*o.rate >= leastShare*accountRate
		switch {
		case o.delay < 0:
			missed++
			missedWorth += one(worthy)
		case worthy:
			worth = append(worth, o.delay)
			fallthrough
		default:
			delays = append(delays, o.delay)
		}
	}
	if len(delays) == 0 {
		return fmt.Errorf("none of %d was named within ten minutes", missed)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "×3 step by one of 200 callers\tcount\tmissed in 10 min\tmedian s\tp90 s\tp99 s\t")
	row := func(name string, v []int64, missed int) {
		if len(v) == 0 {
			return
		}
		slices.Sort(v)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, len(v), missed, v[len(v)/2], v[len(v)*9/10], v[(len(v)*99-1)/100])
	}
	row("named", delays, missed)
	row("of an excess that is looked for", worth, missedWorth)
	row("bound", bounds, 0)
	return w.Flush()
}

// accountRate is the account's mean rate, publishes a second; leastShare is
// detect.Config's MinShare if none is given. A caller may be at its lowest when the step
// comes, and three times that an excess which is not worth an incident.
const (
	accountRate = 1000
	leastShare  = 0.01
)

// stepped is one account's step.
type stepped struct {
	delay int64   // seconds until it was named, -1: not within ten minutes
	rate  float64 // what the culprit sent before, a second
}

// bound is the least mean delay, in whole seconds, of any test that makes no more
// than one false incident in 90 days, if it knew the healthy rate exactly, and that the
// step is one of three times: the log of the seconds in which it may be wrong over
// the Kullback-Leibler divergence of a second (Lorden, Ann. Math. Statist. 1971). And
// of a caller that has bursts of five seconds, as high as they come, those five say
// nothing; after them there are only the accidents of as many seconds as there are such
// bursts.
func bound(rate float64) int64 {
	const (
		days         = 90
		callers      = 200
		combinations = 600                 // three a caller, as the generator has it
		bursts       = 1.5 * 7 / 8 * 1 / 5 // of five seconds, a day of a generated combination
		burstLong    = 5
	)
	nats := rate * (3*math.Log(3) - 2)
	quiet := math.Log(days*86400*(callers+combinations)) / nats
	burst := burstLong + math.Log(days*combinations*bursts)/nats
	return int64(math.Ceil(max(quiet, burst)))
}

// dear: at three times its rate the culprit sends two hundredths of the account's
// rate more, the least excess that the generated incidents have, too.
func dear(a *detecttest.Account, c *detect.Culprit) bool {
	base := 0.0
	for i := range a.Leaves {
		if detecttest.Covers(c, &a.Leaves[i].Key) && a.Leaves[i].Sends() {
			base += a.Leaves[i].Base
		}
	}
	return 2*base >= 0.02*a.Rate
}
