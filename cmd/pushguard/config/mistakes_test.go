package config

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"
)

// A file with many mistakes: all are told, in order, each with its line.
func TestAllMistakesAtOnceInFileOrder(t *testing.T) {
	_, err := parseFake(`listen: "8080"
admin: { listen: "0.0.0.0:8081" }
acounts: []
accounts:
  - name: care
    plan: startap
    apps:
      - id: "1234"
        key: k1
        secret: hush-hush # old: hush
        cluster: EU
        callers:
          - { name: app, key: k1, secret: "", share: 140%, rat: 5/s }
    rules:
      - dedup: 2s
        priority: hgih
        rate: 5/s per chanel
breaker: { shed_bulk_at: 97%, shed_normal_at: 95% }
breaker: {}
drain_delay: 5
`)
	want := strings.TrimLeft(`
pushguard.yaml:1:9: listen "8080" is not host:port; write it like ":8080" or "127.0.0.1:8080"
    1 | listen: "8080"
      |         ^
pushguard.yaml:2:18: admin.listen can be reached from other machines, but admin.token is not set; set admin.token, or listen on 127.0.0.1:8081
    2 | admin: { listen: "0.0.0.0:8081" }
      |                  ^
pushguard.yaml:3:1: unknown key "acounts" in the file; did you mean "accounts"?
    3 | acounts: []
      | ^
pushguard.yaml:6:11: accounts[0].plan "startap" is no plan of Pusher's; did you mean "startup"?
    6 |     plan: startap
      |           ^
pushguard.yaml:11:18: accounts[0].apps[0].cluster "EU" is not a cluster's name; write it as in api-CLUSTER.pusher.com: mt1, us2, us3, eu, ap1, ap2, ap3, ap4, sa1
   11 |         cluster: EU
      |                  ^
pushguard.yaml:13:21: accounts[0].apps[0].callers[0].name "app" is taken; "app" is who signs with the app's own pair, "other" the rest in metrics: choose another name
   13 |           - { name: app, key: k1, secret: ***, share: 140%, rat: *** }
      |                     ^
pushguard.yaml:13:31: accounts[0].apps[0].callers[0].key "k1" is also accounts[0].apps[0].key (line 9); every app and caller has a key of its own: requests are told apart by it
   13 |           - { name: app, key: k1, secret: ***, share: 140%, rat: *** }
      |                               ^
pushguard.yaml:13:43: accounts[0].apps[0].callers[0].secret is empty; give it a value, or take the key out
   13 |           - { name: app, key: k1, secret: ***, share: 140%, rat: *** }
      |                                           ^
pushguard.yaml:13:54: accounts[0].apps[0].callers[0].share "140%" is out of range; a percentage lies between 0% and 100%
   13 |           - { name: app, key: k1, secret: ***, share: 140%, rat: *** }
      |                                                       ^
pushguard.yaml:13:60: unknown key "rat" in accounts[0].apps[0].callers[0]; did you mean "rate"?
   13 |           - { name: app, key: k1, secret: ***, share: 140%, rat: *** }
      |                                                             ^
pushguard.yaml:15:9: unknown key "dedup" in accounts[0].rules[0]; did you mean "dedupe"?
   15 |       - dedup: ***
      |         ^
pushguard.yaml:16:19: accounts[0].rules[0].priority "hgih" is not known here; write one of bulk, normal, critical
   16 |         priority: hgih
      |                   ^
pushguard.yaml:17:15: accounts[0].rules[0].rate "5/s per chanel" is not a rate; per must be app, caller, event or channel (want for example "200/s" or "5/s per channel")
   17 |         rate: 5/s per chanel
      |               ^
pushguard.yaml:18:47: breaker.shed_normal_at makes shed_normal_at come before shed_bulk_at; order them shed_bulk_at <= shed_normal_at <= critical_only_at; what is left out is 80%, 95%, 98%
   18 | breaker: { shed_bulk_at: 97%, shed_normal_at: 95% }
      |                                               ^
pushguard.yaml:19:1: key "breaker" is there twice; it is also in line 18: keep one
   19 | breaker: {}
      | ^
pushguard.yaml:20:14: drain_delay "5" is not a duration; write a number with its unit, like 500ms, 2s, 1m30s or 2d
   20 | drain_delay: 5
      |              ^`, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	var p Problem
	if !errors.As(err, &p) || p.Line != 1 || p.Path != "listen" {
		t.Errorf("errors.As finds %+v", p)
	}
}

// mistake is one change to the published example, and what is said of it.
type mistake struct {
	name     string
	old, new string
	want     string // part of the error
	semantic bool   // a JSON Schema cannot see it
}

var mistakes = []mistake{
	{"unknown key at the top", "contain: auto", "contian: auto", `25:1: unknown key "contian" in the file; did you mean "contain"?`, false},
	{"unknown key far from all", "contain: auto", "zzz: auto", `25:1: unknown key "zzz" in the file; known here: listen, admin, data_dir`, false},
	{"unknown key in admin", "token:", "tokne:", `unknown key "tokne" in admin; did you mean "token"?`, false},
	{"bad word", "contain: auto", "contain: atuo", `25:10: contain "atuo" is not known here; did you mean "auto"?`, false},
	{"unknown mode", "contain: auto", "mode: observ", `mode "observ" is not known here; did you mean "observe"?`, false},
	{"unknown answer", "priority: critical", "answer: 500", `answer "500" is not known here; write one of 403, 429, ok`, false},
	{"no pointer", "conflate: 1s", "conflate: { window: 1s, key: order/id }", `conflate.key "order/id" is no JSON pointer`, true},
	{"broken pointer", "conflate: 1s", "conflate: { window: 1s, key: /a~2b }", `conflate.key "/a~2b" is no JSON pointer`, true},
	{"conflate without window", "conflate: 1s", "conflate: { key: /a }", `conflate.window is missing`, false},
	{"webhooks to nowhere", "cluster: eu", "cluster: eu\n        forward_webhooks: app.example.com", `apps[0].forward_webhooks is not an http:// or https:// URL`, true},
	{"webhooks to the cloud's secrets", "cluster: eu", "cluster: eu\n        forward_webhooks: http://169.254.169.254/x", `apps[0].forward_webhooks is a link-local address`, true},
	{"polling too often", "cluster: eu", "cluster: eu\n        learn: { poll: 1s }", `apps[0].learn.poll is out of range; give 10s to 1h`, true},
	{"presence without a poll", "cluster: eu", "cluster: eu\n        learn: { poll: 0s, presence: true }", `apps[0].learn.presence goes with a poll`, true},
	{"learning for nothing", "cluster: eu", "cluster: eu\n        learn: { budget: 0% }", `apps[0].learn.budget is 0%`, true},
	{"unknown order", "dedupe: 2s", "order: strickt", `order "strickt" is not known here; did you mean "strict"?`, false},
	{"unknown vacancy", "dedupe: 2s", "vacant: skpi", `vacant "skpi" is not known here; did you mean "skip"?`, false},
	{"unknown scope", "dedupe: 2s", "dedupe: { window: 2s, scope: clutser }", `dedupe.scope "clutser" is not known here; did you mean "cluster"?`, false},
	{"dedupe without window", "dedupe: 2s", "dedupe: { scope: cluster }", `dedupe.window is missing`, false},
	{"list for a word", "contain: auto", "contain: [auto]", "25:10: contain must be a single value", false},
	{"mapping for a list", "alerts: [ { slack: \"${file:/run/secrets/slack_url}\" } ]", "alerts: { slack: x }", "26:9: alerts must be a list", false},
	{"word for a mapping", "breaker: { shed_bulk_at: 80%, shed_normal_at: 95%, critical_only_at: 98% }", "breaker: off", "24:10: breaker must be a mapping", false},
	{"nothing", "contain: auto", "contain:", "contain has no value", false},
	{"missing id", `- id: "1234"`, "- timeout: 1s", "9:9: accounts[0].apps[0].id is missing; add id: …", false},
	{"missing secret", `        secret: "${PUSHER_SECRET}"` + "\n", "", "accounts[0].apps[0].secret is missing", false},
	{"empty secret", `"${PUSHER_SECRET}"`, `""`, "accounts[0].apps[0].secret is empty", false},
	{"empty list", `"${PUSHER_SECRET}"`, `[]`, "accounts[0].apps[0].secret is an empty list", false},
	{"unknown plan", "plan: startup", "plan: Startupp", `7:11: accounts[0].plan "Startupp" is no plan of Pusher's; did you mean "startup"?`, false},
	{"plan of nothing", "plan: startup", "plan: { messages_per_day: 0 }", "accounts[0].plan.messages_per_day is out of range; give 1 to", false},
	{"plan in words", "plan: startup", "plan: { messages_per_day: many }", `messages_per_day "many" is not a whole number`, false},
	{"plan with a second key", "plan: startup", "plan: { messages_per_day: 5, name: x }", `unknown key "name" in accounts[0].plan`, false},
	{"share over the whole", "share: 40%", "share: 101%", `share "101%" is out of range`, false},
	{"share as a number", "share: 40%", "share: 0.4", `share "0.4" is not a percentage; write it like 40%`, false},
	{"share of nothing", "share: 40%", "share: 0%", "share is 0%", true},
	{"rate without unit", "rate: 200/s", "rate: 200", `rate "200" is not a rate; the unit of time is missing`, false},
	{"rate below zero", "rate: 200/s", "rate: -1/s", `rate "-1/s" is not a rate; the count must be above zero`, false},
	{"caller's rate per channel", "rate: 200/s", "rate: 200/s per channel", "rate is per channel, but a caller's rate counts this caller", true},
	{"burst without rate", "rate: 200/s, ", "", "callers[0].burst has no rate beside it", true},
	{"burst of zero", "burst: 400", "burst: 0", "callers[0].burst is out of range", false},
	{"burst too large", "burst: 400", "burst: 1000000001", "callers[0].burst is out of range; give 1 to 1000000000", false},
	{"burst beside two rates", "rate: 5/s per channel", "rate: [5/s, 6/s per event]\n        burst: 4", "rules[0].burst does not say which rate it is for", true},
	{"same kind twice", "rate: 5/s per channel", "rate: [5/s, 100/m]", "rate[1] is a second rate per app (the first is rate[0])", true},
	{"mapping in a mapping", "rate: 5/s per channel", "rate: { rate: { rate: 5/s } }", "rate.rate is a mapping", false},
	{"duration without unit", "dedupe: 2s", "dedupe: 2", `dedupe "2" is not a duration; write a number with its unit`, false},
	{"duration below zero", "dedupe: 2s", "dedupe: -2s", `dedupe "-2s" is not a duration`, false},
	{"dedupe of nothing", "dedupe: 2s", "dedupe: 0s", "dedupe is out of range; give 1ms to 24h", true},
	{"dedupe too fine", "dedupe: 2s", "dedupe: 1500us", "dedupe is finer than a millisecond", true},
	{"dedupe too long", "dedupe: 2s", "dedupe: 48h", "dedupe is out of range", true},
	{"conflate too long", "conflate: 1s", "conflate: 2h", "conflate is out of range; give 1ms to 1h", true},
	{"port too high", `listen: ":8080"`, `listen: ":80800"`, `1:9: listen ":80800" has no valid port`, true},
	{"no port", `listen: ":8080"`, `listen: "localhost"`, `listen "localhost" is not host:port`, true},
	{"both ports the same", `127.0.0.1:8081`, `:8080`, `admin.listen wants the port that the data port listens on`, true},
	{"cluster and upstream", "cluster: eu ", "cluster: eu\n        upstream: http://h:1 ", "13:19: accounts[0].apps[0].upstream and cluster are both set", true},
	{"neither", "cluster: eu ", "timeout: 1s ", "9:9: accounts[0].apps[0] has neither cluster nor upstream", true},
	{"cluster as a host", "cluster: eu ", "cluster: api-eu.pusher.com ", `cluster "api-eu.pusher.com" is not a cluster's name`, true},
	{"upstream without scheme", "cluster: eu ", "upstream: localhost:6001 ", `upstream "localhost:6001" is not an http:// or https:// URL`, true},
	{"upstream with a path", "cluster: eu ", "upstream: http://h:1/apps ", `has more than host and port`, true},
	{"upstream with a port that is none", "cluster: eu ", "upstream: http://h:99999 ", `has no valid port`, true},
	{"timeout too long", "cluster: eu ", "cluster: eu\n        timeout: 5m ", `timeout is out of range; give 100ms to 1m`, true},
	{"bad channel pattern", "private-user-*\": 2", "private user\": 2", `can match no channel; a pattern knows only *`, true},
	{"regular expression", `channel: "private-user-*"`, `channel: "^private-.*$"`, `match.channel "^private-.*$" can match no channel`, true},
	{"empty pattern", `channel: "private-user-*"`, `channel: ""`, "match.channel is empty", false},
	{"subscribers below zero", "default: 1", "default: -1", "subscribers.default is out of range", false},
	{"subscribers in words", "default: 1", "default: few", `subscribers.default "few" is not a whole number`, false},
	{"subscribers twice", "default: 1", "default: 1, default: 2", `key "default" is there twice`, true},
	{"caller's name with a space", "name: care-api", "name: care api", `name "care api" is not a name`, true},
	{"caller called other", "name: care-api", "name: other", `name "other" is taken`, true},
	{"caller with the app's key", "key: care-api-1", `key: "${PUSHER_KEY}"`, `key "${PUSHER_KEY}" is also accounts[0].apps[0].key (line 10)`, true},
	{"key with a space", "key: care-api-1", "key: care api", "key is not a key", true},
	{"bulk never", "shed_bulk_at: 80%", "shed_bulk_at: 1.9%", "breaker.shed_bulk_at is below 2%", true},
	{"breaker out of order", "shed_bulk_at: 80%", "shed_bulk_at: 96%", "breaker.shed_normal_at makes shed_normal_at come before shed_bulk_at", true},
	{"breaker out of order beside a default", "shed_normal_at: 95%, critical_only_at: 98%", "shed_normal_at: 99%", "24:47: breaker.shed_normal_at makes critical_only_at come before shed_normal_at", true},
	{"two alerts in one", "slack:", "webhook: \"https://x.example\", slack:", "alerts[0] must have exactly one of slack, pagerduty, webhook", true},
	{"alert that is no URL", `slack: "${file:/run/secrets/slack_url}"`, `slack: hooks.slack.com`, "26:20: alerts[0].slack is not a URL that begins with https://", true},
	{"unset variable", "${PUSHER_SECRET}", "${PUSHER_SECERT}", "11:17: accounts[0].apps[0].secret refers to the environment variable PUSHER_SECERT, which is not set or empty", true},
	{"missing file", "/run/secrets/slack_url", "/run/secrets/none", "26:20: alerts[0].slack refers to the file /run/secrets/none, which does not exist", true},
	{"file without path", "file:/run/secrets/slack_url", "file:", "refers to ${file:} without a path", true},
	{"unknown source", "file:/run/secrets/slack_url", "flie:/run/secrets/slack_url", `whose source is unknown; did you mean "file"?`, true},
	{"open reference", "${PUSHER_SECRET}", "${PUSHER_SECRET", "has a ${ without its }", true},
	{"reference that is no name", "${PUSHER_SECRET}", "${PUSHER-SECRET}", "which is no name of a variable", true},
	{"store that is none", "store: embedded", "store: embeded", `4:8: store is not a store; did you mean "embedded"?`, false},
	{"store by another scheme", "store: embedded", "store: reddis://h", `store has an unknown scheme; did you mean "redis"?`, false},
	{"store of many hosts", "store: embedded", "store: redis://a,b", "store names several hosts", true},
	{"sentinel without master", "store: embedded", "store: redis+sentinel://a,b", "store does not name the master", true},
	{"cluster with a database", "store: embedded", "store: redis+cluster://a,b/1", "store has a path", true},
	{"redis database in words", "store: embedded", "store: redis://a/one", "store has a path that is not a database's number", true},
	{"redis without a host", "store: embedded", "store: redis:///0", "store has a host that is not host or host:port", true},
	{"body too large", "contain: auto", "max_body: 1GiB", "max_body is out of range", true},
	{"body in words", "contain: auto", "max_body: huge", `max_body "huge" is not a size`, false},
	{"no connections", "contain: auto", "max_connections: 0", "max_connections is out of range; give 1 to", false},
	{"switch in words", "cluster: eu ", "cluster: eu\n        upstream_breaker: { off: perhaps } ", `off "perhaps" is neither true nor false`, false},
	{"data above the body", "cluster: eu ", "cluster: eu\n        limits: { data_bytes: 2000000 } ", "limits.data_bytes is more than max_body lets in", true},
	{"a host with a port", `listen: "127.0.0.1:8081", token`, "listen: \"127.0.0.1:8081\", hosts: [\"guard:8081\"], token", `admin.hosts[0] "guard:8081" is not the name of a host`, true},
	{"a header that everybody sends", `listen: "127.0.0.1:8081", token`, "listen: \"127.0.0.1:8081\", trust_header: { name: Host, from: [\"10.0.0.7\"] }, token", `admin.trust_header.name "Host" is a header that every client sends`, true},
	{"a header without a sender", `listen: "127.0.0.1:8081", token`, "listen: \"127.0.0.1:8081\", trust_header: { name: X-User }, token", `admin.trust_header.from`, false},
	{"a header from everybody", `listen: "127.0.0.1:8081", token`, "listen: \"127.0.0.1:8081\", trust_header: { name: X-User, from: [0.0.0.0/0] }, token", `is everybody: whoever sends the header could move every lever`, true},
	{"a header from a name", `listen: "127.0.0.1:8081", token`, "listen: \"127.0.0.1:8081\", trust_header: { name: X-User, from: [proxy] }, token", `admin.trust_header.from[0] "proxy" is not an address`, true},
	{"a collector without scheme", "contain: auto", "tracing: { otlp: \"127.0.0.1:4318\" }", `tracing.otlp "127.0.0.1:4318" is not an http:// or https:// URL`, true},
	{"the collector is the metadata service", "contain: auto", "tracing: { otlp: \"http://169.254.169.254\" }", "tracing.otlp is a link-local address", true},
	{"tag", "contain: auto", "contain: !!str auto", "contain has a tag", true},
	{"alias to nowhere", "contain: auto", "contain: *none", "contain is an alias without its anchor", true},
	{"merge of a word", "contain: auto", "log: { <<: text }", "log merges (<<) what is no mapping", true},
	{"second document", "contain: auto", "---\ncontain: auto", "a second YAML document begins here", true},
	{"reference without quotes in brackets", `"${CARE_API_SECRET}"`, "${CARE_API_SECRET}", `inside { } and [ ] a reference needs quotes, as "${NAME}"`, true},
	{"a tab", "contain: auto", "breaker:\n\tburn_rate: on", "26:1: not valid YAML: a tab indents this line; YAML wants spaces", true},
	{"bad YAML", "contain: auto", "contain: [auto", "25:10: not valid YAML: a bracket opens here and is not closed", true},
}

func TestEachMistakeIsTold(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			text := strings.Replace(published, m.old, m.new, 1)
			if text == published {
				t.Fatalf("%q is not in the example", m.old)
			}
			_, err := parseFake(text)
			if err == nil {
				t.Fatalf("loads, want %q", m.want)
			}
			if !strings.Contains(err.Error(), m.want) {
				t.Errorf("got  %v\nwant %s", err, m.want)
			}
			var ps Problems
			if !errors.As(err, &ps) || len(ps) != 1 {
				t.Errorf("%d problems, want this one alone: %v", len(ps), err)
			}
			for _, p := range ps {
				if p.Hint == "" {
					t.Errorf("no hint what to do: %v", p)
				}
			}
			for name, secret := range hidden {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the value of %s shows: %v", name, err)
				}
			}
		})
	}
}

// What the loader's types refuse, the schema refuses too, so that an editor
// shows it while it is typed.
func TestSchemaRefusesWhatTheTypesRefuse(t *testing.T) {
	valid := schemaValidator(t)
	for _, m := range mistakes {
		if m.semantic {
			continue
		}
		if valid(strings.Replace(published, m.old, m.new, 1)) == nil {
			t.Errorf("%s: the schema accepts %q", m.name, m.new)
		}
	}
}

func TestDuplicatesAcrossAccounts(t *testing.T) {
	const app = "apps: [ { id: 1, key: k, secret: s, cluster: eu } ]"
	_, err := parseFake("accounts:\n  - { name: a, plan: pro, " + app + " }\n  - { name: a, plan: pro, " + app + " }\n")
	for _, want := range []string{
		`3:13: accounts[1].name "a" is also the name of accounts[0].name (line 2)`,
		`accounts[1].apps[0].id "1" is also the id of accounts[0].apps[0].id (line 2)`,
		`accounts[1].apps[0].key "k" is also accounts[0].apps[0].key (line 2)`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s\ngot %v", want, err)
		}
	}
}

func TestAdminOffLoopbackNeedsAToken(t *testing.T) {
	for listen, open := range map[string]bool{
		"127.0.0.1:1": false, "127.8.8.8:1": false, "[::1]:1": false, "localhost:1": false,
		":1": true, "0.0.0.0:1": true, "[::]:1": true, "10.0.0.1:1": true, "guard.internal:1": true, "localhost.example:1": true,
	} {
		_, err := parseFake(withRest("admin: { listen: \"" + listen + "\" }\n"))
		if (err != nil) != open || open && !strings.Contains(err.Error(), "admin.token is not set") {
			t.Errorf("%s: %v", listen, err)
		}
		if _, err := parseFake(withRest("admin: { listen: \"" + listen + "\", token: 0123456789abcdef }\n")); err != nil {
			t.Errorf("%s with a token: %v", listen, err)
		}
	}
}

func TestFlagsAreCheckedLikeTheFile(t *testing.T) {
	for _, k := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"nothing", func(*Config) {}, ""},
		{"free ports", func(c *Config) { c.Listen, c.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0" }, ""},
		{"admin off loopback", func(c *Config) { c.Admin.Listen = "0.0.0.0:1" }, "flags: --admin can be reached from other machines, but admin.token is not set"},
		{"admin off loopback with a token", func(c *Config) { c.Admin = Admin{Listen: "0.0.0.0:1", Token: NewSecret("0123456789abcdef")} }, ""},
		{"no port", func(c *Config) { c.Listen = "8080" }, "flags: --listen is not host:port"},
		{"level", func(c *Config) { c.Log.Level = "wran" }, `flags: --log-level is not known; did you mean "warn"?`},
		{"format", func(c *Config) { c.Log.Format = "xml" }, "flags: --log-format is not known; write one of text, json"},
	} {
		c := mustParse(t, withRest(""))
		k.change(c)
		err := c.CheckFlags()
		if (err == nil) != (k.want == "") || !strings.Contains(fmt.Sprint(err), k.want) {
			t.Errorf("%s: %v, want %q", k.name, err, k.want)
		}
	}
}

func TestSharesOfAnAccount(t *testing.T) {
	caller := func(name, key, share string) string {
		return "{ name: " + name + ", key: " + key + ", secret: s, share: " + share + " }"
	}
	file := func(first, second string) string {
		return "accounts:\n  - name: a\n    plan: pro\n    apps:\n" +
			"      - { id: 1, key: k1, secret: s, cluster: eu, callers: [ " + first + " ] }\n" +
			"      - { id: 2, key: k2, secret: s, cluster: eu, callers: [ " + second + " ] }\n"
	}
	for _, k := range []struct{ name, first, second, want string }{
		{"just whole", caller("x", "x1", "60%"), caller("y", "y1", "40%"), ""},
		{"too much over two apps", caller("x", "x1", "60%"), caller("y", "y1", "40.5%"), "6:100: accounts[0].apps[1].callers[0].share brings the shares of this account above 100%"},
		{"one caller, two shares", caller("x", "x1", "10%"), caller("x", "x2", "10%"), "is the second share of this caller"},
		{"a name twice in one app", caller("x", "x1", "10%") + ", { name: x, key: x2, secret: s }", caller("y", "y1", "1%"), `callers[1].name "x" is there twice in this app`},
		{"a name in two apps", caller("x", "x1", "10%"), "{ name: x, key: x2, secret: s }", ""},
	} {
		_, err := parseFake(file(k.first, k.second))
		if got := fmt.Sprint(err); (err == nil) != (k.want == "") || !strings.Contains(got, k.want) {
			t.Errorf("%s: got %v, want %q", k.name, err, k.want)
		}
	}
}

func TestMistakesOfTheWholeFile(t *testing.T) {
	for _, k := range []struct{ name, text, want string }{
		{"empty", "", "pushguard.yaml:1:1: the file is empty"},
		{"comments only", "# nothing\n", "the file is empty"},
		{"a word", "accounts", "pushguard.yaml:1:1: the file must be a mapping"},
		{"no accounts", "listen: :80\n", "pushguard.yaml:1:1: accounts is missing"},
		{"brackets", "a: " + strings.Repeat("[", 5000), "1:104: the file is nested too deeply"},
		{"dashes", strings.Repeat("- ", 5000), "the file is nested too deeply"},
		{"too long", strings.Repeat("#", maxFile+1), "the file is longer than 1 MiB"},
		{"an anchor within itself", "accounts: &a [ *a ]\n", "accounts[0] must be a mapping"},
		{"a merge of itself", "log: &l { <<: *l }\n" + withRest(""), "merges (<<) what is no mapping"},
		{"aliases that multiply", "accounts:\n  - &b { apps: [ { callers: &d [ { name: x } " + strings.Repeat(", { name: y }", 600) + " ] }" +
			strings.Repeat(", { callers: *d }", 600) + " ] }\n" + strings.Repeat("  - *b\n", 50), "the file means more than 200000 values"},
	} {
		_, err := parseFake(k.text)
		if err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: got %.300v, want %q", k.name, err, k.want)
		}
	}
}

func TestManyMistakesAreCutOff(t *testing.T) {
	_, err := parseFake(withRest(strings.Repeat("x: 1\n", 500)))
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != maxProblems+1 || !strings.Contains(ps[maxProblems].Message, "and 400 more") {
		t.Errorf("%d problems, the last %v", len(ps), ps[len(ps)-1])
	}
	if !sort.SliceIsSorted(ps, func(i, j int) bool { return ps[i].Line < ps[j].Line }) {
		t.Error("not in file order")
	}
}

func TestNearest(t *testing.T) {
	known := []string{"rate", "burst", "dedupe", "drain_delay"}
	for written, want := range map[string]string{
		"raet": "rate", "rat": "rate", "Burst": "burst", "dedup": "dedupe", "drain-delay": "drain_delay", "drainDelay": "drain_delay",
		"xyz": "", "": "", "r": "",
	} {
		if got, _ := nearest(written, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", written, got, want)
		}
	}
	for _, k := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"abc", "", 3}} {
		if got := editDistance(k.a, k.b); got != k.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", k.a, k.b, got, k.want)
		}
	}
}
