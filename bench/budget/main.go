package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher/sim"
)

const (
	app      = "1234:key:secret"
	patience = 30 * time.Second
	slowness = 100 * time.Millisecond
)

func main() {
	rounds := flag.Int("rounds", 15, "rounds of each Redis, in turns, for the p99")
	rate := flag.Int("rate", 4000, "publishes a second for the round trips; a quarter of it for the p99")
	accounts := flag.Int("accounts", 40, "generated accounts of forecast")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./bench/budget [flags] [speed|exact|forecast|months|memory …]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(os.Stdout, flag.Args(), *rounds, *rate, *accounts); err != nil {
		fmt.Fprintln(os.Stderr, "budget:", err)
		os.Exit(1)
	}
}

// parts are what is measured, in this order where none is named.
var parts = []string{"speed", "exact", "forecast", "months", "memory"}

func run(out io.Writer, which []string, rounds, rate, accounts int) error {
	if len(which) == 0 {
		which = parts
	}
	for _, part := range which {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("there is no part %q; there are %s", part, strings.Join(parts, ", "))
		}
	}
	dir, err := os.MkdirTemp("", "pushguard-budget-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir}
	defer b.end()
	if slices.Contains(which, "speed") || slices.Contains(which, "exact") {
		if b.binary, err = stage.Build(dir); err != nil {
			return err
		}
	}
	var all []error
	for _, part := range which {
		var missed []error
		var err error
		switch part {
		case "speed":
			missed, err = b.speed(out, rounds, rate)
		case "exact":
			missed, err = b.exact(out)
		case "forecast":
			missed = []error{forecastErrors(out, accounts)}
		case "months":
			missed = []error{months(out, 30)}
		case "memory":
			missed = []error{memory(out)}
		}
		if err != nil {
			return err
		}
		all = append(all, missed...)
	}
	return errors.Join(all...)
}

// bench is what runs meanwhile.
type bench struct {
	dir, binary string
	stops       []func()
	n           int
}

func (b *bench) end() {
	for _, stop := range slices.Backward(b.stops) {
		stop()
	}
}

// sim is a simulated Pusher with one subscriber a channel: a publish is two
// messages.
func (b *bench) sim(plan int64) (s *sim.Server, addr string, err error) {
	s = sim.New(sim.Config{Apps: []sim.App{{ID: "1234", Key: "key", Secret: "secret"}}, MessagesPerDay: plan, Subscribers: 1})
	if addr, err = s.Listen("127.0.0.1:0"); err == nil {
		b.stops = append(b.stops, func() { _ = s.Close() })
	}
	return s, addr, err
}

func (b *bench) redis() (*stage.Redis, error) {
	b.n++
	dir := filepath.Join(b.dir, fmt.Sprint("redis-", b.n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	r, err := stage.StartRedis(dir)
	if err == nil {
		b.stops = append(b.stops, r.Stop)
	}
	return r, err
}

func (b *bench) serve(store, upstream string, plan int64) (*stage.Replica, error) {
	b.n++
	file, err := stage.WriteConfig(b.dir, fmt.Sprint("serve-", b.n), fmt.Sprintf(`listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
replica: r%d
data_dir: %q
store: %q
contain: "off"
log: { level: error }
breaker: { shed_bulk_at: 100%%, shed_normal_at: 100%%, critical_only_at: 100%%, burn_rate: off }
accounts:
  - name: budget
    plan: { messages_per_day: %d }
    apps:
      - { id: "1234", key: key, secret: secret, upstream: "http://%s", subscribers: { default: 1 } }
`, b.n, filepath.Join(b.dir, fmt.Sprint("data-", b.n)), store, plan, upstream))
	if err != nil {
		return nil, err
	}
	r, err := stage.Start(b.dir, b.binary, nil, nil, patience, "--config", file)
	if err == nil {
		b.stops = append(b.stops, r.Kill)
	}
	return r, err
}

type answers struct {
	Answered int64              `json:"answered"`
	Outcomes map[string]int64   `json:"outcomes"`
	Latency  map[string]float64 `json:"latency_ms"`
}

func (b *bench) load(data string, rate int, d time.Duration) (a answers, err error) {
	cmd := exec.Command(b.binary, "load", "--target", "http://"+data, "--app", app, "--rate", strconv.Itoa(rate), "--duration", d.String(), "--json", "--expect", "errors<100%")
	cmd.Stderr = io.Discard
	text, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("load: %w", err)
	}
	return a, json.Unmarshal(text, &a)
}

// speed compares two guards, one beside a fast Redis, one beside a slow one.
func (b *bench) speed(out io.Writer, rounds, rate int) (missed []error, err error) {
	_, up, err := b.sim(1e12)
	if err != nil {
		return nil, err
	}
	var guards [2]*stage.Replica
	var fast *stage.Redis
	for i, late := range []time.Duration{0, slowness} {
		r, err := b.redis()
		if err != nil {
			return nil, err
		}
		url := r.URL
		if late > 0 {
			addr, stop, err := delay(strings.TrimPrefix(r.URL, "redis://"), late)
			if err != nil {
				return nil, err
			}
			b.stops = append(b.stops, stop)
			url = "redis://" + addr
		} else {
			fast = r
		}
		if guards[i], err = b.serve(url, up, 1e12); err != nil {
			return nil, err
		}
	}
	// one loads a guard and returns the publish's p99, and how often it asked its Redis.
	one := func(i, rate int, d time.Duration) (a answers, trips int64, err error) {
		before, err := scripts(fast)
		if err != nil {
			return a, 0, err
		}
		if a, err = b.load(guards[i].Data, rate, d); err != nil {
			return a, 0, err
		}
		if a.Outcomes["sent"] != a.Answered {
			missed = append(missed, fmt.Errorf("not all were sent: %v", a.Outcomes))
		}
		after, err := scripts(fast)
		return a, after - before, err
	}
	var publishes, trips int64
	for round := range 4 {
		a, n, err := one(0, rate, 3*time.Second)
		if err != nil {
			return nil, err
		}
		if round > 0 { // the first finds out what the leases must be
			publishes, trips = publishes+a.Answered, trips+n
		}
	}
	// The p99 at a load that leaves the machine room, or its own scheduling is what is measured. Each round has both, and
	// the order turns with each, so that a machine that grows slower or faster counts for neither.
	const easy = 2 * time.Second
	var p99 [2][]float64
	var ratios []float64
	for round := range rounds + 1 {
		var got [2]float64
		for k := range 2 {
			i := (k + round) % 2
			a, _, err := one(i, max(rate/4, 1), easy)
			if err != nil {
				return nil, err
			}
			got[i] = a.Latency["p99"]
		}
		if round > 0 {
			p99[0], p99[1] = append(p99[0], got[0]), append(p99[1], got[1])
			ratios = append(ratios, got[1]/got[0])
		}
	}
	perThousand := float64(trips) / float64(publishes) * 1000
	// What else the machine does only ever adds to a p99, and a single pause of it is all that some rounds show. So the
	// quieter rounds of each side are compared; the median of the pairs stands beside it.
	quiet := func(all []float64) float64 { return slices.Sorted(slices.Values(all))[len(all)/4] }
	ratio := quiet(p99[1]) / quiet(p99[0])
	slices.Sort(ratios)
	fmt.Fprintf(out, "through a real serve: p99 at %d publishes/s, %d rounds of %v each in turns; round trips at %d\n", max(rate/4, 1), rounds, easy, rate)
	fmt.Fprintf(out, "  p99 of a publish, of the rounds at the first quarter: %.2f ms beside a fast Redis, %.2f ms beside one that answers after %v; ratio %.2f\n",
		quiet(p99[0]), quiet(p99[1]), slowness, ratio)
	fmt.Fprintf(out, "    of all rounds: medians %.2f and %.2f ms, median of the pairs' ratios %.2f (half of them %.2f to %.2f)\n",
		median(p99[0]), median(p99[1]), median(ratios), ratios[len(ratios)/4], ratios[len(ratios)*3/4])
	fmt.Fprintf(out, "  round trips to Redis: %d for %d publishes, %.2f for 1,000\n", trips, publishes, perThousand)
	if ratio > 1.1 {
		missed = append(missed, fmt.Errorf("a slow Redis is felt: %.2f times the p99, at most 1.1 wanted", ratio))
	}
	if perThousand > 2 {
		missed = append(missed, fmt.Errorf("%.2f round trips for 1,000 publishes, at most 2 wanted", perThousand))
	}
	return missed, nil
}

// exact lets three guards use a small plan up together.
func (b *bench) exact(out io.Writer) (missed []error, err error) {
	const plan, replicas = 12_000, 3
	pusher, up, err := b.sim(plan)
	if err != nil {
		return nil, err
	}
	r, err := b.redis()
	if err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	var got [replicas]answers
	var failed [replicas]error
	for i := range replicas {
		g, err := b.serve(r.URL, up, plan)
		if err != nil {
			return nil, err
		}
		all.Go(func() { got[i], failed[i] = b.load(g.Data, 300*(i+1), 8*time.Second) })
	}
	all.Wait()
	if err := errors.Join(failed[:]...); err != nil {
		return nil, err
	}
	stats := pusher.Stats()
	fmt.Fprintf(out, "%d replicas, loads of 300, 600 and 900 publishes/s, a plan of %d\n", replicas, plan)
	for i, a := range got {
		fmt.Fprintf(out, "  replica %d: %v\n", i+1, a.Outcomes)
	}
	over, left := max(stats.Messages-plan, 0)+stats.Refused, plan-stats.Messages
	fmt.Fprintf(out, "  billed %d; over the plan %d; stranded at the end %d\n", stats.Messages, over, left)
	if over > 0 {
		missed = append(missed, fmt.Errorf("%d over the plan", over))
	}
	// A publish costs two messages; a single one may be left to each replica.
	if left > replicas {
		missed = append(missed, fmt.Errorf("%d left although somebody was refused, at most %d wanted", left, replicas))
	}
	return missed, nil
}

// scripts is how many scripts a Redis has run, which is a guard's round trips.
func scripts(r *stage.Redis) (n int64, err error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "redis://"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "INFO commandstats\r\nQUIT\r\n"); err != nil {
		return 0, err
	}
	text, err := io.ReadAll(c)
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":calls=")
		if name == "cmdstat_eval" || name == "cmdstat_evalsha" {
			calls, _, _ := strings.Cut(rest, ",")
			k, err := strconv.ParseInt(calls, 10, 64)
			if err != nil {
				return 0, err
			}
			n += k
		}
	}
	return n, err
}

// delay passes on to addr and back, what comes back later by d.
func delay(addr string, d time.Duration) (at string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", addr)
			if err != nil {
				c.Close()
				continue
			}
			go func() {
				defer up.Close()
				_, _ = io.Copy(up, c)
			}()
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := up.Read(buf)
					if err != nil {
						return
					}
					stage.Pause(d)
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), func() { ln.Close() }, nil
}

func median[T cmp.Ordered](all []T) T {
	s := slices.Sorted(slices.Values(all))
	return s[len(s)/2]
}
