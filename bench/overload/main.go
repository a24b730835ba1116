//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
)

func main() {
	o := overload{}
	flag.DurationVar(&o.long, "for", time.Minute, "how long the overload lasts")
	flag.DurationVar(&o.step, "step", 4*time.Second, "how long the idle phase and each step of the search last")
	flag.StringVar(&o.only, "bottleneck", "", "upstream or cpu; empty: both")
	flag.StringVar(&o.binary, "binary", "", "pushguard to load; built from this tree if empty")
	flag.Float64Var(&o.times, "times", 2, "how many times the peak is offered")
	flag.Float64Var(&o.peak, "peak", 0, "publishes a second to be taken for the peak, so that two binaries get the same load; 0: it is looked for")
	flag.IntVar(&o.slots, "slots", 40, "calls that the upstream carries at once where it is the bottleneck")
	flag.BoolVar(&o.fold, "fold", false, "with folding, as in the default config; without it a call is a publish, and the bottleneck is plainer")
	flag.Parse()
	if os.Getenv("OVERLOAD_PINNED") == "" { // the generator and the upstream keep off serve's core
		if taskset, err := exec.LookPath("taskset"); err == nil {
			if self, err := os.Executable(); err == nil {
				err = syscall.Exec(taskset, append([]string{taskset, "-c", "0", self}, os.Args[1:]...), append(os.Environ(), "OVERLOAD_PINNED=1"))
				fmt.Fprintln(os.Stderr, "overload: not pinned:", err)
			}
		}
	}
	if err := o.run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "overload:", err)
		os.Exit(1)
	}
}

type overload struct {
	long, step time.Duration
	only       string
	binary     string
	times      float64
	peak       float64
	slots      int
	fold       bool
}

const (
	appID, appKey, appSecret = "1234", "overload-key", "overload-secret"
	callTime                 = 20 * time.Millisecond
	idleRate                 = 200.0
	maxConnections           = 4000
	// What is asked for.
	allowedP99, neededGoodput = 2.0, 0.9
)

func (o *overload) run(out io.Writer) error {
	dir, err := os.MkdirTemp("", "pushguard-overload-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		if o.binary, err = stage.Build(dir); err != nil {
			return err
		}
	}
	var bad []error
	for _, b := range []struct {
		name  string
		slots int
	}{{"upstream", o.slots}, {"cpu", 1 << 20}} {
		if o.only == "" || o.only == b.name {
			if err := o.bottleneck(out, dir, b.name, b.slots); err != nil {
				bad = append(bad, fmt.Errorf("%s: %w", b.name, err))
			}
		}
	}
	return errors.Join(bad...)
}

func (o *overload) bottleneck(out io.Writer, dir, name string, slots int) error {
	up, err := newUpstream(slots)
	if err != nil {
		return err
	}
	defer up.close()
	if name == "cpu" {
		stop, err := neighbour()
		if err != nil {
			return err
		}
		defer stop()
	}
	config, err := stage.WriteConfig(dir, name, fmt.Sprintf(`
listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
data_dir: %q
drain_delay: 0s
log: { level: warn }
max_connections: %d
accounts:
  - name: overload
    plan: { messages_per_day: 1000000000000 }
    apps: [ { id: %q, key: %s, secret: %s, upstream: %q, fold: %v } ]
    rules:
      - { match: { event: "critical" }, priority: critical }
      - { match: { event: "normal" }, priority: normal }
      - { match: { event: "bulk" }, priority: bulk }
`, filepath.Join(dir, name), 2*maxConnections, appID, appKey, appSecret, up.url(), o.fold))
	if err != nil {
		return err
	}
	binary, args := o.binary, []string{"--config", config}
	env := []string{"GOMAXPROCS=1"}
	if taskset, err := exec.LookPath("taskset"); err == nil {
		// Launch puts "serve" first; a shell turns that into taskset's arguments.
		wrap := filepath.Join(dir, "pinned")
		if err := os.WriteFile(wrap, fmt.Appendf(nil, "#!/bin/sh\nexec %s -c 1 %s \"$@\"\n", taskset, o.binary), 0o700); err != nil {
			return err
		}
		binary = wrap
	}
	serve, err := stage.Start(dir, binary, env, nil, time.Minute, args...)
	if err != nil {
		return err
	}
	defer serve.Kill()
	g, err := newGenerator(serve.Data)
	if err != nil {
		return err
	}
	defer g.close()
	g.run(idleRate, 2*time.Second) // warm
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(out, "bottleneck: %s, folding %v\n", name, map[bool]string{true: "on", false: "off"}[o.fold])
	fmt.Fprintln(table, "phase\toffered/s\tanswered 200/s\tcritical p50, p99 ms\tnormal p99\tcritical: 200, shed\tnormal: 200, shed\tbulk: 200, shed\tbroken\tnot sent")
	row := func(phase string, rate float64, r result) {
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.1f, %.1f\t%.1f\t%d, %d\t%d, %d\t%d, %d\t%d\t%d\n", phase, rate, r.goodput(), r.at(critical, 50), r.at(critical, 99), r.at(normal, 99),
			r.ok[critical], r.shed[critical], r.ok[normal], r.shed[normal], r.ok[bulk], r.shed[bulk], r.broken, r.missed)
	}
	idle := g.run(idleRate, o.step)
	row("idle", idleRate, idle)
	// The peak: the rate grows until what is answered no longer does.
	peak, peakAt := idle.goodput(), idleRate
	for rate, since := 1000.0, 0; o.peak == 0 && since < 3 && rate < 1e5; rate *= 1.3 {
		r := g.run(rate, o.step)
		since++
		if got := r.goodput(); got > 1.02*peak {
			peak, peakAt, since = got, rate, 0
		}
		stage.Pause(time.Second) // what it left behind is over
	}
	if o.peak > 0 {
		peakAt = o.peak
	}
	again := g.run(peakAt, o.step)
	if peak = math.Max(peak, again.goodput()); o.peak > 0 {
		peak = o.peak
	}
	row("peak", peakAt, again)
	stage.Pause(2 * time.Second)
	rate := o.times * peak
	before, err := readCores()
	if err != nil {
		return err
	}
	over := g.run(rate, o.long)
	since, err := readCores()
	if err != nil {
		return err
	}
	loadIdle, serveIdle := since.idleSince(before)
	row(fmt.Sprintf("%.3g× the peak for %s", o.times, o.long), rate, over)
	stage.Pause(2 * time.Second)
	after := g.run(idleRate, o.step)
	row("idle again", idleRate, after)
	if err := table.Flush(); err != nil {
		return err
	}
	slower, goodput := over.at(critical, 99)/idle.at(critical, 99), over.goodput()/peak
	fmt.Fprintf(out, "critical p99: %.2f × idle (wanted: at most %.0f); goodput: %.0f %% of the peak of %.0f/s (wanted: at least %.0f %%); meanwhile the core of generator and upstream was idle for %.0f %%, serve's for %.0f %%\n\n",
		slower, allowedP99, 100*goodput, peak, 100*neededGoodput, 100*loadIdle, 100*serveIdle)
	var bad []error
	if !(slower <= allowedP99) { // also when nothing critical was answered
		bad = append(bad, fmt.Errorf("the p99 of what is critical is %.2f times that of the idle phase", slower))
	}
	if goodput < neededGoodput {
		bad = append(bad, fmt.Errorf("goodput is %.0f %% of the peak", 100*goodput))
	}
	if over.missed > over.due/50 {
		bad = append(bad, fmt.Errorf("the generator could not send %d of %d: this was no overload of what is meant", over.missed, over.due))
	}
	if name == "cpu" && serveIdle > loadIdle {
		bad = append(bad, fmt.Errorf("serve's core was idle for %.0f %%, that of generator and upstream for %.0f %%: the bottleneck was not serve", 100*serveIdle, 100*loadIdle))
	}
	return errors.Join(bad...)
}
