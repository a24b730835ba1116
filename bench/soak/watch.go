package main

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is what the process held at one second, and how many publishes had been
// answered by then.
type sample struct {
	at                                time.Duration
	resident, heap, goroutines, files float64
	answered                          int64
	limit, under, waiting             float64            // of requests on their way to Pusher
	shed                              map[string]float64 // who got no place, by cause, since the start
}

// measure is something that must stay flat. Slack is what a process may gain at
// all: below it a tenth of something small would be noise.
type measure struct {
	name  string
	of    func(sample) float64
	slack float64
}

var measures = []measure{
	{"resident memory, MiB", func(s sample) float64 { return s.resident }, 16},
	{"heap in use, MiB", func(s sample) float64 { return s.heap }, 12},
	{"goroutines", func(s sample) float64 { return s.goroutines }, 30},
	{"file descriptors, without callers' connections", func(s sample) float64 { return s.files }, 30},
}

var scraper = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil}}

// sample looks at the process from outside, but for what only Go itself knows.
func (s *soak) sample(at time.Duration) (sample, error) {
	one := sample{at: at, answered: s.load.answered.Load(), shed: map[string]float64{}}
	pid := s.replica.Pid()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return one, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(rest, "kB")
	kb, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if err != nil {
		return one, fmt.Errorf("VmRSS: %w", err)
	}
	one.resident = kb / 1024
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return one, err
	}
	// What callers hold open follows from the slowest moment so far, and is theirs.
	one.files = float64(max(len(fds)-s.load.client.ConnsCount(), 0))
	resp, err := scraper.Get("http://" + s.replica.Admin + "/metrics")
	if err != nil {
		return one, fmt.Errorf("/metrics: %w", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			one.goroutines = v
		case "go_memstats_heap_inuse_bytes":
			one.heap = v / (1 << 20)
		case `pushguard_overload_limit{app="` + appID + `"}`:
			one.limit = v
		case `pushguard_overload_under_way{app="` + appID + `"}`:
			one.under = v
		case `pushguard_overload_waiting{app="` + appID + `"}`:
			one.waiting = v
		case "pushguard_overload_crowded_total":
			one.shed["crowded"] = v
		}
		if labels, is := strings.CutPrefix(name, "pushguard_overload_shed_total{"); is {
			_, cause, _ := strings.Cut(labels, `cause="`)
			cause, _, _ = strings.Cut(cause, `"`)
			one.shed[cause] += v
		}
	}
	if one.goroutines == 0 || one.heap == 0 {
		return one, fmt.Errorf("/metrics has no go_goroutines or go_memstats_heap_inuse_bytes")
	}
	return one, lines.Err()
}

// attribute notes who got no place since the last sample, as of the fault that came
// with that one; now is the one that comes with this.
func (s *soak) attribute(one sample, now string) {
	fault := s.during
	if s.during = now; fault == "" {
		fault = "no fault"
	}
	if s.shed == nil {
		s.shed = map[string]map[string]int64{}
	}
	var last sample
	if n := len(s.samples); n > 0 {
		last = s.samples[n-1]
	}
	for cause, n := range one.shed {
		if n -= last.shed[cause]; n <= 0 {
			continue
		}
		if s.shed[fault] == nil {
			s.shed[fault] = map[string]int64{}
		}
		s.shed[fault][cause] += int64(n)
	}
}

// shedWords are the causes, each fault's by themselves.
func (s *soak) shedWords() string {
	var all []string
	for _, fault := range slices.Sorted(maps.Keys(s.shed)) {
		var of []string
		for _, cause := range slices.Sorted(maps.Keys(s.shed[fault])) {
			of = append(of, fmt.Sprintf("%s %d", cause, s.shed[fault][cause]))
		}
		all = append(all, fault+": "+strings.Join(of, ", "))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, "; ")
}

// tell tells what was answered since it was last called, and what is under way.
func (s *soak) tell(one sample, fault string) {
	now := s.load.counts().outcomes
	var all []string
	for word, n := range now {
		if n -= s.told[word]; n > 0 && word != "unavailable" { // its reasons are there
			all = append(all, fmt.Sprintf("%s %d", word, n))
		}
	}
	slices.Sort(all)
	s.told = now
	fmt.Fprintf(s.watch, "%6.1f s  limit %4.0f  under way %4.0f  in line %4.0f  %s  %s\n", one.at.Seconds(), one.limit, one.under, one.waiting, strings.Join(all, ", "), fault)
}

// quiet are the samples of each whole cycle's quiet part.
func (s *soak) quiet() (cycles [][]sample) {
	for _, one := range s.samples {
		n := int(one.at / s.cycle)
		if n >= int(s.long/s.cycle) || float64(one.at%s.cycle) < quietFrom*float64(s.cycle) {
			continue
		}
		for len(cycles) <= n {
			cycles = append(cycles, nil)
		}
		cycles[n] = append(cycles[n], one)
	}
	return slices.DeleteFunc(cycles, func(c []sample) bool { return len(c) == 0 })
}

// middle is the median of m over some cycles.
func middle(m measure, cycles [][]sample) float64 {
	var all []float64
	for _, c := range cycles {
		for _, one := range c {
			all = append(all, m.of(one))
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}
