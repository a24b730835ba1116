// Package ops is the admin port: health, metrics, the JSON API that status,
// dashboard and command line read, and the levers.
//
// It looks at the guard through the values it is given and never stands in the
// way of a publish.
package ops

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pushguard/pushguard/cmd/pushguard/learn"
	"github.com/pushguard/pushguard/cmd/pushguard/trial"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/dedupe"
	"github.com/pushguard/pushguard/quota/delayed"
	"github.com/pushguard/pushguard/quota/rates"
)

// Account is one Pusher account as the admin port shows it.
type Account struct {
	Name    string
	Ledger  *quota.Ledger
	Breaker *limiter.Breaker
	Apps    []*proxy.App
	// Levels are the breaker's settings and Floors the ledger's, as fractions of
	// the plan, to be drawn. Zero fields of Levels mean the breaker's defaults.
	Levels limiter.BreakerConfig
	Floors [quota.Priorities]float64
	// Recent is what a rule can be tried on; nil: nothing is remembered.
	Recent *trial.History
	// Swallowed, if set, is what was kept from Pusher and what that would have
	// cost, nil where nothing of the account has a sink. Sink: everything is
	// swallowed, not load tests alone.
	Swallowed func() *Swallowed
	Sink      bool
	// Learned, if set, is what the apps asked Pusher by themselves, by app.
	Learned func() map[string]learn.Status
	// Shelf is what is held for later, on all replicas.
	Shelf *delayed.Queue
	// Twins is the replicas' shared record of publishes, for dedupe with scope
	// cluster; nil: this replica is the only one.
	Twins *dedupe.Claims
	// Rates are this replica's shares of token buckets; nil: it has them all.
	Rates *rates.Shares
}

// Check is one of the conditions of readiness.
type Check struct {
	Name string
	// Run returns an error that says what to do when the condition does not
	// hold, and a note for people when it does. It must not block: it is asked
	// on every probe.
	Run func() (note string, err error)
}

// Config is what a Server shows and whom it lets in.
type Config struct {
	Version, Replica string
	Started          time.Time
	Now              func() time.Time
	// Accounts returns what is served now; it is asked anew for each request,
	// as a reload may change it.
	Accounts func() []Account
	// Stats are the data port's counters.
	Stats *proxy.Stats
	// Store says which store this is and whether it answers.
	Store func() (kind, state string)
	// Checks decide /readyz.
	Checks []Check
	// ReloadOK reports whether the last reload of the config succeeded.
	ReloadOK func() bool
	// Token lets in: as "Authorization: Bearer …", or as the password of basic
	// auth under any user name. Empty means that no lever can be moved over
	// this port, and that only loopback may read.
	Token string
	// ReadToken lets in to read, and moves no lever; empty: there is none.
	ReadToken string
	// Hosts are names under which this port may be read without a token from
	// this machine, beside localhost and addresses. See Server.hostKnown.
	Hosts []string
	// TrustHeader, if not empty, is the header in which an authenticating proxy
	// puts the user's name, such as "X-Forwarded-User". Whoever comes from
	// TrustFrom with it may read and move levers; from elsewhere it is ignored.
	// The proxy must remove the header from what it is sent.
	TrustHeader string
	TrustFrom   []netip.Prefix
	// Incidents lists what the detector knows, open and resolved, of all
	// accounts; it is asked every second while a page is open, and must not
	// block. nil: the detector is not running.
	Incidents func() []Incident
	// IncidentAction is contain, release or ack.
	IncidentAction func(ctx context.Context, id, action, who string) error
	// Top lists the busiest keys of an account (empty: of all) by caller, event, channel or payload.
	Top func(account, by string, window time.Duration, limit int) ([]TopRow, error)
	// ParseRule reads one rule as the config file has it; its error is for people.
	// nil: no rule can be tried.
	ParseRule func(text string) (limiter.Rule, error)
	// MaxStreams bounds open dashboards; 0 means 128.
	MaxStreams int
	Log        *slog.Logger
	// Collectors are further metrics.
	Collectors []prometheus.Collector
}

// Server answers on the admin port. It is safe for concurrent use.
type Server struct {
	cfg   Config
	token [sha256.Size]byte

	readToken [sha256.Size]byte

	assets   *assets
	sessions sessions
	tries    *tries
	stream   stream
	handler  http.Handler
	trying   sync.Mutex // one trial at a time

	booksMu sync.Mutex
	books   map[string]*book // by account
}

// New builds the admin port.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = defaultMaxStreams
	}
	s := &Server{
		cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)), readToken: sha256.Sum256([]byte(cfg.ReadToken)), assets: loadAssets(), tries: newTries(),
		stream: stream{most: cfg.MaxStreams}, books: map[string]*book{},
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(&collector{s: s}, cfg.Stats.Decision())
	reg.MustRegister(cfg.Collectors...)
	registerRuntime(reg)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.read(promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})))

	mux.Handle("GET /api/v1/status", s.read(get(s.status)))
	mux.Handle("GET /api/v1/events", s.read(http.HandlerFunc(s.events)))
	mux.Handle("GET /api/v1/history", s.read(zipped(get(s.history))))
	mux.Handle("GET /api/v1/incidents", s.read(get(s.incidents)))
	mux.Handle("GET /api/v1/incidents/{id}", s.read(http.HandlerFunc(s.incident)))
	mux.Handle("GET /api/v1/top", s.read(get(s.top)))
	mux.Handle("GET /api/v1/apps/{id}/fanout", s.read(get(s.fanout)))
	mux.Handle("GET /api/v1/rules", s.read(get(s.rules)))
	mux.Handle("POST /api/v1/rules/try", s.read(put(s.ruleTry)))
	mux.Handle("GET /api/v1/rates", s.read(get(s.rates)))
	mux.Handle("GET /api/v1/savings", s.read(get(s.savings)))
	mux.Handle("GET /api/v1/audit", s.read(get(s.auditTrail)))
	mux.Handle("GET /api/v1/accounts/{name}/brake", s.read(get(s.brakes)))
	mux.Handle("POST /api/v1/accounts/{name}/brake", s.write(put(s.brakeOn)))
	mux.Handle("DELETE /api/v1/accounts/{name}/brake", s.write(put(s.brakeOff)))
	mux.Handle("PUT /api/v1/accounts/{name}/plan", s.write(put(s.planSet)))
	mux.Handle("PUT /api/v1/accounts/{name}/usage", s.write(put(s.usageSet)))
	mux.Handle("POST /api/v1/accounts/{name}/held/release", s.write(put(s.heldRelease)))
	for _, action := range []string{"contain", "release", "accept", "ack"} {
		mux.Handle("POST /api/v1/incidents/{id}/"+action, s.write(put(s.incidentAct(action))))
	}

	mux.Handle("GET /api/v1/session", s.read(get(s.sessionStatus)))
	mux.HandleFunc("POST /api/v1/session", s.signInJSON)
	mux.HandleFunc("DELETE /api/v1/session", s.signOut)
	mux.HandleFunc("POST /sign-in", s.signInForm)
	mux.HandleFunc("GET /assets/{path...}", s.asset)
	mux.Handle("/", s.read(http.HandlerFunc(s.index)))
	s.handler = harden(http.NewCrossOriginProtection().Handler(mux))
	return s
}

// ServeHTTP makes the admin port an http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// failure is an error with the status that it deserves.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

func failWith(w http.ResponseWriter, err error) {
	var f *failure
	if errors.As(err, &f) {
		fail(w, f.status, f.text)
		return
	}
	fail(w, http.StatusInternalServerError, err.Error())
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// get is the funnel of every read.
func get[T any](f func(*http.Request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			failWith(w, err)
			return
		}
		reply(w, v)
	})
}

// put is the funnel of every lever: strict JSON in, JSON out.
func put[In, Out any](f func(*http.Request, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method != http.MethodDelete || r.ContentLength > 0 {
			if err := decode(r, &in); err != nil {
				failWith(w, err)
				return
			}
		}
		out, err := f(r, in)
		if err != nil {
			failWith(w, err)
			return
		}
		reply(w, out)
	})
}

func decode(r *http.Request, in any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		return bad("the body is not the JSON that this call takes: %v", err)
	}
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready  bool          `json:"ready"`
	Checks []CheckResult `json:"checks"`
}

// CheckResult is one named condition; Detail says what to do when it fails.
type CheckResult struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

func (s *Server) readiness() Readiness {
	out := Readiness{Ready: true, Checks: []CheckResult{}}
	for _, c := range s.cfg.Checks {
		note, err := c.Run()
		res := CheckResult{Name: c.Name, OK: err == nil, Detail: note}
		if err != nil {
			res.Detail, out.Ready = err.Error(), false
		}
		out.Checks = append(out.Checks, res)
	}
	return out
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	out := s.readiness()
	w.Header().Set("Content-Type", "application/json")
	if !out.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(out)
}
