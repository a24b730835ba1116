package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter/detect"
)

// row is one line of the table.
type row struct {
	name          string
	days          float64
	first, later  int // incidents on the first day, and after
	offered, held int64
	tried, found  int
	exact         int
	delays        []float64
	what          []string // the incidents
}

// job computes rows.
type job struct {
	group string
	name  string
	run   func() []row
}

// real measures on traffic that was not made for this detector: any CSV of times
// and counts, calm days of few callers, events of life, and what is injected into them.
func real(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("real", flag.ContinueOnError)
	data := fs.String("data", "", "`DIR` with CSV files of times and counts")
	only := fs.String("only", "", "only rows whose group or name contains this, or one of these, separated by commas")
	days := fs.Int("days", 9, "days of each background")
	seed := fs.Uint64("seed", 1, "of the random numbers")
	rate := fs.Float64("rate", 20, "publishes a second of the backgrounds, on average")
	callers := fs.Int("callers", 12, "callers of the backgrounds")
	tight := fs.Float64("plan", 1.5, "the plan, as a multiple of the busiest day so far and twice the mean on the first")
	strict := fs.Bool("strict", false, "contain: strict instead of auto")
	quick := fs.Bool("quick", false, "calm days of one start and two days")
	wrong := fs.Bool("wrong", false, "list the incidents")
	if err := parse(fs, args, errs); err != nil {
		return err
	}
	mode := watch.Auto
	if *strict {
		mode = watch.Strict
	}
	var jobs []job
	if *data != "" {
		files, err := filepath.Glob(filepath.Join(*data, "*.csv"))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("%s: no CSV files", *data)
		}
		for _, f := range files {
			name := strings.TrimSuffix(filepath.Base(f), ".csv")
			if _, err := trace(f); err != nil {
				return err
			}
			jobs = append(jobs, job{"background", name, func() []row {
				of, _ := trace(f)
				return background(name, of, *seed, mode, *days, *callers, *rate, *tight)
			}})
			jobs = append(jobs, job{"injected", name, func() []row {
				of, _ := trace(f)
				return injected(name, of, *seed, *callers, *rate)
			}})
		}
	}
	jobs = append(jobs, calm(*seed, mode, *quick)...)
	jobs = append(jobs, life(*seed, mode)...)
	if *only != "" {
		words := strings.Split(*only, ",")
		jobs = slices.DeleteFunc(jobs, func(j job) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(j.group+" "+j.name, w) })
		})
	}
	results := make([][]row, len(jobs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				results[i] = jobs[i].run()
				if *wrong {
					for _, r := range results[i] {
						fmt.Fprintf(errs, "done: %s: %d, %d, refused %d of %d, found %d of %d %.0f, exact %d\n", r.name, r.first, r.later, r.held, r.offered, r.found, r.tried, r.delays, r.exact)
						for _, t := range r.what {
							fmt.Fprintf(errs, "  %s\n", t)
						}
					}
				}
			}
		})
	}
	for i := range jobs {
		next <- i
	}
	close(next)
	wg.Wait()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "row\tdays\tfirst day\tlater\ta week\thealthy refused\tfound\trecall\tmedian s\tp90 s\texact\t")
	for _, r := range slices.Concat(results...) {
		refused := "-"
		if r.offered > 0 {
			refused = fmt.Sprintf("%.4f%%", 100*float64(r.held)/float64(r.offered))
		}
		fmt.Fprintf(w, "%s\t%.0f\t%d\t%d\t%.2f\t%s\t", r.name, r.days, r.first, r.later, float64(r.later)/max(r.days-1, 1)*7, refused)
		if r.tried > 0 {
			slices.Sort(r.delays)
			median, p90 := "-", "-"
			if n := len(r.delays); n > 0 {
				median, p90 = fmt.Sprintf("%.0f", r.delays[n/2]), fmt.Sprintf("%.0f", r.delays[n*9/10])
			}
			fmt.Fprintf(w, "%d of %d\t%.0f%%\t%s\t%s\t%.0f%%\t", r.found, r.tried, percent(r.found, r.tried), median, p90, percent(r.exact, max(r.found, 1)))
		} else {
			fmt.Fprint(w, "\t\t\t\t\t")
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// sum makes the row of a world that began then.
func (x *world) sum(name string, began time.Time) row {
	r := row{name: name, days: x.now.Sub(began).Hours() / 24, offered: x.offered, held: x.refused}
	for _, ch := range x.opened {
		if ch.At.Sub(began) < 24*time.Hour {
			r.first++
		} else {
			r.later++
		}
		r.what = append(r.what, told(ch))
	}
	return r
}

func told(ch watch.Change) string {
	var who []string
	for _, c := range ch.Incident.Culprits {
		who = append(who, fmt.Sprintf("%s %.2f of %.2f", c, c.Rate, c.Usual))
	}
	return fmt.Sprintf("%s %s ×%.2f %s", ch.At.Format("Mon 02 15:04:05"), ch.Incident.Kind, ch.Incident.Factor, strings.Join(who, ", "))
}

// background runs a trace, with publishes that come in clumps and at mixed prices.
func background(name string, of func(time.Time) float64, seed uint64, mode watch.Mode, days, callers int, rate, tight float64) []row {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	x := newWorld(seed, mode, start)
	x.clump = 1.5
	x.zipf(callers, true)
	x.background = func(t time.Time) float64 { return rate * of(t) }
	mean := 0.0
	for _, s := range x.streams {
		mean += s.weight * float64(s.price)
	}
	// The busiest day that the whole span has.
	top := 0.0
	for d := range days {
		sum := 0.0
		for q := range 96 {
			sum += of(start.AddDate(0, 0, d).Add(time.Duration(q) * 15 * time.Minute))
		}
		top = max(top, sum/96)
	}
	x.plan = int64(tight * top * rate * mean * 86400)
	x.run(context.Background(), start.AddDate(0, 0, days))
	return []row{x.sum("background "+name, start)}
}

// daynight is a day between low at 04:00 and 1 at 16:00, as a cosine.
func daynight(low float64) func(time.Time) float64 {
	return func(t time.Time) float64 {
		h := float64(t.Unix()%86400)/3600 - 16
		return (1+low)/2 + (1-low)/2*math.Cos(h/12*math.Pi)
	}
}

// calm are days in which nothing is wrong, of one to eight callers, begun at five hours.
func calm(seed uint64, mode watch.Mode, quick bool) (jobs []job) {
	for _, callers := range []int{1, 2, 3, 8} {
		for _, low := range []float64{0.12, 0.25, 0.5} {
			jobs = append(jobs, job{"calm", fmt.Sprintf("%d callers night %.0f%%", callers, low*100), func() []row {
				sum := row{name: fmt.Sprintf("calm, %d callers, night %.0f %%, five starts", callers, low*100)}
				starts, days := []int{0, 31, 62, 140, 147}, 3
				if quick {
					starts, days = starts[:1], 2
				}
				for i, hours := range starts {
					start := time.Date(2026, 1, 5, hours, 0, 0, 0, time.UTC)
					x := newWorld(seed+uint64(i), mode, start)
					x.zipf(callers, false)
					shape := daynight(low)
					x.background = func(t time.Time) float64 { return 3 * shape(t) }
					x.run(context.Background(), start.AddDate(0, 0, days))
					r := x.sum("", start)
					sum.days += r.days
					sum.first += r.first
					sum.later += r.later
					sum.offered += r.offered
					sum.held += r.held
					sum.what = append(sum.what, r.what...)
				}
				return []row{sum}
			}})
		}
	}
	return jobs
}

// life are events that happen to healthy accounts.
func life(seed uint64, mode watch.Mode) (jobs []job) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	at := func(day, hour int) time.Time { return start.AddDate(0, 0, day).Add(time.Duration(hour) * time.Hour) }
	caller := func(c string) func(*stream) bool { return func(s *stream) bool { return s.caller == c } }
	times := func(f float64) func(time.Duration) float64 { return func(time.Duration) float64 { return f } }
	add := func(name string, days int, change func(x *world)) {
		jobs = append(jobs, job{"life", name, func() []row {
			x := newWorld(seed, mode, start)
			x.clump = 1.5
			x.zipf(8, true)
			shape := daynight(0.3)
			x.background = func(t time.Time) float64 { return 8 * shape(t) }
			change(x)
			x.run(context.Background(), at(days, 0))
			return []row{x.sum("life: "+name, start)}
		}})
	}
	add("Black Friday, ×1.5 to ×8 by caller", 6, func(x *world) {
		for i, s := range x.streams {
			f := 1.5 * math.Pow(8/1.5, float64(i*5%len(x.streams))/float64(len(x.streams)))
			x.extra = append(x.extra, &change{from: at(4, 6), to: at(5, 0), on: func(o *stream) bool { return o == s }, factor: func(d time.Duration) float64 {
				return 1 + (f-1)*min(1, d.Hours()/2)
			}})
		}
	})
	add("rename of an event", 6, func(x *world) {
		old := x.streams[0]
		x.extra = append(x.extra, &change{from: at(3, 10), to: at(99, 0), on: func(s *stream) bool { return s == old }, factor: times(0)},
			&change{from: at(3, 10), to: at(99, 0), own: &stream{caller: old.caller, event: old.event + "_v2", channel: old.channel, price: old.price}, rate: 8 * old.weight,
				factor: func(d time.Duration) float64 { return daynight(0.3)(at(3, 10).Add(d)) }})
	})
	add("a key split in two", 6, func(x *world) {
		x.extra = append(x.extra, &change{from: at(3, 10), to: at(99, 0), on: caller("svc-a"), factor: times(0.5)})
		for _, s := range x.streams {
			if s.caller == "svc-a" {
				x.extra = append(x.extra, &change{from: at(3, 10), to: at(99, 0), own: &stream{caller: "svc-a2", event: s.event, channel: s.channel, price: s.price}, rate: 4 * s.weight,
					factor: func(d time.Duration) float64 { return daynight(0.3)(at(3, 10).Add(d)) }})
			}
		}
	})
	add("a new service at 1:00", 6, func(x *world) {
		x.extra = append(x.extra, &change{from: at(3, 1), to: at(99, 0), own: &stream{caller: "svc-new", event: "event.n", channel: "private-org-", price: 2}, rate: 1.2,
			factor: func(d time.Duration) float64 { return daynight(0.3)(at(3, 1).Add(d)) }})
	})
	add("a feature launch, ×2 for good", 6, func(x *world) {
		x.extra = append(x.extra, &change{from: at(3, 10), to: at(99, 0), on: caller("svc-b"), factor: times(2)})
	})
	add("an outage of an hour and its backlog ×8", 5, func(x *world) {
		all := func(*stream) bool { return true }
		x.extra = append(x.extra, &change{from: at(3, 10), to: at(3, 11), on: all, factor: times(0.02)}, &change{from: at(3, 11), to: at(3, 11).Add(8 * time.Minute), on: all, factor: times(8)})
	})
	nightly := func(minutes int) func(x *world) {
		return func(x *world) {
			for d := range 6 {
				x.extra = append(x.extra, &change{from: at(d, 2), to: at(d, 2).Add(time.Duration(minutes) * time.Minute), own: &stream{caller: "jobs", event: "nightly", channel: "private-org-", price: 2}, rate: 12})
			}
		}
	}
	add("a nightly job of 15 min", 6, nightly(15))
	add("a nightly job of an hour", 6, nightly(60))
	add("an import of half an hour, once", 5, func(x *world) {
		x.extra = append(x.extra, &change{from: at(3, 14), to: at(3, 14).Add(30 * time.Minute), on: caller("svc-c"), factor: times(30)})
	})
	add("a fleet that sends on the minute", 6, func(x *world) {
		own := &stream{caller: "fleet", event: "status", channel: "private-device-", price: 2}
		x.extra = append(x.extra, &change{from: start, to: at(99, 0), own: own, rate: 1, factor: func(d time.Duration) float64 {
			if int(d.Seconds())%60 < 2 {
				return 60
			}
			return 0
		}})
	})
	add("growth of 10 % a week", 10, func(x *world) {
		x.extra = append(x.extra, &change{from: start, to: at(99, 0), on: func(*stream) bool { return true }, factor: func(d time.Duration) float64 { return math.Pow(1.1, d.Hours()/168) }})
	})
	add("an expensive caller stops for two hours", 5, func(x *world) {
		x.extra = append(x.extra, &change{from: at(3, 10), to: at(3, 12), on: caller("svc-a"), factor: times(0)})
	})
	return jobs
}

// injected puts faults into a trace after three days, at eight times of the fourth and fifth.
func injected(name string, of func(time.Time) float64, seed uint64, callers int, rate float64) []row {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	x := newWorld(seed, watch.Auto, start)
	x.clump = 1.5
	x.zipf(callers, true)
	x.background = func(t time.Time) float64 { return rate * of(t) }
	kinds := []string{"×10", "×3", "pulses ×3", "new event +15 %", "fan-out ×3", "crowd of 10"}
	rows := make([]row, len(kinds))
	for i, k := range kinds {
		rows[i].name = "injected " + name + ": " + k
	}
	x.run(context.Background(), start.AddDate(0, 0, 3))
	for n := range 8 {
		x.run(context.Background(), start.AddDate(0, 0, 3).Add(time.Duration(n*6)*time.Hour+time.Duration(x.rand.IntN(3600))*time.Second))
		blob := x.w.Save()
		for i, k := range kinds {
			if k == "crowd of 10" && callers < 12 {
				continue
			}
			y := *x
			y.attach(watch.Auto, blob)
			y.inject(k, &rows[i])
		}
	}
	return rows
}

func (x *world) inject(kind string, r *row) {
	x.extra, x.opened = nil, nil
	x.run(context.Background(), x.now.Add(135*time.Minute)) // what a restart forgets
	if _, open := x.w.Current(); open {
		return // it would be added to that one
	}
	x.opened = nil
	r.tried++
	now := x.background(x.now)
	// A stream whose excess is three hundredths of the account or more.
	least := 0.03
	pick := func(factor float64, mean float64) *stream {
		for range 10000 {
			if s := x.streams[x.rand.IntN(len(x.streams))]; s.weight*(factor-1)*mean >= least && s.weight < 0.3 {
				return s
			}
		}
		return x.streams[0]
	}
	begin, end := x.now, x.now.Add(15*time.Minute)
	callers := map[string]bool{}
	var want *stream
	c := &change{from: begin, to: end, fault: true}
	switch kind {
	case "×10":
		want = pick(10, 1)
		c.on, c.factor = func(s *stream) bool { return s == want }, func(time.Duration) float64 { return 10 }
	case "×3":
		want = pick(3, 1)
		c.on, c.factor = func(s *stream) bool { return s == want }, func(time.Duration) float64 { return 3 }
	case "pulses ×3":
		want = pick(3, 1)
		c.on, c.factor = func(s *stream) bool { return s == want }, func(d time.Duration) float64 {
			if int(d.Seconds())%60 < 20 {
				return 3
			}
			return 1
		}
	case "new event +15 %":
		of := x.streams[x.rand.IntN(len(x.streams))]
		want = &stream{caller: of.caller, event: "event.new", channel: "private-user-", price: 2}
		c.own, c.rate = want, 0.15*now
	case "fan-out ×3":
		for range 10000 {
			if want = pick(3, 1); want.price > 1 {
				break
			}
		}
		c.on, c.price = func(s *stream) bool { return s == want }, 3*want.price
	case "crowd of 10":
		for i := range 10 {
			callers[fmt.Sprintf("svc-%c", 'a'+i+2)] = true
		}
		want = x.streams[len(x.streams)-1]
		c.on, c.factor = func(s *stream) bool { return callers[s.caller] }, func(time.Duration) float64 { return 3 }
	}
	callers[want.caller] = true
	x.extra = append(x.extra, c)
	for x.now.Before(end) {
		x.second()
		in, open := x.w.Current()
		if !open {
			continue
		}
		named := 0
		for _, cu := range in.Culprits {
			named += one(callers[cu.Caller]) + one(cu.Caller == detect.Any)
		}
		if named == 0 {
			continue
		}
		r.found++
		r.delays = append(r.delays, x.now.Sub(begin).Seconds())
		x.run(context.Background(), x.now.Add(90*time.Second))
		r.exact += one(x.rightly(kind, want, callers))
		return
	}
	r.what = append(r.what, fmt.Sprintf("missed %s/%s of weight %.3f at %s, %.1f/s", want.caller, want.event, want.weight, begin.Format("Mon 15:04"), now))
}

// rightly reports whether the open incident names who it is, and nobody else.
func (x *world) rightly(kind string, want *stream, callers map[string]bool) bool {
	in, open := x.w.Current()
	if !open {
		return false
	}
	if kind == "crowd of 10" {
		taking := map[string]bool{}
		for _, cu := range in.Culprits {
			for _, c := range strings.Split(cu.Caller, ", ") {
				taking[c] = callers[c]
			}
			for _, c := range cu.Callers {
				taking[c] = callers[c]
			}
		}
		n := 0
		for _, ok := range taking {
			n += one(ok)
		}
		return n >= 8
	}
	if len(in.Culprits) != 1 || in.Culprits[0].Caller != want.caller {
		return false
	}
	own := 0 // streams of the caller: with one alone its event needs no name
	for _, s := range x.streams {
		own += one(s.caller == want.caller)
	}
	e := in.Culprits[0].Event
	return e == want.event || e == detect.Any && own == 1
}
