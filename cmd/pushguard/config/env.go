package config

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/pushguard/pushguard/quota"
)

// defaultAccount is the name of FromEnv's one account.
const defaultAccount = "default"

// fallbackCluster is where Pusher's SDKs go when no cluster is named.
const fallbackCluster = "mt1"

// fallbackPlan is Pusher's smallest: a guess that is too low refuses too early
// and is noticed; one that is too high uses up the plan.
const fallbackPlan = "sandbox"

var pusherHost = regexp.MustCompile(`^api-([a-z0-9-]+)\.pusher\.com$`)

// FromEnv makes a Config without a file, for one account "default" with one
// app: from PUSHER_URL (http://KEY:SECRET@HOST/apps/ID, as Pusher's SDKs take
// it), or from PUSHER_APP_ID, PUSHER_KEY, PUSHER_SECRET and PUSHER_CLUSTER
// (or Laravel's PUSHER_APP_KEY, PUSHER_APP_SECRET, PUSHER_APP_CLUSTER).
// PUSHGUARD_PLAN (a plan's name or messages a day), PUSHGUARD_LISTEN,
// PUSHGUARD_STORE,
// PUSHGUARD_ADMIN_LISTEN and PUSHGUARD_ADMIN_TOKEN may be set beside them. The error
// is Problems, which name variables and never show their values.
func FromEnv(getenv func(string) string) (*Config, error) {
	e := &environment{getenv: getenv, origin: map[string]string{}, bad: map[string]bool{}}
	cfg := Default()
	app := DefaultApp()
	account := DefaultAccount()
	account.Name = defaultAccount
	if e.getenv("PUSHER_URL") != "" {
		e.fromURL(&app)
	} else {
		e.fromParts(&app)
	}
	if v := e.take("accounts[0].plan", "PUSHGUARD_PLAN"); v != "" {
		if n, err := strconv.ParseInt(strings.ReplaceAll(v, "_", ""), 10, 64); err == nil {
			account.Plan = Plan{Name: "custom", MessagesPerDay: n}
			if n < 1 || n > maxPlan {
				e.fail("PUSHGUARD_PLAN", "is out of range", "give the messages a day of your plan")
			}
		} else {
			e.set("PUSHGUARD_PLAN", v, &account.Plan)
		}
	} else {
		plan, _ := quota.PlanByName(fallbackPlan)
		account.Plan = Plan(plan)
		e.warn("PUSHGUARD_PLAN is not set: counting on Pusher's smallest plan, sandbox, with "+
			strconv.FormatInt(plan.MessagesPerDay, 10)+" messages a day", "set it to your plan: "+strings.Join(quota.PlanNames(), ", ")+", or messages a day")
	}
	if v := e.take("listen", "PUSHGUARD_LISTEN"); v != "" {
		cfg.Listen = v
	}
	if v := e.take("store", "PUSHGUARD_STORE"); v != "" {
		e.set("PUSHGUARD_STORE", v, &cfg.Store)
	}
	if v := e.take("admin.listen", "PUSHGUARD_ADMIN_LISTEN"); v != "" {
		cfg.Admin.Listen = v
	}
	cfg.Admin.Token = NewSecret(e.take("admin.token", "PUSHGUARD_ADMIN_TOKEN"))
	account.Apps = []App{app}
	cfg.Accounts = []Account{account}

	c := &checker{cfg: cfg, file: environmentName, bad: e.bad, origin: e.origin}
	if len(e.problems) == 0 {
		c.all()
	}
	if problems := append(e.problems, c.problems...); len(problems) > 0 {
		return nil, Problems(problems)
	}
	cfg.Warnings = append(e.warnings, c.warnings...)
	cfg.inherit()
	return cfg, nil
}

const environmentName = "environment"

type environment struct {
	getenv             func(string) string
	origin             map[string]string
	bad                map[string]bool
	problems, warnings []Problem
}

func (e *environment) fail(name, msg, hint string) {
	e.problems = append(e.problems, Problem{File: environmentName, Path: name, Message: name + " " + msg, Hint: hint})
}

func (e *environment) warn(msg, hint string) {
	e.warnings = append(e.warnings, Problem{File: environmentName, Message: msg, Hint: hint})
}

// take reads a variable and remembers that path came from it.
func (e *environment) take(path, name string) string {
	e.origin[path] = name
	return e.getenv(name)
}

func (e *environment) set(name, value string, t textValue) {
	if err := t.setText(value); err != nil {
		f := err.(fault)
		e.fail(name, f.msg, f.hint)
	}
}

func (e *environment) fromParts(app *App) {
	const two = "set it, or PUSHER_URL instead of all, or give a file with --config FILE"
	// Laravel and others put APP into every name; the first that is set counts.
	either := func(path string, names ...string) string {
		for _, name := range names {
			if v := e.take("accounts[0].apps[0]."+path, name); v != "" {
				return v
			}
		}
		e.origin["accounts[0].apps[0]."+path] = names[0]
		return ""
	}
	need := func(path string, names ...string) string {
		v := either(path, names...)
		if v == "" {
			also := ""
			if len(names) > 1 {
				also = " (or " + names[1] + ")"
			}
			e.fail(names[0], "is not set"+also, two)
		}
		return v
	}
	app.ID = need("id", "PUSHER_APP_ID")
	app.Key = need("key", "PUSHER_KEY", "PUSHER_APP_KEY")
	if s := need("secret", "PUSHER_SECRET", "PUSHER_APP_SECRET"); s != "" {
		app.Secret = Secrets{NewSecret(s)}
	}
	app.Cluster = either("cluster", "PUSHER_CLUSTER", "PUSHER_APP_CLUSTER")
	if app.Cluster == "" {
		app.Cluster = fallbackCluster
		e.warn("PUSHER_CLUSTER is not set: using "+fallbackCluster+", as Pusher's SDKs do", "set it to the cluster that Pusher's dashboard shows under App Keys")
	}
}

// fromURL reads PUSHER_URL. Pusher's own hosts are always spoken to over TLS,
// whatever the scheme: the URLs that Pusher hands out begin with http.
func (e *environment) fromURL(app *App) {
	const name, form = "PUSHER_URL", "write http://KEY:SECRET@api-CLUSTER.pusher.com/apps/ID"
	for _, p := range []string{"id", "key", "secret", "cluster", "upstream"} {
		e.origin["accounts[0].apps[0]."+p] = name
	}
	u, err := url.Parse(e.getenv(name))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		e.fail(name, "is not an http:// or https:// URL", form)
		return
	}
	secret, _ := u.User.Password()
	id, ok := strings.CutPrefix(strings.TrimSuffix(u.Path, "/"), "/apps/")
	if u.User.Username() == "" || secret == "" {
		e.fail(name, "lacks key or secret", form)
	}
	if !ok || id == "" {
		e.fail(name, "does not end with /apps/ID", form)
	}
	app.ID, app.Key, app.Secret = id, u.User.Username(), Secrets{NewSecret(secret)}
	switch m := pusherHost.FindStringSubmatch(u.Hostname()); {
	case m != nil:
		app.Cluster = m[1]
	case u.Hostname() == "api.pusherapp.com" || u.Hostname() == "api.pusher.com":
		app.Upstream = "https://" + u.Hostname()
	default:
		app.Upstream = u.Scheme + "://" + u.Host
	}
}
