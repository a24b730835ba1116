package config

import (
	"fmt"
	"sort"
	"strings"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// Problem is one mistake, or one warning, with its place and what to do.
type Problem struct {
	File    string // as given to Load; "environment" for FromEnv
	Line    int    // from 1; 0 when there is no file
	Column  int    // in characters, from 1
	Path    string // which setting, as accounts[0].apps[1].id; empty for the file itself
	Message string // what is wrong; never holds a secret or what a reference brought in
	Hint    string // what to do about it
	Excerpt string // the line and a caret below the place, with secrets masked; may be empty
	// OutOfReach says that the file is not to blame: what it refers to could not be had.
	OutOfReach bool
}

// Error is FILE:LINE:COL: message; hint.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString("; ")
		b.WriteString(p.Hint)
	}
	return b.String()
}

// Problems are all mistakes of one file, in its order.
type Problems []Problem

// Error is every problem with its excerpt, one after the other.
func (ps Problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.Error())
		if p.Excerpt != "" {
			b.WriteByte('\n')
			b.WriteString(p.Excerpt)
		}
	}
	return b.String()
}

// Unwrap makes each Problem visible to errors.As.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// maxProblems bounds what is told about one file.
const maxProblems = 100

// inFileOrder sorts by position, keeps the first maxProblems and draws their
// excerpts.
func inFileOrder(ps []Problem, x *excerpter) []Problem {
	for i := range ps {
		ps[i].Line, ps[i].Column = x.within(ps[i].Line, ps[i].Column)
	}
	sort.SliceStable(ps, func(i, j int) bool {
		if ps[i].Line != ps[j].Line {
			return ps[i].Line < ps[j].Line
		}
		return ps[i].Column < ps[j].Column
	})
	if len(ps) > maxProblems {
		last := ps[maxProblems]
		last.Message = fmt.Sprintf("and %d more mistakes from here on", len(ps)-maxProblems)
		last.Hint = "mend the ones above first"
		ps = append(ps[:maxProblems:maxProblems], last)
	}
	for i := range ps {
		ps[i].Excerpt = x.at(ps[i].Line, ps[i].Column)
	}
	return ps
}

// outOfReach is a fault of a reference's source, not of the file.
type outOfReach struct{ fault }

// fault is what is wrong with one value. msg never holds the value: whoever
// reports it knows whether that may be shown.
type fault struct{ msg, hint string }

func (f fault) Error() string { return f.msg }

// excerpter draws lines of the file. It is built from tokens and shows only
// what is known to be harmless: keys, punctuation, numbers, and the values of
// keys that hold no secret. Everything else, comments and values under
// misspelled keys above all, may be a secret and becomes ***.
type excerpter struct {
	src    string
	public map[string]bool
	lines  map[int][]*token.Token
	width  []int // characters of each line
}

// masked stands for what may not be shown; a line longer than maxLine is not
// drawn at all.
const (
	masked  = "***"
	maxLine = 500
)

// within moves a place into the file: the tokens of what is not there, such as
// a missing value, lie behind the end of their line.
func (x *excerpter) within(line, column int) (int, int) {
	if x.width == nil {
		lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(x.src), "\n")
		x.width = make([]int, len(lines))
		for i, l := range lines {
			x.width[i] = len([]rune(l))
		}
	}
	line = min(max(line, 1), len(x.width))
	return line, min(max(column, 1), x.width[line-1]+1)
}

func (x *excerpter) at(line, column int) string {
	if x.lines == nil {
		x.lines = map[int][]*token.Token{}
		for _, t := range lexer.Tokenize(x.src) {
			x.lines[t.Position.Line] = append(x.lines[t.Position.Line], t)
		}
	}
	tokens := x.lines[line]
	if len(tokens) == 0 || tokens[len(tokens)-1].Position.Column > maxLine {
		return ""
	}
	var b strings.Builder
	width, caret := 0, -1
	last := 0 // column behind the token before
	for _, t := range tokens {
		text := x.text(t)
		if text == "" {
			continue
		}
		col := max(t.Position.Column, 1)
		gap := col - 1
		if width > 0 {
			gap = min(max(col-last, 0), 1)
		}
		b.WriteString(strings.Repeat(" ", gap))
		width += gap
		if caret < 0 && col >= column {
			caret = width
		}
		b.WriteString(text)
		width += len([]rune(text))
		last = col + len([]rune(strings.TrimSpace(t.Origin)))
	}
	if width == 0 || width > maxLine {
		return ""
	}
	if caret < 0 {
		caret = width
	}
	return fmt.Sprintf("%5d | %s\n      | %s^", line, b.String(), strings.Repeat(" ", caret))
}

// text is what may be shown of a token.
func (x *excerpter) text(t *token.Token) string {
	switch t.Type {
	case token.CommentType:
		return ""
	case token.StringType, token.SingleQuoteType, token.DoubleQuoteType:
		if isKey(t) || x.harmless(t) {
			text, _, _ := strings.Cut(strings.TrimSpace(t.Origin), "\n")
			return printable(text)
		}
		return masked
	case token.IntegerType, token.FloatType, token.HexIntegerType, token.OctetIntegerType, token.BinaryIntegerType:
		// A short number under an unknown key is shown: it is a count, not a secret.
		if isKey(t) || x.harmless(t) || len(t.Value) <= 6 && !x.secret(t) {
			return printable(t.Value)
		}
		return masked
	case token.InvalidType, token.UnknownType, token.DirectiveType:
		return masked
	default:
		return printable(t.Value)
	}
}

// isKey says whether t is a mapping's key. What follows a colon on its line is
// a value even if a colon follows it too: so it is with a value that was
// indented wrongly or not quoted.
func isKey(t *token.Token) bool {
	value := t.Prev != nil && t.Prev.Type == token.MappingValueType && t.Prev.Position.Line == t.Position.Line
	return t.Next != nil && t.Next.Type == token.MappingValueType && !value
}

// keyOf is the nearest key before t.
func keyOf(t *token.Token) (string, bool) {
	for n := 0; t != nil && n < 10_000; n, t = n+1, t.Prev {
		if t.Type == token.MappingValueType && t.Prev != nil {
			return t.Prev.Value, true
		}
	}
	return "", false
}

func (x *excerpter) harmless(t *token.Token) bool {
	key, ok := keyOf(t)
	return ok && x.public[key] && showable(t.Value)
}

func (x *excerpter) secret(t *token.Token) bool {
	key, ok := keyOf(t)
	public, known := x.public[key]
	return !ok || known && !public
}

// showable says whether a value that is not a secret by its key may be shown:
// a URL with a user may have a password too.
func showable(v string) bool {
	return len(v) <= 200 && !(strings.Contains(v, "://") && strings.Contains(v, "@"))
}

// printable replaces what would disturb a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd || r >= 0x2028 && r <= 0x202e {
			return '?'
		}
		return r
	}, s)
}
