package config

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// asText is the file as UTF-8 with line feeds alone, so that lines are counted
// as an editor counts them; a mistake says why the file is no such text.
func asText(data []byte) (src string, at mark, f fault) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	zeros := bytes.Count(data[:min(len(data), 512)], []byte{0})
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) || zeros > 0 && zeros*3 >= min(len(data), 512) {
		return "", mark{1, 1}, fault{"the file is UTF-16", "save it as UTF-8"}
	}
	src = strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
	line, column := 1, 1
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRuneInString(src[i:])
		if r == utf8.RuneError && size == 1 {
			return "", mark{line, column}, fault{"the file is not UTF-8 from here on", "save it as UTF-8; it may be Latin-1 (Windows-1252)"}
		}
		if r == '\n' {
			line, column = line+1, 0
		}
		i, column = i+size, column+1
	}
	return src, mark{}, fault{}
}

// slip is a mistake of writing that a parser notices only further down.
type slip struct {
	at        mark
	msg, hint string
}

var (
	blockKey   = regexp.MustCompile(`^( *)(- +)?"?[A-Za-z_][A-Za-z0-9_.*-]*"?:( |$)`)
	closeColon = regexp.MustCompile(`^( *)(- +)?([a-z_]+):["'{\[0-9A-Za-z$]`)
	valueLine  = regexp.MustCompile(`^( *)((?:- +)*)[a-z_]+: +([^|>&!{\[#*\s].*)$`)
)

// findSlip looks for the cause of a syntax error in the lines up to the one at
// which the parser gave up: a quote or a bracket that is not closed where it was
// opened, a colon without its space, a value with further lines below it.
func findSlip(src string, line int) (slip, bool) {
	all := strings.Split(src, "\n")
	lines := all[:min(line, len(all))]
	var depth []mark // of brackets that are open
	under := 0       // indentation of the line that opened the first of them
	for n, l := range lines {
		here := len(l) - len(strings.TrimLeft(l, " "))
		if len(depth) > 0 && here <= under && blockKey.MatchString(l) {
			return slip{depth[0], "a bracket opens here and is not closed", "close it on its line, or indent the lines that belong to it"}, true
		}
		began := len(depth)
		quote, brackets := scanLine(l, n+1, depth)
		if quote > 0 {
			return slip{mark{n + 1, quote}, "a quote opens here and is not closed on its line", `close it; in a double-quoted text write \" for a quote`}, true
		}
		if depth = brackets; began == 0 {
			under = len(l) - len(strings.TrimLeft(l, " -"))
		}
		if m := closeColon.FindStringSubmatchIndex(l); m != nil && len(depth) == 0 && !strings.HasPrefix(l[m[7]:], "://") {
			return slip{mark{n + 1, m[7] + 1}, "this colon has no space behind it", "write key: value"}, true
		}
		if m := valueLine.FindStringSubmatch(l); m != nil && len(depth) == 0 {
			if next := nextLine(all, n); blockKey.MatchString(next) || strings.HasPrefix(strings.TrimLeft(next, " "), "- ") {
				if indent := len(next) - len(strings.TrimLeft(next, " ")); indent > here+len(m[2]) {
					return slip{mark{n + 1, here + 1}, "this key has a value and further lines below it", "keep one of them"}, true
				}
			}
		}
	}
	return slip{}, false
}

// nextLine is the next line that says something.
func nextLine(lines []string, n int) string {
	for _, l := range lines[n+1:] {
		if t := strings.TrimSpace(l); t != "" && t[0] != '#' {
			return l
		}
	}
	return ""
}

// scanLine reads one line's quotes and brackets. quote is the column of a quote
// that is open at its end, 0 if none is; open are the brackets that are.
func scanLine(l string, line int, open []mark) (quote int, _ []mark) {
	value, in, at := true, byte(0), 0
	for i := 0; i < len(l); i++ {
		c := l[i]
		switch {
		case in == '"' && c == '\\':
			i++
		case in == '\'' && c == '\'' && i+1 < len(l) && l[i+1] == '\'':
			i++
		case in != 0:
			if c == in {
				in, value = 0, false
			}
		case c == '#' && (i == 0 || l[i-1] == ' ' || l[i-1] == '\t'):
			i = len(l)
		case (c == '"' || c == '\'') && value:
			in, at = c, i
		case c == ' ' || c == '\t':
		case (c == '[' || c == '{') && (value || len(open) > 0):
			open = append(open[:len(open):len(open)], mark{line, utf8.RuneCountInString(l[:i]) + 1})
		case (c == ']' || c == '}') && len(open) > 0:
			open, value = open[:len(open)-1], false
		case c == ',':
			value = true
		case (c == ':' || c == '-') && (i+1 == len(l) || l[i+1] == ' '):
			value = true
		default:
			value = false
		}
	}
	if in != 0 {
		return utf8.RuneCountInString(l[:at]) + 1, open
	}
	return 0, open
}
