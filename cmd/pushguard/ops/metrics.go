package ops

import (
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
)

// Labels are bounded: account, app and caller come from the config file alone,
// outcome, state and code are closed lists. Nothing that a caller sends becomes
// a label.
var (
	descPublishes   = desc("publishes_total", "Events that callers asked to publish, by outcome.", "app", "caller", "outcome")
	descWould       = desc("observed_total", "Events that were sent because of observe mode, by the outcome that enforce mode would have given them.", "app", "caller", "outcome")
	descUsed        = desc("messages_used", "Messages of the account's plan used today (UTC), as Pusher bills them.", "account")
	descLimit       = desc("messages_limit", "Messages a day of the account's plan.", "account")
	descForecast    = desc("messages_forecast", "Messages that will be used by 00:00 UTC at the present rate.", "account")
	descLeased      = desc("messages_leased", "Messages leased by replicas and not spent.", "account")
	descBreaker     = desc("breaker_state", "1 for the quota breaker's present state, 0 for the others.", "account", "state")
	descBrake       = desc("brake_on", "1 while the brake is pulled by hand.", "account")
	descIncident    = desc("incident_open", "Open incidents of the account.", "account")
	descUpstream    = desc("upstream_requests_total", "Calls to Pusher by status code; code 0 got no answer.", "app", "code")
	descUpstreamUp  = desc("upstream_breaker_open", "1 while the app's upstream breaker is not closed.", "app")
	descRefusals    = desc("refused_requests_total", "Requests refused before judgement (signature, shape, size), by status code.", "code")
	descPanics      = desc("panics_total", "Requests that met a defect of pushguard and were answered 500.")
	descShed        = desc("overload_shed_total", "Requests shed with 503 because the concurrency limit was reached, by priority and cause.", "app", "priority", "cause")
	descCrowded     = desc("overload_crowded_total", "Requests shed with 503 before they were read because this replica had too many in progress.")
	descMayGo       = desc("overload_limit", "Concurrency limit of calls to Pusher. It adapts, and is 0 while the upstream is stalled.", "app")
	descUnderWay    = desc("overload_under_way", "Calls to Pusher in progress.", "app")
	descBase        = desc("overload_base_seconds", "Learned latency of an uncontended call to Pusher, in seconds; 0 until 20 calls were measured.", "app")
	descSilent      = desc("upstream_silent", "1 while the upstream is stalled: all calls to Pusher hang, and one probe is sent every 100 ms.", "app")
	descWaiting     = desc("overload_waiting", "Requests queued for a call to Pusher.", "app")
	descSwallowed   = desc("swallowed_messages_total", "Messages that Pusher would have billed for publishes that --sink or a load_test caller kept from it.", "account")
	descSwallowedEv = desc("swallowed_publishes_total", "Publishes that were not sent because of --sink or a load_test caller.", "account")
	descStoreUp     = desc("store_up", "1 while the store answers.")
	descReload      = desc("config_last_reload_successful", "1 if the last reload of the config succeeded.")
	descBuild       = desc("build_info", "Always 1; the version is in the labels.", "version", "goversion")
	descBucketsLost = desc("forgotten_keys_total", "Keys evicted from bounded tables.", "app", "table")
)

// descriptors are all that desc has made: Describe sends each, so none can be left out.
var descriptors []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("pushguard_"+name, help, labels, nil)
	descriptors = append(descriptors, d)
	return d
}

func registerRuntime(reg *prometheus.Registry) {
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// collector reads the guard's own counters when it is scraped, so that the hot
// path pays for each of them once.
type collector struct{ s *Server }

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptors {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	c.s.collectFolded(gauge, counter)
	c.s.collectRates(gauge, counter)
	now := c.s.cfg.Now()
	c.s.collectFanout(now, gauge, counter)
	incidents := c.s.listIncidents()
	for _, a := range c.s.cfg.Accounts() {
		snap := a.Ledger.Snapshot(now)
		gauge(descUsed, float64(snap.Used), a.Name)
		gauge(descLimit, float64(snap.Plan.MessagesPerDay), a.Name)
		gauge(descLeased, float64(snap.Leased), a.Name)
		gauge(descForecast, float64(expect(now, a, snap, c.s.book(a.Name).pace(now)).UsedAtReset), a.Name)
		gauge(descBrake, truth(snap.Brake != nil), a.Name)
		open := 0
		for _, in := range incidents {
			if in.Account == a.Name && in.State == IncidentOpen {
				open++
			}
		}
		gauge(descIncident, float64(open), a.Name)
		if a.Swallowed != nil {
			if sw := a.Swallowed(); sw != nil {
				counter(descSwallowed, sw.Messages, a.Name)
				counter(descSwallowedEv, sw.Events, a.Name)
			}
		}
		collectStore(a, snap, gauge, counter)
		collectBill(now, a, gauge)
		collectBurn(now, a, snap.Plan.MessagesPerDay, gauge, counter)
		state := a.Breaker.State(now).State
		for l := limiter.Closed; l <= limiter.HalfOpen; l++ {
			gauge(descBreaker, truth(l == state), a.Name, l.String())
		}
		for _, app := range a.Apps {
			for _, caller := range app.Limiter.Callers() {
				st := caller.Stats(now)
				for o := range limiter.Outcome(limiter.Outcomes) {
					counter(descPublishes, st.Outcomes[o], app.ID, st.Name, o.String())
					if st.Would[o] > 0 {
						counter(descWould, st.Would[o], app.ID, st.Name, o.String())
					}
				}
			}
			app.Upstream.Codes(func(code int, n int64) { counter(descUpstream, n, app.ID, strconv.Itoa(code)) })
			up, _ := app.Upstream.State()
			gauge(descUpstreamUp, truth(up != "closed"), app.ID)
			over := app.Upstream.Overload()
			for pr, causes := range over.ShedBy {
				for cause, n := range causes {
					counter(descShed, n, app.ID, quota.Priority(pr).String(), proxy.ShedCause(cause).String())
				}
			}
			gauge(descMayGo, float64(over.Limit), app.ID)
			gauge(descUnderWay, float64(over.UnderWay), app.ID)
			gauge(descSilent, truth(over.Silent), app.ID)
			gauge(descWaiting, float64(over.Waiting), app.ID)
			gauge(descBase, over.Base.Seconds(), app.ID)
			mem := app.Limiter.Memory()
			counter(descBucketsLost, mem.BucketsLost, app.ID, "buckets")
			counter(descBucketsLost, mem.DigestsLost, app.ID, "dedupe")
		}
	}
	c.s.cfg.Stats.Refusals(func(code int, n int64) { counter(descRefusals, n, strconv.Itoa(code)) })
	counter(descPanics, c.s.cfg.Stats.Panics())
	counter(descCrowded, c.s.cfg.Stats.Crowded())
	_, state := c.s.cfg.Store()
	gauge(descStoreUp, truth(state == "up"))
	gauge(descReload, truth(c.s.cfg.ReloadOK == nil || c.s.cfg.ReloadOK()))
	gauge(descBuild, 1, c.s.cfg.Version, runtime.Version())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
