package config

import (
	"net/url"
	"regexp"
	"strings"
)

// inserted is a warning about what a reference brought in at path.
type inserted struct{ path, msg string }

// trim takes away what surrounds a value by accident: the line break that echo and editors leave, blanks, and quotes that
// were meant for a shell. No key, secret or address begins or ends with them.
func (r *resolver) trim(name, v string) (string, error) {
	t := strings.TrimSpace(v)
	if n := len(t); n >= 2 && (t[0] == '"' || t[0] == '\'') && t[n-1] == t[0] {
		t = strings.TrimSpace(t[1 : n-1])
	}
	ref := "${" + clip(name) + "}"
	if t == "" {
		return "", outOfReach{fault{"refers to " + ref + ", which holds nothing but blanks or quotes", "write the value into it"}}
	}
	if t != v {
		r.said = append(r.said, "refers to "+ref+", which has white space or quotes around its value, which are left out")
	}
	return t, nil
}

// references are those of a text, for counting places in it.
var references = regexp.MustCompile(`\$\{[^}]*\}`)

var escaped = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// inURL is value as it must stand in the URL that whole is, between from and to: a reference brings in a value, and what
// has a meaning in that part of a URL is percent-encoded. Elsewhere, and as the host, it stands as it is.
func (r *resolver) inURL(whole string, from, to int, value, name string) string {
	mask := references.ReplaceAllStringFunc(whole, func(s string) string { return strings.Repeat("x", len(s)) })
	scheme := strings.Index(mask, "://")
	if scheme < 0 || from < scheme+3 || strings.ContainsAny(mask[:scheme], " \t") {
		return value
	}
	start := scheme + 3
	end := len(mask)
	if i := strings.IndexAny(mask[start:], "/?#"); i >= 0 {
		end = start + i
	}
	user := start + strings.LastIndexByte(mask[start:end], '@')
	in := func(part string) string {
		if escaped.MatchString(value) {
			r.said = append(r.said, "inserts ${"+clip(name)+"} into the "+part+" of a URL as a value; it looks percent-encoded already, and would be encoded twice")
		}
		return strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
	}
	switch {
	case user > start && to <= user:
		if name, password, both := strings.Cut(value, ":"); both && from == start && to == user {
			esc := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
			return esc(name) + ":" + esc(password)
		}
		return in("user or password")
	case to <= end:
		return value
	}
	if q := strings.IndexByte(mask[end:], '?'); q >= 0 && from > end+q {
		return in("query")
	}
	return strings.ReplaceAll(in("path"), "%2F", "/")
}
