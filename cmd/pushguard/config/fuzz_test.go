package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Whatever is in the file: no panic, either a Config that loads the same twice
// or problems that each point into the file, say something, and show nothing
// that a reference brought in.
func FuzzParse(f *testing.F) {
	f.Add(published)
	if text, err := os.ReadFile("../../../docs/pushguard.example.yaml"); err == nil {
		f.Add(string(text))
	}
	for _, m := range mistakes {
		f.Add(strings.Replace(published, m.old, m.new, 1))
	}
	for _, s := range []string{"", "\ufeffa: 1", "a: &a {<<: *a}", "? [a]\n: b", "- - -", "a:\n\t- b", "\x00", "a: |\n  b\n c", "%YAML 1.2\n---\na: 1\n...\n", "a: \"\\x41\\u263a\"", withRest("x: 1")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 {
			return
		}
		c, err := parseFake(text)
		if err == nil {
			again, err := parseFake(text)
			if err != nil || !Equal(c, again) || len(Diff(c, again)) != 0 {
				t.Fatalf("loads otherwise the second time: %v", err)
			}
			return
		}
		var ps Problems
		if c != nil || !errors.As(err, &ps) || len(ps) == 0 {
			t.Fatalf("refused with a config or without a problem: %v", err)
		}
		lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
		for _, p := range ps {
			if p.Line < 1 || p.Line > len(lines) || p.Column < 1 {
				t.Fatalf("%v points out of the file's %d lines", p, len(lines))
			}
			if width := len([]rune(lines[p.Line-1])); p.Column > width+1 {
				t.Fatalf("%v points behind its line of %d characters: %q", p, width, lines[p.Line-1])
			}
			if p.Message == "" {
				t.Fatal("a problem without words")
			}
		}
		for name, v := range hidden {
			if strings.Contains(err.Error(), v) && !strings.Contains(text, v) {
				t.Fatalf("the value of %s shows: %v", name, err)
			}
		}
	})
}
