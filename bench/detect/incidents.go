package main

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/limiter/detect/detecttest"
)

// monday is when virtual time begins.
var monday = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).Unix()

// outcome is what became of one generated incident.
type outcome struct {
	seed               uint64
	runaway            detecttest.Runaway
	rate               float64
	early              int // incidents opened before it
	found              bool
	delay              int64 // seconds from passing ×3, or from passing nine tenths of a smaller factor
	exact3, exact      bool  // the set, 70 s after ×3 (or nine tenths), and 70 s after the full height
	top3, top          bool  // the first culprit, at the same times
	named              []detect.Culprit
	earlier            []detect.Incident
	passed             int64 // when the factor was passed from which delay counts
	rivals             *rivals
	rivalTop, rivalSet bool // how Adtributor named
}

// drive steps the account from one second to another.
func drive(d *detect.Detector, a *detecttest.Account, r *rivals, from, to, step int64, each func(now int64, ev []detect.Event) bool) {
	places := make([]detect.Place, len(a.Leaves))
	for now := from + step; now <= to; now += step {
		total := int64(0)
		a.Step(now, step, func(leaf int, n int64) {
			if places[leaf] == (detect.Place{}) {
				places[leaf] = d.Locate(&a.Leaves[leaf].Key)
			}
			d.ObserveAt(places[leaf], 0, uint32(n), n)
			if total += n; r != nil && step == 1 {
				r.count(a, leaf, n)
			}
		})
		if r != nil && step > 1 {
			r.week(float64(total), float64(step))
		}
		if !each(now, d.Tick(time.Unix(now, 0))) {
			return
		}
	}
}

func incident(seed uint64, factors factorRange) outcome {
	a := detecttest.NewAccount(seed, 0)
	d := detect.New(detect.Config{})
	o := outcome{seed: seed, rate: a.Rate}
	watch := func(_ int64, ev []detect.Event) bool {
		for _, e := range ev {
			if e.Phase == detect.Opened {
				o.early++
				o.earlier = append(o.earlier, e.Incident)
			}
		}
		return true
	}
	// A week by minutes, a day by fifteen seconds, then a quarter of an
	// hour by the second.
	begin := monday + 8*86400 + int64(seed%7)*86400 + int64(seed*7919%86400)/60*60
	r := newRivals(a)
	drive(d, a, r, monday, begin-900-26*3600, 60, watch)
	drive(d, a, r, begin-900-26*3600, begin-900, 15, watch)
	drive(d, a, r, begin-900, begin, 1, func(now int64, ev []detect.Event) bool {
		r.second(now, begin)
		return watch(now, ev)
	})
	if in, ok := d.Incident(); ok {
		d.Accept(in.ID)
	}
	o.runaway = a.Runaway()
	for !factors.has(o.runaway.Factor) {
		o.runaway = a.Runaway()
	}
	x := &o.runaway
	passed, found := int64(-1), int64(-1)
	// A tenth of the plan is lost to a caller of half of it, risen by half,
	// after ten hours.
	limit := x.Rise + 5*3600
	sent := make([]bool, len(a.Leaves))
	judged := false
	judge := func() {
		if o.found {
			o.top, o.exact = covered(o.named[0], x, a, sent), exact(o.named, x, a, sent)
		}
		if !judged {
			judged, o.exact3 = true, o.exact
			o.top3 = o.top
		}
	}
	o.rivals = r
	drive(d, a, r, begin, begin+limit, 1, func(now int64, ev []detect.Event) bool {
		r.second(now, begin)
		f := x.At(now - begin)
		a.Apply(x, f)
		for i := range sent {
			sent[i] = sent[i] || a.Leaves[i].Sends()
		}
		if passed < 0 && f >= min(3, 1+(x.Factor-1)*0.9) {
			passed = now
		}
		for _, e := range ev {
			if e.Phase != detect.Resolved && found < 0 && names(e.Incident.Culprits, x) {
				found, o.found = now, true
			}
			if found > 0 {
				o.named = e.Incident.Culprits
			}
		}
		if found > 0 && passed > 0 && !judged && now >= max(found, passed)+70 {
			judge()
			if named := r.adtributor(a); len(named) > 0 {
				o.rivalTop, o.rivalSet = covered(named[0], x, a, sent), exact(named, x, a, sent)
			}
		}
		return found < 0 || now < max(found, passed, begin+x.Rise)+70 || !judged
	})
	o.passed = max(passed, begin)
	r.minute = nil
	if o.found {
		o.delay = found - max(passed, begin)
		if passed < 0 {
			o.delay = 0
		}
		judge()
	}
	return o
}

// names reports whether one of the culprits is meant by one of the named.
func names(named []detect.Culprit, x *detecttest.Runaway) bool {
	for _, n := range named {
		for _, c := range x.Culprits {
			if n.Caller == c.Caller || n.Caller == detect.Any {
				return true
			}
		}
	}
	return false
}

// leaves of the account that a culprit covers and that sent something since
// the incident began: of the others nobody can tell whether they are in it.
func leaves(c *detect.Culprit, a *detecttest.Account, sent []bool) string {
	var s []byte
	for i := range a.Leaves {
		if sent[i] && detecttest.Covers(c, &a.Leaves[i].Key) {
			s = fmt.Appendf(s, "%d ", i)
		}
	}
	return string(s)
}

// covered: the name covers exactly the leaves of one of the culprits.
func covered(n detect.Culprit, x *detecttest.Runaway, a *detecttest.Account, sent []bool) bool {
	return slices.ContainsFunc(x.Culprits, func(c detect.Culprit) bool { return leaves(&n, a, sent) == leaves(&c, a, sent) })
}

// exact: every culprit is named, and nothing else.
func exact(named []detect.Culprit, x *detecttest.Runaway, a *detecttest.Account, sent []bool) bool {
	if len(named) != len(x.Culprits) {
		return false
	}
	return !slices.ContainsFunc(named, func(n detect.Culprit) bool { return !covered(n, x, a, sent) })
}

func incidents(args []string, out, errs io.Writer) error {
	fs := flag.NewFlagSet("incidents", flag.ContinueOnError)
	seeds := seedRange{500000, 501000}
	fs.Var(&seeds, "seeds", "generated incidents, `FROM:TO`")
	factors := factorRange{1, 1e9}
	fs.Var(&factors, "factors", "only incidents whose factor lies in `LO:HI`; others are drawn again")
	wrong := fs.Bool("wrong", false, "list the incidents that were missed or misnamed")
	if err := parse(fs, args, errs); err != nil {
		return err
	}
	all := parallel(seeds, func(seed uint64) outcome { return incident(seed, factors) })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "factor\tonset\tincidents\tfound\trecall\tmedian delay s\tp90 s\tset at ×3\ttop-1 at ×3\tset at full height\ttop-1\tearly alarms\t")
	for _, b := range []struct {
		name   string
		lo, hi float64
	}{{"×1.3–1.5", 0, 1.5}, {"×1.5–3", 1.5, 3}, {"×3 and more", 3, 1e9}} {
		for _, on := range []detecttest.Onset{detecttest.Sudden, detecttest.Linear, detecttest.Doubling, detecttest.Stairs, -1} {
			var n, found, top3, ex3, top, ex, early int
			var delays []int64
			for _, o := range all {
				if o.runaway.Factor < b.lo || o.runaway.Factor >= b.hi || on >= 0 && o.runaway.Onset != on {
					continue
				}
				n++
				early += o.early
				if o.found {
					found++
					delays = append(delays, o.delay)
					top3, ex3, top, ex = top3+one(o.top3), ex3+one(o.exact3), top+one(o.top), ex+one(o.exact)
				}
			}
			if n == 0 || found == 0 {
				continue
			}
			slices.Sort(delays)
			name := "all"
			if on >= 0 {
				name = on.String()
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.1f%%\t%d\t%d\t%.1f%%\t%.1f%%\t%.1f%%\t%.1f%%\t%d\t\n", b.name, name, n, found, percent(found, n),
				delays[len(delays)/2], delays[len(delays)*9/10], percent(ex3, found), percent(top3, found), percent(ex, found), percent(top, found), early)
		}
	}
	rivalRows(w, all)
	if *wrong {
		for _, o := range all {
			for _, e := range o.earlier {
				fmt.Fprintf(errs, "%d: %.0f/s early at %s: %s ×%.1f %v\n", o.seed, o.rate, e.DetectedAt.Format("02 15:04:05"), e.Kind, e.Factor, short(e.Culprits))
			}
			if !o.found || !o.exact {
				fmt.Fprintf(errs, "%d: %.0f/s ×%.1f %v rise %ds found %v after %ds: injected %v, named %v\n", o.seed, o.rate, o.runaway.Factor, o.runaway.Onset, o.runaway.Rise, o.found, o.delay, short(o.runaway.Culprits), short(o.named))
			}
		}
	}
	return w.Flush()
}

// rivalRows are for ×3 and more, as far as the rivals saw the incident: they
// are fed until the detector has named it and the factor is passed, and a
// minute more; sudden ones only, so that all have the same time.
func rivalRows(w io.Writer, all []outcome) {
	for i, name := range []string{"static threshold", "3 sigma over EWMA", "predict_linear"} {
		var n, found, early int
		var delays []int64
		for _, o := range all {
			if o.runaway.Factor < 3 || o.runaway.Onset != detecttest.Sudden {
				continue
			}
			n++
			early += o.rivals.early[i]
			if at := o.rivals.found[i]; at > 0 {
				found++
				delays = append(delays, at-o.passed)
			}
		}
		if n == 0 {
			continue
		}
		slices.Sort(delays)
		median := "-"
		if found > 0 {
			median = fmt.Sprint(delays[found/2])
		}
		fmt.Fprintf(w, "×3 and more\tsudden: %s, within 70 s\t%d\t%d\t%.1f%%\t%s\t\t\t\t\t\t%d\t\n", name, n, found, 100*float64(found)/float64(n), median, early)
	}
	var n, top, set int
	for _, o := range all {
		if o.runaway.Factor < 3 || o.runaway.Onset != detecttest.Sudden {
			continue
		}
		n++
		if o.rivalTop {
			top++
		}
		if o.rivalSet {
			set++
		}
	}
	if n > 0 {
		fmt.Fprintf(w, "×3 and more\tsudden: Adtributor\t%d\t\t\t\t\t%.1f%%\t%.1f%%\t\t\t\t\n", n, 100*float64(set)/float64(n), 100*float64(top)/float64(n))
	}
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(of) }

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func short(cs []detect.Culprit) []string {
	var s []string
	for _, c := range cs {
		s = append(s, fmt.Sprintf("%s/%s/%s %.2f (%.1f of %.1f)", c.Caller, c.Event, c.Channel, c.Share, c.Rate, c.Usual))
	}
	return s
}

// parallel runs every seed, in as many goroutines as there are processors.
func parallel[T any](seeds seedRange, run func(uint64) T) []T {
	out := make([]T, seeds.to-seeds.from)
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				out[i] = run(seeds.from + uint64(i))
			}
		})
	}
	for i := range out {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}
