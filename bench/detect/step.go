package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// step measures how soon one of 200 callers is named that from one second to
// the next sends three times as much, in an account of 1,000 publishes a
// second, two days after the account began.
func step(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("step", flag.ContinueOnError)
	seeds := seedRange{700000, 700100}
	fs.Var(&seeds, "seeds", "generated accounts, `FROM:TO`")
	wrong := fs.Bool("wrong", false, "list those that took longer than 20 s")
	if err := parse(fs, args, errs); err != nil {
		return err
	}
	delays := parallel(seeds, func(seed uint64) int64 {
		a := detecttest.NewAccount(seed, 200)
		a.SetRate(1000)
		d := detect.New(detect.Config{})
		on := func(int64, []detect.Event) bool { return true }
		begin := monday + 2*86400 + int64(seed*7919%86400)/60*60
		drive(d, a, nil, monday, begin-900, 60, on)
		drive(d, a, nil, begin-900, begin, 1, on)
		if in, ok := d.Incident(); ok {
			d.Accept(in.ID)
		}
		x := a.Runaway()
		for len(x.Culprits) != 1 || x.Culprits[0].Event != detect.Any || !dear(a, &x.Culprits[0]) {
			x = a.Runaway()
		}
		x.Factor = 3
		a.Apply(&x, 3)
		found := int64(-1)
		drive(d, a, nil, begin, begin+600, 1, func(now int64, ev []detect.Event) bool {
			for _, e := range ev {
				if found < 0 && e.Phase != detect.Resolved && names(e.Incident.Culprits, &x) {
					found = now - begin
				}
			}
			return found < 0
		})
		return found
	})
	if *wrong {
		for i, n := range delays {
			if n < 0 || n > 20 {
				fmt.Fprintf(errs, "%d: named after %d s\n", seeds.from+uint64(i), n)
			}
		}
	}
	missed := 0
	delays = slices.DeleteFunc(delays, func(n int64) bool {
		missed += one(n < 0)
		return n < 0
	})
	if len(delays) == 0 {
		return fmt.Errorf("none of %d was named within ten minutes", missed)
	}
	slices.Sort(delays)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "×3 step by one of 200 callers\tnamed\tmissed in 10 min\tmedian s\tp90 s\tp99 s\t")
	fmt.Fprintf(w, "\t%d\t%d\t%d\t%d\t%d\t\n", len(delays), missed, delays[len(delays)/2], delays[len(delays)*9/10], delays[(len(delays)*99-1)/100])
	return w.Flush()
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
