//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results are the samples of several rows, one a round each.
type results struct {
	names []string
	by    map[string][]*sample
}

func newResults(rows []row) *results {
	r := &results{by: map[string][]*sample{}}
	for i := range rows {
		r.names = append(r.names, rows[i].name)
	}
	return r
}

func (r *results) add(name string, s *sample) { r.by[name] = append(r.by[name], s) }

func perSecond(s *sample) float64 { return s.perSecond }
func p50(s *sample) float64       { return s.p50 }
func p99(s *sample) float64       { return s.p99 }
func cpuPer10k(s *sample) float64 { return s.cpuPer10k }
func callsPer(s *sample) float64  { return s.callsPer }

// median of a figure over the rounds; 0 if the row was not measured.
func (r *results) median(name string, of func(*sample) float64) float64 {
	var all []float64
	for _, s := range r.by[name] {
		all = append(all, of(s))
	}
	return median(all)
}

// paired is the median over the rounds of f(row's figure, other row's figure): what drifts from round to round, as
// the speed of a shared machine does, is in both.
func (r *results) paired(name, other string, of func(*sample) float64, f func(a, b float64) float64) float64 {
	a, b := r.by[name], r.by[other]
	if len(a) != len(b) {
		return math.NaN()
	}
	var all []float64
	for i := range a {
		all = append(all, f(of(a[i]), of(b[i])))
	}
	if len(all) == 0 {
		return math.NaN()
	}
	return median(all)
}

func (r *results) ratio(name, other string, of func(*sample) float64) float64 {
	return r.paired(name, other, of, func(a, b float64) float64 { return a / b })
}

func (r *results) added(name string, of func(*sample) float64) float64 {
	return r.paired(name, direct, of, func(a, b float64) float64 { return a - b })
}

// span is the least and the most of a figure.
func (r *results) span(name string, of func(*sample) float64) (low, high float64) {
	low = math.Inf(1)
	for _, s := range r.by[name] {
		low, high = min(low, of(s)), max(high, of(s))
	}
	return low, high
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// number prints a figure, or a dash for what does not exist.
func number(format string, v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return fmt.Sprintf(format, v)
}

func (b *bench) report(w io.Writer, m *machine, full, refusing, half *results, rate float64, alone, secure *results) {
	fmt.Fprintf(w, "%s\n\n", m.describe(b))
	fmt.Fprintf(w, "**Full load**: 500-byte signed publishes, 64 connections, proxy on one core; medians of %d interleaved rounds of %d s.\n\n", b.rounds, b.seconds)
	b.table(w, full, nginxLimit, nginxPlain)
	fmt.Fprintf(w, "\n**Refusals**: all but one request a second answered 429 by the proxy itself.\n\n")
	b.table(w, refusing, nginxRefuses, nginxRefuses)
	ceilings(w, full, refusing)
	if len(secure.names) > 0 {
		fmt.Fprintf(w, "\n**As Pusher is reached**: the same full load, the upstream over TLS 1.3 on kept-alive connections, AES-128-GCM; medians of %d rounds.\n\n", len(secure.by[secure.names[0]]))
		b.table(w, secure, nginxLimit, nginxLimit)
		ceilings(w, secure, refusing)
	}
	if len(half.names) > 0 {
		fmt.Fprintf(w, "\n**Half load**: %.0f publishes/s at a constant rate (half of nginx proxy_pass above), open loop, 64 connections; latency from the time each was due; medians of %d rounds.\n\n", rate, len(half.by[half.names[0]]))
		latencyTable(w, half)
		fmt.Fprintf(w, "\n**One in flight**: one connection, one request after the other.\n\n")
		latencyTable(w, alone)
		if len(alone.by[foldingRow]) > 0 && len(alone.by[guardRow]) > 0 {
			fmt.Fprintf(w, "\nFolding on against folding off, one in flight: p50 × %s, p99 × %s.\n",
				number("%.2f", alone.ratio(foldingRow, guardRow, p50)), number("%.2f", alone.ratio(foldingRow, guardRow, p99)))
		}
	}
	fmt.Fprintf(w, "\n**Accounts**, all rounds together: what clients were told, and what the upstream really got.\n\n")
	fmt.Fprintln(w, "| | answers | 200 | publishes upstream | pushguard's `sent` | given up in flight, at most |\n|---|---|---|---|---|---|")
	for _, r := range []*results{full, refusing} {
		for _, name := range r.names {
			accounts(w, name, r.by[name])
		}
	}
	for _, name := range half.names {
		accounts(w, name+", half load and one in flight", slices.Concat(half.by[name], alone.by[name]))
	}
	for _, name := range secure.names {
		accounts(w, name+", TLS upstream", secure.by[name])
	}
	for _, why := range b.faults {
		fmt.Fprintf(w, "\nINVALID: %s\n", why)
	}
	if len(b.faults) == 0 {
		fmt.Fprintln(w, "\nAll accounts agree.")
	}
}

// table has a ratio of throughput to one row and of CPU to another.
func (b *bench) table(w io.Writer, r *results, to, cpuTo string) {
	fmt.Fprintf(w, "| | req/s | min – max | × %s | p50 / p99 ms | CPU s per 10k | × %s, CPU | upstream calls per publish |\n|---|---|---|---|---|---|---|---|\n", to, cpuTo)
	for _, name := range r.names {
		cpu, cpuRatio, calls := "–", "–", "–"
		if r.median(name, cpuPer10k) > 0 {
			cpu = number("%.3f", r.median(name, cpuPer10k))
			cpuRatio = number("%.2f", r.ratio(name, cpuTo, cpuPer10k))
		}
		if s := r.by[name]; len(s) > 0 && !s[0].refuses {
			calls = number("%.3f", r.median(name, callsPer))
		}
		low, high := r.span(name, perSecond)
		fmt.Fprintf(w, "| %s | %.0f | %.0f – %.0f | %s | %.2f / %.2f | %s | %s | %s |\n", name, r.median(name, perSecond), low, high,
			number("%.2f", r.ratio(name, to, perSecond)), r.median(name, p50), r.median(name, p99), cpu, cpuRatio, calls)
	}
}

// ceiling is how many times nginx' limit_req a server could do, by CPU, that paid nothing for judging: it pays what
// nginx does for reading a request and refusing it, and, for the calls that folding leaves, what nginx pays for a call,
// which is what its limit_req costs more than its refusing.
func ceiling(limit, refuse, calls float64) float64 { return limit / (refuse + calls*(limit-refuse)) }

// ceilings prints that beside what the guard's rows did.
func ceilings(w io.Writer, full, refusing *results) {
	limit, refuse := full.median(nginxLimit, cpuPer10k), refusing.median(nginxRefuses, cpuPer10k)
	if limit == 0 || refuse == 0 {
		return
	}
	begun := false
	for _, name := range full.names {
		s := full.by[name]
		if len(s) == 0 || !s[0].guarded {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(w, "\n**Ceilings**, by CPU: what a server could reach that judged for nothing and paid, as nginx does here, %.3f s per 10k for reading a request and answering it and %.3f s for a call.\n\n", refuse, limit-refuse)
			fmt.Fprintf(w, "| | upstream calls per publish | × %s, at most | reached |\n|---|---|---|---|\n", nginxLimit)
		}
		calls := full.median(name, callsPer)
		fmt.Fprintf(w, "| %s | %.3f | %.2f | %s |\n", name, calls, ceiling(limit, refuse, calls), number("%.2f", full.ratio(nginxLimit, name, cpuPer10k)))
	}
}

func latencyTable(w io.Writer, r *results) {
	fmt.Fprintf(w, "| | p50 / p99 ms | p99 min – max | added to direct, p50 / p99 ms | × %s, p99 | × %s, added p99 | CPU s per 10k |\n|---|---|---|---|---|---|---|\n", nginxPlain, nginxPlain)
	for _, name := range r.names {
		added, addedRatio, cpu := "–", "–", "–"
		if name != direct {
			added = number("%.3f", r.added(name, p50)) + " / " + number("%.3f", r.added(name, p99))
			addedRatio = number("%.2f", r.added(name, p99)/r.added(nginxPlain, p99))
			cpu = number("%.3f", r.median(name, cpuPer10k))
		}
		note := ""
		for _, s := range r.by[name] {
			if !s.keptPaced {
				note = " (fell behind)"
			}
		}
		low, high := r.span(name, p99)
		fmt.Fprintf(w, "| %s%s | %.3f / %.3f | %.2f – %.2f | %s | %s | %s | %s |\n", name, note, r.median(name, p50), r.median(name, p99), low, high,
			added, number("%.2f", r.ratio(name, nginxPlain, p99)), addedRatio, cpu)
	}
}

func accounts(w io.Writer, name string, all []*sample) {
	var t sample
	for _, s := range all {
		t.answered += s.answered
		t.ok += s.ok
		t.published += s.published
		t.sent += s.sent
		t.slack += s.slack
		t.guarded = s.guarded
	}
	sent := "–"
	if t.guarded {
		sent = fmt.Sprint(t.sent)
	}
	fmt.Fprintf(w, "| %s | %d | %d | %d | %s | %d |\n", name, t.answered, t.ok, t.published, sent, t.slack)
}

// machine says where and when figures were taken, and who else used the cores meanwhile.
type machine struct {
	started         time.Time
	load, proxy     int
	busy, stolen    float64
	ours            float64
	others, stolen1 float64 // shares of the two cores' time
	took            time.Duration
}

func newMachine() *machine { return &machine{} }

func (m *machine) begin(load, proxy int) (err error) {
	m.load, m.proxy, m.started = load, proxy, time.Now()
	if m.busy, m.stolen, err = machineTicks(load, proxy); err != nil {
		return err
	}
	m.ours, err = cpuSeconds(os.Getpid())
	return err
}

func (m *machine) end() error {
	busy, stolen, err := machineTicks(m.load, m.proxy)
	if err != nil {
		return err
	}
	ours, err := cpuSeconds(os.Getpid())
	if err != nil {
		return err
	}
	m.took = time.Since(m.started)
	total := 2 * m.took.Seconds()
	m.others = max((busy-m.busy)-(ours-m.ours), 0) / total
	m.stolen1 = (stolen - m.stolen) / total
	return nil
}

// quiet is the share of both cores' time that others may have for a run to count as one on a quiet machine.
const quiet = 0.03

func (m *machine) describe(b *bench) string {
	verdict := "a quiet machine"
	if m.others+m.stolen1 > quiet {
		verdict = "a BUSY machine: take ratios with care, absolute figures not at all"
	}
	upstream := "answers at once"
	if b.latency > 0 {
		upstream = "answers after " + b.latency.String()
	}
	if b.options.tls {
		upstream += ", over TLS"
	}
	return fmt.Sprintf("Taken %s in %s on %s, %s, Linux %s, %s, %s, %s, %s. "+
		"Core %d: proxy; core %d: load and upstream, which %s. Other processes used %.1f %% of the two cores, the host took away %.1f %%: %s.",
		m.started.UTC().Format("2006-01-02 15:04 UTC"), m.took.Round(time.Second), cpuModel(), fmt.Sprint(runtime.NumCPU(), " cores"), kernel(),
		runtime.Version(), version("nginx", "-v"), version("haproxy", "-v"), version("wrk", "-v"),
		m.proxy, m.load, upstream, m.others*100, m.stolen1*100, verdict)
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(b))
}

// version is name and version of a program, the first word in what it prints that begins with a digit.
func version(name, flag string) string {
	out, _ := exec.Command(program(name), flag).CombinedOutput() // wrk -v exits with 1
	for word := range strings.FieldsSeq(strings.NewReplacer("/", " ", "-", " ").Replace(string(out))) {
		if word[0] >= '0' && word[0] <= '9' {
			return name + " " + word
		}
	}
	return name
}
