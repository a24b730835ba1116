package ops

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// How fast the plan burns, and what the quota breaker makes of it.
var (
	descBurnRate  = desc("burn_rate", "Rate at which the plan is used over a window, as a multiple of its even rate. Absent until the process has run that long.", "account", "window")
	descBurnState = desc("burn_state", "1 for the state that the burn rate asks for, 0 for the others. With burn_rate: observe it is only reported.", "account", "state")
	descBurnTrips = desc("burn_trips", "Times that the burn rate began to shed today (UTC), over all replicas.", "account")
	descBurnUntil = desc("burn_until_seconds", "Earliest end of the state that the burn rate asks for, in Unix time; 0 if it asks for none.", "account")
	descLease     = desc("lease", "Leased messages that this replica may still send without asking the store.", "account")
	descBorrowed  = desc("borrowed", "Messages that this replica sent beyond its lease since the store was lost (on_store_loss: open).", "account")
	descHealing   = desc("store_healing", "1 while the store has lost data and replicas report what they know. No lease is granted meanwhile.", "account")
	descFaults    = desc("store_data_losses_total", "Losses of the store's data that this replica saw.", "account")
	descMoves     = desc("breaker_transitions_total", "Changes of the quota breaker's state that this replica saw, by the new state.", "account", "state")
)

// collectStore is how this replica stands with the store.
func collectStore(a Account, snap quota.Snapshot, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, int64, ...string)) {
	gauge(descLease, float64(snap.Lease), a.Name)
	gauge(descBorrowed, float64(snap.Borrowed), a.Name)
	gauge(descHealing, truth(snap.Healing), a.Name)
	counter(descFaults, int64(snap.Faults), a.Name)
}

func collectBurn(now time.Time, a Account, plan int64, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, int64, ...string)) {
	seen := map[time.Duration]bool{}
	for _, w := range a.Breaker.BurnWindows(now, plan) {
		if w.Known && !seen[w.Over] {
			seen[w.Over] = true
			gauge(descBurnRate, w.Times, a.Name, windowName(w.Over))
		}
	}
	st := a.Breaker.BurnState()
	if st.Day != quota.DayOf(now) {
		st = quota.Burn{}
	}
	for l := limiter.Closed; l <= limiter.HalfOpen; l++ {
		if l != limiter.Open { // only the count and Pusher's word open it
			gauge(descBurnState, truth(l == burnLevel(st)), a.Name, l.String())
		}
	}
	gauge(descBurnTrips, float64(st.Trips), a.Name)
	until := 0.0
	if st.Level > 0 && !st.Until.IsZero() {
		until = float64(st.Until.UnixMilli()) / 1000
	}
	gauge(descBurnUntil, until, a.Name)
	for l, n := range a.Breaker.Moves() {
		counter(descMoves, n, a.Name, limiter.Level(l).String())
	}
}

// windowName is a window as Prometheus writes durations.
func windowName(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(s) - len(zero); n > 0 && s[n:] == zero {
			s = s[:n+1]
		}
	}
	return s
}
