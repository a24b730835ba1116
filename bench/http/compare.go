//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the flags of compare.
type options struct {
	quick     bool
	rounds    int
	seconds   int
	pushguard string
	fold      string
	tls       bool
	only      string
	latency   time.Duration
	dedupe    time.Duration
	requests  int
	keep      bool
}

func compareOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "about a minute: 2 rounds of 2 s")
	fs.IntVar(&o.rounds, "rounds", 5, "interleaved rounds; figures are medians over them")
	fs.IntVar(&o.seconds, "seconds", 3, "length of one measurement under full load")
	fs.StringVar(&o.pushguard, "pushguard", "", "the `binary` to measure; without it, only the others are")
	fs.StringVar(&o.fold, "fold", "true", "the `value` of an app's setting fold in the rows with folding, as '{ enabled: true, window: 2ms }'; empty: no such rows")
	fs.BoolVar(&o.tls, "tls", false, "all rows with the upstream over TLS, instead of one table of those that matter most")
	fs.StringVar(&o.only, "only", "", "only rows whose name has one of these `words,…` in it")
	fs.DurationVar(&o.latency, "latency", 0, "how long the upstream takes for each answer")
	fs.DurationVar(&o.dedupe, "dedupe", 150*time.Millisecond, "the rule's dedupe window; must be shorter than the pool lasts")
	fs.IntVar(&o.requests, "requests", 40000, "distinct signed requests in a pool")
	fs.BoolVar(&o.keep, "keep", false, "leave the directory with configs and pools, and name it")
	if err := parse(fs, args, stderr); err != nil {
		return nil, err
	}
	if o.quick {
		o.rounds, o.seconds = 2, 2
	}
	if o.rounds < 1 || o.seconds < 1 || o.requests < 1 {
		return nil, usageError{fmt.Errorf("rounds, seconds and requests must be at least 1")}
	}
	return o, nil
}

// bench is one run.
type bench struct {
	*options
	*fleet
	ctx      context.Context
	progress io.Writer
	faults   []string // why figures of this run must not be trusted
}

func compare(args []string, stdout, stderr io.Writer) (err error) {
	o, err := compareOptions(args, stderr)
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
	f := &fleet{dir: dir}
	defer func() { stop(); f.disband() }()
	machine := newMachine()
	if err := f.assemble(ctx, o); err != nil {
		return err
	}
	b := &bench{options: o, fleet: f, ctx: ctx, progress: stderr}
	if err := machine.begin(f.loadCore, f.proxyCore); err != nil {
		return err
	}
	full, err := b.throughput("full load", b.passing())
	if err != nil {
		return err
	}
	refusing, err := b.throughput("refusals", b.refusing())
	if err != nil {
		return err
	}
	half, rate, err := b.halfLoad(full)
	if err != nil {
		return err
	}
	alone, err := b.latencies("1 in flight", b.latencyRows(), 0, 1, b.rounds)
	if err != nil {
		return err
	}
	secure := newResults(nil)
	if !o.tls && o.pushguard != "" {
		if err := f.face(ctx, o, true); err != nil {
			return err
		}
		rounds := b.rounds
		b.rounds = min(b.rounds, 3)
		secure, err = b.throughput("TLS upstream", b.overTLS())
		b.rounds = rounds
		if err != nil {
			return err
		}
	}
	if err := machine.end(); err != nil {
		return err
	}
	b.report(stdout, machine, full, refusing, half, rate, alone, secure)
	if len(b.faults) > 0 {
		return fmt.Errorf("%d checks failed: the figures above are not valid", len(b.faults))
	}
	return nil
}

// Names of rows that others are compared with.
const (
	direct       = "direct"
	nginxPlain   = "nginx proxy_pass"
	nginxLimit   = "nginx limit_req"
	nginxRefuses = "nginx limit_req refusing"
	guardRow     = "pushguard, full judgement"
	foldingRow   = "pushguard folding, distinct payloads"
)

// row is one thing that is measured.
type row struct {
	name    string
	addr    string
	process *process // whose CPU counts; nil: none
	guard   *guard   // nil: not pushguard
	pool    poolSpec
	refuses bool
	counts  bool // answers other than 200 are a figure of this row and no fault of the run
}

func (b *bench) spec(event string) poolSpec {
	return poolSpec{App: appID, Key: callerKey, Secret: callerSecret, Event: event, Requests: b.requests, Channels: 10000, BodyBytes: 500}
}

// wanted drops rows that --only does not ask for.
func (b *bench) wanted(rows []row) (kept []row) {
	for _, r := range rows {
		for word := range strings.SplitSeq(b.only, ",") {
			if strings.Contains(r.name, word) {
				kept = append(kept, r)
				break
			}
		}
	}
	return kept
}

// passing are the rows under full load that refuse nothing.
func (b *bench) passing() []row {
	p := b.spec("notification.created")
	rows := []row{
		{name: direct, addr: b.stub, pool: p},
		{name: nginxPlain, addr: b.nginxPlain, process: b.nginx, pool: p},
		{name: nginxLimit, addr: b.nginxLimited, process: b.nginx, pool: p},
		{name: "HAProxy stick-table", addr: b.haproxyLimited, process: b.haproxy, pool: p},
	}
	if g := b.guard; g != nil {
		rows = append(rows, row{name: guardRow, addr: g.data, process: g.process, guard: g, pool: p})
	}
	if g := b.folding; g != nil {
		same := p
		same.Same, same.Channels = true, p.Requests
		rows = append(rows,
			row{name: foldingRow, addr: g.data, process: g.process, guard: g, pool: p},
			row{name: "pushguard folding, same payload to many channels", addr: g.data, process: g.process, guard: g, pool: same})
	}
	return b.wanted(rows)
}

// refusing are the rows where all but one request a second are refused.
func (b *bench) refusing() []row {
	p := b.spec("refused.created")
	rows := []row{
		{name: nginxRefuses, addr: b.nginxRefusing, process: b.nginx, pool: p, refuses: true},
		{name: "HAProxy refusing", addr: b.haproxyRefusing, process: b.haproxy, pool: p, refuses: true},
	}
	if g := b.guard; g != nil {
		rows = append(rows, row{name: "pushguard refusing (429)", addr: g.data, process: g.process, guard: g, pool: p, refuses: true})
	}
	return b.wanted(rows)
}

// overTLS are the rows that matter where the upstream is reached over TLS, as Pusher is.
func (b *bench) overTLS() (rows []row) {
	for _, r := range b.passing() {
		if r.name == nginxLimit || r.guard != nil {
			rows = append(rows, r)
		}
	}
	return rows
}

// latencyRows are those of the open loop and of one request in flight.
func (b *bench) latencyRows() (rows []row) {
	for _, r := range b.passing() {
		if r.name == direct || r.name == nginxPlain || r.guard != nil && !r.pool.Same {
			rows = append(rows, r)
		}
	}
	return rows
}

// throughput measures each row in each round with wrk.
func (b *bench) throughput(what string, rows []row) (*results, error) {
	res := newResults(rows)
	script, err := b.render("wrk.lua", "wrk.lua", nil)
	if err != nil {
		return nil, err
	}
	seconds := b.seconds
	if what == "refusals" {
		seconds = (seconds + 1) / 2
	}
	for round := range b.rounds + 1 {
		for i := range rows {
			r := &rows[i]
			pool, err := b.signed(r.pool)
			if err != nil {
				return nil, err
			}
			if round == 0 {
				// Connections, heaps and caches get their size; nothing is kept of it.
				if _, err := b.load(r, pool, 0, 64, 300*time.Millisecond); err != nil {
					return nil, fmt.Errorf("%s: %w", r.name, err)
				}
				continue
			}
			fmt.Fprintf(b.progress, "%s, round %d of %d: %s", what, round, b.rounds, r.name)
			s, err := b.wrk(r, script, pool, seconds)
			if err != nil {
				fmt.Fprintln(b.progress)
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			fmt.Fprintf(b.progress, ": %.0f/s\n", s.perSecond)
			res.add(r.name, s)
		}
	}
	return res, nil
}

// halfLoad is the open loop at half of what nginx did in this run.
func (b *bench) halfLoad(full *results) (*results, float64, error) {
	rate := full.median(nginxPlain, perSecond) / 2
	rows := b.latencyRows()
	if rate == 0 || len(rows) == 0 {
		return newResults(nil), 0, nil
	}
	res, err := b.latencies(fmt.Sprintf("half load, %.0f/s", rate), rows, rate, 64, halfLoadRounds*b.rounds)
	return res, rate, err
}

// halfLoadRounds is how many rounds of half load there are to one of full load. The kernel's own threads take a core
// for 1 to 4 ms several times in a second, which is what a p99 is made of here, so it needs more of them.
const halfLoadRounds = 3

func (b *bench) latencies(what string, rows []row, rate float64, conns, rounds int) (*results, error) {
	res := newResults(rows)
	d := time.Duration(b.seconds) * time.Second * 2 / 3
	if rate == 0 {
		d = time.Duration(b.seconds) * time.Second / 2
	}
	for round := range rounds {
		for i := range rows {
			r := &rows[i]
			pool, err := b.signed(r.pool)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(b.progress, "%s, round %d of %d: %s", what, round+1, rounds, r.name)
			s, err := b.load(r, pool, rate, conns, d)
			if err != nil {
				fmt.Fprintln(b.progress)
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			fmt.Fprintf(b.progress, ": p99 %.3f ms\n", s.p99)
			res.add(r.name, s)
		}
	}
	return res, nil
}

// signed is a pool of that kind, signed lately enough: Pusher's 600 s are far away.
func (b *bench) signed(p poolSpec) (string, error) {
	name := filepath.Join(b.dir, fmt.Sprintf("pool-%s-%v-%d-%d", p.Event, p.Same, p.Channels, p.Callers))
	if i, err := os.Stat(name); err == nil && time.Since(i.ModTime()) < time.Minute {
		return name, nil
	}
	return name, poolFile(name, p)
}
