package ops

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/trial"
	"github.com/pushguard/pushguard/limiter"
)

// TryOrder is one rule to be tried on the last ten minutes. It changes nothing.
type TryOrder struct {
	Account string `json:"account"` // not needed when there is only one
	App     string `json:"app"`     // likewise
	// Rule is written as in the config file, an item of rules.
	Rule string `json:"rule"`
	// Before names the rule before which it would stand, InsteadOf the one that
	// it would replace. With neither it would be the first; Last puts it last.
	Before    string `json:"before,omitempty"`
	InsteadOf string `json:"instead_of,omitempty"`
	Last      bool   `json:"last,omitempty"`
}

// tryFor bounds one trial.
const tryFor = 10 * time.Second

func (s *Server) ruleTry(r *http.Request, in TryOrder) (trial.Answer, error) {
	a, err := s.accountNamed(in.Account)
	if err != nil {
		return trial.Answer{}, err
	}
	if a.Recent == nil || s.cfg.ParseRule == nil {
		return trial.Answer{}, &failure{http.StatusServiceUnavailable, "this guard remembers no publishes to try a rule on"}
	}
	q := trial.Question{}
	for _, app := range a.Apps {
		if app.ID == in.App || in.App == "" && len(a.Apps) == 1 {
			q.App, q.Policy = app.ID, app.Limiter.Policy()
		}
	}
	if q.App == "" {
		return trial.Answer{}, &failure{http.StatusNotFound, "account " + a.Name + " has no app " + printable(in.App)}
	}
	if q.Rule, err = s.cfg.ParseRule(in.Rule); err != nil {
		return trial.Answer{}, bad("%v", err)
	}
	if in.Last {
		q.At = len(q.Policy.Rules)
	}
	if name := in.Before + in.InsteadOf; name != "" {
		if in.Before != "" && in.InsteadOf != "" || in.Last {
			return trial.Answer{}, bad("say one of before, instead_of and last")
		}
		q.Instead = in.InsteadOf != ""
		q.At = slices.IndexFunc(q.Policy.Rules, func(r limiter.Rule) bool { return r.Name == name || r.Name == "" && unnamed(r.Match) == name })
		if q.At < 0 {
			return trial.Answer{}, &failure{http.StatusNotFound, "app " + q.App + " has no rule " + printable(name)}
		}
	}
	// It costs a second of a core at the most; two at once would be felt.
	if !s.trying.TryLock() {
		return trial.Answer{}, &failure{http.StatusTooManyRequests, "another rule is being tried; ask again in a moment"}
	}
	defer s.trying.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), tryFor)
	defer cancel()
	got, err := a.Recent.Try(ctx, s.cfg.Now(), q)
	if err != nil {
		return trial.Answer{}, &failure{http.StatusConflict, strings.ReplaceAll(err.Error(), "context deadline exceeded", "longer than "+tryFor.String())}
	}
	return got, nil
}
