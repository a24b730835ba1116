package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

// BrakeOrder pulls the brake. Allow is "critical" or "none"; For is a duration
// such as "2h" or "2d", empty for until it is lifted.
//
// With any of App, Caller, Event and Channel it is aimed: only what matches all
// of them is stopped, or with To held to that rate of all replicas together.
// Then Allow is "none" if it is empty. Replace lets it take the place of a
// stricter one.
type BrakeOrder struct {
	Allow   string `json:"allow"`
	Reason  string `json:"reason"`
	For     string `json:"for"`
	By      string `json:"by"`
	App     string `json:"app,omitempty"`
	Caller  string `json:"caller,omitempty"`
	Event   string `json:"event,omitempty"`
	Channel string `json:"channel,omitempty"`
	To      string `json:"to,omitempty"`
	Replace bool   `json:"replace,omitempty"`
}

// PlanOrder replaces the plan, live.
type PlanOrder struct {
	MessagesPerDay int64  `json:"messages_per_day"`
	Reason         string `json:"reason"`
	By             string `json:"by"`
}

// UsageOrder sets today's count to what Pusher's own dashboard shows.
type UsageOrder struct {
	Used *int64 `json:"used"`
	// At says that Used was read at that time of today, as "14:05" in UTC; what was counted since is added.
	At string `json:"at,omitempty"`
	// Add, instead of Used, are messages that the guard has not seen.
	Add    int64  `json:"add,omitempty"`
	Reason string `json:"reason"`
	By     string `json:"by"`
}

// HeldOrder ends the windows of what is held for later.
type HeldOrder struct {
	Reason string `json:"reason"`
	By     string `json:"by"`
}

func (s *Server) account(r *http.Request) (Account, error) {
	return s.accountNamed(r.PathValue("name"))
}

// accountNamed finds an account; no name means the only one.
func (s *Server) accountNamed(name string) (Account, error) {
	var names []string
	all := s.cfg.Accounts()
	for _, a := range all {
		if a.Name == name || name == "" && len(all) == 1 {
			return a, nil
		}
		names = append(names, a.Name)
	}
	return Account{}, &failure{http.StatusNotFound, fmt.Sprintf("there is no account %q; this guard has %s", name, strings.Join(names, ", "))}
}

func bad(format string, args ...any) error {
	return &failure{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// lasting detaches a lever from its request: an operator who closes the
// terminal must not leave half a brake.
func lasting(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), 10*time.Second)
}

func (s *Server) brakeOn(r *http.Request, in BrakeOrder) (any, error) {
	a, err := s.account(r)
	if err != nil {
		return nil, err
	}
	if in.aims() && in.Allow == "" {
		in.Allow = "none"
	}
	if in.Allow != "critical" && in.Allow != "none" {
		return nil, bad(`allow must be "critical" (critical publishes still pass) or "none"; it is %q`, in.Allow)
	}
	if strings.TrimSpace(in.Reason) == "" && !dryRun(r) {
		return nil, bad("reason is missing: whoever is on call next must know why nothing goes out")
	}
	now := s.cfg.Now()
	b := &quota.Brake{Allow: in.Allow, Reason: in.Reason, By: s.who(r, in.By), Since: now}
	if in.For != "" {
		d, err := words.ParseSpan(in.For)
		if err != nil || d <= 0 {
			return nil, bad(`for must be a length of time above zero such as "30m", "2h" or "2d"; it is %q`, in.For)
		}
		b.Until = now.Add(d)
	}
	if in.aims() {
		return s.aimOn(r, a, &in, now, b.Until)
	}
	if dryRun(r) {
		return s.effectOfBrake(now, a, b), nil
	}
	return s.moved(r, a, func(ctx context.Context) error {
		if in.Replace {
			return a.Ledger.SetBrake(ctx, now, b)
		}
		return a.Ledger.TightenBrake(ctx, now, b)
	})
}

// brakeOff lifts the brake on the whole account; with ?id= an aimed one, and
// with ?id=all every brake.
func (s *Server) brakeOff(r *http.Request, _ struct{}) (any, error) {
	a, err := s.account(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	who, why, id := s.who(r, q.Get("by")), q.Get("reason"), q.Get("id")
	if id != "" && id != "all" && !slices.ContainsFunc(a.Ledger.Snapshot(s.cfg.Now()).Aims, func(x quota.Aim) bool { return x.ID == id }) {
		return nil, &failure{http.StatusNotFound, fmt.Sprintf("there is no brake %q; see pushguard brake list", id)}
	}
	if dryRun(r) {
		if id != "" {
			return s.effectOfAimRelease(s.cfg.Now(), a, id), nil
		}
		return s.effectOfRelease(s.cfg.Now(), a), nil
	}
	return s.moved(r, a, func(ctx context.Context) error {
		now := s.cfg.Now()
		switch {
		case id == "":
			return a.Ledger.LiftBrake(ctx, now, who, why)
		case id != "all":
			return a.Ledger.LiftAims(ctx, now, id, who, why)
		}
		err := a.Ledger.LiftAims(ctx, now, id, who, why)
		if err == nil && a.Ledger.CurrentBrake(now) != nil {
			err = a.Ledger.LiftBrake(ctx, now, who, why)
		}
		return err
	})
}

func (s *Server) planSet(r *http.Request, in PlanOrder) (any, error) {
	a, err := s.account(r)
	if err != nil {
		return nil, err
	}
	if in.MessagesPerDay <= 0 {
		return nil, bad("messages_per_day must be above zero; it is %d. To stop everything, use the brake", in.MessagesPerDay)
	}
	if dryRun(r) {
		now := s.cfg.Now()
		return s.effectOfCount(now, a, "plan set", a.Ledger.Snapshot(now).Used, in.MessagesPerDay), nil
	}
	return s.moved(r, a, func(ctx context.Context) error {
		return a.Ledger.SetPlan(ctx, s.cfg.Now(), in.MessagesPerDay, s.who(r, in.By), in.Reason)
	})
}

func (s *Server) usageSet(r *http.Request, in UsageOrder) (any, error) {
	a, err := s.account(r)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	switch {
	case in.Add != 0 && in.Used == nil && in.At == "":
		used := a.Ledger.Snapshot(now).Used + in.Add
		if used < 0 {
			return nil, bad("add is %d, and %d are used today", in.Add, used-in.Add)
		}
		in.Used = &used
	case in.Add != 0:
		return nil, bad("give used, or add, not both")
	case in.Used == nil || *in.Used < 0:
		return nil, bad("used must be given and not be negative: the messages that Pusher's dashboard shows for today")
	case in.At != "":
		at, err := time.Parse("15:04", in.At)
		if err != nil {
			return nil, bad("at must be a time of today in UTC such as 14:05; it is %q", in.At)
		}
		then := quota.DayOf(now).Start().Add(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute)
		since, err := a.Ledger.CountedSince(now, then)
		if err != nil {
			return nil, bad("%s", err)
		}
		used := *in.Used + since
		in.Used = &used
	}
	if dryRun(r) {
		return s.effectOfCount(now, a, "usage set", *in.Used, a.Ledger.Snapshot(now).Plan.MessagesPerDay), nil
	}
	defer s.book(a.Name).forgetPace(s.cfg.Now)
	return s.moved(r, a, func(ctx context.Context) error {
		return a.Ledger.SetUsage(ctx, s.cfg.Now(), *in.Used, s.who(r, in.By), in.Reason)
	})
}

// heldRelease sends what is held for later now: before a change that may lose
// the store, or to see an end of it.
func (s *Server) heldRelease(r *http.Request, in HeldOrder) (any, error) {
	a, err := s.account(r)
	if err != nil {
		return nil, err
	}
	if a.Shelf == nil {
		return nil, &failure{http.StatusNotFound, "nothing can be held here: the account has no app"}
	}
	if dryRun(r) {
		return s.effectOfHeldRelease(s.cfg.Now(), a), nil
	}
	return s.moved(r, a, func(ctx context.Context) error {
		now := s.cfg.Now()
		n, err := a.Shelf.Flush(ctx, now)
		if n > 0 {
			after := fmt.Sprintf("%d publishes due at once", n)
			if e := a.audit(ctx, now, s.who(r, in.By), "held release", in.Reason, after); e != nil && err == nil {
				err = fmt.Errorf("%s, but that is not in the audit trail: %w", after, e)
			}
		}
		return err
	})
}

// moved moves a lever and answers with the account as it is afterwards.
func (s *Server) moved(r *http.Request, a Account, lever func(context.Context) error) (any, error) {
	ctx, cancel := lasting(r)
	defer cancel()
	switch err := lever(ctx); {
	case errors.Is(err, quota.ErrHereAlone):
		s.cfg.Log.Warn("lever moved on this replica alone", "account", a.Name, "lever", r.Method+" "+r.URL.Path, "from", r.RemoteAddr, "who", s.who(r, ""), "why", err)
		return nil, &failure{http.StatusServiceUnavailable, "done, but not everywhere: " + err.Error()}
	case conflict(err) != nil:
		return nil, conflict(err)
	case err != nil:
		return nil, &failure{http.StatusServiceUnavailable, "the lever did not move: " + err.Error()}
	}
	s.cfg.Log.Info("lever moved", "account", a.Name, "lever", r.Method+" "+r.URL.Path, "from", r.RemoteAddr, "who", s.who(r, ""))
	return s.accountStatus(s.cfg.Now(), a), nil
}

// AuditEntry is one thing that was done to an account, newest first in lists.
type AuditEntry struct {
	Account string    `json:"account"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Why     string    `json:"why"`
	Before  string    `json:"before,omitempty"`
	After   string    `json:"after,omitempty"`
}

// auditTrail lists who did what and why, from the store, so the same on every
// replica. It takes account and limit (at most 1,000 an account, as a rule 200).
func (s *Server) auditTrail(r *http.Request) ([]AuditEntry, error) {
	limit := 200
	if v := r.URL.Query().Get("limit"); v != "" {
		if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 1000 {
			return nil, bad("limit must be from 1 to 1000; it is %q", v)
		} else {
			limit = n
		}
	}
	out := []AuditEntry{}
	for _, a := range s.cfg.Accounts() {
		if want := r.URL.Query().Get("account"); want != "" && want != a.Name {
			continue
		}
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		entries, err := a.Ledger.Audit(ctx, limit)
		cancel()
		if err != nil {
			return nil, &failure{http.StatusServiceUnavailable, "the audit trail cannot be read: " + err.Error()}
		}
		for _, e := range entries {
			out = append(out, AuditEntry{Account: a.Name, At: e.At.UTC(), Who: e.Who, What: e.What, Why: e.Why, Before: e.Before, After: e.After})
		}
	}
	slices.SortStableFunc(out, func(a, b AuditEntry) int { return b.At.Compare(a.At) })
	return out[:min(limit, len(out))], nil
}

func (a Account) audit(ctx context.Context, now time.Time, who, what, why, after string) error {
	return a.Ledger.AuditAppend(ctx, store.AuditEntry{At: now.UTC(), Who: who, What: what, Why: why, After: after})
}
