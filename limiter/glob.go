package limiter

import (
	"strings"
	"unicode/utf8"
)

// glob is one compiled pattern: `*` stands for any run of characters, also an empty one, `?` for
// exactly one character. There is no escape. Most patterns that people write are a literal, a
// prefix or a suffix, so those are decided by comparing strings.
type glob struct {
	kind   globKind
	prefix string // literal before the first wildcard; the whole of a literal
	suffix string // literal after the last wildcard, or the middle of *middle*
	rest   string // for globAny: the pattern after prefix and before suffix, wildcards included
	min    int    // bytes that a match has at least
}

type globKind uint8

const (
	globAll      globKind = iota // *
	globLiteral                  // abc
	globAffix                    // abc*, *abc, abc*def
	globContains                 // *abc*
	globAny                      // everything else
)

func compileGlob(p string) glob {
	for strings.Contains(p, "**") {
		p = strings.ReplaceAll(p, "**", "*")
	}
	first := strings.IndexAny(p, "*?")
	switch {
	case p == "*":
		return glob{kind: globAll}
	case first < 0:
		return glob{kind: globLiteral, prefix: p, min: len(p)}
	}
	last := strings.LastIndexAny(p, "*?")
	g := glob{kind: globAny, prefix: p[:first], suffix: p[last+1:], rest: p[first : last+1]}
	switch {
	case g.rest == "*":
		g.kind = globAffix
	case g.prefix == "" && g.suffix == "" && len(g.rest) > 2 && g.rest[0] == '*' && g.rest[len(g.rest)-1] == '*' &&
		!strings.ContainsAny(g.rest[1:len(g.rest)-1], "*?"):
		return glob{kind: globContains, suffix: g.rest[1 : len(g.rest)-1], min: len(g.rest) - 2}
	}
	g.min = len(p) - strings.Count(p, "*")
	return g
}

func (g *glob) match(s string) bool {
	if len(s) < g.min {
		return false
	}
	switch g.kind {
	case globAll:
		return true
	case globLiteral:
		return s == g.prefix
	case globAffix:
		return s[:len(g.prefix)] == g.prefix && s[len(s)-len(g.suffix):] == g.suffix
	case globContains:
		return strings.Contains(s, g.suffix)
	}
	if !strings.HasPrefix(s, g.prefix) || !strings.HasSuffix(s, g.suffix) {
		return false
	}
	return matchWild(g.rest, s[len(g.prefix):len(s)-len(g.suffix)])
}

// matchWild matches with one step of backtracking, to the last `*` only: O(len(p)·len(s)) at
// worst, never exponential.
func matchWild(p, s string) bool {
	var i, j int
	star, mark := -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
			continue
		case i < len(p) && p[i] == '?':
			i++
			j += width(s[j:])
			continue
		case i < len(p) && p[i] == s[j]:
			i++
			j++
			continue
		case star < 0:
			return false
		}
		mark += width(s[mark:])
		i, j = star+1, mark
	}
	return i == len(p) || p[i:] == "*"
}

// width is the length in bytes of the first character of s; a byte that is not UTF-8 is one.
func width(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(s)
	return n
}
