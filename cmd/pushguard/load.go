package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
)

type loadCmd struct {
	Target      string        `help:"Where to publish to, as http://host:port; a guard's data port, a simulator." default:"http://127.0.0.1:8080" placeholder:"URL"`
	App         string        `help:"App and pair to sign with." required:"" placeholder:"ID:KEY:SECRET"`
	Rate        string        `help:"Publishes a second: one number, steps (100,200,400), or a ramp (100..1000). Steps and ramp share the duration." default:"100" placeholder:"RATE"`
	Duration    time.Duration `help:"How long." default:"10s" placeholder:"DURATION"`
	Connections int           `help:"Connections, each with one publish in flight." default:"64" placeholder:"N"`
	Event       string        `help:"Event name." default:"load.test"`
	Channel     string        `help:"Channel name; every * becomes a number below --channels." default:"load-*"`
	Channels    int           `help:"How many channels." default:"1000" placeholder:"N"`
	Size        int           `help:"Bytes of data of each publish." default:"200" placeholder:"BYTES"`
	Same        bool          `help:"The same data in every publish, instead of distinct ones."`
	Timeout     time.Duration `help:"After this long a publish counts as failed." default:"10s" placeholder:"DURATION"`
	Anywhere    bool          `help:"Allow a target that is not this machine. Each publish may be billed."`
	JSON        bool          `help:"Print the result as JSON." name:"json"`
}

func (loadCmd) Help() string {
	return `Open loop: publishes are due at fixed times whatever the answers do, and latency counts from the
intended time, so a stall is seen by all publishes that it delayed (no coordinated omission).
Exit code 1 when less than 99% of what was due got an answer below 500.

Examples:
  pushguard load --app 1234:key:secret --rate 2000 --duration 30s
  pushguard load --app 1234:key:secret --rate 100,1000,5000 --duration 30s --json`
}

// loadResult is what --json prints. Latencies are milliseconds from the
// intended time of sending to the last byte of the answer.
type loadResult struct {
	Due       int64              `json:"due"`
	Answered  int64              `json:"answered"`
	Failed    int64              `json:"failed"`
	Late      int64              `json:"late"`
	Seconds   float64            `json:"seconds"`
	PerSecond float64            `json:"answered_per_second"`
	Status    map[string]int64   `json:"status"`
	Outcomes  map[string]int64   `json:"outcomes"`
	LatencyMS map[string]float64 `json:"latency_ms"`
}

func (c *loadCmd) Run(p *process) error {
	parts := strings.SplitN(c.App, ":", 3)
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return usageError{errors.New("--app must be ID:KEY:SECRET")}
	}
	rate, err := parseLoadRate(c.Rate)
	if err != nil {
		return usageError{err}
	}
	if c.Connections < 1 || c.Channels < 1 || c.Size < 1 || c.Size > 10240 || c.Duration <= 0 {
		return usageError{errors.New("--connections, --channels and --duration must be above zero, and --size between 1 and 10240")}
	}
	var uri fasthttp.URI
	if err := uri.Parse(nil, []byte(c.Target)); err != nil || len(uri.Host()) == 0 || (string(uri.Scheme()) != "http" && string(uri.Scheme()) != "https") {
		return usageError{fmt.Errorf("--target %q must be http://host:port", c.Target)}
	}
	host := string(uri.Host())
	if name, _, _ := strings.Cut(host, ":"); !c.Anywhere && name != "127.0.0.1" && name != "localhost" && !strings.HasPrefix(host, "[::1]") {
		return usageError{fmt.Errorf("--target %s is not this machine; a load test of something that bills is --anywhere", host)}
	}
	l := &load{cmd: c, id: parts[0], key: pusher.NewKey(parts[1], parts[2]), rate: rate, host: host,
		client: &fasthttp.HostClient{Addr: host, IsTLS: string(uri.Scheme()) == "https", MaxConns: c.Connections, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, MaxIdemponentCallAttempts: 1, NoDefaultUserAgentHeader: true}}
	if uriPort := strings.LastIndexByte(host, ':'); uriPort < 0 {
		l.client.Addr += map[bool]string{true: ":443", false: ":80"}[l.client.IsTLS]
	}
	res := l.run(p.ctx, p.stderr)
	if c.JSON {
		enc := json.NewEncoder(p.stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	} else {
		res.print(p.stdout)
	}
	below500 := res.Answered
	for code, n := range res.Status {
		if strings.HasPrefix(code, "5") {
			below500 -= n
		}
	}
	if res.Due == 0 || float64(below500) < 0.99*float64(res.Due) {
		return fmt.Errorf("only %d of %d publishes that were due got an answer below 500", below500, res.Due)
	}
	return nil
}

// loadRate is publishes a second at a part of the duration, 0 to 1.
type loadRate func(part float64) float64

func parseLoadRate(s string) (loadRate, error) {
	number := func(s string) (float64, error) {
		f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || f <= 0 || f > 1e7 {
			return 0, fmt.Errorf("--rate: %q is not a number of publishes a second above zero", s)
		}
		return f, nil
	}
	if from, to, ok := strings.Cut(s, ".."); ok {
		a, err := number(from)
		if err != nil {
			return nil, err
		}
		b, err := number(to)
		return func(part float64) float64 { return a + (b-a)*part }, err
	}
	var steps []float64
	for part := range strings.SplitSeq(s, ",") {
		f, err := number(part)
		if err != nil {
			return nil, err
		}
		steps = append(steps, f)
	}
	return func(part float64) float64 { return steps[min(int(part*float64(len(steps))), len(steps)-1)] }, nil
}

type load struct {
	cmd    *loadCmd
	id     string
	key    *pusher.Key
	rate   loadRate
	host   string
	client *fasthttp.HostClient

	mu       sync.Mutex
	hist     *hdrhistogram.Histogram
	status   map[string]int64
	outcomes map[string]int64
	answered atomic.Int64
	failed   atomic.Int64
	late     atomic.Int64
}

func (l *load) run(ctx context.Context, progress io.Writer) loadResult {
	l.hist = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
	l.status, l.outcomes = map[string]int64{}, map[string]int64{}
	began := time.Now()
	// Deep enough that the schedule never waits for the workers.
	due := make(chan time.Time, 1<<20)
	var workers sync.WaitGroup
	for i := range l.cmd.Connections {
		workers.Go(func() { l.work(due, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	count := l.schedule(ctx, began, due, progress)
	close(due)
	workers.Wait()
	took := time.Since(began).Seconds()
	res := loadResult{Due: count, Answered: l.answered.Load(), Failed: l.failed.Load(), Late: l.late.Load(), Seconds: took,
		PerSecond: float64(l.answered.Load()) / took, Status: l.status, Outcomes: l.outcomes, LatencyMS: map[string]float64{}}
	for _, q := range []float64{50, 90, 99, 99.9, 100} {
		res.LatencyMS["p"+strconv.FormatFloat(q, 'f', -1, 64)] = float64(l.hist.ValueAtQuantile(q)) / 1000
	}
	return res
}

// schedule puts a time into due for each publish, at that time or, where the
// generator fell behind, at once, with the time at which it was meant.
func (l *load) schedule(ctx context.Context, began time.Time, due chan<- time.Time, progress io.Writer) (count int64) {
	terminal := isTerminal(progress)
	next, told := began, began
	for ctx.Err() == nil {
		part := float64(next.Sub(began)) / float64(l.cmd.Duration)
		if part >= 1 {
			break
		}
		if wait := time.Until(next); wait > time.Millisecond && !waitUntil(ctx, next) {
			break
		}
		select {
		case due <- next:
		default:
			l.failed.Add(1) // a million are waiting already
		}
		count++
		next = next.Add(time.Duration(float64(time.Second) / l.rate(part)))
		if terminal && time.Since(told) > time.Second {
			told = time.Now()
			fmt.Fprintf(progress, "\r%3.0f%%  due %d  answered %d  failed %d ", part*100, count, l.answered.Load(), l.failed.Load())
		}
	}
	if terminal {
		fmt.Fprintln(progress)
	}
	return count
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func (l *load) work(due <-chan time.Time, rng *rand.Rand) {
	var req fasthttp.Request
	var resp fasthttp.Response
	path := []byte("/apps/" + l.id + "/events")
	fill := strings.Repeat("x", l.cmd.Size)
	for at := range due {
		if time.Since(at) > time.Millisecond*10 {
			l.late.Add(1)
		}
		data := fill
		if !l.cmd.Same {
			unique := strconv.FormatUint(rng.Uint64(), 36)
			data = unique + fill[min(len(unique), len(fill)):]
		}
		channel := strings.ReplaceAll(l.cmd.Channel, "*", strconv.Itoa(rng.IntN(l.cmd.Channels)))
		body := pusher.AppendEvent(nil, &pusher.Publish{Name: []byte(l.cmd.Event), Channels: [][]byte{[]byte(channel)}, Data: []byte(data)})
		target := l.key.AppendSigned(append(append([]byte(nil), path...), '?'), "POST", path, nil, body, time.Now())
		req.Reset()
		req.Header.SetMethod("POST")
		req.SetRequestURIBytes(target)
		req.Header.SetHost(l.host)
		if l.client.IsTLS {
			req.URI().SetScheme("https")
		}
		req.Header.Set("X-Pusher-Library", "pushguard-load")
		req.Header.SetContentType("application/json")
		req.SetBodyRaw(body)
		err := l.client.DoTimeout(&req, &resp, l.cmd.Timeout)
		took := time.Since(at)
		l.mu.Lock()
		if err != nil {
			l.failed.Add(1)
			l.status["none"]++
		} else {
			l.answered.Add(1)
			l.status[strconv.Itoa(resp.StatusCode())]++
			l.outcomes[firstOf(string(resp.Header.Peek("Pushguard-Outcome")), "(no guard)")]++
			_ = l.hist.RecordValue(min(took.Microseconds(), l.hist.HighestTrackableValue()))
		}
		l.mu.Unlock()
	}
}

func (r loadResult) print(w io.Writer) {
	fmt.Fprintf(w, "due %d, answered %d (%.0f/s), failed %d, sent over 10 ms late %d, in %.1f s\n", r.Due, r.Answered, r.PerSecond, r.Failed, r.Late, r.Seconds)
	fmt.Fprintf(w, "status    %s\noutcomes  %s\n", outcomes(r.Status), outcomes(r.Outcomes))
	fmt.Fprint(w, "latency   ")
	for _, q := range []string{"p50", "p90", "p99", "p99.9", "p100"} {
		fmt.Fprintf(w, "%s %.2f ms  ", q, r.LatencyMS[q])
	}
	fmt.Fprintln(w)
}
