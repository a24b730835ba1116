package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// AimStatus is a brake on a part of the account.
type AimStatus struct {
	ID      string `json:"id"`
	App     string `json:"app,omitempty"`
	Caller  string `json:"caller,omitempty"`
	Event   string `json:"event,omitempty"`
	Channel string `json:"channel,omitempty"`
	// Priority is what still passes: critical or none. To is the rate of all
	// replicas together that it is held to; empty: it is stopped.
	Priority string     `json:"priority"`
	To       string     `json:"to,omitempty"`
	Reason   string     `json:"reason"`
	By       string     `json:"by"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until"`
	// What says it in one sentence.
	What string `json:"what"`
}

// BrakesStatus is the answer of GET /api/v1/accounts/{name}/brake.
type BrakesStatus struct {
	Brake *BrakeStatus `json:"brake"`
	Aimed []AimStatus  `json:"aimed"`
}

func aimStatuses(list []quota.Aim) []AimStatus {
	out := []AimStatus{}
	for i := range list {
		a := &list[i]
		row := AimStatus{ID: a.ID, App: a.App, Caller: a.Caller, Event: a.Event, Channel: a.Channel, Priority: a.Allow, To: a.To,
			Reason: a.Reason, By: a.By, Since: a.Since.UTC(), What: a.What()}
		if !a.Until.IsZero() {
			until := a.Until.UTC()
			row.Until = &until
		}
		out = append(out, row)
	}
	return out
}

func (s *Server) brakes(r *http.Request) (BrakesStatus, error) {
	a, err := s.account(r)
	if err != nil {
		return BrakesStatus{}, err
	}
	st := s.accountStatus(s.cfg.Now(), a)
	return BrakesStatus{st.Brake, st.Aimed}, nil
}

func (in *BrakeOrder) aims() bool {
	return in.App != "" || in.Caller != "" || in.Event != "" || in.Channel != "" || in.To != ""
}

var (
	aimChannel = regexp.MustCompile(`^#?[-a-zA-Z0-9_=@,.;*?]+$`)
	aimCaller  = regexp.MustCompile(`^[A-Za-z0-9._*?()-]+$`)
)

// aimOf reads an order for an aimed brake.
func (s *Server) aimOf(r *http.Request, a Account, in *BrakeOrder, now, until time.Time) (quota.Aim, error) {
	aim := quota.Aim{App: in.App, Caller: in.Caller, Event: in.Event, Channel: in.Channel, Allow: in.Allow, Reason: in.Reason,
		By: s.who(r, in.By), Since: now.UTC(), Until: until}
	if in.App+in.Caller+in.Event+in.Channel == "" {
		return aim, bad("to needs something that it is for: an app, a caller, an event or a channel")
	}
	for _, p := range []struct{ what, v string }{{"app", in.App}, {"caller", in.Caller}, {"event", in.Event}, {"channel", in.Channel}} {
		if len(p.v) > 256 {
			return aim, bad("%s is longer than 256 characters", p.what)
		}
	}
	if in.App != "" {
		known := false
		var ids []string
		for _, app := range a.Apps {
			known = known || app.ID == in.App
			ids = append(ids, app.ID)
		}
		if !known {
			return aim, bad("account %s has no app %q; it has %s", a.Name, in.App, strings.Join(ids, ", "))
		}
	}
	if in.Channel != "" && !aimChannel.MatchString(in.Channel) {
		return aim, bad("channel %q can match no channel: a name has letters, digits and -_=@,.; and a pattern beside them * and ?", in.Channel)
	}
	if in.Caller != "" && !aimCaller.MatchString(in.Caller) {
		return aim, bad("caller %q can match no caller", in.Caller)
	}
	if in.To != "" {
		rate, err := limiter.ParseRate(in.To)
		if err != nil {
			return aim, bad("to: %s", err)
		}
		if rate.Per != limiter.PerApp {
			return aim, bad("to is one rate for all that it matches, as 5/s; %q is per %s", in.To, rate.Per)
		}
		aim.To, aim.PerSecond, aim.Burst = in.To, rate.PerSecond, rate.Burst
	}
	return aim, nil
}

func (s *Server) aimOn(r *http.Request, a Account, in *BrakeOrder, now, until time.Time) (any, error) {
	aim, err := s.aimOf(r, a, in, now, until)
	if err != nil {
		return nil, err
	}
	if dryRun(r) {
		return s.effectOfAim(now, a, &aim), nil
	}
	return s.moved(r, a, func(ctx context.Context) error {
		_, err := a.Ledger.SetAim(ctx, now, aim, in.Replace)
		return err
	})
}

// effectOfAim counts in what was published in the last minute what the brake
// would refuse.
func (s *Server) effectOfAim(now time.Time, a Account, aim *quota.Aim) Effect {
	out := Effect{Lever: "brake on", Account: a.Name, Priorities: []PriorityEffect{}, Callers: []CallerEffect{}, Notes: []string{}}
	verb := "Stops"
	if aim.To != "" {
		verb = "Holds"
	}
	if a.Recent == nil {
		out.Summary = fmt.Sprintf("%s on every replica: %s. What that is now is not known.", verb, aim.What())
		return out
	}
	matches := limiter.Matcher(aim.Caller, aim.Event, aim.Channel)
	byCaller := map[string]int64{}
	total, critical := int64(0), int64(0)
	a.Recent.Each(now.Unix()-60, now.Unix(), func(app, caller, event string, channels []string, n int64) {
		if aim.App != "" && app != aim.App || !matches(caller, event, channels) {
			return
		}
		if aim.Allow == "critical" && priorityOf(a, app, caller, event, channels) == quota.Critical {
			critical += n
			return
		}
		total += n
		byCaller[caller] += n
	})
	refused := total
	if aim.To != "" {
		refused = max(0, total-int64(aim.PerSecond*60))
	}
	out.RefusedPerMinute = &refused
	out.Summary = fmt.Sprintf("%s on every replica: %s. Of %s publishes in the last minute that match, %s would have been refused with 403.", verb, aim.What(), words.Count(total), words.Count(refused))
	for name, n := range byCaller {
		out.Callers = append(out.Callers, CallerEffect{name, n})
	}
	busiestFirst(out.Callers)
	out.Callers = out.Callers[:min(len(out.Callers), 5)]
	if critical > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%s critical publishes a minute match and still pass.", words.Count(critical)))
	}
	if total+critical == 0 {
		out.Notes = append(out.Notes, "Nothing that matches was published here in the last minute: look at the spelling.")
	}
	snap := a.Ledger.Snapshot(now)
	if snap.Replicas > 1 {
		out.Notes = append(out.Notes, fmt.Sprintf("Publishes are counted on this replica, one of %d; the brake acts on all of them.", snap.Replicas))
	}
	if !aim.Until.IsZero() {
		until := aim.Until.UTC()
		out.Until = &until
	} else {
		out.Notes = append(out.Notes, "It has no end: it stays until somebody lifts it.")
	}
	for _, x := range snap.Aims {
		if x.App == aim.App && x.Caller == aim.Caller && x.Event == aim.Event && x.Channel == aim.Channel {
			out.Notes = append(out.Notes, fmt.Sprintf("%s is on already for the same (%s, by %s). A stricter one is replaced only when asked for.", x.ID, x.What(), orUnknown(x.By)))
		}
	}
	return out
}

// effectOfAimRelease says what is lifted: an aimed brake, or with "all" every one.
func (s *Server) effectOfAimRelease(now time.Time, a Account, id string) Effect {
	out := Effect{Lever: "brake off", Account: a.Name, Priorities: []PriorityEffect{}, Callers: []CallerEffect{}, Notes: []string{}}
	if id == "all" && a.Ledger.CurrentBrake(now) != nil {
		out = s.effectOfRelease(now, a)
	}
	var lifted []string
	for _, x := range a.Ledger.Snapshot(now).Aims {
		if id == "all" || x.ID == id {
			lifted = append(lifted, x.ID+" ("+x.What()+")")
		}
	}
	switch {
	case len(lifted) > 0:
		out.Summary = strings.TrimSpace(out.Summary + " Lifts " + strings.Join(lifted, ", ") + ": what they stopped is judged by the rules again.")
	case out.Summary == "":
		out.Summary = "Nothing: no brake is on."
	}
	return out
}

func priorityOf(a Account, app, caller, event string, channels []string) quota.Priority {
	for _, x := range a.Apps {
		if x.ID == app {
			return x.Limiter.Match(event, channels, x.Limiter.Caller(caller)).Priority()
		}
	}
	return quota.Normal
}

// lever errors that are the order's and not the store's.
func conflict(err error) error {
	if errors.Is(err, quota.ErrMilder) {
		return &failure{http.StatusConflict, err.Error()}
	}
	return nil
}
