package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// published is the example that the documentation promises, whole.
const published = `listen: ":8080"
admin: { listen: "127.0.0.1:8081", token: "${PUSHGUARD_ADMIN_TOKEN}" }
data_dir: ./pushguard-data       # embedded store, last-good config; made with mode 0700
store: embedded                  # or redis://…, rediss://…, redis+sentinel://h1,h2/master, redis+cluster://h1,h2
accounts:
  - name: care
    plan: startup                # or { messages_per_day: 1000000 }
    apps:
      - id: "1234"
        key: "${PUSHER_KEY}"
        secret: "${PUSHER_SECRET}"
        cluster: eu              # or upstream: http://127.0.0.1:6001
        subscribers: { default: 1, "private-user-*": 2 }   # what a channel's fan-out counts as until it is learned
        callers:                 # each gets a key and secret of its own; the app's own pair also works, as caller "app"
          - { name: care-api, key: care-api-1, secret: "${CARE_API_SECRET}", rate: 200/s, burst: 400, share: 40% }
    rules:                       # first match wins; what matches none is normal, unlimited by rule
      - match: { event: "notification.*", channel: "private-user-*" }
        priority: bulk
        dedupe: 2s
        conflate: 1s
        rate: 5/s per channel
      - match: { event: "alarm.*" }
        priority: critical
breaker: { shed_bulk_at: 80%, shed_normal_at: 95%, critical_only_at: 98% }
contain: auto
alerts: [ { slack: "${file:/run/secrets/slack_url}" } ]
`

// hidden are values that must never be seen; the test environment brings them in.
var hidden = map[string]string{
	"PUSHGUARD_ADMIN_TOKEN": "tok-9b1d7e2f55aa4c3e",
	"PUSHGUARD_READ_TOKEN":  "only-for-looking-at-9b1d",
	"PUSHER_KEY":            "key-4f1e",
	"PUSHER_SECRET":         "sec-77aa91",
	"CARE_API_SECRET":       "care-5512",
	"LOAD_TEST_SECRET":      "load-8830",
	"OTLP_TOKEN":            "otlp-61c7",
}

func env(name string) string { return hidden[name] }

var files = map[string]string{
	"/run/secrets/slack_url":             "https://hooks.slack.example/T0/B0/zzyzx\n",
	"/run/secrets/care_worker_new":       "new-worker-secret\r\n",
	"/run/secrets/care_worker_old":       "old-worker-secret",
	"/run/secrets/pagerduty_routing_key": "r0ut1ngk3y\n",
}

func readFake(path string) (string, error) {
	if text, ok := files[path]; ok {
		return text, nil
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func parseFake(text string) (*Config, error) {
	return parse("pushguard.yaml", []byte(text), &resolver{getenv: env, read: readFake, dir: "/etc"})
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parseFake(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPublishedExampleMeansWhatItSays(t *testing.T) {
	c := mustParse(t, published)
	a := c.Accounts[0]
	app := a.Apps[0]
	caller := app.Callers[0]
	checks := []struct {
		what      string
		got, want any
	}{
		{"listen", c.Listen, ":8080"},
		{"token", c.Admin.Token.Reveal(), hidden["PUSHGUARD_ADMIN_TOKEN"]},
		{"store", c.Store.Embedded(), true},
		{"plan", quota.Plan(a.Plan), quota.Plan{Name: "startup", MessagesPerDay: 1_000_000}},
		{"id", app.ID, "1234"},
		{"key", app.Key, hidden["PUSHER_KEY"]},
		{"secret", app.Secret.Current().Reveal(), hidden["PUSHER_SECRET"]},
		{"upstream", app.UpstreamURL(), "https://api-eu.pusher.com"},
		{"subscribers", app.Subscribers, Subscribers{Default: 1, Patterns: []SubscriberPattern{{"private-user-*", 2}}}},
		{"caller", caller.Name + caller.Key + caller.Secret.Current().Reveal(), "care-apicare-api-1care-5512"},
		{"caller's rate", limiter.Rate(*caller.Rate), limiter.Rate{PerSecond: 200, Burst: 400, Per: limiter.PerCaller}},
		{"share", caller.Share, Percent(0.4)},
		{"caller's mode", caller.Mode, Enforce},
		{"match", a.Rules[0].Match, Match{Event: Globs{"notification.*"}, Channel: Globs{"private-user-*"}}},
		{"priority", a.Rules[0].Priority, Bulk},
		{"dedupe", a.Rules[0].Dedupe, Dedupe{2 * time.Second, ScopeReplica}},
		{"conflate", a.Rules[0].Conflate, Conflate{Window: time.Second}},
		{"rate", a.Rules[0].Rate, Rates{{PerSecond: 5, Burst: 5, Per: limiter.PerChannel}}},
		{"rule's mode", a.Rules[0].Mode, Enforce},
		{"rule's name", a.Rules[0].Name, "event=notification.* channel=private-user-*"},
		{"second priority", a.Rules[1].Priority, Critical},
		{"breaker", c.Breaker, Breaker{ProtectForecast, 0.80, 0.95, 0.98, time.Minute, BurnOn}},
		{"contain", c.Contain, ContainAuto},
		{"alert", c.Alerts[0].Slack.Reveal(), "https://hooks.slack.example/T0/B0/zzyzx"},
		{"default max_body", c.MaxBody, Bytes(1 << 20)},
		{"default timeout", app.Timeout, 3500 * time.Millisecond},
		{"default billing", a.Billing, Billing{BatchPerEvent, MultiPerCall, Counted, Counted, BatchPerEvent, Counted, Counted, Counted, Counted}},
	}
	for _, k := range checks {
		if !reflect.DeepEqual(k.got, k.want) {
			t.Errorf("%s: got %v, want %v", k.what, k.got, k.want)
		}
	}
}

// app is the least that loads; rest goes on at the account's level.
func withRest(rest string) string {
	return "accounts:\n  - name: a\n    plan: pro\n    apps: [ { id: 1, key: k, secret: s3cr3t, upstream: \"http://127.0.0.1:6001\" } ]\n" + rest
}

func TestEverySettingLoads(t *testing.T) {
	text := `
mode: observe
listen: 127.0.0.1:0
admin: { listen: "0.0.0.0:9000", token: 0123456789abcdef }
store: rediss://guard:p%40ss@redis.example:6380/2
on_store_loss: closed
replica: guard-1
drain_delay: 500ms
max_body: 512KiB
max_connections: 1_000
tls: { cert: /tls/a.pem, key: /tls/a.key, min_version: 1.3 }
log: { format: json, level: debug }
last_good: /var/lib/pushguard/good.yaml
contain: suggest
breaker: { shed_bulk_at: 50.5%, shed_normal_at: 100%, critical_only_at: 100%, probe: 30s, burn_rate: observe }
alerts:
  - pagerduty: R0UT
  - webhook: https://ops.example/x
accounts:
  - name: a
    plan: { messages_per_day: 12_345 }
    floors: { critical: 5%, normal: 10% }
    billing: { batch: per_call, multi_channel: per_channel, info: free, failed: free }
    apps:
      - &app
        id: 1
        key: k1
        secret: [new, old]
        upstream: https://dedicated.example/
        timeout: 2s
        rate: 500/s
        burst: 9
        limits: { data_bytes: 20480, channels: 10, batch: 20, channel_name: 164, event_name: 100 }
        upstream_breaker: { off: true, error_rate: 10%, min_requests: 5, window: 30s, open_for: 1s }
        callers:
          - { name: x, key: kx, secret: sx, mode: enforce }
      - <<: *app
        id: 2
        key: k2
        callers: [ { name: x, key: kx2, secret: sx } ]
    rules:
      - name: one
        match: { event: [a, "b.*"], channel: "#server-to-user-*", caller: [x, app] }
        mode: enforce
        answer: 403
        dedupe: { window: 2s, scope: cluster }
        rate: [5/s, { rate: 100/m per event, burst: 7 }]
      - match: { event: c }
        answer: "429"
        rate: 3/s per channel
        burst: 30
      - match: { event: c }
        answer: ok
`
	c := mustParse(t, text)
	a := c.Accounts[0]
	checks := []struct {
		what      string
		got, want any
	}{
		{"top mode", c.Mode, Observe},
		{"store", c.Store.Reveal(), "rediss://guard:p%40ss@redis.example:6380/2"},
		{"store shown", c.Store.String(), "rediss://redis.example:6380/2"},
		{"loss", c.OnStoreLoss, LossClosed},
		{"max_body", c.MaxBody, Bytes(512 << 10)},
		{"max_connections", c.MaxConnections, 1000},
		{"tls", *c.TLS, TLS{"/tls/a.pem", "/tls/a.key", TLS13}},
		{"log", c.Log, Log{LogJSON, LogDebug}},
		{"last_good", c.LastGood, LastGood{On: true, Path: "/var/lib/pushguard/good.yaml"}},
		{"breaker", c.Breaker, Breaker{ProtectForecast, 0.505, 1, 1, 30 * time.Second, BurnObserve}},
		{"plan", a.Plan, Plan{"custom", 12345}},
		{"floors", a.Floors, Floors{0.05, 0.10}},
		{"billing", a.Billing, Billing{BatchPerCall, MultiPerChannel, Free, Free, BatchPerEvent, Counted, Counted, Counted, Counted}},
		{"rotation", len(a.Apps[0].Secret), 2},
		{"current secret", a.Apps[0].Secret.Current().Reveal(), "new"},
		{"upstream", a.Apps[0].UpstreamURL(), "https://dedicated.example"},
		{"app rate", limiter.Rate(*a.Apps[0].Rate), limiter.Rate{PerSecond: 500, Burst: 9, Per: limiter.PerApp}},
		{"limits", a.Apps[0].Limits, Limits{20480, 10, 20, 164, 100}},
		{"upstream breaker", a.Apps[0].UpstreamBreaker, UpstreamBreaker{true, 0.1, 5, 30 * time.Second, time.Second}},
		{"merged id", a.Apps[1].ID, "2"},
		{"merged timeout", a.Apps[1].Timeout, 2 * time.Second},
		{"caller's own mode is overruled", a.Apps[0].Callers[0].Mode, Observe},
		{"caller's inherited mode", a.Apps[1].Callers[0].Mode, Observe},
		{"rule's own mode is overruled", a.Rules[0].Mode, Observe},
		{"rule's inherited mode", a.Rules[1].Mode, Observe},
		{"callers matched", a.Rules[0].Match.Caller, Globs{"x", "app"}},
		{"answers", a.Rules[0].Answer + a.Rules[1].Answer + a.Rules[2].Answer, Answer("403429ok")},
		{"dedupe", a.Rules[0].Dedupe, Dedupe{2 * time.Second, ScopeCluster}},
		{"first rate", a.Rules[0].Rate[0], Rate{PerSecond: 5, Burst: 5}},
		{"second rate", a.Rules[0].Rate[1], Rate{PerSecond: 100.0 / 60, Burst: 7, Per: limiter.PerEvent}},
		{"rule's burst", a.Rules[1].Rate[0].Burst, 30},
		{"unnamed rules", a.Rules[1].Name + "|" + a.Rules[2].Name, "event=c|event=c #2"},
	}
	for _, k := range checks {
		if !reflect.DeepEqual(k.got, k.want) {
			t.Errorf("%s: got %v, want %v", k.what, k.got, k.want)
		}
	}
}

func TestLoadTwiceIsEqual(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "slack")
	if err := os.WriteFile(secret, []byte("https://hooks.slack.example/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pushguard.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(published, "/run/secrets/slack_url", "slack", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Load(path, env)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load(path, env)
	if err != nil {
		t.Fatal(err)
	}
	if !Equal(a, b) || len(Diff(a, b)) != 0 {
		t.Errorf("the same file is not equal to itself: %v", Diff(a, b))
	}
	if a.Alerts[0].Slack.Reveal() != "https://hooks.slack.example/x" {
		t.Errorf("a path relative to the file brought in %q", a.Alerts[0].Slack.Reveal())
	}
	if err := os.WriteFile(secret, []byte("https://hooks.slack.example/y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, env)
	if err != nil {
		t.Fatal(err)
	}
	if Equal(a, c) {
		t.Error("a rotated secret is a change, but Equal does not see it")
	}
	if d := Diff(a, c); len(d) != 1 || d[0] != "alerts[0].slack: secret changed" {
		t.Errorf("diff of a rotated secret: %q", d)
	}
}

func TestLoadSaysWhyAFileCannotBeRead(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), env)
	var ps Problems
	if !errors.As(err, &ps) || !strings.Contains(err.Error(), "none.yaml: the file cannot be read: no such file") {
		t.Errorf("got %v", err)
	}
}

func docsExample(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../../docs/pushguard.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The file in docs loads as it is, and with every setting that is commented
// out taken in.
func TestDocumentedExampleLoads(t *testing.T) {
	text := docsExample(t)
	if !strings.HasPrefix(text, "# yaml-language-server: $schema=./pushguard.schema.json\n") {
		t.Error("the modeline for editors is not in the first line")
	}
	valid := schemaValidator(t)
	asIs := mustParse(t, text)
	if err := valid(text); err != nil {
		t.Error(err)
	}
	all := regexp.MustCompile(`(?m)^( *)#([a-z-])`).ReplaceAllString(text, "$1$2")
	all = strings.Replace(all, "    plan: startup", "    # plan: startup", 1)
	full := mustParse(t, all)
	if err := valid(all); err != nil {
		t.Error(err)
	}
	// What is commented out as a default is the default.
	want := []string{
		"accounts[care].apps[1234].rate: none -> 500/s burst 1000",
		"accounts[care].apps[1234].burst: 0 -> 1000",
		"accounts[care].apps[1234].forward_webhooks: secret changed",
		"accounts[care].floors.critical: 0% -> 5%",
		"accounts[care].floors.normal: 0% -> 10%",
		"accounts[care].plan: startup (1000000 a day) -> custom (1000000 a day)",
		"accounts[care].rules[event=notification.* channel=private-user-*].quota: [] -> [5000/day per channel]",
		"accounts[care].rules[event=notification.* channel=private-user-*].burst: 0 -> 5",
		"alerts[1]: added", "alerts[2]: added",
		`replica: "" -> "guard-1"`, "replicas: 0 -> 3",
		"last_good: {false } -> {true }",
		"tls: added",
		"admin.hosts[0]: added", `admin.url: "" -> "https://guard.internal:8081"`, "admin.trust_header: added", "tracing: added",
		"admin.read_token: secret changed", "accounts[care].rules[kind=read]: added",
	}
	got := Diff(asIs, full)
	for _, line := range got {
		if !contains(want, line) {
			t.Errorf("commented out as a default, but it is none: %s", line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d differences, want %d: %q", len(got), len(want), got)
	}
	for key := range fieldsOf(reflect.TypeFor[Config]()) {
		if !regexp.MustCompile(`(?m)^` + key + `:`).MatchString(all) {
			t.Errorf("%s is not in the example", key)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func TestSchemaAcceptsThePublishedExample(t *testing.T) {
	if err := schemaValidator(t)(published); err != nil {
		t.Error(err)
	}
}

func TestObservingIsNeverOverruled(t *testing.T) {
	for _, k := range []struct{ top, own, want Mode }{
		{Enforce, "", Enforce}, {Enforce, Enforce, Enforce}, {Enforce, Observe, Observe},
		{Observe, "", Observe}, {Observe, Enforce, Observe}, {Observe, Observe, Observe},
	} {
		if got := (&Config{Mode: k.top}).effective(k.own); got != k.want {
			t.Errorf("%q in a file of %q: %q, want %q", k.own, k.top, got, k.want)
		}
	}
}

func TestDefaultIsCheckedLikeAFile(t *testing.T) {
	c := &checker{cfg: Default()}
	c.all()
	if len(c.problems) > 0 || len(c.warnings) > 0 {
		t.Errorf("the defaults do not pass their own checks: %v %v", c.problems, c.warnings)
	}
}

func TestWarnings(t *testing.T) {
	for _, k := range []struct{ text, want string }{
		{withRest("admin: { token: short }\n"), "1: pushguard.yaml:5:17: admin.token is shorter than 16 characters"},
		{strings.Replace(withRest(""), `upstream: "http://127.0.0.1:6001"`, "cluster: eu2", 1), `"eu2" is none of Pusher's shared clusters`},
		{withRest("    rules:\n      - priority: bulk\n      - match: { event: x }\n"), "rules[1] is never reached: rules[0] before it matches everything"},
		{withRest("    rules:\n      - match: { caller: ap }\n"), `"ap" is the name of no caller of this account; did you mean "app"?`},
		{withRest("on_store_loss: open\n"), "on_store_loss has no effect with the embedded store"},
		{withRest("    rules: [ { mode: enforce } ]\nmode: observe\n"), "rules[0].mode has no effect: the whole file is in mode observe"},
	} {
		c, err := parseFake(k.text)
		if err != nil {
			t.Errorf("%s: %v", k.want, err)
			continue
		}
		if got := fmt.Sprintf("%d: %v", len(c.Warnings), c.Warnings[0]); !strings.Contains(got, k.want) {
			t.Errorf("got %q, want %q", got, k.want)
		}
	}
	if c := mustParse(t, withRest("")); len(c.Warnings) > 0 {
		t.Errorf("warnings of a plain file: %v", c.Warnings)
	}
}
