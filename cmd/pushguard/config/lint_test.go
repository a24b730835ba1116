package config

import (
	"strings"
	"testing"
)

// What is legal and does nothing, or what nobody means, is said with its line.
func TestSillyConfigsAreTold(t *testing.T) {
	rules := func(r ...string) string {
		return withRest("    rules:\n      - " + strings.Join(r, "\n      - ") + "\n")
	}
	app := func(line string) string {
		return strings.Replace(withRest(""), `upstream: "http://127.0.0.1:6001"`, line, 1)
	}
	up := `upstream: "http://127.0.0.1:6001", `
	callers := func(c string) string { return app(up + "callers: [ " + c + " ]") }
	for _, k := range []struct{ name, text, want string }{
		{"strict order", rules(`{ match: { event: "*" }, order: strict }`), "rules[0].order costs time: of one caller to one channel at most 10 events a round trip to Pusher, so about 100 a second at 100 ms"},
		{"a rule after *", rules(`{ match: { event: "*" } }`, "{ match: { event: x } }"), "rules[1] is never reached: rules[0] before it matches everything"},
		{"a rule in the shadow of a wider one", rules(`{ match: { event: "order.*" } }`, "{ match: { event: order.new, channel: a } }"), "rules[1] is never reached"},
		{"a rule in the shadow of a list", rules(`{ match: { event: ["a*", "b*"] } }`, `{ match: { event: [ab, "b?c"] } }`), "rules[1] is never reached"},
		{"a pattern of callers that matches nobody", rules(`{ match: { caller: "care-*" } }`), `"care-*" matches no caller`},
		{"a pattern twice in its list", rules(`{ match: { event: [a, "a*"] } }`), `"a" adds nothing: "a*" in the same list`},
		{"everything is critical", rules("{ priority: critical }"), "makes every publish that reaches it critical"},
		{"a rate above the plan", rules("{ rate: 100000/s }"), "is too high to protect a plan"},
		{"a burst above the plan", rules("{ rate: 10/s, burst: 900000000 }"), "is too high to protect a plan"},
		{"a burst of 1", rules("{ rate: 5/s, burst: 1 }"), "has a burst of 1"},
		{"a burst far below the rate", callers("{ name: c, key: c1, secret: s9, rate: 200/s, burst: 5 }"), "has a burst of 5"},
		{"a share of everything", callers("{ name: c, key: c1, secret: s9, share: 100% }"), "is the whole plan"},
		{"one secret for two", callers("{ name: c, key: c1, secret: same }, { name: d, key: d1, secret: same }"), "callers[1].secret is the same as accounts[0].apps[0].callers[0].secret"},
		{"a secret twice in a list", callers("{ name: c, key: c1, secret: [same, same] }"), "has the same secret twice in its list"},
		{"a secret that is the key", callers("{ name: c, key: c1, secret: c1 }"), "is the caller's key"},
		{"a reference without braces", callers(`{ name: c, key: c1, secret: "$CARE_SECRET" }`), "looks like a reference and is taken as it stands"},
		{"a template that nobody filled in", callers(`{ name: c, key: c1, secret: "{{ care_secret }}" }`), "looks like a reference"},
		{"a placeholder", callers("{ name: c, key: c1, secret: CHANGE_ME }"), "has a placeholder in place of its value"},
		{"a placeholder of a key", callers("{ name: c, key: your-key-here, secret: s9 }"), "has a placeholder"},
		{"a pattern of subscribers that is dead", app(up + `subscribers: { "*": 5, later: 2 }`), `"*" before it matches all of its channels`},
		{"a misspelled default of subscribers", app(up + `subscribers: { defalt: 5 }`), `did you mean "default"?`},
		{"no subscribers at all", app(up + `subscribers: { default: 0 }`), "are not counted, and Pusher bills them"},
		{"Pusher without TLS", app("upstream: http://api-eu.pusher.com"), "sends payloads to Pusher without TLS; write cluster: eu"},
		{"a timeout beyond the SDKs'", app(up + "timeout: 20s"), "is longer than SDKs wait"},
		{"floors of everything", withRest("    floors: { critical: 60%, normal: 40% }\n"), "bulk may spend nothing"},
		{"a floor of everything", withRest("    floors: { critical: 100% }\n"), "normal and bulk may spend nothing"},
		{"a digest that no client can read", withRest("    digest: { data: \"reload now\" }\n"), "is not JSON"},
		{"a digest switched off that is not there", rules("{ digest: false }"), "has no effect: the account has no digest"},
		{"dedupe over one replica", rules("{ dedupe: { window: 2s, scope: cluster } }"), "the embedded store has one replica"},
		{"thresholds of 100%", withRest("breaker: { shed_bulk_at: 100%, shed_normal_at: 100%, critical_only_at: 100% }\n"), "sheds nothing by thresholds"},
		{"a bound above the bound of all", withRest("max_connections: 10\nmax_connections_per_peer: 20\n"), "never bites"},
		{"told twice", withRest("alerts: [ { webhook: https://a.example/x }, { webhook: https://a.example/x } ]\n"), "is told already by alerts[0].webhook"},
	} {
		c, err := parseFake(k.text)
		if err != nil {
			t.Errorf("%s: refused: %v", k.name, err)
			continue
		}
		all := ""
		for _, w := range c.Warnings {
			all += w.Error() + "\n"
			if w.Line < 1 {
				t.Errorf("%s: no line: %v", k.name, w)
			}
		}
		if !strings.Contains(all, k.want) {
			t.Errorf("%s: got %q, want %q", k.name, all, k.want)
		}
		if strings.Contains(all, "CARE_SECRET") || strings.Contains(all, "same\n") {
			t.Errorf("%s: a secret is shown: %s", k.name, all)
		}
	}
	for _, k := range []struct{ name, text, want string }{
		{"the data port as upstream", app("upstream: http://127.0.0.1:8080"), "is the data port of this pushguard itself"},
		{"the admin port as upstream", app("upstream: http://localhost:8081"), "is the admin port of this pushguard itself"},
		{"ports that collide over all addresses", withRest("admin: { listen: \"127.0.0.1:8080\" }\n"), "admin.listen wants the port that the data port listens on"},
		{"an alert's secret in the open", withRest("alerts: [ { slack: http://hooks.example/x } ]\n"), "would be sent without TLS"},
		{"Latin-1", withRest("replica: caf\xe9\n"), "the file is not UTF-8 from here on"},
		{"UTF-16", "\xff\xfea\x00:\x00", "the file is UTF-16"},
	} {
		if _, err := parseFake(k.text); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: got %v, want %q", k.name, err, k.want)
		}
	}
	for name, text := range map[string]string{
		"a rule that observes hides none": rules(`{ match: { event: "*" }, mode: observe }`, "{ match: { event: x } }"),
		"narrow before wide":              rules("{ match: { event: order.new } }", `{ match: { event: "order.*" } }`),
		"another host's port":             app("upstream: http://10.1.2.3:8080"),
		"one per channel":                 rules("{ rate: 5/s per channel, burst: 1 }"),
		"a Windows file":                  strings.ReplaceAll(withRest(""), "\n", "\r\n"),
		"the documented example":          docsExample(t),
	} {
		c, err := parseFake(text)
		if err != nil || len(c.Warnings) > 0 {
			t.Errorf("%s: %v, warnings %v", name, err, c.Warnings)
		}
	}
}

func TestGlobCovers(t *testing.T) {
	for _, k := range []struct {
		a, b string
		want bool
	}{
		{"*", "", true}, {"*", "a*b?", true}, {"a*", "ab*", true}, {"ab*", "a*", false}, {"a?", "ab", true}, {"a?", "a*", false}, {"?", "?", true},
		{"*a*", "xay", true}, {"*a*", "x?y", false}, {"a", "a", true}, {"a", "?", false}, {"a*c", "abc", true}, {"a*c", "a*c", true}, {"a*c", "ac*", false}, {"**", "*", true},
	} {
		if got := globCovers(k.a, k.b); got != k.want {
			t.Errorf("globCovers(%q, %q) = %v", k.a, k.b, got)
		}
	}
}
