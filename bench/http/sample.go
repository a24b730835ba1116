//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// sample is one measurement of one row. Times are in milliseconds, CPU in seconds of all of the proxy's processes.
type sample struct {
	perSecond float64
	p50, p99  float64
	cpuPer10k float64
	callsPer  float64 // upstream calls for each publish that arrived there

	answered, ok                int64 // by the client's count
	calls, published            int64 // by the upstream's
	sent, throttled, otherwise  int64 // by pushguard's own metrics
	slack                       int64 // requests that the client gave up in flight when its time was over
	behind                      int64 // requests that were due and never sent, for want of a free connection
	refuses, guarded, keptPaced bool
	counts                      bool // see row
}

// witness is everybody's counts at one moment.
type witness struct {
	upstream counts
	guard    map[string]int64
	cpu      float64
}

func (b *bench) witness(r *row) (w witness, err error) {
	if w.upstream, err = b.counts(); err != nil {
		return w, errors.Join(err, b.stubRun.alive())
	}
	if r.guard != nil {
		if w.guard, err = r.guard.outcomes(); err != nil {
			return w, err
		}
	}
	if r.process != nil {
		if err := r.process.alive(); err != nil {
			return w, err
		}
		w.cpu, err = cpuSeconds(r.process.cmd.Process.Pid)
	}
	return w, err
}

// wrk loads a row as fast as it goes, with 64 connections, for whole seconds.
func (b *bench) wrk(r *row, script, pool string, seconds int) (*sample, error) {
	const conns = 64
	return b.measure(r, conns, func(s *sample) error {
		cmd := command(b.ctx, b.loadCore, "wrk", "-t1", fmt.Sprintf("-c%d", conns), fmt.Sprintf("-d%ds", seconds), "-s", script, "http://"+r.addr, pool)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("wrk: %w\n%s", err, out)
		}
		_, line, found := bytes.Cut(out, []byte("RESULT "))
		if !found {
			return fmt.Errorf("wrk gave no result:\n%s", out)
		}
		var statusErrors, socketErrors, us int64
		if _, err := fmt.Sscan(string(line), &s.answered, &us, &statusErrors, &socketErrors, &s.p50, &s.p99); err != nil {
			return fmt.Errorf("wrk: %w\n%s", err, out)
		}
		if socketErrors > 0 {
			b.fault(r, "wrk saw %d socket errors", socketErrors)
		}
		s.p50, s.p99 = s.p50/1e3, s.p99/1e3
		s.ok = s.answered - statusErrors
		s.perSecond = float64(s.answered) / (float64(us) / 1e6)
		return nil
	})
}

// load sends at a constant rate, or, with rate 0, one request after the other on each connection.
func (b *bench) load(r *row, pool string, rate float64, conns int, d time.Duration) (*sample, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.measure(r, 0, func(s *sample) error {
		cmd := command(b.ctx, b.loadCore, self, "load", "--addr", r.addr, "--pool", pool,
			"--rate", strconv.FormatFloat(rate, 'f', 0, 64), "--conns", strconv.Itoa(conns), "--duration", d.String())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("load: %w\n%s", err, stderr.Bytes())
		}
		var l loadResult
		if err := json.Unmarshal(out, &l); err != nil {
			return fmt.Errorf("load: %w\n%s", err, out)
		}
		s.answered, s.ok = l.Answers, l.OK
		s.p50, s.p99 = l.P50/1e3, l.P99/1e3
		s.perSecond = float64(l.Answers) / l.Seconds
		s.behind = l.Behind
		s.keptPaced = float64(l.Behind) <= rate*d.Seconds()/1000
		return nil
	})
}

// measure brackets a load with everybody's counts, and compares them: what the client was told must have happened.
// inFlight is how many requests the client may have given up at its end.
func (b *bench) measure(r *row, inFlight int64, load func(*sample) error) (*sample, error) {
	before, err := b.witness(r)
	if err != nil {
		return nil, err
	}
	s := &sample{refuses: r.refuses, counts: r.counts, guarded: r.guard != nil, keptPaced: true, slack: inFlight}
	if err := load(s); err != nil {
		return nil, errors.Join(err, b.stubRun.alive())
	}
	if s.answered == 0 {
		return nil, errors.New("no answer at all")
	}
	// What the client gave up is still on its way through the proxy, and must not be counted with the next row.
	var after, last witness
	for limit := time.Now().Add(3 * time.Second); ; last = after {
		time.Sleep(50 * time.Millisecond)
		if after, err = b.witness(r); err != nil {
			return nil, err
		}
		s.count(before, after)
		if after.upstream == last.upstream && s.disagreement() == "" || time.Now().After(limit) {
			break
		}
	}
	if why := s.disagreement(); why != "" {
		b.fault(r, "%s", why)
	}
	if bad := after.upstream.Bad - before.upstream.Bad; bad > 0 {
		b.fault(r, "the upstream got %d malformed or wrongly signed requests", bad)
	}
	s.cpuPer10k = (after.cpu - before.cpu) / float64(s.answered) * 1e4
	if s.published > 0 {
		s.callsPer = float64(s.calls) / float64(s.published)
	}
	return s, nil
}

func (s *sample) count(before, after witness) {
	s.calls = after.upstream.Calls - before.upstream.Calls
	s.published = after.upstream.Publishes - before.upstream.Publishes
	s.sent, s.throttled, s.otherwise = 0, 0, 0
	for outcome, n := range after.guard {
		n -= before.guard[outcome]
		switch outcome {
		case "sent":
			s.sent += n
		case "throttled":
			s.throttled += n
		default:
			s.otherwise += n
		}
	}
}

// disagreement says what is wrong with the counts, or nothing.
func (s *sample) disagreement() string {
	switch {
	case !s.refuses && !s.counts && s.ok != s.answered:
		return fmt.Sprintf("%d of %d answers were not 200", s.answered-s.ok, s.answered)
	case s.refuses && s.ok > s.answered/100+10:
		return fmt.Sprintf("%d of %d requests were let through: this measures no refusals", s.ok, s.answered)
	case s.published < s.ok || s.published > s.ok+s.slack:
		return fmt.Sprintf("%d answers were 200, but the upstream got %d publishes", s.ok, s.published)
	case s.guarded && s.sent != s.published:
		return fmt.Sprintf("pushguard counts %d as sent, the upstream got %d", s.sent, s.published)
	case s.guarded && !s.refuses && !s.counts && s.throttled+s.otherwise > 0:
		return fmt.Sprintf("pushguard throttled %d and treated %d otherwise", s.throttled, s.otherwise)
	case s.guarded && s.refuses && (s.otherwise > 0 || s.throttled < s.answered-s.ok || s.throttled > s.answered-s.ok+s.slack):
		return fmt.Sprintf("pushguard throttled %d and treated %d otherwise; the client counts %d refusals", s.throttled, s.otherwise, s.answered-s.ok)
	}
	return ""
}

func (b *bench) fault(r *row, format string, args ...any) {
	b.faults = append(b.faults, r.name+": "+fmt.Sprintf(format, args...))
	fmt.Fprintf(b.progress, " [%s]", b.faults[len(b.faults)-1])
}
