package config

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

var keyLine = regexp.MustCompile(`^(\s*(?:- )?)([a-z_]+)(:\s*)(.*?)(\s+#.*)?$`)

// mutations damage one line of the documented example each, as hands do.
func mutations(line string) map[string]string {
	m := keyLine.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	lead, key, colon, value := m[1], m[2], m[3], m[4]
	out := map[string]string{
		"letters of the key swapped":      lead + key[1:2] + key[:1] + key[2:] + colon + value,
		"a letter of the key missing":     lead + key[:len(key)-1] + colon + value,
		"a tab before the key":            "\t" + line,
		"the key twice":                   line + "\n" + strings.ReplaceAll(lead, "-", " ") + key + colon + value,
		"no space behind the colon":       lead + key + ":" + value,
		"a bracket that is not closed":    lead + key + colon + "[ " + value,
		"a second colon":                  lead + key + colon + "x: " + value,
		"a reference that does not exist": lead + key + colon + `"${NOT_THERE}"`,
	}
	if value == "" {
		out["a word in place of a block"] = lead + key + colon + "word"
		delete(out, "no space behind the colon")
		delete(out, "a bracket that is not closed")
		delete(out, "a second colon")
		delete(out, "the key twice") // a block without its lines
		delete(out, "a reference that does not exist")
	} else {
		out["a quote that is not closed"] = lead + key + colon + `"` + strings.Trim(value, `"`)
		out["no value"] = lead + key + ":"
		out["a list in place of one value"] = lead + key + colon + "[ { a: b } ]"
	}
	if key[1:2] == key[:1] {
		delete(out, "letters of the key swapped")
	}
	return out
}

// Damaged by hand a file is refused, or says a warning, at the line of the
// damage; under Windows' line ends too. What a mutation leaves right passes.
func TestMutationsAreCaughtAtTheirLine(t *testing.T) {
	t.Parallel()
	lines := strings.Split(docsExample(t), "\n")
	total, missed, wrong := 0, 0, 0
	for n, line := range lines {
		for name, mutated := range mutations(line) {
			if _, value, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(strings.TrimSpace(value), "#") && strings.Contains(name, "value") {
				continue
			}
			changed := append(append(append([]string{}, lines[:n]...), mutated), lines[n+1:]...)
			for _, end := range []string{"\n", "\r\n"} {
				total++
				cfg, err := parseFake(strings.Join(changed, end))
				var ps Problems
				if err == nil && len(cfg.Warnings) > 0 {
					ps = cfg.Warnings
				} else if !errors.As(err, &ps) {
					missed++
					t.Logf("line %d, %s: passes: %s", n+1, name, mutated)
					continue
				}
				at := ps[0].Line
				// The second of two keys stands a line below; a block's own mistake may be told at its first line.
				if at != n+1 && at != n+1+strings.Count(mutated, "\n") {
					wrong++
					t.Logf("line %d, %s: told of line %d: %s", n+1, name, at, ps[0].Message)
				}
			}
		}
	}
	t.Logf("%d mutations, %d passed, %d told of another line", total, missed, wrong)
	if total < 300 {
		t.Errorf("only %d mutations", total)
	}
	if missed*100 > total || wrong*100 > total {
		t.Errorf("of %d mutations %d passed and %d were told of another line; at most 1 in 100 each", total, missed, wrong)
	}
}
