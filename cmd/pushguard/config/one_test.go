package config

import (
	"strings"
	"testing"
	"time"
)

func TestARuleByItself(t *testing.T) {
	for _, text := range []string{
		`{ match: { event: "notification.*" }, priority: bulk, dedupe: 2s }`,
		"match: { event: \"notification.*\" }\npriority: bulk\ndedupe: 2s",
		"- match: { event: \"notification.*\" }\n  priority: bulk\n  dedupe: 2s\n",
		"      - match:\r\n          event: \"notification.*\"\r\n        priority: bulk\r\n        dedupe: 2s",
	} {
		r, err := ParseRule(text)
		if err != nil || r.Priority != Bulk || r.Dedupe.Window != 2*time.Second || len(r.Match.Event) != 1 || r.Match.Event[0] != "notification.*" || r.Mode != Enforce {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
	for _, m := range []struct{ text, want string }{
		{"", "rule:1:1: the rule is empty"},
		{"match: { event: x }\npriority: hgih", `rule:2:11: priority "hgih" is not known here; write one of`},
		{"match: { event: x }\ndedup: 2s", `rule:2:1: unknown key "dedup"`},
		{"- match: { event: x }\n  rate: 5/s per chanel", `rule:2:9: rate "5/s per chanel"`},
		{"name: ${HOME}", "rule:1:1: the rule holds a reference"},
		{"a: 1\nname: \"${file:/etc/passwd}\"", "rule:2:1: the rule holds a reference"},
		{"match: [", "rule:1:"},
		{"priority: bulk\n- priority: bulk", "rule:"},
		{"priority: bulk\n---\naccounts: []", "rule:"},
		{"just words", "rule:1:1"},
		{strings.Repeat("#", 17<<10), "longer than 16 KiB"},
	} {
		if r, err := ParseRule(m.text); err == nil || !strings.Contains(err.Error(), m.want) {
			t.Errorf("%q: %+v, %v, want %q", m.text[:min(len(m.text), 80)], r, err, m.want)
		}
	}
}
