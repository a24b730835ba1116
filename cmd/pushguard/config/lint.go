package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/pushguard/pushguard/limiter"
)

// lint warns of what is legal and does nothing, or something that nobody means.
// A warning never keeps a guard from starting.
func (c *checker) lint() {
	cfg := c.cfg
	c.secretsApart()
	c.references()
	if cfg.MaxConnectionsPerPeer > cfg.MaxConnections {
		c.warn("max_connections_per_peer", "is more than max_connections, so it never bites", "lower it, or raise max_connections")
	}
	if cfg.LastGood.On && len(c.refs) == 0 && c.given("last_good") {
		c.warn("last_good", "has nothing to keep: the file has no references", "take it out, or write secrets as ${NAME} or ${file:/path}")
	}
	if b := cfg.Breaker; b.ShedBulkAt >= 1 && b.ShedNormalAt >= 1 && b.CriticalOnlyAt >= 1 {
		c.warn("breaker", "sheds nothing by thresholds: all of them are 100%", "leave a part of the plan to critical publishes, like critical_only_at: 98%")
	}
	for i := range cfg.Accounts {
		c.lintAccount(fmt.Sprintf("accounts[%d]", i), &cfg.Accounts[i])
	}
}

func (c *checker) lintAccount(path string, a *Account) {
	switch sum := a.Floors.Critical + a.Floors.Normal; {
	case a.Floors.Critical >= 1:
		c.warn(path+".floors", "keep the whole plan for critical publishes: normal and bulk may spend nothing", "give a part, like critical: 5%")
	case sum >= 0.9995 && sum <= 1:
		c.warn(path+".floors", "keep the whole plan for critical and normal publishes: bulk may spend nothing", "leave a part to bulk")
	}
	if d := a.Digest; d != nil && !json.Valid([]byte(d.Data)) && !c.bad[path+".digest.data"] {
		c.warn(path+".digest.data", "is not JSON, and Pusher's clients parse an event's data as JSON", `write {} or a quoted string like "\"reload\""`)
	}
	for i := range a.Apps {
		c.lintApp(fmt.Sprintf("%s.apps[%d]", path, i), a, &a.Apps[i])
	}
	for i := range a.Rules {
		r := &a.Rules[i]
		p := fmt.Sprintf("%s.rules[%d]", path, i)
		if r.Priority == Critical && matchesAll(r.Match) {
			c.warn(p, "makes every publish that reaches it critical: then nothing can be shed before anything else", "name the events that must pass when the plan runs out")
		}
		for _, g := range [...]struct {
			key   string
			globs Globs
		}{{".match.event", r.Match.Event}, {".match.channel", r.Match.Channel}, {".match.caller", r.Match.Caller}} {
			c.idlePatterns(p+g.key, g.globs)
		}
		for j, rate := range r.Rate {
			at := p + ".rate"
			if indexed := fmt.Sprintf("%s[%d]", at, j); c.given(indexed) {
				at = indexed
			}
			burst := rate.Burst
			if r.Burst > 0 {
				burst = r.Burst
			}
			c.idleRate(at, limiter.Rate(rate), burst, a.Plan.MessagesPerDay)
		}
		if r.Dedupe.Window > 0 && r.Dedupe.Scope == ScopeCluster && c.cfg.Store.Embedded() {
			c.warn(p+".dedupe", "has scope cluster, but the embedded store has one replica", "write scope: replica, or share a Redis")
		}
		if !r.Digest && c.given(p+".digest") && a.Digest == nil {
			c.warn(p+".digest", "has no effect: the account has no digest", "take it out")
		}
	}
}

func (c *checker) lintApp(path string, account *Account, a *App) {
	c.ownPort(path+".upstream", a.Upstream)
	if u, err := url.Parse(a.Upstream); err == nil && u.Scheme == "http" && strings.HasSuffix(u.Hostname(), ".pusher.com") {
		c.warn(path+".upstream", "sends payloads to Pusher without TLS", "write cluster: "+strings.TrimSuffix(strings.TrimPrefix(u.Hostname(), "api-"), ".pusher.com")+", or https://")
	}
	if a.Timeout > 5*time.Second {
		c.warn(path+".timeout", "is longer than SDKs wait (Java 4 s, Go and Python 5 s): they give up first, and may send again", "keep it below 4s")
	}
	if d := a.Subscribers.Default; d == 0 && c.given(path+".subscribers.default") {
		c.warn(path+".subscribers.default", "is 0: deliveries on channels that nothing is known of are not counted, and Pusher bills them", "give the number of subscribers that a channel usually has")
	}
	for i, s := range a.Subscribers.Patterns {
		if _, near := nearest(s.Pattern, []string{"default"}); near {
			c.warn(child(path+".subscribers", s.Pattern), "counts for a channel of that very name", `did you mean "default"?`)
		}
		for _, before := range a.Subscribers.Patterns[:i] {
			if globCovers(before.Pattern, s.Pattern) {
				p := child(path+".subscribers", s.Pattern)
				c.warn(p, fmt.Sprintf("is never looked at: %q before it matches all of its channels", clip(before.Pattern)), "put the narrower pattern first")
				break
			}
		}
	}
	if a.Rate != nil {
		burst := a.Rate.Burst
		if a.Burst > 0 {
			burst = a.Burst
		}
		c.idleRate(path+".rate", limiter.Rate(*a.Rate), burst, account.Plan.MessagesPerDay)
	}
	for j := range a.Callers {
		caller := &a.Callers[j]
		p := fmt.Sprintf("%s.callers[%d]", path, j)
		if caller.Rate != nil {
			burst := caller.Rate.Burst
			if caller.Burst > 0 {
				burst = caller.Burst
			}
			c.idleRate(p+".rate", limiter.Rate(*caller.Rate), burst, account.Plan.MessagesPerDay)
		}
		if caller.Share >= 1 {
			c.warn(p+".share", "is the whole plan, so it never bites", "give a part, or take share out")
		}
	}
}

// idleRate warns of a bucket that lets the whole plan through before it says
// no, and of one that refuses any two publishes that come together.
func (c *checker) idleRate(path string, r limiter.Rate, burst int, plan int64) {
	if c.bad[path] || r.PerSecond <= 0 {
		return
	}
	if plan > 0 && (r.PerSecond*60 >= float64(plan) || float64(burst) >= float64(plan)) {
		c.warn(path, fmt.Sprintf("is too high to protect a plan of %d messages a day: that much passes within a minute", plan), "lower rate and burst, or take them out")
	}
	if burst > 0 && float64(burst)*10 < r.PerSecond {
		c.warn(path, fmt.Sprintf("has a burst of %d: publishes come in clumps, and what comes at once beyond it is refused although the rate would allow it", burst), "give the burst at least a tenth of a second's worth")
	} else if burst == 1 && r.PerSecond > 1 && r.Per != limiter.PerChannel {
		c.warn(path, "has a burst of 1: the second of two publishes at the same moment is refused, although the rate allows more", "give burst the most that comes at once")
	}
}

// idlePatterns warns of a pattern that another one of its list covers.
func (c *checker) idlePatterns(path string, gs Globs) {
	for i, g := range gs {
		for j, other := range gs {
			if i == j || !globCovers(other, g) || j > i && globCovers(g, other) {
				continue
			}
			p := path
			if indexed := fmt.Sprintf("%s[%d]", path, i); c.given(indexed) {
				p = indexed
			}
			c.warn(p, c.show(p, g)+fmt.Sprintf("adds nothing: %q in the same list matches all of it", clip(other)), "take it out")
			break
		}
	}
}

// ownPort refuses an upstream that is this very guard: each publish would go
// round until its timeout.
func (c *checker) ownPort(path, upstream string) {
	u, err := url.Parse(upstream)
	if upstream == "" || err != nil || u.Hostname() == "" || c.bad[path] {
		return
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	for _, own := range []struct{ name, addr string }{{"the data port", c.cfg.Listen}, {"the admin port", c.cfg.Admin.Listen}} {
		host, p, err := net.SplitHostPort(own.addr)
		if err == nil && p == port && p != "0" && sameHost(host, u.Hostname()) {
			c.fail(path, "is "+own.name+" of this pushguard itself", "give the address of the Channels server, or write cluster: eu")
		}
	}
}

// sameHost says whether a connection to host can reach a listener on listen.
func sameHost(listen, host string) bool {
	local := host == "localhost"
	ip, err := netip.ParseAddr(host)
	if err == nil {
		local = ip.IsLoopback() || ip.IsUnspecified()
	}
	if listen == "" {
		return local
	}
	if listen == host || listen == "localhost" && local {
		return true
	}
	l, err := netip.ParseAddr(listen)
	return err == nil && local && (l.IsUnspecified() || l.IsLoopback())
}

// collide says whether two listeners want the same port of the same address.
func collide(a, b string) bool {
	ah, ap, errA := net.SplitHostPort(a)
	bh, bp, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || ap != bp || ap == "0" {
		return false
	}
	any := func(h string) bool {
		ip, err := netip.ParseAddr(h)
		return h == "" || err == nil && ip.IsUnspecified()
	}
	if any(ah) || any(bh) || ah == bh {
		return true
	}
	loop := func(h string) bool { return h == "localhost" }
	return loop(ah) && loopback(b) || loop(bh) && loopback(a)
}

// bareReference is $NAME or %NAME% where ${NAME} was meant; placeholder is what
// examples have in place of a value.
var (
	bareReference = regexp.MustCompile(`^(\$[A-Z_][A-Z0-9_]*|\$[a-z_]*(secret|key|token|password|url)[a-z0-9_]*|%[A-Za-z_][A-Za-z0-9_]*%|\$\([A-Za-z_][A-Za-z0-9_]*\)|\{\{.*\}\})$`)
	placeholder   = regexp.MustCompile(`(?i)^(<.*>|\[.*\]|change[-_ ]?(me|this|it)|replace[-_ ]?(me|this|with.*)|(your|my|the)[-_ ].*(secret|key|token|password|id|url|here).*|insert[-_ ].*|placeholder|todo|tbd|fixme|example|dummy|redacted|x{3,}|\*{3,}|\.{3}|…)$`)
)

// references looks for values that stand for others and do not: a reference
// without its braces, the filler of an example.
func (c *checker) references() {
	cfg := c.cfg
	look := func(path, value string) {
		written, byReference := c.refs[path]
		switch {
		case value == "" || c.bad[path]:
		case !byReference && bareReference.MatchString(value):
			c.warn(path, "looks like a reference and is taken as it stands", "write ${NAME} for the environment variable NAME; $$ stands for a $")
		case placeholder.MatchString(value):
			where := "has a placeholder in place of its value"
			if byReference {
				where = fmt.Sprintf("comes from %s, which has a placeholder in place of its value", clip(written))
			}
			c.warn(path, where, "give the value itself")
		}
	}
	look("admin.token", cfg.Admin.Token.Reveal())
	for i := range cfg.Alerts {
		p := fmt.Sprintf("alerts[%d]", i)
		look(p+".slack", cfg.Alerts[i].Slack.Reveal())
		look(p+".pagerduty", cfg.Alerts[i].PagerDuty.Reveal())
		look(p+".webhook", cfg.Alerts[i].Webhook.Reveal())
	}
	secrets := func(path string, list Secrets) {
		for i, s := range list {
			p := path
			if indexed := fmt.Sprintf("%s[%d]", path, i); c.given(indexed) {
				p = indexed
			}
			look(p, s.Reveal())
		}
	}
	for i := range cfg.Accounts {
		for j := range cfg.Accounts[i].Apps {
			a, p := &cfg.Accounts[i].Apps[j], fmt.Sprintf("accounts[%d].apps[%d]", i, j)
			look(p+".id", a.ID)
			look(p+".key", a.Key)
			secrets(p+".secret", a.Secret)
			look(p+".cluster", a.Cluster)
			for k := range a.Callers {
				q := fmt.Sprintf("%s.callers[%d]", p, k)
				look(q+".key", a.Callers[k].Key)
				secrets(q+".secret", a.Callers[k].Secret)
			}
		}
	}
}

// secretsApart warns of a secret that opens two doors: whoever learns it at one
// may use it at the other.
func (c *checker) secretsApart() {
	seen := map[string]string{}
	add := func(path string, value Secret, within string) {
		if value.IsZero() || c.bad[path] {
			return
		}
		first, known := seen[value.Reveal()]
		if !known {
			seen[value.Reveal()] = path
			return
		}
		if within != "" && strings.HasPrefix(first, within) {
			c.warn(path, "has the same secret twice in its list", "a list is for an old and a new one: take one out")
			return
		}
		c.warn(path, "is the same as "+label(first), "give each its own: who knows one of them knows both")
	}
	list := func(path string, all Secrets) {
		for i, s := range all {
			p := path
			if indexed := fmt.Sprintf("%s[%d]", path, i); c.given(indexed) {
				p = indexed
			}
			add(p, s, path)
		}
	}
	add("admin.token", c.cfg.Admin.Token, "")
	for i := range c.cfg.Accounts {
		for j := range c.cfg.Accounts[i].Apps {
			a, p := &c.cfg.Accounts[i].Apps[j], fmt.Sprintf("accounts[%d].apps[%d]", i, j)
			list(p+".secret", a.Secret)
			if len(a.Secret) > 0 && a.Secret[0].Reveal() == a.Key && a.Key != "" {
				c.warn(p+".secret", "is the app's key", "the secret is the other value that Pusher's dashboard shows under App Keys")
			}
			for k := range a.Callers {
				q := fmt.Sprintf("%s.callers[%d]", p, k)
				list(q+".secret", a.Callers[k].Secret)
				if s := a.Callers[k].Secret; len(s) > 0 && s[0].Reveal() == a.Callers[k].Key && a.Callers[k].Key != "" {
					c.warn(q+".secret", "is the caller's key, which is sent in the open", "make one with: openssl rand -hex 20")
				}
			}
		}
	}
	told := map[string]string{}
	for i, a := range c.cfg.Alerts {
		for key, s := range map[string]Secret{"slack": a.Slack, "pagerduty": a.PagerDuty, "webhook": a.Webhook} {
			if s.IsZero() {
				continue
			}
			p := fmt.Sprintf("alerts[%d].%s", i, key)
			if first, ok := told[key+s.Reveal()]; ok {
				c.warn(p, "is told already by "+first, "take one out")
			}
			told[key+s.Reveal()] = p
		}
	}
}

// matchesAll says whether a match leaves nothing out.
func matchesAll(m Match) bool {
	for _, gs := range []Globs{m.Event, m.Channel, m.Caller} {
		if len(gs) > 0 && !globsCover(gs, Globs{"*"}) {
			return false
		}
	}
	return true
}

// matchCovers says whether whatever b matches, a matches.
func matchCovers(a, b Match) bool {
	if cmp.Or(a.Kind, KindPublish) != cmp.Or(b.Kind, KindPublish) {
		return false
	}
	for _, d := range [][2]Globs{{a.Event, b.Event}, {a.Channel, b.Channel}, {a.Caller, b.Caller}} {
		if len(d[0]) == 0 {
			continue
		}
		want := d[1]
		if len(want) == 0 {
			want = Globs{"*"}
		}
		if !globsCover(d[0], want) {
			return false
		}
	}
	return true
}

func globsCover(a, b Globs) bool {
	for _, g := range b {
		covered := false
		for _, w := range a {
			covered = covered || globCovers(w, g)
		}
		if !covered {
			return false
		}
	}
	return true
}

// globCovers says whether pattern a matches all that pattern b matches. It may
// miss a case that takes two of a's wildcards against one of b's, and never says
// yes wrongly.
func globCovers(a, b string) bool {
	// As for matching a text, with b's wildcards as characters: only a's * takes
	// b's *, and a's ? takes b's ? or one character.
	row := make([]bool, len(b)+1)
	row[0] = true
	for _, p := range []byte(a) {
		next := make([]bool, len(b)+1)
		if p == '*' {
			on := false
			for j := range row {
				on = on || row[j]
				next[j] = on
			}
		} else {
			for j := 1; j <= len(b); j++ {
				next[j] = row[j-1] && (b[j-1] == p || p == '?' && b[j-1] != '*')
			}
		}
		row = next
	}
	return row[len(b)]
}
