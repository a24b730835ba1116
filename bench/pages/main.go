// Pages measures what open dashboards cost the data port: the same load with no
// page and with fifty, in turns of a few seconds, in one run.
//
//	go run ./bench/pages [--pages 50] [--rounds 8] [--turn 4s]
//
// Three figures are taken: the throughput, which is the promise and which only a
// quiet machine can tell; the guard's CPU time a publish (Linux), which is its
// inverse where the core is full, and which other processes disturb less; and
// the part of one core that the pages take when nothing is published, which
// hardly anything disturbs.
//
// The guard has one core (GOMAXPROCS=1) and is what limits the throughput: it
// swallows instead of sending (serve --sink), so that no upstream is in the way.
// The load and the pages' readers are this process. It prints one line a round
// and the medians; exit code 1 when the throughput's is above --most.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

type bench struct {
	guard   *stage.Replica
	keys    []*pusher.Key
	conns   int
	answers atomic.Int64
	bad     atomic.Int64
	frames  atomic.Int64
}

func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("pages", flag.ContinueOnError)
	fs.SetOutput(stderr)
	pages := fs.Int("pages", 50, "open dashboards")
	rounds := fs.Int("rounds", 8, "rounds, each a turn without pages and one with")
	turn := fs.Duration("turn", 4*time.Second, "length of a turn")
	conns := fs.Int("connections", 64, "connections, each with one publish in flight")
	most := fs.Float64("most", 2, "percent of the throughput that the pages may cost at the most")
	if err := fs.Parse(args); err != nil || *rounds < 1 || *pages < 1 || *conns < 1 {
		return 2
	}
	cost, err := measure(*pages, *rounds, *conns, *turn, stdout)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "pages:", err)
		return 1
	case cost > *most:
		fmt.Fprintf(stderr, "pages: %d pages cost %.1f %% of the throughput; at most %.1f %% was allowed\n", *pages, cost, *most)
		return 1
	}
	return 0
}

const callers = 20

func config() string {
	var b strings.Builder
	b.WriteString("listen: 127.0.0.1:0\nadmin: { listen: \"127.0.0.1:0\" }\ndrain_delay: 0s\naccounts:\n  - name: bench\n    plan: { messages_per_day: 1000000000000 }\n    apps:\n      - id: \"1\"\n        key: k\n        secret: s\n        upstream: http://127.0.0.1:9\n        callers:\n")
	for i := range callers {
		fmt.Fprintf(&b, "          - { name: caller-%d, key: k-%d, secret: s }\n", i, i)
	}
	b.WriteString("    rules:\n      - { match: { event: \"notification.*\" }, dedupe: 1s, rate: 1000000/s per channel }\n")
	return b.String()
}

func measure(pages, rounds, conns int, turn time.Duration, out io.Writer) (cost float64, err error) {
	dir, err := os.MkdirTemp("", "pushguard-pages-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	binary, err := stage.Build(dir)
	if err != nil {
		return 0, err
	}
	file, err := stage.WriteConfig(dir, "bench", config())
	if err != nil {
		return 0, err
	}
	g, err := stage.Start(dir, binary, []string{"GOMAXPROCS=1"}, nil, 30*time.Second, "--config", file, "--sink")
	if err != nil {
		return 0, err
	}
	defer g.Kill()
	b := &bench{guard: g, conns: conns}
	for i := range callers {
		b.keys = append(b.keys, pusher.NewKey("k-"+strconv.Itoa(i), "s"))
	}
	runtime.GOMAXPROCS(max(1, runtime.NumCPU()-1))

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	idle := b.rate(5 * time.Second)
	busy, err := b.watched(ctx, pages, 5*time.Second)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(out, "without load %d pages take %.2f %% of one core (%.2f %% with, %.2f %% without)\n", pages, 100*(busy.core-idle.core), 100*busy.core, 100*idle.core)
	var load sync.WaitGroup
	client := &fasthttp.HostClient{Addr: g.Data, MaxConns: conns, ReadTimeout: 10 * time.Second, NoDefaultUserAgentHeader: true, MaxIdemponentCallAttempts: 1}
	for i := range conns {
		load.Go(func() { b.publish(ctx, client, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	b.rate(turn / 2) // warm
	fmt.Fprintf(out, "%d pages, %d connections, %d callers, guard on one core of %d, %s a turn\n", pages, conns, callers, runtime.NumCPU(), turn)
	var costs, cpus []float64
	for n := range rounds {
		// Which comes first changes, so that a drift of the machine takes no side.
		var without, with turned
		for _, open := range [][]bool{{false, true}, {true, false}}[n%2] {
			if !open {
				without = b.rate(turn)
				continue
			}
			if with, err = b.watched(ctx, pages, turn); err != nil {
				return 0, err
			}
		}
		c, u := 100*(1-with.rate/without.rate), 100*(with.cpu/without.cpu-1)
		costs, cpus = append(costs, c), append(cpus, u)
		fmt.Fprintf(out, "round %d: %.0f/s without, %.0f/s with pages: %.1f %%; CPU a publish %.2f µs, %.2f µs: %.1f %%\n", n+1, without.rate, with.rate, c, without.cpu*1e6, with.cpu*1e6, u)
	}
	stop()
	load.Wait()
	if n := b.bad.Load(); n > 0 {
		return 0, fmt.Errorf("%d publishes were not answered 200", n)
	}
	mid := median(costs)
	fmt.Fprintf(out, "%d pages cost %.1f %% of the data port's throughput (median of %d rounds, %.1f to %.1f %%), and %.1f %% more CPU time a publish (%.1f to %.1f %%); %d frames were read\n",
		pages, mid, rounds, costs[0], costs[len(costs)-1], median(cpus), cpus[0], cpus[len(cpus)-1], b.frames.Load())
	return mid, nil
}

// median sorts list.
func median(list []float64) float64 {
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

// turned is what a turn came to: answers a second, the guard's CPU seconds an
// answer, and the part of one core that it took.
type turned struct{ rate, cpu, core float64 }

func (b *bench) rate(turn time.Duration) turned {
	began, before, cpu := time.Now(), b.answers.Load(), b.cpu()
	stage.Pause(turn)
	n := float64(b.answers.Load() - before)
	spent, took := b.cpu()-cpu, time.Since(began).Seconds()
	return turned{n / took, spent / max(n, 1), spent / took}
}

// cpu is the seconds that the guard has computed; 0 where the system does not
// tell. The kernel counts in hundredths of a second (USER_HZ).
func (b *bench) cpu() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.guard.Pid()))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return (user + system) / 100
}

// watched is rate with pages open, each of which reads its stream.
func (b *bench) watched(ctx context.Context, pages int, turn time.Duration) (turned, error) {
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, Proxy: nil}}
	defer client.CloseIdleConnections()
	ready, failed := make(chan struct{}, pages), make(chan error, pages)
	for range pages {
		all.Go(func() {
			if err := b.page(ctx, client, ready); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	for range pages {
		select {
		case <-ready:
		case err := <-failed:
			return turned{}, err
		case <-time.After(20 * time.Second):
			return turned{}, errors.New("the pages do not open")
		}
	}
	got := b.rate(turn)
	select {
	case err := <-failed:
		return turned{}, fmt.Errorf("a page was dropped: %w", err)
	default:
		return got, nil
	}
}

// page opens the stream as a dashboard does and reads it until ctx ends.
func (b *bench) page(ctx context.Context, client *http.Client, ready chan<- struct{}) error {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+b.guard.Admin+"/api/v1/events", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream answers %s", resp.Status)
	}
	buf := make([]byte, 64<<10)
	for first := true; ; {
		n, err := resp.Body.Read(buf)
		if err != nil {
			return err
		}
		if n > 0 && strings.Contains(string(buf[:n]), "event: state") {
			b.frames.Add(1)
			if first {
				first = false
				ready <- struct{}{}
			}
		}
	}
}

// publish sends one publish after the other.
func (b *bench) publish(ctx context.Context, client *fasthttp.HostClient, rng *rand.Rand) {
	var req fasthttp.Request
	var resp fasthttp.Response
	path := []byte("/apps/1/events")
	var body, target []byte
	for ctx.Err() == nil {
		key := b.keys[rng.IntN(len(b.keys))]
		body = fmt.Appendf(body[:0], `{"name":"notification.refresh","channel":"private-user-%d","data":"%x"}`, rng.IntN(5000), rng.Uint64())
		target = key.AppendSigned(append(append(target[:0], path...), '?'), "POST", path, nil, body, time.Now())
		req.Reset()
		req.Header.SetMethod("POST")
		req.SetRequestURIBytes(target)
		req.Header.SetHost(b.guard.Data)
		req.Header.SetContentType("application/json")
		req.SetBodyRaw(body)
		if err := client.Do(&req, &resp); err != nil {
			if ctx.Err() == nil {
				b.bad.Add(1)
			}
			continue
		}
		if resp.StatusCode() != http.StatusOK {
			b.bad.Add(1)
		}
		b.answers.Add(1)
	}
}
