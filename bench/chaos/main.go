package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher/sim"
)

type settings struct {
	rate   int
	length time.Duration
	seed   uint64
	binary string
	said   io.Writer // the faults as they happen
}

func main() {
	var s settings
	flag.IntVar(&s.rate, "rate", 2000, "publishes a second")
	flag.DurationVar(&s.length, "for", time.Minute, "length of each run")
	flag.Uint64Var(&s.seed, "seed", 1, "draws the faults")
	flag.StringVar(&s.binary, "binary", "", "pushguard to try; built from this tree if empty")
	kind := flag.String("store", "", "single or sentinel; both if empty")
	faults := flag.Bool("table", false, "try each fault by itself and print a table, instead of many at random")
	only := flag.String("only", "", "with -table: only the faults whose name holds this")
	long := flag.Bool("long", false, "with -table: only the faults that take minutes")
	flag.Parse()
	s.said = os.Stderr
	if *faults {
		if err := table(os.Stdout, s, *only, *long); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Stdout, s, *kind); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, s settings, kind string) error {
	dir, err := os.MkdirTemp("", "pushguard-chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if s.binary == "" {
		if s.binary, err = stage.Build(dir); err != nil {
			return err
		}
	}
	kinds := []string{"single", "sentinel"}
	if kind != "" {
		kinds = []string{kind}
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "store\tpublishes\tper second\tsent\trefused\tno answer\tfaults\tplan\tbill\tover\tunspent\tat most\tlost\tdoubled\tunnamed\tledger − bill")
	var broken []error
	for _, k := range kinds {
		sub := filepath.Join(dir, k)
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		r, err := one(sub, k, s)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		fmt.Fprintf(table, "%s\t%d\t%.0f\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", k, r.load.offered, float64(r.load.offered)/s.length.Seconds(),
			r.load.sent, r.load.refused, r.load.unanswered, len(r.faults), r.plan, r.bill, max(r.bill-r.plan, 0), max(r.plan-r.bill, 0), r.bound(),
			r.lost, r.doubled, r.load.unnamed, r.ledger-r.bill)
		broken = append(broken, r.check(k)...)
		defer r.details(out)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return errors.Join(broken...)
}

// result is what one run came to.
type result struct {
	kind          string
	load          *load
	faults        []string
	plan, bill    int64
	ledger        int64
	wasted        int64 // by replicas that were killed, at most
	lost, doubled int
}

// bound is the most that may be left of the plan when it is used up: what killed replicas held, the price of publishes
// whose fate nobody knows, and one message a replica, since a publish costs two.
func (r *result) bound() int64 {
	return r.wasted + 2*int64(r.load.unanswered) + int64(len(fleet{}.replicas))
}

// check holds the result against what was promised.
func (r *result) check(kind string) (broken []error) {
	bad := func(format string, args ...any) {
		broken = append(broken, fmt.Errorf("%s: "+format, append([]any{kind}, args...)...))
	}
	if r.bill > r.plan {
		bad("the bill of %d passes the plan of %d", r.bill, r.plan)
	}
	if r.lost > 0 {
		bad("%d publishes that were answered as sent did not arrive: %v", r.lost, r.load.examples)
	}
	if r.doubled > 0 {
		bad("%d publishes arrived twice", r.doubled)
	}
	if r.load.unnamed > 0 {
		bad("%d refusals without a reason: %v", r.load.unnamed, r.load.examples)
	}
	if r.ledger < r.bill {
		bad("the replicas count %d messages, the bill is %d", r.ledger, r.bill)
	}
	if left := r.plan - r.bill; left > r.bound() {
		bad("%d of the plan are left, and %d are accounted for: %d held by replicas that were killed, %d publishes without an answer", left, r.bound(), r.wasted, r.load.unanswered)
	}
	if r.load.sent == 0 || r.load.refused == 0 {
		bad("%d sent and %d refused: not the run that is meant", r.load.sent, r.load.refused)
	}
	return broken
}

func (r *result) details(out io.Writer) {
	fmt.Fprintf(out, "\n%s: faults\n", r.kind)
	for _, f := range r.faults {
		fmt.Fprintln(out, "  "+f)
	}
	fmt.Fprintln(out, "answers")
	var keys []string
	for k := range r.load.answers {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(out, "  %8d  %s\n", r.load.answers[k], k)
	}
}

func one(dir, kind string, s settings) (*result, error) {
	// About three fifths of the load fit: each publish is two messages.
	plan := int64(s.rate) * int64(s.length/time.Second) * 2 * 3 / 5
	j, err := stage.StartJudge(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, Subscribers: 1, Record: -1}) // a plan without end: nothing but the guard keeps the bill down
	if err != nil {
		return nil, err
	}
	defer j.Close()
	servers, err := startServers(dir, kind)
	if err != nil {
		return nil, err
	}
	defer servers.stop()
	f := &fleet{dir: dir, binary: s.binary}
	defer f.kill()
	for i := range f.replicas {
		file, err := stage.WriteConfig(dir, fmt.Sprintf("replica-%d", i), fmt.Sprintf(`listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
replica: replica-%d
data_dir: %q
store: %q
drain_delay: 200ms
log: { level: warn }
breaker: { shed_bulk_at: 100%%, shed_normal_at: 100%%, critical_only_at: 100%%, burn_rate: off }
accounts:
  - name: %s
    plan: { messages_per_day: %d }
    apps:
      - { id: %q, key: %s, secret: %q, upstream: %q }
`, i, filepath.Join(dir, fmt.Sprint("data-", i)), servers.url(), account, plan, appID, appKey, appSecret, j.URL()))
		if err != nil {
			return nil, err
		}
		f.files[i] = file
		if err := f.start(i); err != nil {
			return nil, err
		}
	}
	r := &result{kind: kind, plan: plan}
	l := newLoad(f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.drive(s.rate, s.length)
	}()
	c := &chaos{rng: rand.New(rand.NewPCG(s.seed, uint64(len(kind)))), fleet: f, servers: servers, began: time.Now(), said: s.said}
	err = c.rage(done)
	<-done
	if err != nil {
		return nil, err
	}
	if err := c.settle(); err != nil {
		return nil, err
	}
	r.faults, r.load = c.log, l
	if err := l.useUp(); err != nil {
		return nil, err
	}
	r.wasted = c.wasted
	if r.ledger, err = f.used(); err != nil {
		return nil, err
	}
	r.bill = j.Bill()
	var lost []string
	lost, r.doubled = j.Verdict(l.accepted)
	r.lost = len(lost)
	for _, id := range lost {
		l.example(id)
	}
	return r, nil
}
