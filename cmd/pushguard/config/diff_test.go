package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestDiffTellsWhatAReloadChanges(t *testing.T) {
	base := strings.Replace(published, "store: embedded", "store: redis://:p%40ss@h/0", 1)
	for _, k := range []struct {
		name, old, new string
		want           []string
	}{
		{"nothing", "", "", nil},
		{"only comments", "contain: auto", "contain: auto # still", nil},
		{"only written otherwise", "dedupe: 2s", "dedupe: { window: 2000ms, scope: replica }", nil},
		{"a default written out", "contain: auto", "contain: auto\nmode: enforce\ndrain_delay: 3s", nil},
		{"top", `listen: ":8080"`, `listen: ":9090"`, []string{`listen: ":8080" -> ":9090"`}},
		{"percent", "shed_bulk_at: 80%", "shed_bulk_at: 70.5%", []string{"breaker.shed_bulk_at: 80% -> 70.5%"}},
		{"plan", "plan: startup", "plan: { messages_per_day: 5 }", []string{"accounts[care].plan: startup (1000000 a day) -> custom (5 a day)"}},
		{"secret by another reference", "${PUSHER_SECRET}", "${CARE_API_SECRET}", []string{"accounts[care].apps[1234].secret: secret changed"}},
		{"value by reference", `listen: ":8080"`, `listen: "${PUSHER_SECRET}:1"`, []string{`listen: ":8080" -> ${PUSHER_SECRET}:1`}},
		{"store's password", "p%40ss@h", "lit3ral-s3cret@h", []string{"store: password or options changed"}},
		{"store", "p%40ss@h/0", "p%40ss@h2/0", []string{"store: redis://h/0 -> redis://h2/0"}},
		{"rate", "rate: 200/s, burst: 400", "rate: 100/s", []string{
			"accounts[care].apps[1234].callers[care-api].burst: 400 -> 0", "accounts[care].apps[1234].callers[care-api].rate: 200/s per caller burst 400 -> 100/s per caller burst 100"}},
		{"caller renamed", "name: care-api,", "name: care-web,", []string{
			"accounts[care].apps[1234].callers[care-api]: removed", "accounts[care].apps[1234].callers[care-web]: added"}},
		{"rule added", "      - match: { event: \"alarm.*\" }", "      - { name: new, match: { event: x } }\n      - match: { event: \"alarm.*\" }", []string{"accounts[care].rules[new]: added"}},
		{"whole mode", "contain: auto", "contain: auto\nmode: observe", []string{
			`accounts[care].apps[1234].callers[care-api].mode: "enforce" -> "observe"`,
			`accounts[care].rules[event=alarm.*].mode: "enforce" -> "observe"`,
			`accounts[care].rules[event=notification.* channel=private-user-*].mode: "enforce" -> "observe"`,
			`mode: "enforce" -> "observe"`}},
		{"pointer added", "contain: auto", "contain: auto\ntls: { cert: a, key: b }", []string{"tls: added"}},
	} {
		a := mustParse(t, base)
		b := mustParse(t, strings.Replace(base, k.old, k.new, 1))
		got := Diff(a, b)
		if !reflect.DeepEqual(got, k.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", k.name, got, k.want)
		}
		if Equal(a, b) != (len(got) == 0) {
			t.Errorf("%s: Equal is %v with %d differences", k.name, Equal(a, b), len(got))
		}
		if Equal(a, b) != Equal(b, a) || len(Diff(b, a)) != len(got) {
			t.Errorf("%s: not the same the other way round: %q", k.name, Diff(b, a))
		}
		mustHide(t, k.name, fmt.Sprint(got))
	}
}

func TestDiffSeesOrder(t *testing.T) {
	rules := func(a, b string) *Config {
		return mustParse(t, withRest("    rules:\n      - { name: "+a+", match: { event: "+a+" } }\n      - { name: "+b+", match: { event: "+b+" } }\n"))
	}
	if d := Diff(rules("x", "y"), rules("y", "x")); !reflect.DeepEqual(d, []string{"accounts[a].rules: order changed"}) {
		t.Errorf("rules swapped: %q", d)
	}
	apps := func(a, b string) *Config {
		app := func(id string) string { return "{ id: " + id + ", key: k" + id + ", secret: s, cluster: eu }" }
		return mustParse(t, "accounts: [ { name: a, plan: pro, apps: [ "+app(a)+", "+app(b)+" ] } ]")
	}
	if d := Diff(apps("1", "2"), apps("2", "1")); !reflect.DeepEqual(d, []string{"order of lists changed"}) {
		t.Errorf("apps swapped: %q", d)
	}
}

func TestEqualOfNothing(t *testing.T) {
	if !Equal(nil, nil) || Equal(nil, Default()) || Equal(Default(), nil) || !Equal(Default(), Default()) {
		t.Error("nil is equal to nil alone")
	}
}
