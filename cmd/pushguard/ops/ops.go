// Package ops is the admin port: health, metrics, the JSON API that status,
// dashboard and command line read, and the levers.
//
// It looks at the guard through the values it is given and never stands in the
// way of a publish.
package ops

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
)

// Account is one Pusher account as the admin port shows it.
type Account struct {
	Name    string
	Ledger  *quota.Ledger
	Breaker *limiter.Breaker
	Apps    []*proxy.App
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
	Log   *slog.Logger
	// Collectors are further metrics.
	Collectors []prometheus.Collector
}

// Server answers on the admin port. It is safe for concurrent use.
type Server struct {
	cfg     Config
	token   [sha256.Size]byte
	pace    pace
	handler http.Handler
}

// New builds the admin port.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token))}
	reg := prometheus.NewRegistry()
	reg.MustRegister(&collector{s: s}, cfg.Stats.Decision())
	reg.MustRegister(cfg.Collectors...)
	registerRuntime(reg)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.read(promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})))
	mux.Handle("GET /api/v1/status", s.read(get(s.status)))
	mux.Handle("GET /api/v1/audit", s.read(get(s.audit)))
	mux.Handle("POST /api/v1/accounts/{name}/brake", s.write(put(s.brakeOn)))
	mux.Handle("DELETE /api/v1/accounts/{name}/brake", s.write(put(s.brakeOff)))
	mux.Handle("PUT /api/v1/accounts/{name}/plan", s.write(put(s.planSet)))
	mux.Handle("PUT /api/v1/accounts/{name}/usage", s.write(put(s.usageSet)))
	mux.Handle("/", s.read(http.HandlerFunc(s.index)))
	s.handler = http.NewCrossOriginProtection().Handler(harden(mux))
	return s
}

// ServeHTTP makes the admin port an http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

// read lets in whoever may look: everybody on loopback, elsewhere who has the
// token.
func (s *Server) read(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r) && !s.authorized(r) {
			s.deny(w, "reading from another host needs the admin token")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// write lets in only who has the token, from wherever.
func (s *Server) write(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Token == "" {
			fail(w, http.StatusForbidden, "no lever can be moved because this guard has no admin token; set admin.token in the config, or PUSHGUARD_ADMIN_TOKEN")
			return
		}
		if !s.authorized(r) {
			s.deny(w, "this needs the admin token")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorized(r *http.Request) bool {
	if s.cfg.Token == "" {
		return false
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		if _, given, ok = r.BasicAuth(); !ok {
			return false
		}
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

func (s *Server) deny(w http.ResponseWriter, why string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="pushguard", Basic realm="pushguard"`)
	fail(w, http.StatusUnauthorized, why+`: send "Authorization: Bearer TOKEN", or the token as the password of basic auth`)
}

func fromLoopback(r *http.Request) bool {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

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
			dec := json.NewDecoder(r.Body)
			dec.DisallowUnknownFields()
			if err := dec.Decode(&in); err != nil {
				fail(w, http.StatusBadRequest, "the body is not the JSON that this call takes: "+err.Error())
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

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	out := Readiness{Ready: true, Checks: []CheckResult{}}
	for _, c := range s.cfg.Checks {
		note, err := c.Run()
		res := CheckResult{Name: c.Name, OK: err == nil, Detail: note}
		if err != nil {
			res.Detail, out.Ready = err.Error(), false
		}
		out.Checks = append(out.Checks, res)
	}
	w.Header().Set("Content-Type", "application/json")
	if !out.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(out)
}

func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		fail(w, http.StatusNotFound, "there is no "+r.URL.Path+" on the admin port; see /api/v1/status, /metrics, /readyz, /healthz")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("pushguard " + s.cfg.Version + "\n\n/api/v1/status  what is going on, as JSON\n/metrics        Prometheus\n/readyz         each condition of readiness, named\n/healthz        alive\n"))
}
