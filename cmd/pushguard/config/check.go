package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	say "github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/limiter"
)

// checker judges what the types alone cannot say. It works on the Config and
// knows from where each setting came only through marks; FromEnv has none.
type checker struct {
	cfg    *Config
	file   string
	marks  map[string]mark
	bad    map[string]bool
	refs   map[string]string
	origin map[string]string // path → what to call it, for FromEnv

	problems, warnings []Problem
}

func (c *checker) problem(path, msg, hint string) Problem {
	name := label(path)
	if o, ok := c.origin[path]; ok {
		name = o
	}
	p := Problem{File: c.file, Path: path, Message: name + " " + msg, Hint: hint}
	at := path
	for {
		if m, ok := c.marks[at]; ok {
			p.Line, p.Column = m.line, m.column
			return p
		}
		i := strings.LastIndexAny(at, ".[")
		if i < 0 {
			break
		}
		at = at[:i]
	}
	if c.marks != nil {
		p.Line, p.Column = 1, 1
	}
	return p
}

// fail notes a mistake, unless the value is known to be wrong already.
func (c *checker) fail(path, msg, hint string) {
	if !c.bad[path] && len(c.problems) <= 10*maxProblems {
		c.problems = append(c.problems, c.problem(path, msg, hint))
	}
}

func (c *checker) warn(path, msg, hint string) {
	if len(c.warnings) > 10*maxProblems {
		return
	}
	c.warnings = append(c.warnings, c.problem(path, msg, hint))
}

// show begins a message with the value, quoted: as written, if it came by
// reference, and not at all, if it came from the environment or may hold a
// password.
func (c *checker) show(path, value string) string {
	if raw, ok := c.refs[path]; ok {
		value = raw
	}
	if _, env := c.origin[path]; env || !showable(value) {
		return ""
	}
	return fmt.Sprintf("%q ", printable(value))
}

// given says whether the file sets path; without a file, everything is given.
func (c *checker) given(path string) bool {
	_, ok := c.marks[path]
	return ok
}

func (c *checker) all() {
	cfg := c.cfg
	c.addresses()
	if t := cfg.Admin.Token; !t.IsZero() && len(t.Reveal()) < 16 {
		c.warn("admin.token", "is shorter than 16 characters", "make one with: openssl rand -hex 24")
	}
	c.adminPort()
	c.tracing()
	if cfg.Replica != "" && !isName(cfg.Replica) {
		c.fail("replica", c.show("replica", cfg.Replica)+"is not a name", nameForm)
	}
	if cfg.Replicas > 1 && cfg.Store.Embedded() {
		c.warn("replicas", "has no effect with the embedded store, which one replica has for itself", "take it out, or let the replicas share a Redis")
	}
	c.duration("drain_delay", cfg.DrainDelay, 0, 10*time.Minute)
	c.duration("read_timeout", cfg.ReadTimeout, 100*time.Millisecond, 10*time.Minute)
	if cfg.SecretPoll != 0 {
		c.duration("secret_poll", cfg.SecretPoll, time.Second, 24*time.Hour)
	}
	if cfg.MaxBody < 1024 || cfg.MaxBody > 64<<20 {
		c.fail("max_body", "is out of range", "give 1KiB to 64MiB; the default is 1MiB")
	}
	c.breaker()
	if cfg.OnStoreLoss != LossLease && c.given("on_store_loss") && cfg.Store.Embedded() {
		c.warn("on_store_loss", "has no effect with the embedded store", "it is for a Redis that several replicas share")
	}
	if cfg.Standby < 0 || cfg.Standby > 12*time.Hour {
		c.fail("standby", "is out of range", "give 0 to 12h; the default is 15m")
	}
	for i, a := range cfg.Alerts {
		c.alert(fmt.Sprintf("alerts[%d]", i), a)
	}
	u := &unique{c: c, what: map[string]map[string]string{}}
	for i := range cfg.Accounts {
		c.account(fmt.Sprintf("accounts[%d]", i), &cfg.Accounts[i], u)
	}
	c.lint()
}

func (c *checker) addresses() {
	cfg := c.cfg
	c.listener("listen", cfg.Listen)
	c.listener("admin.listen", cfg.Admin.Listen)
	if collide(cfg.Listen, cfg.Admin.Listen) && !c.bad["listen"] && !c.bad["admin.listen"] {
		c.fail("admin.listen", "wants the port that the data port listens on", "give the admin port a number of its own, like 127.0.0.1:8081")
	}
	if t := cfg.Admin.ReadToken; !t.IsZero() {
		switch {
		case t.Reveal() == cfg.Admin.Token.Reveal():
			c.fail("admin.read_token", "is admin.token, so whoever reads could move levers", "make another one with: openssl rand -hex 24")
		case len(t.Reveal()) < 16:
			c.warn("admin.read_token", "is shorter than 16 characters", "make one with: openssl rand -hex 24")
		}
	}
	if !loopback(cfg.Admin.Listen) && cfg.Admin.Token.IsZero() && !c.bad["admin.token"] && !c.bad["admin.listen"] {
		c.fail("admin.listen", "can be reached from other machines, but admin.token is not set", "set admin.token, or listen on 127.0.0.1:8081")
	}
}

// loopbackHost says whether host, without a port, is this machine.
func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// CheckFlags checks what flags of the command line may have replaced since c
// was loaded: --listen, --admin, --log-format and --log-level. Without it a
// flag could open the admin port to the network with no token.
func (c *Config) CheckFlags() error {
	k := &checker{cfg: c, file: "flags", origin: map[string]string{"listen": "--listen", "admin.listen": "--admin"}}
	k.addresses()
	for _, w := range []struct {
		flag, value string
		known       []string
	}{{"--log-format", string(c.Log.Format), c.Log.Format.words()}, {"--log-level", string(c.Log.Level), c.Log.Level.words()}} {
		if !slices.Contains(w.known, w.value) {
			k.fail(w.flag, "is not known", didYouMean(w.value, w.known, "write one of "+strings.Join(w.known, ", ")))
		}
	}
	if len(k.problems) > 0 {
		return Problems(k.problems)
	}
	return nil
}

const nameForm = "use letters, digits, dot, - and _, at most 64, a letter or digit first"

// pointerRE is a JSON pointer (RFC 6901) that is not empty.
var pointerRE = regexp.MustCompile(`^(/([^/~]|~[01])*)+$`)

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func isName(s string) bool { return nameRE.MatchString(s) }

func (c *checker) listener(path, addr string) {
	if c.bad[path] {
		return
	}
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil || strings.ContainsAny(host, " /"):
		c.fail(path, c.show(path, addr)+"is not host:port", `write it like ":8080" or "127.0.0.1:8080"`)
	case !validPort(port, false):
		c.fail(path, c.show(path, addr)+"has no valid port", "a port is a number from 0 to 65535; 0 picks a free one")
	}
}

// loopback says whether addr can only be reached from this machine. An address
// that cannot be read counts as loopback: that is another mistake.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (c *checker) duration(path string, d, low, high time.Duration) {
	if d < low || d > high {
		c.fail(path, "is out of range", fmt.Sprintf("give %s to %s", say.Setting(low), say.Setting(high)))
	}
}

// leastThreshold lies above the breaker's hysteresis of 1%, below which a level
// would never end.
const leastThreshold Percent = 0.02

func (c *checker) breaker() {
	b := c.cfg.Breaker
	steps := []struct {
		key string
		at  Percent
	}{{"shed_bulk_at", b.ShedBulkAt}, {"shed_normal_at", b.ShedNormalAt}, {"critical_only_at", b.CriticalOnlyAt}}
	for i, s := range steps {
		path := "breaker." + s.key
		if s.at < leastThreshold {
			c.fail(path, "is below 2%: it would refuse from the first messages of the day on", "give 2% to 100%")
			continue
		}
		if i == 0 || c.bad[path] || c.bad["breaker."+steps[i-1].key] || s.at >= steps[i-1].at {
			continue
		}
		place := path
		if !c.given(path) {
			place = "breaker." + steps[i-1].key
		}
		c.fail(place, fmt.Sprintf("makes %s come before %s", s.key, steps[i-1].key),
			"order them shed_bulk_at <= shed_normal_at <= critical_only_at; what is left out is 80%, 95%, 98%")
	}
	c.duration("breaker.probe", b.Probe, time.Second, time.Hour)
}

func (c *checker) alert(path string, a Alert) {
	n := 0
	for _, one := range []struct {
		key   string
		value Secret
		url   bool
	}{{"slack", a.Slack, true}, {"pagerduty", a.PagerDuty, false}, {"webhook", a.Webhook, true}} {
		p := path + "." + one.key
		if !c.given(p) {
			continue
		}
		n++
		if !one.url || one.value.IsZero() {
			continue
		}
		u, err := url.Parse(one.value.Reveal())
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
			c.fail(p, "is not a URL that begins with https://", "copy it whole from the service's settings")
			continue
		}
		if linkLocal(u.Hostname()) {
			c.fail(p, "is a link-local address, where clouds keep their machines' credentials", "give the address of the service that is to be told")
		}
		if u.Scheme == "http" && one.key == "slack" && !loopbackHost(u.Hostname()) {
			c.fail(p, "is a secret and would be sent without TLS", "begin it with https://")
		}
	}
	if n != 1 {
		c.fail(path, "must have exactly one of slack, pagerduty, webhook", "make a list item of each")
	}
}

// unique finds what is there twice.
type unique struct {
	c    *checker
	what map[string]map[string]string // kind → value → path
}

func (u *unique) add(kind, value, path, msg, hint string) {
	if value == "" || u.c.bad[path] {
		return
	}
	if u.what[kind] == nil {
		u.what[kind] = map[string]string{}
	}
	if first, ok := u.what[kind][value]; ok {
		at := ""
		if m, ok := u.c.marks[first]; ok {
			at = fmt.Sprintf(" (line %d)", m.line)
		}
		u.c.fail(path, u.c.show(path, value)+msg+" "+first+at, hint)
		return
	}
	u.what[kind][value] = path
}

func (c *checker) account(path string, a *Account, u *unique) {
	if a.Name != "" && !isName(a.Name) {
		c.fail(path+".name", c.show(path+".name", a.Name)+"is not a name", nameForm)
	}
	u.add("account", a.Name, path+".name", "is also the name of", "give each account its own name")
	if a.Floors.Critical+a.Floors.Normal > 1 {
		c.fail(path+".floors", "keep more than the whole plan", "critical and normal together are at most 100%")
	}
	if a.Headroom > 0.5 {
		c.fail(path+".headroom", "keeps more than half of the plan", "give at most 50%, such as 5%")
	}
	if d := a.Digest; d != nil {
		p := path + ".digest"
		c.duration(p+".every", d.Every, 5*time.Second, time.Hour)
		if d.Event == "" || len(d.Event) > 200 {
			c.fail(p+".event", "is no event's name", "write one of 1 to 200 characters, like refresh")
		}
		if len(d.Data) > 10240 {
			c.fail(p+".data", "is larger than Pusher takes", "write at most 10240 bytes")
		}
		if d.Budget <= 0 || d.Budget > 0.2 {
			c.fail(p+".budget", "is out of range", "give more than 0% and at most 20%; the default is 1%")
		}
	}
	shares, shared := Percent(0), map[string]bool{}
	callers := []string{ownCaller}
	for i := range a.Apps {
		app := &a.Apps[i]
		p := fmt.Sprintf("%s.apps[%d]", path, i)
		c.app(p, app, u)
		if polls, most := app.Learn.polls(), float64(app.Learn.budget())*float64(a.Plan.MessagesPerDay); most > 0 && float64(polls) > most {
			c.warn(p+".learn.poll", fmt.Sprintf("costs %d messages a day, more than the budget of %.0f", polls, most), "poll less often or raise budget: when it is used up no more is asked until 00:00 UTC")
		}
		for j, caller := range app.Callers {
			callers = append(callers, caller.Name)
			if caller.Share == 0 {
				continue
			}
			q := fmt.Sprintf("%s.callers[%d].share", p, j)
			if shared[caller.Name] {
				c.fail(q, "is the second share of this caller", "a share is a part of the whole plan: set it in one app only")
			}
			shared[caller.Name] = true
			if before := shares; before <= 1 && before+caller.Share > 1+1e-9 {
				c.fail(q, "brings the shares of this account above 100%", "shares add up to at most 100%")
			}
			shares += caller.Share
		}
	}
	if a.HeldMax < 1<<20 {
		c.fail(path+".held_max", "is less than 1MiB", "a held publish has up to 14 kB")
	}
	if a.HeldMaxPerCaller < 1<<16 || a.HeldMaxPerCaller > a.HeldMax {
		c.fail(path+".held_max_per_caller", "is not between 64KiB and held_max", "what is beyond goes out at once")
	}
	c.rules(path, a, callers)
}

func (c *checker) rules(path string, a *Account, callers []string) {
	names := map[string]bool{}
	for i := range a.Rules {
		r := &a.Rules[i]
		p := fmt.Sprintf("%s.rules[%d]", path, i)
		for j := range a.Rules[:i] {
			// A rule that observes lets its publishes go on to the next.
			if before := &a.Rules[j]; before.Mode != Observe && matchCovers(before.Match, r.Match) {
				what := "all that it matches"
				if matchesAll(before.Match) {
					what = "everything"
				}
				c.warn(p, fmt.Sprintf("is never reached: rules[%d] before it matches %s", j, what), "put the narrower rule first")
				break
			}
		}
		if r.Name != "" && names[r.Name] {
			c.fail(p+".name", c.show(p+".name", r.Name)+"is there twice", "give each rule its own name, or none")
		}
		names[r.Name] = true
		if len(r.Name) > 128 {
			c.fail(p+".name", "is longer than 128 characters", "shorten it")
		}
		c.globs(p+".match.event", r.Match.Event, eventGlob)
		c.globs(p+".match.channel", r.Match.Channel, channelGlob)
		c.globs(p+".match.caller", r.Match.Caller, callerGlob)
		c.knownCallers(p+".match.caller", r.Match.Caller, callers)
		if k := r.Match.Kind; k == KindRead || k == KindTerminate {
			for _, field := range []string{".match.event", ".match.channel", ".dedupe", ".conflate", ".vacant", ".order"} {
				if c.given(p + field) {
					c.fail(p+field, "is about publishes, and this rule is for kind: "+string(k), "leave it out")
				}
			}
		}
		if c.given(p+".dedupe") && !c.bad[p+".dedupe.window"] {
			c.duration(p+".dedupe", r.Dedupe.Window, time.Millisecond, limiter.MaxDedupe)
			if r.Dedupe.Window%time.Millisecond != 0 {
				c.fail(p+".dedupe", "is finer than a millisecond", "write whole milliseconds, like 1500ms")
			}
		}
		if c.given(p+".conflate") && !c.bad[p+".conflate.window"] {
			c.duration(p+".conflate", r.Conflate.Window, time.Millisecond, time.Hour)
		}
		if c.given(p+".conflate.key") && !c.bad[p+".conflate.key"] && !pointerRE.MatchString(r.Conflate.Key) {
			c.fail(p+".conflate.key", c.show(p+".conflate.key", r.Conflate.Key)+"is no JSON pointer", "begin each step with a slash, like /order/id; in a step ~1 stands for / and ~0 for ~")
		}
		if r.Order == OrderStrict {
			most := 1
			for _, app := range a.Apps {
				if app.Fold.Enabled {
					most = max(most, cmp.Or(app.Fold.Batch, app.Limits.Batch))
				}
			}
			c.warn(p+".order", fmt.Sprintf("costs time: of one caller to one channel at most %d events a round trip to Pusher, so about %d a second at 100 ms; more than that waits, and gets 503 when the app's timeout is over",
				most, 10*most), "leave it out where receivers put events in order by themselves, by a number or a time in the payload")
		}
		c.mode(p+".mode", r.Mode)
		if r.Burst > 0 && len(r.Rate) > 1 {
			c.fail(p+".burst", "does not say which rate it is for", "write it beside its rate: { rate: 5/s per channel, burst: 10 }")
		}
		for j, q := range r.Quota {
			at := p + ".quota"
			if indexed := fmt.Sprintf("%s[%d]", at, j); c.given(indexed) {
				at = indexed
			}
			for k := range j {
				if r.Quota[k].Per == q.Per && r.Quota[k].Messages == q.Messages && r.Quota[k].Part == q.Part && !c.bad[at] {
					c.fail(at, fmt.Sprintf("counts the same as quota[%d]", k), "keep the one you mean")
					break
				}
			}
			if plan := a.Plan.MessagesPerDay; plan > 0 && int64(q.Burst) > plan && !c.bad[at] {
				c.warn(at, fmt.Sprintf("is more than the plan, which has %d messages a day: it never refuses anything", plan), "give a smaller number, or take it out")
			}
		}
		c.burst(p, r.Burst, len(r.Rate) > 0)
		for j, rate := range r.Rate {
			for k := range j {
				if r.Rate[k].Per == rate.Per && !c.bad[p+".rate"] {
					c.fail(fmt.Sprintf("%s.rate[%d]", p, j), fmt.Sprintf("is a second rate per %s (the first is rate[%d])", rate.Per, k), "keep the one you mean")
					break
				}
			}
		}
	}
}

type globKind int

const (
	eventGlob globKind = iota
	channelGlob
	callerGlob
)

var (
	channelGlobRE = regexp.MustCompile(`^#?[-a-zA-Z0-9_=@,.;*?]+$`)
	callerGlobRE  = regexp.MustCompile(`^[A-Za-z0-9._*?-]+$`)
)

func (c *checker) globs(path string, gs Globs, kind globKind) {
	for i, g := range gs {
		p := path
		if indexed := fmt.Sprintf("%s[%d]", path, i); c.given(indexed) {
			p = indexed
		}
		c.glob(p, g, kind)
	}
}

func (c *checker) glob(path, g string, kind globKind) {
	const only = "a pattern knows only * (any run of characters) and ? (one)"
	switch {
	case g == "": // said already
	case len(g) > 256:
		c.fail(path, "is longer than 256 characters", only)
	case kind == channelGlob && !channelGlobRE.MatchString(g):
		c.fail(path, c.show(path, g)+"can match no channel", only+"; a channel's name has letters, digits and -_=@,.;")
	case kind == callerGlob && !callerGlobRE.MatchString(g):
		c.fail(path, c.show(path, g)+"can match no caller", only+"; "+nameForm)
	}
}

// knownCallers warns of a caller that a rule names but no app has.
func (c *checker) knownCallers(path string, gs Globs, callers []string) {
	for i, g := range gs {
		known := false
		for _, name := range callers {
			known = known || globCovers(g, name)
		}
		if known || g == "" || c.bad[path] {
			continue
		}
		p := path
		if indexed := fmt.Sprintf("%s[%d]", path, i); c.given(indexed) {
			p = indexed
		}
		hint := "the rule matches nobody until there is one"
		if len(c.refs) == 0 { // else a name may have come by reference
			hint = didYouMean(g, callers, hint)
		}
		what := "is the name of no caller of this account"
		if strings.ContainsAny(g, "*?") {
			what = "matches no caller of this account"
		}
		c.warn(p, c.show(p, g)+what, hint)
	}
}
