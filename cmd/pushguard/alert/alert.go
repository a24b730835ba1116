// Package alert tells people: by Slack-compatible webhooks, PagerDuty's Events
// API v2 and plain JSON webhooks.
//
// Send never blocks. What it takes goes into an outbox on disk before it is
// tried, is tried until the other side takes it or a day has passed, and is told
// once: the same key (incident and phase) a second time is dropped, over a
// restart too. Only a try that the end of the process cuts off is made again, with
// the same Idempotency-Key. No URL and no key is ever in a log line or an error.
package alert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Severity is how bad it is, in PagerDuty's words.
type Severity string

// The severities.
const (
	Critical Severity = "critical"
	Error    Severity = "error"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Alert is one thing to tell. It is plain data, and what the JSON webhook gets.
type Alert struct {
	// ID is what it is about: an incident's id. All alerts of one ID are told in
	// their order, and are one alert at PagerDuty.
	ID string `json:"id"`
	// Phase is opened, updated, acknowledged or resolved.
	Phase string `json:"phase"`
	// Key is told once; empty is ID/Phase.
	Key      string    `json:"key,omitempty"`
	At       time.Time `json:"at"`
	Account  string    `json:"account"`
	Severity Severity  `json:"severity"`
	Title    string    `json:"title"`
	Text     string    `json:"text"`
	Culprit  string    `json:"culprit,omitempty"`
	Forecast string    `json:"forecast,omitempty"`
	Command  string    `json:"command,omitempty"`
	// Link is a screen of the dashboard, Runbook the page that says what to do.
	Link    string            `json:"link,omitempty"`
	Runbook string            `json:"runbook,omitempty"`
	Details map[string]string `json:"details,omitempty"`
}

func (a *Alert) key() string {
	if a.Key != "" {
		return a.Key
	}
	return a.ID + "/" + a.Phase
}

// Kind is the language of a target.
type Kind string

// The kinds.
const (
	Slack     Kind = "slack"
	PagerDuty Kind = "pagerduty"
	Webhook   Kind = "webhook"
)

// Target is one place that is told. URL and RoutingKey are secrets.
type Target struct {
	// Name is what logs and the outbox call it. It must be unique; when it
	// changes, what waits for the old name is given up.
	Name       string
	Kind       Kind
	URL        string // of PagerDuty: empty is its public one
	RoutingKey string // PagerDuty's
}

// String is the target without its secrets.
func (t Target) String() string { return string(t.Kind) + " " + t.Name }

// GoString is String.
func (t Target) GoString() string { return t.String() }

// Config of a Sender.
type Config struct {
	Targets []Target
	Outbox  Outbox       // nil: what waits is forgotten at exit
	Log     *slog.Logger // nil: slog.Default()
	Timeout time.Duration
	// PerMinute bounds what one target is told in the long run, Burst at once.
	// What is more waits; 0 means 20 and 10.
	PerMinute float64
	Burst     int
	// Transport is for tests; nil is http.DefaultTransport's settings.
	Transport http.RoundTripper
}

// The bounds. What is beyond them is dropped, counted and logged.
const (
	maxIntake  = 256 // alerts that Send holds until they are in the outbox
	maxWaiting = 200 // alerts that wait for one target
	maxSeen    = 4096
	seenFor    = 7 * 24 * time.Hour
	giveUp     = 24 * time.Hour
)

// The pauses between tries: 1 s, doubling, to 5 min, each cut by up to half at
// random so that replicas do not come at once.
const (
	firstPause = time.Second
	longPause  = 5 * time.Minute
)

// Entry is an alert that waits for one target. It is what the Outbox keeps.
type Entry struct {
	Target string    `json:"target"`
	Alert  Alert     `json:"alert"`
	Since  time.Time `json:"since"`
	Tries  int       `json:"tries"`
	Next   time.Time `json:"next"`
}

// State is all that must survive a restart.
type State struct {
	Version int                  `json:"version"`
	Waiting []Entry              `json:"waiting"`
	Seen    map[string]time.Time `json:"seen"` // keys told, or waiting
}

const stateVersion = 1

// Outbox keeps a State. Save replaces it whole or not at all.
type Outbox interface {
	Load() (State, error)
	Save(State) error
}

// Stats counts since the Sender was made.
type Stats struct {
	Sent, Retried, Duplicates int64
	Dropped                   int64 // for want of room
	Failed                    int64 // refused for good, or given up after a day
	Waiting                   int
}

// Sender tells the targets. Its methods are safe for concurrent use.
type Sender struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client
	intake chan Alert
	wake   []chan struct{} // by target

	mu     sync.Mutex // of what follows
	state  State
	stats  Stats
	limits []*rate.Limiter
}

// New checks the targets and takes up what an earlier process left in the
// outbox. An outbox that cannot be read is an error; the guard should log it and
// go on with another, rather than not start.
func New(cfg Config) (*Sender, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.PerMinute == 0 {
		cfg.PerMinute = 20
	}
	if cfg.Burst == 0 {
		cfg.Burst = 10
	}
	s := &Sender{cfg: cfg, log: cfg.Log, intake: make(chan Alert, maxIntake)}
	if s.log == nil {
		s.log = slog.Default()
	}
	names := map[string]bool{}
	var errs []error
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		if names[t.Name] || t.Name == "" {
			errs = append(errs, fmt.Errorf("alert target %d needs a name of its own", i+1))
		}
		names[t.Name] = true
		if err := t.check(); err != nil {
			errs = append(errs, err)
		}
		s.wake = append(s.wake, make(chan struct{}, 1))
		s.limits = append(s.limits, rate.NewLimiter(rate.Limit(cfg.PerMinute/60), cfg.Burst))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.client = newClient(cfg)
	s.state = State{Version: stateVersion}
	if cfg.Outbox != nil {
		var err error
		if s.state, err = cfg.Outbox.Load(); err != nil {
			return nil, fmt.Errorf("the outbox of alerts: %w", err)
		}
	}
	if s.state.Seen == nil {
		s.state.Seen = map[string]time.Time{}
	}
	s.state.Waiting = slices.DeleteFunc(s.state.Waiting, func(e Entry) bool {
		if !names[e.Target] {
			s.log.Warn("an alert is given up: its target is not configured any more", "target", e.Target, "alert", e.Alert.key())
			s.stats.Failed++
		}
		return !names[e.Target]
	})
	return s, nil
}

// Send hands an alert over and returns at once. It reports whether there was
// room; when there was not, the alert is lost, counted and logged.
func (s *Sender) Send(a Alert) bool {
	select {
	case s.intake <- a:
		return true
	default:
	}
	s.mu.Lock()
	s.stats.Dropped++
	s.mu.Unlock()
	s.log.Error("an alert is dropped: too many wait to be written down", "alert", a.key(), "title", a.Title)
	return false
}

// Stats reads the counters.
func (s *Sender) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Waiting = len(s.state.Waiting) + len(s.intake)
	return st
}

// Run tells until ctx ends; then it writes down what it was still handed. Each
// target has its own goroutine: one that hangs holds no other.
func (s *Sender) Run(ctx context.Context) {
	var running sync.WaitGroup
	for i := range s.cfg.Targets {
		running.Go(func() { s.serve(ctx, i) })
	}
	for done := false; !done; {
		select {
		case a := <-s.intake:
			s.accept(time.Now(), a)
		case <-ctx.Done():
			done = true
		}
	}
	running.Wait()
	for {
		select {
		case a := <-s.intake:
			s.accept(time.Now(), a)
		default:
			return
		}
	}
}

// serve tells one target.
func (s *Sender) serve(ctx context.Context, target int) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := s.deliver(ctx, time.Now(), target)
		if ctx.Err() != nil {
			return
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), 10*time.Millisecond)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake[target]:
		}
	}
}

// accept puts an alert into the outbox, once for each target, unless its key is
// known.
func (s *Sender) accept(now time.Time, a Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.state.Seen[a.key()]; known {
		s.stats.Duplicates++
		return
	}
	s.forget(now)
	s.state.Seen[a.key()] = now
	for i, t := range s.cfg.Targets {
		s.state.Waiting = append(s.state.Waiting, Entry{Target: t.Name, Alert: a, Since: now, Next: now})
		s.bound(t.Name)
		select {
		case s.wake[i] <- struct{}{}:
		default:
		}
	}
	s.save()
}

// bound drops a target's oldest alert when too many wait. s.mu is held.
func (s *Sender) bound(target string) {
	n, oldest := 0, -1
	for i := range s.state.Waiting {
		if s.state.Waiting[i].Target == target {
			if n++; oldest < 0 {
				oldest = i
			}
		}
	}
	if n <= maxWaiting {
		return
	}
	s.log.Error("an alert is dropped: too many wait for its target", "target", target, "alert", s.state.Waiting[oldest].Alert.key())
	s.state.Waiting = slices.Delete(s.state.Waiting, oldest, oldest+1)
	s.stats.Dropped++
}

// forget drops old keys, and the oldest when there are too many. s.mu is held.
func (s *Sender) forget(now time.Time) {
	var oldest string
	for k, at := range s.state.Seen {
		if now.Sub(at) > seenFor {
			delete(s.state.Seen, k)
			continue
		}
		if oldest == "" || at.Before(s.state.Seen[oldest]) {
			oldest = k
		}
	}
	if len(s.state.Seen) >= maxSeen {
		delete(s.state.Seen, oldest)
	}
}

// save writes the state down. s.mu is held: alerts are few, and the order on
// disk must be that in memory. A failure is logged; telling goes on.
func (s *Sender) save() {
	if s.cfg.Outbox == nil {
		return
	}
	if err := s.cfg.Outbox.Save(s.state); err != nil {
		s.log.Error("the outbox of alerts cannot be written: what waits is lost if this process ends now", "err", err)
	}
}

// deliver tries all of a target's alerts that are due at now, and returns when
// the next one is; zero: none waits.
func (s *Sender) deliver(ctx context.Context, now time.Time, target int) time.Time {
	t := s.cfg.Targets[target]
	began := time.Now()
	for ctx.Err() == nil {
		e, next := s.due(now, target)
		if e == nil {
			return next
		}
		out := s.post(ctx, now, t, &e.Alert)
		if ctx.Err() != nil && out.err != nil {
			return now // it stays in the outbox, for the next process
		}
		// A try takes its time; explicit clocks in tests stay as they are but for that.
		s.settle(now.Add(time.Since(began).Truncate(time.Second)), e, out)
	}
	return now
}

// due is the first alert of the target that may be tried at now. Alerts of one
// ID keep their order: a later one waits for an earlier one.
func (s *Sender) due(now time.Time, target int) (*Entry, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.cfg.Targets[target].Name
	var next time.Time
	waits := map[string]bool{}
	for i := range s.state.Waiting {
		e := &s.state.Waiting[i]
		if e.Target != name || waits[e.Alert.ID] {
			continue
		}
		waits[e.Alert.ID] = true
		if e.Next.After(now) {
			if next.IsZero() || e.Next.Before(next) {
				next = e.Next
			}
			continue
		}
		r := s.limits[target].ReserveN(now, 1)
		if d := r.DelayFrom(now); d > 0 {
			r.CancelAt(now)
			return nil, now.Add(d)
		}
		copied := *e
		return &copied, now
	}
	return nil, next
}

// settle writes down what became of a try.
func (s *Sender) settle(now time.Time, tried *Entry, out result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.state.Waiting, func(e Entry) bool {
		return e.Target == tried.Target && e.Alert.key() == tried.Alert.key()
	})
	if i < 0 {
		return // dropped for want of room meanwhile
	}
	e := &s.state.Waiting[i]
	done := true
	switch {
	case out.err == nil:
		s.stats.Sent++
	case out.final, now.Sub(e.Since) >= giveUp:
		s.stats.Failed++
		s.log.Error("an alert could not be told", "target", e.Target, "alert", e.Alert.key(), "title", e.Alert.Title, "tries", e.Tries+1, "err", out.err)
	default:
		done = false
		s.stats.Retried++
		e.Tries++
		e.Next = now.Add(max(pause(e.Tries), out.after))
		if e.Tries == 1 {
			s.log.Warn("an alert is tried again", "target", e.Target, "alert", e.Alert.key(), "err", out.err)
		}
	}
	if done {
		s.state.Waiting = slices.Delete(s.state.Waiting, i, i+1)
	}
	s.save()
}

// pause is how long to wait after so many tries.
func pause(tries int) time.Duration {
	d := longPause
	if tries < 10 {
		d = min(firstPause<<(tries-1), longPause)
	}
	return d - time.Duration(rand.Int64N(int64(d/2)))
}
