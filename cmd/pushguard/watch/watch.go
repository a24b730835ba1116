// Package watch stands between the detector and the judgement of one account:
// it feeds the one, contains for the other, and keeps the book of incidents.
//
// It knows no clock. The live guard calls Tick once a second; a replay does the
// same in virtual time, so both do the same.
package watch

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/quota"
)

// Mode says what happens to the culprits of an incident. The zero value is Auto.
type Mode uint8

// The modes.
const (
	Auto    Mode = iota // they are held by themselves to what the plan bears, see stake.go
	Suggest             // they are named, and a person is asked to hold them
	Off                 // they are named
	Strict              // they are held by themselves to their usual rate and a half
)

// Config of a Watch.
type Config struct {
	Account string
	// Apps are the ids of the account's apps. With more than one, callers of the
	// same name in two apps are told apart.
	Apps []string
	// Detector belongs to the Watch from then on; nil is one with defaults.
	Detector *detect.Detector
	Mode     Mode
	// Used says what is spent today and the plan, in messages, as Ledger.Used
	// does; nil: there is no forecast.
	Used func(now time.Time) (used, plan int64)
	// Pace says how many messages a second are spent at present, as
	// limiter.Breaker.Pace does; nil or not known: nothing is held early.
	Pace func(now time.Time) (perSecond float64, known bool)
	// Level is how much the quota breaker lets pass; nil: everything. From
	// ShedNormal on the plan is at stake, and critical publishes are contained too.
	Level func(now time.Time) limiter.Level
	// Rest says how many messages the account usually needs until the reset, and
	// whether that is known; nil: the detector's own shape of the week tells.
	Rest func(now time.Time) (messages float64, known bool)
	// Bears says how much of a plan may be used; nil: all of it.
	Bears func(plan int64) Bears
	// Full reports whether this replica refused publishes in the last ten seconds because
	// it was full; nil: never.
	Full func(now time.Time) bool
}

// Watch watches one account. Observe and the functions that Containment gives
// are for the hot path: they take no lock that all publishes share, make no allocation for what is known, and are safe for
// concurrent use. So is all else, but Tick, which one goroutine calls.
type Watch struct {
	cfg   Config
	det   *detect.Detector
	names atomic.Pointer[map[[2]string]string] // app, caller → the detector's name; nil: one app
	add   sync.Mutex                           // of writing names

	mode    atomic.Uint32
	open    atomic.Pointer[hold] // nil: no incident is open
	stake   atomic.Bool          // the plan is at stake
	cells   cells
	sampled atomic.Int64 // the second of the last sample

	mu        sync.Mutex // of all that follows
	incidents []*Incident
	current   *Incident
	released  bool
	forced    bool
	trend     trend
	lasts     time.Duration // how long the rest of the plan lasts at the present pace; 0: not known
	stakes    stake
	peers     peers
}

// hold is what the hot path knows of the open incident.
type hold struct {
	holding  bool     // else the culprits pass, and are only sampled
	forced   bool     // a person said so: critical ones too
	payloads []uint64 // the culprit's, if it is a few; then others of it have a bucket of their own
}

// New begins to watch.
func New(cfg Config) *Watch {
	w := &Watch{cfg: cfg, det: cfg.Detector}
	if w.det == nil {
		w.det = detect.New(detect.Config{})
	}
	if len(cfg.Apps) > 1 {
		w.names.Store(&map[[2]string]string{})
	}
	w.mode.Store(uint32(cfg.Mode))
	w.stakes.held = cfg.Mode == Strict
	w.det.SetStrict(cfg.Mode == Strict)
	return w
}

// SetMode changes the mode, at once.
func (w *Watch) SetMode(m Mode) {
	w.mode.Store(uint32(m))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.det.SetStrict(m == Strict)
	if m != Auto { // which is judged at the next tick
		w.stakes.held = true
		w.det.SetAllowance(0)
	}
	w.publish()
}

// maxNames bounds the names of callers of several apps; further ones are
// watched together as one caller of their app.
const maxNames = 8192

const others = "(others)"

// name is the caller as the detector knows it.
func (w *Watch) name(app, caller string) string {
	m := w.names.Load()
	if m == nil {
		return caller
	}
	if n, ok := (*m)[[2]string{app, caller}]; ok {
		return n
	}
	w.add.Lock()
	defer w.add.Unlock()
	m = w.names.Load()
	if n, ok := (*m)[[2]string{app, caller}]; ok {
		return n
	}
	if len(*m) >= maxNames {
		if n, ok := (*m)[[2]string{app, others}]; ok {
			return n
		}
		caller = others
	}
	grown := make(map[[2]string]string, len(*m)+1)
	for k, v := range *m {
		grown[k] = v
	}
	app, caller = strings.Clone(app), strings.Clone(caller)
	n := app + "/" + caller
	grown[[2]string{app, caller}] = n
	w.names.Store(&grown)
	return n
}

// split is the inverse of name.
func (w *Watch) split(name string) (app, caller string) {
	if w.names.Load() == nil {
		if len(w.cfg.Apps) == 1 {
			app = w.cfg.Apps[0]
		}
		return app, name
	}
	if name == detect.Any {
		return detect.Any, name
	}
	app, caller, _ = strings.Cut(name, "/")
	return app, caller
}

// Observe counts one publish as it was offered, whatever becomes of it.
// payload is the first half of its digest, as in limiter.Claim.Digest, or 0;
// messages is its price.
//
// What the detector counts are publishes, as behaviour is how often somebody calls;
// what they cost is told beside, and has a test of its own.
func (w *Watch) Observe(now time.Time, app, caller, event string, channels []string, payload uint64, messages int64) {
	k := detect.Key{Caller: w.name(app, caller), Event: event, Payload: payload}
	switch len(channels) {
	case 0:
	case 1:
		k.Channel = channels[0]
	default:
		// Nearly always all are of one pattern. Where not, each has its part.
		first := w.at(&k, channels[0])
		each := 0
		for _, ch := range channels {
			if w.at(&k, ch) == first {
				each++
			}
		}
		if each < len(channels) {
			// One of them stands for it, each as often as the others.
			first = w.at(&k, channels[mix(payload^uint64(now.UnixNano()))%uint64(len(channels))])
		}
		w.det.ObserveAt(first, payload, 1, messages)
		return
	}
	w.det.ObserveAt(w.det.Locate(&k), payload, 1, messages)
}

func (w *Watch) at(k *detect.Key, channel string) detect.Place {
	k.Channel = channel
	return w.det.Locate(k)
}

// mix spreads the bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// Containment is what judges the app's publishes at the step of containment:
// for limiter.App.SetContainment.
func (w *Watch) Containment(app string) limiter.Containment {
	return func(now time.Time, c *limiter.Claim) bool {
		h := w.open.Load()
		return h == nil || w.allow(now, app, c, h)
	}
}

func (w *Watch) allow(now time.Time, app string, c *limiter.Claim, h *hold) bool {
	if len(c.Channels) == 0 {
		return true
	}
	k := detect.Key{Caller: w.name(app, c.Caller.Name()), Event: c.Event, Payload: c.Digest[0]}
	allowed := true
	for _, ch := range c.Channels {
		k.Channel = ch
		held, ok := w.det.Contained(&k)
		if !held.Named {
			continue
		}
		other := len(h.payloads) > 0
		for _, p := range h.payloads {
			other = other && p != c.Digest[0]
		}
		if !other {
			w.sample(now, app, c, ch)
		}
		switch {
		case !h.holding, !ok:
		case c.Rule != nil && c.Rule.Priority() == quota.Critical && !h.forced && !w.stake.Load():
		default:
			allowed = w.cells.take(now, held, other, c.Cost)
		}
		break // the channels of one publish are nearly always of one pattern
	}
	return allowed
}
