package ops

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// BrakeOrder pulls the brake. Allow is "critical" or "none"; For is a duration
// such as "2h", empty for until it is lifted.
type BrakeOrder struct {
	Allow  string `json:"allow"`
	Reason string `json:"reason"`
	For    string `json:"for"`
	By     string `json:"by"`
}

// PlanOrder replaces the plan, live.
type PlanOrder struct {
	MessagesPerDay int64  `json:"messages_per_day"`
	Reason         string `json:"reason"`
	By             string `json:"by"`
}

// UsageOrder sets today's count to what Pusher's own dashboard shows.
type UsageOrder struct {
	Used   *int64 `json:"used"`
	Reason string `json:"reason"`
	By     string `json:"by"`
}

func (s *Server) account(r *http.Request) (Account, error) {
	name := r.PathValue("name")
	var names []string
	for _, a := range s.cfg.Accounts() {
		if a.Name == name {
			return a, nil
		}
		names = append(names, a.Name)
	}
	return Account{}, &failure{http.StatusNotFound, fmt.Sprintf("there is no account %q; this guard has %s", name, strings.Join(names, ", "))}
}

// who names the person for the audit trail: what the order says, or the user
// name of basic auth.
func who(r *http.Request, by string) string {
	if by != "" {
		return by
	}
	if user, _, ok := r.BasicAuth(); ok && user != "" {
		return user
	}
	return "admin token from " + r.RemoteAddr
}

func bad(format string, args ...any) error {
	return &failure{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// lasting detaches a lever from its request: an operator who closes the
// terminal must not leave half a brake.
func lasting(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
}

func (s *Server) brakeOn(r *http.Request, in BrakeOrder) (AccountStatus, error) {
	a, err := s.account(r)
	if err != nil {
		return AccountStatus{}, err
	}
	if in.Allow != "critical" && in.Allow != "none" {
		return AccountStatus{}, bad(`allow must be "critical" (critical publishes still pass) or "none"; it is %q`, in.Allow)
	}
	if strings.TrimSpace(in.Reason) == "" {
		return AccountStatus{}, bad("reason is missing: whoever is on call next must know why nothing goes out")
	}
	now := s.cfg.Now()
	b := &quota.Brake{Allow: in.Allow, Reason: in.Reason, By: who(r, in.By), Since: now}
	if in.For != "" {
		d, err := time.ParseDuration(in.For)
		if err != nil || d <= 0 {
			return AccountStatus{}, bad(`for must be a duration above zero such as "30m" or "2h"; it is %q`, in.For)
		}
		b.Until = now.Add(d)
	}
	return s.moved(r, a, func(ctx context.Context) error { return a.Ledger.SetBrake(ctx, now, b) })
}

func (s *Server) brakeOff(r *http.Request, _ struct{}) (AccountStatus, error) {
	a, err := s.account(r)
	if err != nil {
		return AccountStatus{}, err
	}
	return s.moved(r, a, func(ctx context.Context) error {
		return a.Ledger.LiftBrake(ctx, s.cfg.Now(), who(r, r.URL.Query().Get("by")), r.URL.Query().Get("reason"))
	})
}

func (s *Server) planSet(r *http.Request, in PlanOrder) (AccountStatus, error) {
	a, err := s.account(r)
	if err != nil {
		return AccountStatus{}, err
	}
	if in.MessagesPerDay <= 0 {
		return AccountStatus{}, bad("messages_per_day must be above zero; it is %d. To stop everything, use the brake", in.MessagesPerDay)
	}
	return s.moved(r, a, func(ctx context.Context) error {
		return a.Ledger.SetPlan(ctx, s.cfg.Now(), in.MessagesPerDay, who(r, in.By), in.Reason)
	})
}

func (s *Server) usageSet(r *http.Request, in UsageOrder) (AccountStatus, error) {
	a, err := s.account(r)
	if err != nil {
		return AccountStatus{}, err
	}
	if in.Used == nil || *in.Used < 0 {
		return AccountStatus{}, bad("used must be given and not be negative: the messages that Pusher's dashboard shows for today")
	}
	return s.moved(r, a, func(ctx context.Context) error {
		return a.Ledger.SetUsage(ctx, s.cfg.Now(), *in.Used, who(r, in.By), in.Reason)
	})
}

// moved moves a lever and answers with the account as it is afterwards.
func (s *Server) moved(r *http.Request, a Account, lever func(context.Context) error) (AccountStatus, error) {
	ctx, cancel := lasting(r)
	defer cancel()
	if err := lever(ctx); err != nil {
		return AccountStatus{}, &failure{http.StatusServiceUnavailable, "the lever did not move: " + err.Error()}
	}
	s.cfg.Log.Info("lever moved", "account", a.Name, "lever", r.Method+" "+r.URL.Path, "from", r.RemoteAddr)
	return s.accountStatus(s.cfg.Now(), a), nil
}

// AuditEntry is one thing that was done to an account, newest first in lists.
type AuditEntry struct {
	Account string    `json:"account"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Why     string    `json:"why"`
}

// audit lists who did what and why, from the store, so the same on every
// replica.
func (s *Server) audit(r *http.Request) ([]AuditEntry, error) {
	out := []AuditEntry{}
	for _, a := range s.cfg.Accounts() {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		entries, err := a.Ledger.Audit(ctx, 200)
		cancel()
		if err != nil {
			return nil, &failure{http.StatusServiceUnavailable, "the audit trail cannot be read: " + err.Error()}
		}
		for _, e := range entries {
			out = append(out, AuditEntry{Account: a.Name, At: e.At.UTC(), Who: e.Who, What: e.What, Why: e.Why})
		}
	}
	slices.SortStableFunc(out, func(a, b AuditEntry) int { return b.At.Compare(a.At) })
	return out, nil
}
