package loadgen

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/pusher"
)

// load runs a scenario.
type load struct {
	s       *loadScenario
	streams []*loadStreamRun
	due     atomic.Int64
	heard   atomic.Int64
	failed  atomic.Int64
}

type loadStreamRun struct {
	l      *load
	s      *loadStream
	client *fasthttp.HostClient
	phases []*loadTally
}

// loadTally is what one phase of one stream met; a publish belongs to the phase
// in which it was due.
type loadTally struct {
	mu       sync.Mutex
	hist     *hdrhistogram.Histogram // of µs
	status   map[string]int64
	outcomes map[string]int64
	why      map[string]int64 // of what was refused or not answered; a few
	due      int64
	answered int64
	failed   int64
	late     int64
	seconds  float64
}

func newHist() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

func newLoad(s *loadScenario) *load {
	l := &load{s: s}
	for i := range s.Streams {
		r := &loadStreamRun{l: l, s: &s.Streams[i], client: s.client(s.Streams[i].Connections)}
		for _, p := range r.s.Phases {
			r.phases = append(r.phases, &loadTally{hist: newHist(), status: map[string]int64{}, outcomes: map[string]int64{}, why: map[string]int64{}, seconds: time.Duration(p.For).Seconds()})
		}
		l.streams = append(l.streams, r)
	}
	return l
}

// length is how long the longest stream takes.
func (l *load) length() time.Duration {
	var most time.Duration
	for _, r := range l.streams {
		var sum time.Duration
		for _, p := range r.s.Phases {
			sum += time.Duration(p.For)
		}
		most = max(most, sum)
	}
	return most
}

// run publishes until all phases are over or ctx ends, and waits for the last
// answers.
func (l *load) run(ctx context.Context, progress io.Writer) Result {
	began := time.Now()
	done := make(chan struct{})
	var telling sync.WaitGroup
	if cli.IsTerminal(progress) {
		telling.Go(func() { l.tell(progress, began, done) })
	}
	var all sync.WaitGroup
	for i, r := range l.streams {
		// Deep enough that the schedule never waits for the workers.
		due := make(chan dueAt, 1<<18)
		for n := range r.s.Connections {
			all.Go(func() { r.work(due, rand.New(rand.NewPCG(uint64(i)+1, uint64(n)))) })
		}
		all.Go(func() {
			defer close(due)
			r.schedule(ctx, began, due)
		})
	}
	all.Wait()
	close(done)
	telling.Wait()
	return l.result(time.Since(began), ctx.Err() != nil)
}

// tell keeps one line of a terminal true.
func (l *load) tell(w io.Writer, began time.Time, done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var before int64
	for {
		select {
		case <-done:
			fmt.Fprint(w, "\r\x1b[K")
			return
		case <-tick.C:
		}
		heard, due := l.heard.Load(), l.due.Load()
		at := time.Since(began)
		fmt.Fprintf(w, "\r%3.0f%%  %s of %s  due %d  answered %d (%d/s)  waiting %d  failed %d\x1b[K", min(100, 100*at.Seconds()/l.length().Seconds()),
			at.Round(time.Second), l.length(), due, heard, heard-before, due-heard-l.failed.Load(), l.failed.Load())
		before = heard
	}
}

// dueAt is one publish: when it was meant to be sent, in which phase.
type dueAt struct {
	at    time.Time
	phase int
}

// schedule puts each publish into due at its time or, where the generator fell
// behind, at once, with the time at which it was meant.
func (r *loadStreamRun) schedule(ctx context.Context, began time.Time, due chan<- dueAt) {
	for i, p := range r.s.Phases {
		length, tally := time.Duration(p.For), r.phases[i]
		for at := time.Duration(0); at < length; {
			next := began.Add(at)
			// Never early, not by a millisecond: what is sent before its time looks
			// faster than it was.
			if wait := time.Until(next); wait > 0 && !WaitUntil(ctx, next) || ctx.Err() != nil {
				return
			}
			rate := p.Rate.at(float64(at) / float64(length))
			if rate < 0.01 { // silence, and the first moment of a ramp from nothing
				at += 10 * time.Millisecond
				continue
			}
			tally.mu.Lock()
			tally.due++
			tally.mu.Unlock()
			r.l.due.Add(1)
			select {
			case due <- dueAt{next, i}:
			default: // a quarter of a million wait already
				tally.note(0, nil, "a quarter of a million publishes waited for a connection already", 0, true)
				r.l.failed.Add(1)
			}
			at += time.Duration(float64(time.Second) / rate)
		}
		began = began.Add(length)
	}
}

// digits are left out of what is told why, so that the same is the same.
var digits = regexp.MustCompile(`[0-9]{2,}`)

// because counts a reason, of the first few that come. t.mu is held.
func (t *loadTally) because(why string) {
	if _, known := t.why[why]; known || len(t.why) < 8 {
		t.why[why]++
	}
}

// note counts one publish; a nil resp got no answer, and outcome says why.
func (t *loadTally) note(took time.Duration, resp *fasthttp.Response, outcome string, late int64, unsent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.late += late
	if resp == nil || unsent {
		t.failed++
		t.status["none"]++
		t.because("no answer: " + outcome)
		return
	}
	if code := resp.StatusCode(); code >= 400 {
		body := resp.Body()
		t.because(fmt.Sprintf("%d: %s", code, digits.ReplaceAllString(words.Printable(string(body[:min(len(body), 160)])), "N")))
	}
	t.answered++
	t.status[strconv.Itoa(resp.StatusCode())]++
	t.outcomes[outcome]++
	// Within the histogram's range by these bounds, so there is no error.
	_ = t.hist.RecordValue(min(max(took.Microseconds(), 1), t.hist.HighestTrackableValue()))
}

func (r *loadStreamRun) work(due <-chan dueAt, rng *rand.Rand) {
	var req fasthttp.Request
	var resp fasthttp.Response
	path := []byte("/apps/" + r.s.id + "/events")
	fill := strings.Repeat("x", r.s.Size)
	for d := range due {
		late := int64(0)
		if time.Since(d.at) > time.Millisecond*10 {
			late = 1
		}
		data := fill
		if !r.s.Same {
			unique := strconv.FormatUint(rng.Uint64(), 36)
			data = unique + fill[min(len(unique), len(fill)):]
		}
		channel := strings.ReplaceAll(r.s.Channel, "*", strconv.Itoa(rng.IntN(r.s.Channels)))
		body := pusher.AppendEvent(nil, &pusher.Publish{Name: []byte(r.s.Event), Channels: [][]byte{[]byte(channel)}, Data: []byte(data)})
		target := r.s.key.AppendSigned(append(append([]byte(nil), path...), '?'), "POST", path, nil, body, time.Now())
		req.Reset()
		req.Header.SetMethod("POST")
		req.SetRequestURIBytes(target)
		req.Header.SetHostBytes(r.l.s.uri.Host())
		if r.client.IsTLS {
			req.URI().SetScheme("https")
		}
		req.Header.Set("X-Pusher-Library", "pushguard-load")
		if r.l.s.LoadTest {
			req.Header.Set("Pushguard-Load-Test", "1")
		}
		req.Header.SetContentType("application/json")
		req.SetBodyRaw(body)
		err := r.client.DoTimeout(&req, &resp, time.Duration(r.l.s.Timeout))
		took := time.Since(d.at)
		if err != nil {
			r.l.failed.Add(1)
			r.phases[d.phase].note(took, nil, err.Error(), late, false)
			continue
		}
		r.l.heard.Add(1)
		outcome := cmp.Or(string(resp.Header.Peek("Pushguard-Outcome")), "(no guard)")
		r.phases[d.phase].note(took, &resp, outcome, late, false)
	}
}

// sum adds tallies up.
func sum(seconds float64, tallies ...*loadTally) (loadNumbers, *hdrhistogram.Histogram) {
	hist := newHist()
	out := loadNumbers{Status: map[string]int64{}, Outcomes: map[string]int64{}, Why: map[string]int64{}, LatencyMS: map[string]float64{}}
	for _, t := range tallies {
		out.Due += t.due
		out.Answered += t.answered
		out.Failed += t.failed
		out.Late += t.late
		for k, n := range t.status {
			out.Status[k] += n
		}
		for k, n := range t.outcomes {
			out.Outcomes[k] += n
		}
		for k, n := range t.why {
			out.Why[k] += n
		}
		hist.Merge(t.hist)
	}
	if seconds > 0 {
		out.PerSecond = float64(out.Answered) / seconds
	}
	for _, q := range loadQuantiles {
		f, err := strconv.ParseFloat(q[1:], 64)
		if err == nil {
			out.LatencyMS[q] = float64(hist.ValueAtQuantile(f)) / 1000
		}
	}
	return out, hist
}

func (l *load) tallies() (all []*loadTally) {
	for _, r := range l.streams {
		all = append(all, r.phases...)
	}
	return all
}

func (l *load) result(took time.Duration, ended bool) Result {
	res := Result{Seconds: took.Seconds(), Streams: []streamResult{}, Verdict: []string{}, Expected: []string{}, Ended: ended}
	res.loadNumbers, _ = sum(took.Seconds(), l.tallies()...)
	for _, r := range l.streams {
		one := streamResult{Name: r.s.Name}
		one.loadNumbers, _ = sum(took.Seconds(), r.phases...)
		for i, p := range r.s.Phases {
			row := phaseResult{Phase: p.Rate.String() + " for " + time.Duration(p.For).String()}
			row.loadNumbers, _ = sum(r.phases[i].seconds, r.phases[i])
			one.Phases = append(one.Phases, row)
		}
		res.Streams = append(res.Streams, one)
	}
	for _, e := range l.s.expected {
		res.Expected = append(res.Expected, e.text)
		if why := e.unmet(res.loadNumbers); why != "" {
			res.Verdict = append(res.Verdict, why)
		}
	}
	if ended {
		res.Verdict = append(res.Verdict, "it was interrupted")
	}
	return res
}

// writeHDR writes the distribution of all latencies in milliseconds.
func (l *load) writeHDR(w io.Writer) error {
	_, hist := sum(0, l.tallies()...)
	_, err := hist.PercentilesPrint(w, 5, 1000)
	return err
}

// WaitUntil sleeps to at, or returns false when ctx ends first.
func WaitUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
