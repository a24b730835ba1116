package main

import (
	"os/exec"
	"strings"
	"testing"
)

// bash itself is asked what would follow.
func TestBashCompletes(t *testing.T) {
	code, script, errs := command(t, "completion", "bash")
	if code != 0 {
		t.Fatal(errs)
	}
	ask := func(words ...string) []string {
		t.Helper()
		sh := script + "\nCOMP_WORDS=(" + strings.Join(words, " ") + ")\nCOMP_CWORD=$((${#COMP_WORDS[@]}-1))\n_pushguard\necho \"${COMPREPLY[@]}\"\n"
		out, err := exec.Command("bash", "-c", sh).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Fields(string(out))
	}
	for _, c := range []struct {
		words, want, not string
	}{
		{"pushguard br", "brake", "status"},
		{"pushguard ''", "serve demo check status top incidents brake plan usage sim replay load completion man", "--help"},
		{"pushguard brake ''", "on off", "set"},
		{"pushguard brake on --al", "--allow", "--reason"},
		{"pushguard brake on --allow ''", "critical none", "on"},
		{"pushguard brake on --allow = n", "none", "critical"},
		{"pushguard brake on --allow =", "critical none", "--allow"},
		{"pushguard status --fail", "--fail-if", ""},
		{"pushguard completion ''", "bash zsh fish", ""},
		{"pushguard top --by c", "caller channel", "payload"},
		{"pushguard serve --record-", "--record-max --record-for", "--sink"},
		{"pushguard serve --listen ''", "", "--sink"},
	} {
		got := " " + strings.Join(ask(strings.Fields(c.words)...), " ") + " "
		for _, w := range strings.Fields(c.want) {
			if !strings.Contains(got, " "+w+" ") {
				t.Errorf("%s: %q has no %s", c.words, got, w)
			}
		}
		if c.not != "" && strings.Contains(got, " "+c.not+" ") {
			t.Errorf("%s: %q has %s", c.words, got, c.not)
		}
	}
}

// Every command and every flag is in the completions of the other shells and in
// the manual.
func TestNothingIsLeftOutOfCompletionsAndManual(t *testing.T) {
	for _, what := range [][]string{{"completion", "zsh"}, {"completion", "fish"}, {"man"}} {
		code, text, errs := command(t, what...)
		if code != 0 {
			t.Fatal(errs)
		}
		text = strings.ReplaceAll(text, `\-`, "-")
		for _, word := range []string{"serve", "demo", "check", "status", "top", "incidents", "brake", "plan", "usage", "sim", "replay", "load", "version", "fail-if", "dry-run", "record-max", "sink", "expect", "payload", "reuse-port"} {
			if !strings.Contains(text, word) {
				t.Errorf("%v has no %s", what, word)
			}
		}
	}
	if code, _, errs := command(t, "completion", "csh"); code != 2 || !strings.Contains(errs, "bash") {
		t.Errorf("csh: exit %d, %s", code, errs)
	}
}
