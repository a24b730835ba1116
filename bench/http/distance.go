//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// distanceOptions are the flags of distance: the grid, and how it is measured.
type distanceOptions struct {
	options
	latencies []time.Duration
	schemes   []string
	channels  []int
	rates     []int
	callers   int
	old       string
}

// far is an upstream that answers late: one cell of the grid.
type far struct {
	latency  time.Duration
	tls      bool
	channels int
	rate     int
}

func (c far) String() string {
	scheme := "HTTP"
	if c.tls {
		scheme = "TLS"
	}
	return fmt.Sprintf("%d ms %s, %d channels, %d/s", c.latency.Milliseconds(), scheme, c.channels, c.rate)
}

// connections that the client opens for a cell: twice what is in flight to an upstream that is no slower than it says.
func (c far) connections() int { return int(float64(c.rate)*c.latency.Seconds()*2) + 256 }

func distanceFlags(args []string, stderr io.Writer) (*distanceOptions, error) {
	o := &distanceOptions{}
	fs := flag.NewFlagSet("distance", flag.ContinueOnError)
	fs.StringVar(&o.pushguard, "pushguard", "", "the `binary` to measure")
	fs.StringVar(&o.old, "old", "", "a second `binary`, measured in turns with the first")
	fs.StringVar(&o.fold, "fold", "true", "the `value` of an app's setting fold in the rows with folding")
	fs.IntVar(&o.rounds, "rounds", 1, "interleaved rounds; figures are medians over them")
	fs.IntVar(&o.seconds, "seconds", 2, "length of one measurement")
	fs.IntVar(&o.requests, "requests", 20000, "distinct signed requests in a pool")
	fs.BoolVar(&o.quick, "quick", false, "the cells at 100 ms alone, for 1 s")
	fs.BoolVar(&o.keep, "keep", false, "leave the directory with configs and pools, and name it")
	latencies := fs.String("latencies", "0,20ms,100ms,200ms", "how long the upstream takes for each answer")
	schemes := fs.String("schemes", "http,tls", "how the proxies reach the upstream; direct is always HTTP")
	channels := fs.String("channels", "1,20,10000", "over how many channels the publishes are spread")
	rates := fs.String("rates", "500,2000,5000", "publishes a second")
	fs.IntVar(&o.callers, "callers", 1, "callers the publishes are signed by, 1 to 20")
	if err := parse(fs, args, stderr); err != nil {
		return nil, err
	}
	if o.quick {
		*latencies, o.seconds, o.rounds = "100ms", 1, 1
	}
	o.dedupe = 150 * time.Millisecond
	var errs []error
	for word := range strings.SplitSeq(*latencies, ",") {
		if word == "0" {
			word = "0s"
		}
		d, err := time.ParseDuration(word)
		errs, o.latencies = append(errs, err), append(o.latencies, d)
	}
	for word := range strings.SplitSeq(*schemes, ",") {
		if word != "http" && word != "tls" {
			errs = append(errs, fmt.Errorf("--schemes %s: http or tls", word))
		}
		o.schemes = append(o.schemes, word)
	}
	for word := range strings.SplitSeq(*channels, ",") {
		n, err := strconv.Atoi(word)
		errs, o.channels = append(errs, err), append(o.channels, n)
	}
	for word := range strings.SplitSeq(*rates, ",") {
		n, err := strconv.Atoi(word)
		errs, o.rates = append(errs, err), append(o.rates, n)
	}
	if o.rounds < 1 || o.seconds < 1 || o.callers < 1 || o.callers > maxCallers {
		errs = append(errs, errors.New("rounds and seconds must be at least 1, callers 1 to 20"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usageError{err}
	}
	return o, nil
}

// distance measures each cell of the grid: what a publish meets on its way to an upstream that is as far away as Pusher is.
func distance(args []string, stdout, stderr io.Writer) error {
	o, err := distanceFlags(args, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "pushguard-bench-")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintln(stderr, "keeping", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	f := &fleet{dir: dir, old: o.old}
	defer func() { stop(); f.disband() }()
	machine := newMachine()
	first := o.options
	first.tls = o.schemes[0] == "tls"
	if err := f.assemble(ctx, &first); err != nil {
		return err
	}
	b := &bench{options: &o.options, fleet: f, ctx: ctx, progress: stderr}
	if err := machine.begin(f.loadCore, f.proxyCore); err != nil {
		return err
	}
	var cells []far
	figures := map[far]*results{}
	for i, scheme := range o.schemes {
		if i > 0 {
			if err := f.face(ctx, &o.options, scheme == "tls"); err != nil {
				return err
			}
		}
		for _, latency := range o.latencies {
			if _, err := get("http://" + f.stub + "/latency/" + latency.String()); err != nil {
				return err
			}
			for _, channels := range o.channels {
				for _, rate := range o.rates {
					c := far{latency, scheme == "tls", channels, rate}
					res, err := b.reach(c, o.callers)
					if err != nil {
						return fmt.Errorf("%s: %w", c, err)
					}
					cells, figures[c] = append(cells, c), res
				}
			}
		}
	}
	if err := machine.end(); err != nil {
		return err
	}
	b.distanceReport(stdout, machine, cells, figures)
	if len(b.faults) > 0 {
		return fmt.Errorf("%d checks failed: the figures above are not valid", len(b.faults))
	}
	return nil
}

const (
	oldRow        = "old pushguard"
	oldFoldingRow = "old pushguard folding"
)

// farRows are what is measured in a cell.
func (b *bench) farRows(p poolSpec) []row {
	rows := []row{
		{name: direct, addr: b.stub, pool: p},
		{name: nginxLimit, addr: b.nginxLimited, process: b.nginx, pool: p},
	}
	for _, g := range []struct {
		name  string
		guard *guard
	}{{guardRow, b.guard}, {foldingRow, b.folding}, {oldRow, b.oldGuard}, {oldFoldingRow, b.oldFolding}} {
		if g.guard != nil {
			rows = append(rows, row{name: g.name, addr: g.guard.data, process: g.guard.process, guard: g.guard, pool: p, counts: true})
		}
	}
	return rows
}

// reach measures one cell: every row in every round, in turns.
func (b *bench) reach(c far, callers int) (*results, error) {
	p := b.spec("notification.created")
	p.Channels, p.Callers = c.channels, callers
	rows := b.farRows(p)
	res := newResults(rows)
	for round := range b.rounds {
		for i := range rows {
			r := &rows[i]
			pool, err := b.signed(r.pool)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(b.progress, "%s, round %d of %d: %s", c, round+1, b.rounds, r.name)
			s, err := b.load(r, pool, float64(c.rate), c.connections(), time.Duration(b.seconds)*time.Second)
			if err != nil {
				fmt.Fprintln(b.progress)
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			fmt.Fprintf(b.progress, ": %d of %d, p50 %.1f, p99 %.1f ms\n", s.ok, s.answered, s.p50, s.p99)
			res.add(r.name, s)
		}
	}
	return res, nil
}

func (b *bench) distanceReport(w io.Writer, m *machine, cells []far, figures map[far]*results) {
	fmt.Fprintf(w, "%s\n\n", m.describe(b))
	fmt.Fprintf(w, "**As far away as Pusher is**: open loop, 500-byte signed publishes, proxy on one core, default limits; medians of %d interleaved rounds of %d s. ", b.rounds, b.seconds)
	fmt.Fprint(w, "A cell has: not answered 200, if any · p50 and p99 in ms (for direct as they are, for the others above direct) · CPU per publish × nginx `limit_req`. Direct is always HTTP.\n\n")
	names := figures[cells[0]].names
	fmt.Fprint(w, "| upstream | channels | rate |")
	for _, n := range names {
		fmt.Fprintf(w, " %s |", n)
	}
	fmt.Fprintf(w, "\n|%s\n", strings.Repeat("---|", 3+len(names)))
	for _, c := range cells {
		r := figures[c]
		scheme := "HTTP"
		if c.tls {
			scheme = "TLS"
		}
		fmt.Fprintf(w, "| %d ms %s | %d | %d/s |", c.latency.Milliseconds(), scheme, c.channels, c.rate)
		for _, n := range names {
			cell := ""
			if lost := r.median(n, func(s *sample) float64 { return float64(s.answered - s.ok) }); lost > 0 {
				cell = fmt.Sprintf("**%.0f of %.0f** · ", lost, r.median(n, func(s *sample) float64 { return float64(s.answered) }))
			}
			if n == direct {
				cell += fmt.Sprintf("%.1f, %.1f", r.median(n, p50), r.median(n, p99))
			} else {
				cell += fmt.Sprintf("%+.1f, %+.1f · × %s", r.added(n, p50), r.added(n, p99), number("%.2f", r.ratio(n, nginxLimit, cpuPer10k)))
			}
			if late := r.median(n, func(s *sample) float64 { return float64(s.behind) }); late > 0 {
				cell += fmt.Sprintf(" · %.0f never sent", late)
			}
			fmt.Fprintf(w, " %s |", cell)
		}
		fmt.Fprintln(w)
	}
}
