package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// quiet is what happened in an account's healthy days.
type quiet struct {
	first, later int // incidents in the first eight days, and after
	everybody    int
	hurried      int // ticks at which a culprit would have been held early, because of the plan
	held         int // incidents in which containment would have refused a publish
}

func healthy(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("healthy", flag.ContinueOnError)
	seeds := seedRange{600000, 600020}
	fs.Var(&seeds, "seeds", "generated accounts, `FROM:TO`")
	days := fs.Int64("days", 365, "days of each account")
	callers := fs.Int("callers", 12, "callers of each account; 0: 5 to 200")
	tick := fs.Int64("tick", 1, "seconds between ticks; 1 is what a guard does. With 5 the windows of 8 and 32 s are not tested, and it takes a fifth of the time")
	tight := fs.Float64("plan", 1.25, "the plan, as a multiple of the busiest of the last seven days; what is left of it decides how long a culprit is let go on")
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
		plan := ledger{part: *tight}
		drive(d, a, nil, monday, monday+*days*86400, *tick, func(now int64, ev []detect.Event) bool {
			p := plan.tick(now, *tick, a)
			d.SetPatience(p)
			q.hurried += one(p < 30*time.Second)
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
	fmt.Fprintln(w, "account\tdays\tfirst 8 days\tlater\teverybody\tper 90 days\tcontained\tper 365 days\tplan at stake\t")
	per := func(q quiet) float64 { return float64(q.first+q.later+q.everybody) / float64(*days) * 90 }
	stake := func(q quiet, n float64) float64 {
		return 100 * float64(q.hurried) * float64(*tick) / float64(*days*86400) / n
	}
	for i, q := range all {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%.2f\t%d\t%.2f\t%.4f%%\t\n", seeds.from+uint64(i), *days, q.first, q.later, q.everybody, per(q), q.held, float64(q.held)/float64(*days)*365, stake(q, 1))
		sum = quiet{sum.first + q.first, sum.later + q.later, sum.everybody + q.everybody, sum.hurried + q.hurried, sum.held + q.held}
	}
	n := float64(len(all))
	fmt.Fprintf(w, "all\t%d\t%d\t%d\t%d\t%.2f\t%d\t%.2f\t%.4f%%\t\n", *days*int64(len(all)), sum.first, sum.later, sum.everybody, per(sum)/n, sum.held, float64(sum.held)/float64(*days)*365/n, stake(sum, n))
	return w.Flush()
}

// ledger is a plan that is as tight as part says, and what is used of it today.
type ledger struct {
	part  float64
	today float64
	days  [7]float64 // the last ones
	pace  [8]float64 // the last ticks
}

// tick takes the account's last tick, and says how long a culprit may be waited for.
func (l *ledger) tick(now, tick int64, a *detecttest.Account) time.Duration {
	sent := 0.0
	for i := range a.Leaves {
		sent += float64(a.Leaves[i].Sent)
	}
	l.today += sent
	n := min(int64(len(l.pace)), max(1, int64(len(l.pace))/tick)) // ticks in the guard's eight seconds
	l.pace[now/tick%n] = sent / float64(tick)
	pace := 0.0
	for _, x := range l.pace[:n] {
		pace += x / float64(n)
	}
	if now%86400 == 0 {
		l.days[now/86400%7], l.today = l.today, 0
	}
	top := slices.Max(l.days[:])
	if top == 0 {
		return 30 * time.Second // the first day
	}
	return detect.Patience(l.part*top-l.today, pace, time.Duration(86400-now%86400)*time.Second)
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
