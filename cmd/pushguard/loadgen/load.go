// Package loadgen is pushguard load: an open-loop load generator that signs like an SDK. Latency counts from the
// intended time of sending, so a stall is seen by every publish that it delayed.
package loadgen

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/valyala/fasthttp"
)

type Command struct {
	File        string        `arg:"" optional:"" help:"A scenario of streams and phases in YAML; what flags say is its default."`
	Target      string        `help:"Where to publish to, as http://host:port; a guard's data port, a simulator." default:"http://127.0.0.1:8080" placeholder:"URL"`
	App         string        `help:"App and pair to sign with." placeholder:"ID:KEY:SECRET"`
	Rate        string        `help:"Publishes a second: one number, steps (100,200,400), or a ramp (100..1000). Steps and ramp share the duration." default:"100" placeholder:"RATE"`
	Duration    time.Duration `help:"How long." default:"10s" placeholder:"DURATION"`
	Connections int           `help:"Connections of each stream, each with one publish in flight." default:"64" placeholder:"N"`
	Event       string        `help:"Event name." default:"load.test"`
	Channel     string        `help:"Channel name; every * becomes a number below --channels." default:"load-*"`
	Channels    int           `help:"How many channels." default:"1000" placeholder:"N"`
	Size        int           `help:"Bytes of data of each publish." default:"200" placeholder:"BYTES"`
	Same        bool          `help:"The same data in every publish, instead of distinct ones."`
	Timeout     time.Duration `help:"After this long a publish counts as failed." default:"10s" placeholder:"DURATION"`
	LoadTest    bool          `help:"Mark the publishes as a load test: a guard refuses them unless their caller has load_test: true, and then sends none."`
	Expect      []string      `help:"What must hold at the end, such as 'p99<50ms', 'errors<0.1%', 'refused=0%'; may be given several times. What nothing is said of: answered>=99% and refused<=1%." placeholder:"CONDITION" sep:"none"`
	HDR         string        `help:"Write the latencies' distribution into this file, in the text form that HdrHistogram's plotters read; values are milliseconds." name:"hdr" placeholder:"FILE"`
	Anywhere    bool          `help:"Allow a target that is not this machine. Each publish may be billed."`
	JSON        bool          `help:"Print the result as JSON." name:"json"`
}

func (Command) Help() string {
	return `Open loop: publishes are due at fixed times whatever the answers do, and latency counts from the
intended time, so a stall is seen by all publishes that it delayed (no coordinated omission).
Ends with a verdict: exit code 1 when something that was expected did not hold. docs/load.md has
the words of a scenario.

Examples:
  pushguard load --app 1234:key:secret --rate 2000 --duration 30s
  pushguard load --app 1234:key:secret --rate 100,1000,5000 --duration 30s --expect 'p99<20ms' --json
  pushguard load peak.yaml --hdr peak.hdr`
}

func (c *Command) Run(p *cli.Process) error {
	s, err := c.scenario(p.Getenv)
	if err != nil {
		return err
	}
	var hdr *os.File
	if c.HDR != "" { // before the load: a test whose result cannot be kept need not begin
		if hdr, err = os.Create(c.HDR); err != nil {
			return err
		}
		defer hdr.Close()
	}
	l := newLoad(s)
	res := l.run(p.Ctx, p.Stderr)
	if hdr != nil {
		if err := l.writeHDR(hdr); err != nil {
			return fmt.Errorf("--hdr: %w", err)
		}
	}
	if c.JSON {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	} else if err := res.print(p.Stdout); err != nil {
		return err
	}
	if len(res.Verdict) > 0 {
		return fmt.Errorf("verdict: FAILED: %s", strings.Join(res.Verdict, "; "))
	}
	return nil
}

// scenario is the file, or the one stream that the flags say.
func (c *Command) scenario(getenv func(string) string) (*loadScenario, error) {
	s := &loadScenario{Target: c.Target, Timeout: loadSpan(c.Timeout), LoadTest: c.LoadTest}
	one := loadStream{Name: "load", App: c.App, Event: c.Event, Channel: c.Channel, Channels: c.Channels, Size: c.Size, Same: c.Same, Connections: c.Connections}
	if c.File != "" {
		var err error
		if s, err = readLoadScenario(c.File, *s, one, getenv); err != nil {
			return nil, err
		}
	} else {
		phases, err := parsePhases(c.Rate, c.Duration)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--rate: %w", err))
		}
		one.Phases = phases
		s.Streams = []loadStream{one}
		if c.App == "" {
			return nil, cli.Usage(errors.New("--app ID:KEY:SECRET says who publishes"))
		}
	}
	s.Expect = append(s.Expect, c.Expect...)
	if err := s.check(); err != nil {
		return nil, cli.Usage(err)
	}
	if name := string(s.uri.Host()); !c.Anywhere && !isThisMachine(name) {
		return nil, cli.Usage(fmt.Errorf("--target %s is not this machine; a load test of something that bills is --anywhere", name))
	}
	return s, nil
}

func isThisMachine(host string) bool {
	if strings.HasPrefix(host, "[::1]") {
		return true
	}
	name, _, _ := strings.Cut(host, ":")
	return name == "127.0.0.1" || name == "localhost"
}

// loadResult is what --json prints. Latencies are milliseconds from the
// intended time of sending to the last byte of the answer.
type Result struct {
	loadNumbers
	Seconds float64        `json:"seconds"`
	Streams []streamResult `json:"streams"`
	// Verdict is what did not hold; empty: all did. Expected is what was to hold.
	Verdict  []string `json:"failed_expectations"`
	Expected []string `json:"expected"`
	// Ended says that it was interrupted.
	Ended bool `json:"interrupted"`
}

type streamResult struct {
	Name string `json:"name"`
	loadNumbers
	Phases []phaseResult `json:"phases"`
}

type phaseResult struct {
	Phase string `json:"phase"`
	loadNumbers
}

// loadNumbers count publishes: due, answered, without an answer (failed), sent
// over 10 ms late for want of a free connection or of time (late).
type loadNumbers struct {
	Due       int64              `json:"due"`
	Answered  int64              `json:"answered"`
	Failed    int64              `json:"failed"`
	Late      int64              `json:"late"`
	PerSecond float64            `json:"answered_per_second"`
	Status    map[string]int64   `json:"status"`
	Outcomes  map[string]int64   `json:"outcomes"`
	Why       map[string]int64   `json:"why,omitempty"` // of refusals and of what got no answer: the first few reasons
	LatencyMS map[string]float64 `json:"latency_ms"`
}

var loadQuantiles = []string{"p50", "p90", "p99", "p99.9", "p100"}

func (r Result) print(w io.Writer) error {
	fmt.Fprintf(w, "due %d, answered %d (%.0f/s), failed %d, sent over 10 ms late %d, in %.1f s\n", r.Due, r.Answered, r.PerSecond, r.Failed, r.Late, r.Seconds)
	fmt.Fprintf(w, "status    %s\noutcomes  %s\n", cli.Outcomes(r.Status), cli.Outcomes(r.Outcomes))
	reasons := slices.Collect(maps.Keys(r.Why))
	slices.SortFunc(reasons, func(a, b string) int { return cmp.Or(cmp.Compare(r.Why[b], r.Why[a]), cmp.Compare(a, b)) })
	for _, why := range reasons[:min(len(reasons), 4)] {
		fmt.Fprintf(w, "why       %d x %s\n", r.Why[why], why)
	}
	fmt.Fprint(w, "latency   ")
	for _, q := range loadQuantiles {
		fmt.Fprintf(w, "%s %.2f ms  ", q, r.LatencyMS[q])
	}
	fmt.Fprintln(w)
	rows := 0
	for _, s := range r.Streams {
		rows += len(s.Phases)
	}
	if rows > 1 {
		tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
		fmt.Fprintln(tw, "\n  stream\tphase\tdue\tanswered\tfailed\tp50 ms\tp99 ms\toutcomes")
		for _, s := range r.Streams {
			for _, p := range s.Phases {
				fmt.Fprintf(tw, "  %s\t%s\t%d\t%d\t%d\t%.2f\t%.2f\t%s\n", s.Name, p.Phase, p.Due, p.Answered, p.Failed, p.LatencyMS["p50"], p.LatencyMS["p99"], cli.Outcomes(p.Outcomes))
			}
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	if len(r.Verdict) == 0 {
		_, err := fmt.Fprintf(w, "verdict   passed: %s\n", strings.Join(r.Expected, ", "))
		return err
	}
	return nil
}

func (s *loadScenario) parseTarget() error {
	s.uri = &fasthttp.URI{}
	if err := s.uri.Parse(nil, []byte(s.Target)); err != nil || len(s.uri.Host()) == 0 || (string(s.uri.Scheme()) != "http" && string(s.uri.Scheme()) != "https") {
		return fmt.Errorf("target %q must be http://host:port", s.Target)
	}
	return nil
}

func (s *loadScenario) client(connections int) *fasthttp.HostClient {
	c := &fasthttp.HostClient{Addr: string(s.uri.Host()), IsTLS: string(s.uri.Scheme()) == "https", MaxConns: connections,
		ReadTimeout: time.Duration(s.Timeout), WriteTimeout: time.Duration(s.Timeout), MaxIdemponentCallAttempts: 1, NoDefaultUserAgentHeader: true}
	if !strings.Contains(c.Addr[strings.LastIndexByte(c.Addr, ']')+1:], ":") {
		c.Addr += map[bool]string{true: ":443", false: ":80"}[c.IsTLS]
	}
	return c
}
