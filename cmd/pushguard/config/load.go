package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile bounds the file, maxDepth its nesting: the parser recurses.
const (
	maxFile  = 1 << 20
	maxDepth = 100
)

// Load reads and checks the file at path. getenv answers ${NAME}, as os.Getenv
// does. The error is Problems, all of them, in file order; the Config is nil then.
func Load(path string, getenv func(string) string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, getenv)
}

// Parse is Load of data that was read already; name is only shown, and relative
// ${file:…} paths start in its directory.
func Parse(name string, data []byte, getenv func(string) string) (*Config, error) {
	return parse(name, data, newResolver(getenv, filepath.Dir(name)))
}

func parse(name string, data []byte, r *resolver) (*Config, error) {
	cfg, err := parseAll(name, data, r)
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// parseAll is parse that also returns, beside an error, what could be read of
// the file; nil when that is nothing.
func parseAll(name string, data []byte, r *resolver) (*Config, error) {
	one := func(m mark, msg, hint string) error {
		return Problems{{File: name, Line: m.line, Column: m.column, Message: msg, Hint: hint}}
	}
	if len(data) > maxFile {
		return nil, one(mark{1, 1}, "the file is longer than 1 MiB", "that is no pushguard file; check the path")
	}
	src, at, f := asText(data)
	if f.msg != "" {
		return nil, one(at, f.msg, f.hint)
	}
	x := &excerpter{src: src, public: publicKeys()}
	b := &binder{file: name, resolve: r, anchors: map[string]ast.Node{}, marks: map[string]mark{}, bad: map[string]bool{}, refs: map[string]string{}, budget: maxNodes}
	root, err := b.tree(src)
	if err != nil {
		return nil, Problems(inFileOrder(b.problems, x))
	}
	cfg := Default()
	if root == nil {
		return nil, one(mark{1, 1}, "the file is empty", "write at least accounts:, with a plan and an app")
	}
	b.bindStruct("", b.plain(root), cfg)
	if b.budget < 0 {
		return nil, one(mark{1, 1}, "the file means more than 200000 values", "look for aliases that multiply")
	}
	c := &checker{cfg: cfg, file: name, marks: b.marks, bad: b.bad, refs: b.refs}
	for _, i := range b.inserted {
		c.warn(i.path, i.msg, "store the plain value, without anything around it")
	}
	c.all()
	if problems := append(b.problems, c.problems...); len(problems) > 0 {
		return cfg, Problems(inFileOrder(problems, x))
	}
	cfg.Warnings, cfg.refs, cfg.FromLastGood = inFileOrder(c.warnings, x), b.refs, r.kept
	cfg.inherit()
	return cfg, nil
}

var errSyntax = errors.New("syntax")

// tree parses src into its one document's body; a mistake is in b.problems.
func (b *binder) tree(src string) (root ast.Node, err error) {
	defer func() {
		// The parser is somebody else's and gets whatever a person typed: should
		// it panic, that is a refused file and no crash of a running guard.
		if recover() != nil {
			b.fail(mark{1, 1}, "", "the file is not YAML that can be read", "check it with a YAML linter")
			root, err = nil, errSyntax
		}
	}()
	tokens := lexer.Tokenize(src)
	if t := tooDeep(tokens); t != nil {
		b.fail(place(t), "", "the file is nested too deeply", "nothing here needs more than ten levels")
		return nil, errSyntax
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var se *yaml.SyntaxError
		m, msg := mark{1, 1}, "not valid YAML"
		if errors.As(err, &se) {
			m, msg = place(se.Token), "not valid YAML: "+printable(se.Message)
		}
		if l, c := tabIndent(src, m.line); l > 0 {
			b.fail(mark{l, c}, "", "not valid YAML: a tab indents this line", "YAML wants spaces: replace it with as many as the lines around it have")
			return nil, errSyntax
		}
		if s, ok := findSlip(src, m.line); ok {
			b.fail(s.at, "", "not valid YAML: "+s.msg, s.hint)
			return nil, errSyntax
		}
		hint := "check indentation, quotes and brackets here and in the line above"
		if lines := strings.Split(src, "\n"); m.line <= len(lines) && strings.Contains(lines[m.line-1], "${") {
			hint += `; inside { } and [ ] a reference needs quotes, as "${NAME}"`
		}
		b.fail(m, "", msg, hint)
		return nil, errSyntax
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if root != nil {
			b.fail(place(start(doc.Body)), "", "a second YAML document begins here", "one file, one document: take out the --- before it")
			return nil, errSyntax
		}
		root = doc.Body
	}
	if root != nil {
		ast.Walk(anchorWalk{b.anchors}, root)
	}
	return root, nil
}

// tabIndent finds a tab in the indentation of line or the one above it; 0 if there is none.
func tabIndent(src string, line int) (l, column int) {
	lines := strings.Split(src, "\n")
	for l := line; l >= max(line-1, 1); l-- {
		if l > len(lines) {
			continue
		}
		rest := strings.TrimLeft(lines[l-1], " ")
		if strings.HasPrefix(rest, "\t") && strings.TrimSpace(rest) != "" {
			return l, len(lines[l-1]) - len(rest) + 1
		}
	}
	return 0, 0
}

type anchorWalk struct{ found map[string]ast.Node }

func (w anchorWalk) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		w.found[a.Name.GetToken().Value] = a.Value
	}
	return w
}

// tooDeep finds the token at which brackets, or markers on one line, nest
// deeper than the parser should be asked to recurse.
func tooDeep(tokens token.Tokens) *token.Token {
	brackets, markers, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, markers = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			markers++
		case token.MappingValueType:
			if brackets == 0 {
				markers++
			}
		}
		if brackets > maxDepth || markers > maxDepth && brackets == 0 {
			return t
		}
	}
	return nil
}

// publicKeys are the file's keys, each with whether its value may be shown: it
// is one value, or a list of them, and no secret. What stands where further
// keys should may be anything.
func publicKeys() map[string]bool {
	keys := map[string]bool{}
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] {
			return
		}
		seen[t] = true
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "" || name == "-" {
				continue
			}
			public := isPublic(f.Type)
			if was, ok := keys[name]; ok {
				public = public && was
			}
			keys[name] = public
			visit(f.Type)
		}
	}
	for _, t := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[CustomPlan](), reflect.TypeFor[RateAndBurst](), reflect.TypeFor[Fold]()} {
		visit(t)
	}
	return keys
}

func isPublic(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[Secret](), reflect.TypeFor[Secrets](), reflect.TypeFor[Store]():
		return false
	case reflect.TypeFor[Globs](), reflect.TypeFor[Rates](), reflect.TypeFor[Quotas](), reflect.TypeFor[Quota](), reflect.TypeFor[*Rate](), reflect.TypeFor[Rate](), reflect.TypeFor[Dedupe](), reflect.TypeFor[Conflate]():
		return true
	}
	return isLeaf(t)
}

// inherit fills in what is decided further out, so that a reader of the Config
// need not look there.
func (c *Config) inherit() {
	for i := range c.Accounts {
		a := &c.Accounts[i]
		names := map[string]int{}
		for j := range a.Rules {
			r := &a.Rules[j]
			r.Mode = c.effective(r.Mode)
			if r.Name == "" {
				r.Name = r.Match.String()
			}
			if names[r.Name]++; names[r.Name] > 1 {
				r.Name = fmt.Sprintf("%s #%d", r.Name, names[r.Name])
			}
			if r.Burst > 0 {
				for k := range r.Rate {
					r.Rate[k].Burst = r.Burst
				}
			}
		}
		for j := range a.Apps {
			app := &a.Apps[j]
			if app.Rate != nil && app.Burst > 0 {
				app.Rate.Burst = app.Burst
			}
			for k := range app.Callers {
				caller := &app.Callers[k]
				caller.Mode = c.effective(caller.Mode)
				if caller.Rate != nil && caller.Burst > 0 {
					caller.Rate.Burst = caller.Burst
				}
			}
		}
	}
}

// effective is the mode of a rule or caller that says m. Observing wins: who
// sets it for the whole file wants nothing to change.
func (c *Config) effective(m Mode) Mode {
	if c.Mode == Observe || m == "" {
		return c.Mode
	}
	return m
}

// String names what is matched, as in "event=alarm.* channel=a,b".
func (m Match) String() string {
	var parts []string
	for _, p := range []struct {
		name  string
		globs Globs
	}{{"event", m.Event}, {"channel", m.Channel}, {"caller", m.Caller}} {
		if len(p.globs) > 0 {
			globs := append([]string(nil), p.globs...)
			sort.Strings(globs)
			parts = append(parts, p.name+"="+strings.Join(globs, ","))
		}
	}
	if m.Kind != "" && m.Kind != KindPublish {
		parts = append(parts, "kind="+string(m.Kind))
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, " ")
}
