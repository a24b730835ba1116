package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/replay"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
)

// policyOf turns the file's words into the limiter's.
func policyOf(cfg *config.Config, account *config.Account, app *config.App) (limiter.Policy, error) {
	// A publish is under way for as long as its call may take, and a little more for the wait to share one.
	p := limiter.Policy{App: app.ID, Mode: mode(cfg.Mode), Digest: account.Digest != nil, SentWithin: app.Timeout + app.Fold.Window + time.Second}
	if app.Rate != nil {
		r := rate(*app.Rate, app.Burst)
		p.AppRate = &r
	}
	for _, c := range app.Callers {
		cp := limiter.CallerPolicy{Name: c.Name, Share: float64(c.Share), Mode: mode(c.Mode)}
		if c.Rate != nil {
			r := rate(*c.Rate, c.Burst)
			r.Per = limiter.PerCaller
			cp.Rate = &r
		}
		p.Callers = append(p.Callers, cp)
	}
	for _, r := range account.Rules {
		rule, err := ruleOf(r)
		if err != nil {
			return p, err
		}
		p.Rules = append(p.Rules, rule)
	}
	return p, nil
}

// parseRule reads one rule as the file has it.
func parseRule(text string) (limiter.Rule, error) {
	r, err := config.ParseRule(text)
	if err != nil {
		return limiter.Rule{}, err
	}
	return ruleOf(r)
}

// kind is the limiter's word for what a rule is for.
func kind(k config.Kind) limiter.Kind {
	switch k {
	case config.KindRead:
		return limiter.KindRead
	case config.KindTerminate:
		return limiter.KindTerminate
	}
	return limiter.KindPublish
}

func ruleOf(r config.Rule) (limiter.Rule, error) {
	rule := limiter.Rule{
		Name:     r.Name,
		Match:    limiter.Match{Event: r.Match.Event, Channel: r.Match.Channel, Caller: r.Match.Caller, Kind: kind(r.Match.Kind)},
		Dedupe:   r.Dedupe.Window,
		Conflate: r.Conflate.Window, ConflateKey: r.Conflate.Key, SkipVacant: r.Vacant == config.VacantSkip, NoDigest: !r.Digest, Deny: r.Deny, Strict: r.Order == config.OrderStrict,
		Mode: mode(r.Mode),
	}
	var err error
	if rule.Priority, err = quota.ParsePriority(string(r.Priority)); err != nil {
		return rule, err
	}
	if r.Dedupe.Scope == "cluster" {
		rule.DedupeScope = limiter.ScopeCluster
	}
	switch r.Answer {
	case "403":
		rule.Answer = limiter.Answer403
	case "429":
		rule.Answer = limiter.Answer429
	case "ok":
		rule.Answer = limiter.AnswerOK
	}
	for _, x := range r.Rate {
		burst := 0
		if len(r.Rate) == 1 {
			burst = r.Burst
		}
		rule.Rates = append(rule.Rates, rate(x, burst))
	}
	for _, q := range r.Quota {
		rule.Rates = append(rule.Rates, limiter.Rate(q))
	}
	return rule, nil
}

func rate(r config.Rate, burst int) limiter.Rate {
	out := limiter.Rate(r)
	if burst > 0 {
		out.Burst = burst
	}
	return out
}

func mode(m config.Mode) limiter.Mode {
	if m == "observe" {
		return limiter.Observe
	}
	return limiter.Enforce
}

func floors(c *config.Account) (f [quota.Priorities]float64) {
	f[quota.Critical] = float64(c.Floors.Critical)
	f[quota.Normal] = float64(c.Floors.Normal)
	return f
}

func lossPolicy(p config.LossPolicy) quota.LossPolicy {
	switch p {
	case "open":
		return quota.LossOpen
	case "closed":
		return quota.LossClosed
	}
	return quota.LossLease
}

func billing(b config.Billing) pusher.Billing {
	return pusher.Billing{
		BatchPerCall:           b.Batch == "per_call",
		MultiChannelPerChannel: b.MultiChannel == "per_channel",
		InfoFree:               b.Info == "free",
		FailedFree:             b.Failed == "free",
		WebhookPerCall:         b.Webhooks == config.BatchPerCall,
		SubscriptionCountFree:  b.SubscriptionCount == config.Free,
		PresenceFree:           b.Presence == config.Free,
		ClientEventFree:        b.ClientEvents == config.Free,
	}
}

// seedOf keys the digests by which an app's replicas know the same publish: from the app's secret, which they share
// and nobody else knows. While a secret is being replaced, replicas that sign with different ones do not recognize
// each other's publishes.
func seedOf(app *config.App) *pusher.Seed {
	h := hmac.New(sha256.New, []byte(app.Secret.Current().Reveal()))
	h.Write([]byte("pushguard digests of app " + app.ID))
	seed := pusher.SeedFrom([32]byte(h.Sum(nil)))
	return &seed
}

func refresh(d *config.Digest) *proxy.RefreshConfig {
	if d == nil {
		return nil
	}
	return &proxy.RefreshConfig{Event: d.Event, Data: d.Data, Every: d.Every}
}

// replayGuard is what the config means for one app, as serve compiles it.
func ForReplay(cfg *config.Config, account *config.Account, app *config.App) (*replay.Guard, error) {
	policy, err := policyOf(cfg, account, app)
	if err != nil {
		return nil, err
	}
	shares := map[string]float64{}
	for _, c := range app.Callers {
		if c.Share > 0 {
			shares[c.Name] = float64(c.Share)
		}
	}
	return &replay.Guard{
		Policy:  policy,
		Ledger:  quota.Config{Account: account.Name, Plan: quota.Plan(account.Plan), Floors: floors(account), Shares: shares},
		Breaker: levels(cfg),
		Billing: billing(account.Billing),
		Mode:    containMode(cfg.Contain),
	}, nil
}
