package main

import (
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// quiet is what happened in an account's healthy days.
type quiet struct {
	first, later int // incidents in the first eight days, and after
	everybody    int
	held         int // incidents in which containment would have refused a publish
}

func healthy(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("healthy", flag.ContinueOnError)
	seeds := seedRange{600000, 600020}
	fs.Var(&seeds, "seeds", "generated accounts, `FROM:TO`")
	days := fs.Int64("days", 365, "days of each account")
	callers := fs.Int("callers", 12, "callers of each account; 0: 5 to 200")
	tick := fs.Int64("tick", 5, "seconds between ticks; 1 is what a guard does, and takes five times as long")
	wrong := fs.Bool("wrong", false, "list the incidents")
	if err := parse(fs, args, errs); err != nil {
		return err
	}
	all := parallel(seeds, func(seed uint64) quiet {
		a := detecttest.NewAccount(seed, *callers)
		d := detect.New(detect.Config{})
		var q quiet
		refused := false
		bucket := make([]float64, len(a.Leaves)) // what the leaf is over its allowed rate
		drive(d, a, nil, monday, monday+*days*86400, *tick, func(now int64, ev []detect.Event) bool {
			for _, e := range ev {
				if *wrong {
					fmt.Fprintf(errs, "%d day %d second %d: %s %s ×%.1f %v\n", seed, (now-monday)/86400, (now-monday)%86400, e.Phase, e.Incident.Kind, e.Incident.Factor, short(e.Incident.Culprits))
				}
				if e.Phase == detect.Resolved {
					refused = false
					clear(bucket)
				}
				if e.Phase != detect.Opened {
					continue
				}
				switch {
				case e.Incident.Kind == detect.Everybody:
					q.everybody++
				case now < monday+8*86400:
					q.first++
				default:
					q.later++
				}
			}
			if _, open := d.Incident(); open && !refused {
				refused = refuses(d, a, bucket, *tick)
				q.held += one(refused)
			}
			return true
		})
		return q
	})
	var sum quiet
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "account\tdays\tfirst 8 days\tlater\teverybody\tper 90 days\tcontained\tper 365 days\t")
	per := func(q quiet) float64 { return float64(q.first+q.later+q.everybody) / float64(*days) * 90 }
	for i, q := range all {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%.2f\t%d\t%.2f\t\n", seeds.from+uint64(i), *days, q.first, q.later, q.everybody, per(q), q.held, float64(q.held)/float64(*days)*365)
		sum = quiet{sum.first + q.first, sum.later + q.later, sum.everybody + q.everybody, sum.held + q.held}
	}
	n := float64(len(all))
	fmt.Fprintf(w, "all\t%d\t%d\t%d\t%d\t%.2f\t%d\t%.2f\t\n", *days*int64(len(all)), sum.first, sum.later, sum.everybody, per(sum)/n, sum.held, float64(sum.held)/float64(*days)*365/n)
	return w.Flush()
}

// refuses reports whether a token bucket as the guard's, five seconds of the
// allowed rate deep, would have refused a publish of the last tick.
func refuses(d *detect.Detector, a *detecttest.Account, over []float64, tick int64) bool {
	for i := range a.Leaves {
		h, ok := d.Contained(&a.Leaves[i].Key)
		if !ok {
			over[i] = 0
			continue
		}
		over[i] = max(0, over[i]+float64(a.Leaves[i].Sent)-h.Rate*float64(tick))
		if over[i] > max(h.Rate*5, 1) {
			return true
		}
	}
	return false
}
