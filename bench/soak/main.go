package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
)

func main() {
	var s soak
	flag.DurationVar(&s.long, "for", 30*time.Second, "how long")
	flag.IntVar(&s.rate, "rate", 500, "publishes a second")
	flag.DurationVar(&s.cycle, "cycle", 0, "how often the faults come round; 0: a tenth of --for, 8 s at least, a minute at most")
	flag.StringVar(&s.svg, "svg", "", "write a chart to this file")
	flag.StringVar(&s.binary, "binary", "", "pushguard to soak; built from this tree if empty")
	only := flag.String("only", "", "which faults, by their short names, with commas: "+strings.Join(shortNames(), ", ")+"; empty: all")
	watch := flag.Bool("watch", false, "tell every second on stderr what was answered and how the line before Pusher stands")
	flag.Parse()
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	if *watch {
		s.watch = os.Stderr
	}
	// A shell that starts something in the background has it ignore SIGINT, which
	// holds for a Go program that does not ask for it.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := s.run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// soak is one run.
type soak struct {
	long, cycle time.Duration
	rate        int
	svg, binary string
	only        []string  // short names of the faults; empty: all
	watch       io.Writer // told of each second; nil: nobody

	dir      string
	config   string
	redis    *stage.Redis
	pusher   *upstream
	replica  *stage.Replica
	load     *load
	samples  []sample
	told     map[string]int64            // outcomes until the last second that was watched
	shed     map[string]map[string]int64 // who got no place, by the fault that was on and by cause
	during   string                      // the fault since the last sample
	faults   []fault
	reloads  int
	leftOver error
}

const appID, appKey, appSecret = "1234", "soak-key", "soak-secret"

// memoryLimit is what the process is told by GOMEMLIMIT.
const memoryLimit = 256 << 20

// run soaks until the end, or until ctx is done, which is an error; in either case
// nothing that it started is left.
func (s *soak) run(ctx context.Context, out io.Writer) (err error) {
	if s.cycle == 0 {
		s.cycle = min(max(s.long/10, 8*time.Second), time.Minute)
	}
	if s.long < 2*s.cycle || s.rate < 1 {
		return fmt.Errorf("--for %s must hold two cycles of %s, and --rate be above zero", s.long, s.cycle)
	}
	for _, name := range s.only {
		if !slices.Contains(shortNames(), name) {
			return fmt.Errorf("--only %s: there are %s", name, strings.Join(shortNames(), ", "))
		}
	}
	if s.dir, err = os.MkdirTemp("", "pushguard-soak-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if s.binary == "" {
		if s.binary, err = stage.Build(s.dir); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return errStopped
	}
	if s.redis, err = stage.StartRedis(s.dir); err != nil {
		return err
	}
	defer s.redis.Stop()
	if s.pusher, err = newUpstream(); err != nil {
		return err
	}
	defer s.pusher.close()
	if err := s.configure(0, ""); err != nil {
		return err
	}
	if s.replica, err = stage.Start(s.dir, s.binary, []string{fmt.Sprintf("GOMEMLIMIT=%d", memoryLimit)}, nil, time.Minute, "--config", s.config); err != nil {
		return err
	}
	defer s.replica.Kill()
	s.load = newLoad(s.replica.Data, s.rate)
	if err := s.soak(ctx); err != nil {
		return err
	}
	if s.svg != "" {
		if err := os.WriteFile(s.svg, s.chart(), 0o644); err != nil {
			return err
		}
	}
	return s.judge(out)
}

// configure writes the config file, each time another one, or a broken one.
func (s *soak) configure(n int, broken string) (err error) {
	s.config, err = stage.WriteConfig(s.dir, "soak", fmt.Sprintf(`
listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
data_dir: %q
store: %q
drain_delay: 0s
log: { level: error }
%s
accounts:
  - name: soak
    plan: { messages_per_day: 1000000000 }
    apps:
      - id: %q
        key: %s
        secret: %s
        upstream: %q
        timeout: 2s
        upstream_breaker: { open_for: 1s }
        callers:
          - { name: churn-%d, key: churn-1, secret: churn-secret }
    rules:
      - { match: { event: "alarm" }, priority: critical }
      - { match: { event: "state" }, priority: normal, conflate: 500ms }
      - { match: { event: "note" }, priority: bulk, dedupe: 2s, rate: 50/s per channel }
`, filepath.Join(s.dir, "data"), s.redis.URL, broken, appID, appKey, appSecret, s.pusher.url(), n))
	return err
}

// fault is a span of the run in which something was wrong.
type fault struct {
	name     string
	from, to time.Duration
}

var errStopped = errors.New("ended by a signal before its time; nothing is judged")

// soak drives the load and goes through the cycles.
func (s *soak) soak(ctx context.Context) error {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { s.load.drive(stop); close(done) }()
	began := time.Now()
	tick := time.NewTicker(min(s.cycle/60, time.Second)) // no fault falls between two ticks
	defer tick.Stop()
	var open *fault
	for {
		select {
		case <-ctx.Done():
			s.load.dropped.Store(true)
			s.replica.Kill() // which ends what waits for an answer
			close(stop)
			<-done
			return errStopped
		case <-s.replica.Ended:
			s.load.dropped.Store(true)
			close(stop)
			<-done
			return fmt.Errorf("the process ended: %s", s.replica.Out)
		case <-tick.C:
		}
		now := time.Since(began)
		if now >= s.long {
			break
		}
		name := s.faultAt(now)
		if open != nil && open.name != name {
			if err := s.mend(open.name); err != nil {
				return err
			}
			open.to = now
			s.faults = append(s.faults, *open)
			open = nil
		}
		if open == nil && name != "" {
			open = &fault{name: name, from: now}
			if err := s.cause(name); err != nil {
				return err
			}
		}
		one, err := s.sample(now)
		if err != nil {
			return err
		}
		s.attribute(one, name)
		s.samples = append(s.samples, one)
		if s.watch != nil {
			s.tell(one, name)
		}
	}
	if open != nil {
		if err := s.mend(open.name); err != nil {
			return err
		}
	}
	close(stop)
	<-done
	stage.Pause(3 * time.Second) // what is held goes out
	// The process must also end well after all of that.
	s.leftOver = s.replica.Leave(time.Minute)
	return nil
}

// The parts of a cycle, as shares of it. The last third is quiet: that is where
// cycles are compared.
var cycleOf = []struct {
	name, short string
	from, to    float64
}{
	{"Pusher answers 503", "503", 0.06, 0.14}, {"the store hangs", "store", 0.20, 0.28}, {"reload", "reload", 0.32, 0.38},
	{"Pusher does not answer", "silent", 0.42, 0.48}, {"a broken config", "config", 0.56, 0.62},
}

func shortNames() (names []string) {
	for _, f := range cycleOf {
		names = append(names, f.short)
	}
	return names
}

const quietFrom = 0.75

func (s *soak) faultAt(now time.Duration) string {
	part := float64(now%s.cycle) / float64(s.cycle)
	for _, f := range cycleOf {
		if part >= f.from && part < f.to && (len(s.only) == 0 || slices.Contains(s.only, f.short)) {
			return f.name
		}
	}
	return ""
}

func (s *soak) cause(name string) error {
	switch name {
	case "Pusher answers 503":
		s.pusher.mode.Store(failing)
	case "Pusher does not answer":
		s.pusher.mode.Store(silent)
	case "the store hangs":
		s.redis.Freeze()
	case "reload":
		s.reloads++
		return s.configure(s.reloads, "")
	case "a broken config":
		return s.configure(s.reloads, "no_such_setting: 1")
	}
	return nil
}

func (s *soak) mend(name string) error {
	switch name {
	case "Pusher answers 503", "Pusher does not answer":
		s.pusher.mode.Store(well)
	case "the store hangs":
		s.redis.Thaw()
	case "a broken config":
		return s.configure(s.reloads, "")
	}
	return nil
}

// judge prints the table and says what is not as it should be.
func (s *soak) judge(out io.Writer) error {
	var bad []error
	quiet := s.quiet()
	if len(quiet) < 2 {
		return errors.New("too short to compare anything")
	}
	fmt.Fprintf(out, "%s at %d publishes a second, %d cycles of %s; GOMEMLIMIT %d MiB\n\n", s.long, s.rate, len(quiet), s.cycle, memoryLimit>>20)
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "held by the process\tquiet, first cycles\tquiet, last cycles\tgrowth\tallowed\tmost, faults included")
	for _, m := range measures {
		// The first cycle warms up, unless there are only two.
		from := quiet
		if len(from) > 2 {
			from = from[1:]
		}
		third := max(len(from)/3, 1)
		first, last := middle(m, from[:third]), middle(m, from[len(from)-third:])
		most := 0.0
		for _, one := range s.samples {
			most = max(most, m.of(one))
		}
		allowed := max(m.slack, first*0.1)
		if len(quiet) == 2 { // the first was the warm-up as well
			allowed *= 2
		}
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%+.0f\t%.0f\t%.0f\n", m.name, first, last, last-first, allowed, most)
		if last-first > allowed {
			bad = append(bad, fmt.Errorf("%s grew from %.0f to %.0f", m.name, first, last))
		}
		if m.name == "resident memory, MiB" && most > 1.25*memoryLimit/(1<<20) {
			bad = append(bad, fmt.Errorf("resident memory reached %.0f MiB with GOMEMLIMIT %d MiB", most, memoryLimit>>20))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	c := s.load.counts()
	arrived := s.pusher.arrived()
	lost, doubled := s.load.compare(arrived)
	fmt.Fprintf(out, "\nfaults %d; publishes %d (%.0f/s), connections opened %d, config reloads %d; answers: %s\n", len(s.faults), c.total, float64(c.total)/s.long.Seconds(), c.connections, s.reloads, c.words())
	fmt.Fprintf(out, "no place (overloaded, upstream_silent), by cause: %s\n", s.shedWords())
	fmt.Fprintf(out, "critical publishes: %d answered 200, %d arrived; lost %d, doubled %d\n", c.critical, int64(len(arrived)), lost, doubled)
	fmt.Fprintf(out, "latency of what was sent, ms: p50 %.1f  p99 %.1f  (faults included)\n", c.p50, c.p99)
	if lost+doubled > 0 {
		bad = append(bad, fmt.Errorf("%d critical publishes were lost, %d doubled", lost, doubled))
	}
	if c.total < int64(0.8*float64(s.rate)*s.long.Seconds()) {
		bad = append(bad, fmt.Errorf("only %d publishes were made: the machine is too busy for this rate", c.total))
	}
	if c.broken > 0 {
		bad = append(bad, fmt.Errorf("%d connections broke or were refused", c.broken))
	}
	for _, need := range []string{"sent", "conflated", "deduplicated", "unavailable"} {
		if c.outcomes[need] == 0 {
			bad = append(bad, fmt.Errorf("no publish was %s: the run did not do what it is for", need))
		}
	}
	met := map[string]bool{}
	for _, f := range s.faults {
		met[f.name] = true
	}
	kinds := len(cycleOf)
	if len(s.only) > 0 {
		kinds = len(s.only)
	}
	if len(met) != kinds || len(s.only) == 0 && s.reloads < len(quiet)-1 {
		bad = append(bad, fmt.Errorf("only %d of %d kinds of fault came about, and %d reloads", len(met), kinds, s.reloads))
	}
	if s.leftOver != nil {
		bad = append(bad, fmt.Errorf("the end: %w", s.leftOver))
	}
	if text := s.replica.Out.String(); strings.Contains(text, "panic") {
		bad = append(bad, fmt.Errorf("a panic: %s", text))
	}
	return errors.Join(bad...)
}
