package limiter

import (
	"regexp"
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct{ pattern, yes, no string }{
		{"*", "|a|private-user-1", ""},
		{"**", "|a", ""},
		{"alarm", "alarm", "|alarms|alar|Alarm"},
		{"alarm.*", "alarm.|alarm.fire", "alarm|larm.fire"},
		{"*.report", ".report|day.report", "report|day.reports"},
		{"private-*-cache", "private--cache|private-a-b-cache", "private-cache|private-a-cach"},
		{"*user*", "user|private-user-1", "private-use-r"},
		{"user-?", "user-1|user-ä", "user-|user-12"},
		{"?", "x|ä|\xff", "|xy"},
		{"a*b*c", "abc|axxbyyc|abcbc", "ab|acb|abcd"},
		{"a?*c", "abc|abbc|aäc", "ac|ab"},
		{"a*?c", "abc|abbc", "ac"},
		{"*a*b", "ab|xaxb|aab", "ba|abx"},
		{"ab*ba", "abba|ab-ba", "aba"}, // prefix and suffix must not share a byte
		{"[a]", "[a]", "a"},
		{"ä*", "ä|äö", "a"},
		{"", "", "a"},
	} {
		g := compileGlob(c.pattern)
		for _, s := range strings.Split(c.yes, "|") {
			if !g.match(s) {
				t.Errorf("%q does not match %q", c.pattern, s)
			}
		}
		if c.no == "" {
			continue
		}
		for _, s := range strings.Split(c.no, "|") {
			if g.match(s) {
				t.Errorf("%q matches %q", c.pattern, s)
			}
		}
	}
}

// A pattern with many stars must not take exponential time.
func TestGlobIsNotExponential(t *testing.T) {
	g := compileGlob(strings.Repeat("*a", 60) + "b")
	if g.match(strings.Repeat("a", 5000)) {
		t.Fatal("matches")
	}
}

// FuzzGlob compares with a regular expression of the same meaning.
func FuzzGlob(f *testing.F) {
	for _, c := range [][2]string{
		{"alarm.*", "alarm.fire"}, {"*a?b*c", "xxaybzc"}, {"a*a", "a"}, {"*ä?", "öäü"}, {"?*?", "ab"}, {"**", ""}, {"a.c", "abc"}, {"*ab*ab", "abab"},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		// What is not UTF-8 is for the table above: regexp reads such patterns another way.
		pattern, s = strings.ToValidUTF8(pattern, "x"), strings.ToValidUTF8(s, "y")
		var re strings.Builder
		re.WriteString(`(?s)\A`)
		for _, r := range pattern {
			switch r {
			case '*':
				re.WriteString(".*")
			case '?':
				re.WriteString(".")
			default:
				re.WriteString(regexp.QuoteMeta(string(r)))
			}
		}
		re.WriteString(`\z`)
		want := regexp.MustCompile(re.String()).MatchString(s)
		g := compileGlob(pattern)
		if got := g.match(s); got != want {
			t.Fatalf("%q on %q: %v, want %v", pattern, s, got, want)
		}
	})
}
