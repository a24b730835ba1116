package config

import (
	"fmt"
	"reflect"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	say "github.com/pushguard/pushguard/cmd/pushguard/words"
)

// durationForm is a duration as the file takes it, without spaces; the schema says the same.
var durationForm = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d|w))+$`)

// binder carries the YAML tree into the types. It does not stop at a mistake:
// it notes it and goes on, so that all are reported at once, which a decoder
// that returns one error cannot do.
type binder struct {
	file     string
	resolve  *resolver
	anchors  map[string]ast.Node
	marks    map[string]mark   // path → where it is set
	bad      map[string]bool   // path → its value could not be used; do not complain again
	refs     map[string]string // path → text as written, where it holds a reference
	problems []Problem
	budget   int  // nodes that may still be visited: aliases can multiply a small file
	nested   bool // inside the long form of a rate
	inserted []inserted
}

// mark is a place in the file.
type mark struct{ line, column int }

// nodeBinder reads a value that has more than one form.
type nodeBinder interface {
	bindNode(b *binder, path string, n ast.Node)
}

// textValue reads a scalar.
type textValue interface{ setText(text string) error }

// preset fills in defaults before the file speaks.
type preset interface{ preset() }

// words is a string that may only be one of a few.
type words interface{ words() []string }

// entry is one line of a mapping.
type entry struct {
	key   string
	at    *token.Token
	value ast.Node
}

const maxNodes = 200_000

func start(n ast.Node) *token.Token {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return v.Values[0].Key.GetToken()
		}
		return v.Start
	case *ast.MappingValueNode:
		return v.Key.GetToken()
	case *ast.LiteralNode:
		return v.Start
	}
	return n.GetToken()
}

func place(t *token.Token) mark {
	if t == nil || t.Position == nil {
		return mark{1, 1}
	}
	return mark{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

func (b *binder) fail(m mark, path, msg, hint string) {
	if len(b.problems) > 10*maxProblems {
		return
	}
	b.problems = append(b.problems, Problem{File: b.file, Line: m.line, Column: m.column, Path: path, Message: msg, Hint: hint})
}

// failAt says that the value at path is wrong; msg goes on after the path.
func (b *binder) failAt(path string, n ast.Node, msg, hint string) {
	b.bad[path] = true
	b.fail(place(start(n)), path, label(path)+" "+msg, hint)
}

func label(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func child(path, key string) string {
	if !isVariable(key) {
		key = strconv.Quote(clip(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// plain follows aliases and looks into anchors.
func (b *binder) plain(n ast.Node) ast.Node {
	for range 10 {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.AliasNode:
			target, ok := b.anchors[v.Value.GetToken().Value]
			if !ok {
				return v
			}
			n = target
		default:
			return n
		}
	}
	return n
}

func isMap(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

func isList(n ast.Node) bool {
	_, ok := n.(*ast.SequenceNode)
	return ok
}

// bindValue reads n into the variable that target points to.
func (b *binder) bindValue(path string, n ast.Node, target any) {
	b.budget--
	n = b.plain(n)
	if n == nil {
		return
	}
	if _, ok := b.marks[path]; !ok {
		b.marks[path] = place(start(n))
	}
	if b.budget < 0 {
		return // Parse says so once
	}
	switch t := target.(type) {
	case nodeBinder:
		if p, ok := target.(preset); ok {
			p.preset()
		}
		t.bindNode(b, path, n)
		return
	case textValue, *time.Duration, *string, *int, *int64, *bool, words:
		b.bindText(path, n, target)
		return
	}
	v := reflect.ValueOf(target).Elem()
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		if p, ok := v.Interface().(preset); ok {
			p.preset()
		}
		b.bindValue(path, n, v.Interface())
	case reflect.Slice:
		b.bindList(path, n, target)
	case reflect.Struct:
		b.bindStruct(path, n, target)
	default:
		panic("config: no way to read a " + v.Type().String())
	}
}

// bindList reads a sequence into the slice that target points to.
func (b *binder) bindList(path string, n ast.Node, target any) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		b.failAt(path, n, "must be a list", `begin each item with "- ", or write [a, b]`)
		return
	}
	v := reflect.ValueOf(target).Elem()
	v.Set(reflect.MakeSlice(v.Type(), 0, min(len(list.Values), 1024)))
	for i, item := range list.Values {
		if b.budget < 0 {
			return
		}
		one := reflect.New(v.Type().Elem())
		if p, ok := one.Interface().(preset); ok {
			p.preset()
		}
		b.bindValue(fmt.Sprintf("%s[%d]", path, i), item, one.Interface())
		v.Set(reflect.Append(v, one.Elem()))
	}
	if len(list.Values) == 0 {
		b.failAt(path, n, "is an empty list", "give it an item, or take the key out")
	}
}

// eachEntry visits a mapping's lines in order, merged ones (<<) last, each key
// once; a key that is there twice is a mistake.
func (b *binder) eachEntry(path string, n ast.Node, visit func(entry)) {
	if !isMap(n) {
		b.failAt(path, n, "must be a mapping", "write key: value lines below it, or { key: value }")
		return
	}
	seen := map[string]mark{}
	b.entries(path, n, 0, seen, visit)
}

func (b *binder) entries(path string, n ast.Node, depth int, seen map[string]mark, visit func(entry)) {
	var lines []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		lines = m.Values
	case *ast.MappingValueNode:
		lines = []*ast.MappingValueNode{m}
	}
	var merges []ast.Node
	for _, l := range lines {
		if b.budget--; b.budget < 0 {
			return
		}
		if l.Key.IsMergeKey() {
			merges = append(merges, l.Value)
			continue
		}
		key, at, ok := b.key(l.Key)
		if !ok {
			b.fail(place(at), path, "a key of "+label(path)+" is not a plain word", "write the key as a word")
			continue
		}
		if first, dup := seen[key]; dup {
			if depth == 0 {
				b.fail(place(at), child(path, key), fmt.Sprintf("key %q is there twice", clip(key)),
					fmt.Sprintf("it is also in line %d: keep one", first.line))
			}
			continue
		}
		seen[key] = place(at)
		visit(entry{key: key, at: at, value: l.Value})
	}
	for _, m := range merges {
		m = b.plain(m)
		each := []ast.Node{m}
		if list, ok := m.(*ast.SequenceNode); ok {
			each = list.Values
		}
		for _, one := range each {
			one = b.plain(one)
			if !isMap(one) || depth >= 8 {
				b.failAt(path, m, "merges (<<) what is no mapping", "write <<: *name, where name is the anchor of a mapping")
				continue
			}
			b.entries(path, one, depth+1, seen, visit)
		}
	}
}

func (b *binder) key(k ast.MapKeyNode) (string, *token.Token, bool) {
	at := k.GetToken()
	switch v := k.(type) {
	case *ast.StringNode:
		return v.Value, at, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return at.Value, at, true
	}
	return "", at, false
}

// bindStruct reads a mapping into the struct that target points to, by the
// yaml tags of its fields. Ranges and what is required come from the same
// jsonschema tags that make the schema.
func (b *binder) bindStruct(path string, n ast.Node, target any) {
	v := reflect.ValueOf(target).Elem()
	fields := fieldsOf(v.Type())
	given := map[string]bool{}
	b.eachEntry(path, n, func(e entry) {
		f, ok := fields[e.key]
		if !ok {
			known := keysOf(fields)
			b.fail(place(e.at), child(path, e.key), fmt.Sprintf("unknown key %q in %s", clip(e.key), label(path)),
				didYouMean(e.key, known, "known here: "+strings.Join(known, ", ")))
			if meant, ok := nearest(e.key, known); ok { // it is not missing: it is misspelled
				given[meant], b.bad[child(path, meant)] = true, true
			}
			return
		}
		given[e.key] = true
		p := child(path, e.key)
		b.bindValue(p, e.value, v.Field(f.index).Addr().Interface())
		b.inRange(p, e.value, v.Field(f.index), f)
	})
	if !isMap(n) {
		return
	}
	for _, key := range keysOf(fields) {
		if fields[key].required && !given[key] {
			b.bad[child(path, key)] = true
			b.fail(place(start(n)), child(path, key), child(path, key)+" is missing", "add "+key+": …")
		}
	}
}

func (b *binder) inRange(path string, n ast.Node, v reflect.Value, f field) {
	if !v.CanInt() || b.bad[path] || f.max == 0 {
		return
	}
	if i := v.Int(); i < f.min || i > f.max {
		b.failAt(path, b.plain(n), "is out of range", fmt.Sprintf("give %d to %d", f.min, f.max))
	}
}

type field struct {
	index    int
	required bool
	min, max int64 // max 0: no range
}

func fieldsOf(t reflect.Type) map[string]field {
	fields := map[string]field{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		f := field{index: i}
		for _, rule := range strings.Split(t.Field(i).Tag.Get("jsonschema"), ",") {
			k, val, _ := strings.Cut(rule, "=")
			switch k {
			case "required":
				f.required = true
			case "minimum":
				f.min, _ = strconv.ParseInt(val, 10, 64)
			case "maximum":
				f.max, _ = strconv.ParseInt(val, 10, 64)
			}
		}
		fields[name] = f
	}
	return fields
}

func keysOf(fields map[string]field) []string {
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return fields[keys[i]].index < fields[keys[j]].index })
	return keys
}

// bindText reads a scalar, references filled in, into what target points to.
func (b *binder) bindText(path string, n ast.Node, target any) {
	written, ok := b.scalar(path, n)
	if !ok {
		return
	}
	text, refs, err := b.resolve.expand(written)
	for _, said := range b.resolve.said {
		b.inserted = append(b.inserted, inserted{path, said})
	}
	b.resolve.said = nil
	if err != nil {
		away, isAway := err.(outOfReach)
		f := away.fault
		if !isAway {
			f = err.(fault)
		}
		before := len(b.problems)
		b.failAt(path, n, f.msg, f.hint)
		if len(b.problems) > before {
			b.problems[before].OutOfReach = isAway
		}
		return
	}
	if refs {
		b.refs[path] = written
	}
	switch err := setText(target, text).(type) {
	case nil:
	case fault:
		if refs {
			// The hint may speak of the value; the reference's must not show.
			b.failAt(path, n, shown(written, target)+err.msg, "check what the reference brings in; it is not shown here")
			return
		}
		b.failAt(path, n, shown(written, target)+err.msg, err.hint)
	}
}

// shown is the value as the file has it, quoted, unless it is a secret.
func shown(written string, target any) string {
	switch target.(type) {
	case *Secret, *Store:
		return ""
	}
	if !showable(written) || written == "" {
		return ""
	}
	return strconv.Quote(printable(written)) + " "
}

func (b *binder) scalar(path string, n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	case *ast.NullNode:
		b.failAt(path, n, "has no value", "give it one, or take the key out")
	case *ast.AliasNode:
		b.failAt(path, n, "is an alias without its anchor", "define it above as &name, or write the value itself")
	case *ast.TagNode:
		b.failAt(path, n, "has a tag", "write the value without !tags")
	default:
		b.failAt(path, n, "must be a single value", "write it on one line, without a list or further keys")
	}
	return "", false
}

func setText(target any, text string) error {
	switch t := target.(type) {
	case textValue:
		return t.setText(text)
	case *string:
		*t = text
		if text == "" {
			return fault{"is empty", "give it a value, or take the key out"}
		}
		if len(text) > 4096 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fault{"has control characters or is too long", "write one line of plain text"}
		}
	case *time.Duration:
		d, err := say.ParseSpan(text)
		if err != nil || !durationForm.MatchString(text) {
			return fault{"is not a duration", "write a number with its unit, like 500ms, 2s, 1m30s or 2d"}
		}
		*t = d
	case *bool:
		if text != "true" && text != "false" {
			return fault{"is neither true nor false", "write true or false"}
		}
		*t = text == "true"
	case *int:
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, strconv.IntSize)
		*t = int(n)
		return notWhole(err)
	case *int64:
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		*t = n
		return notWhole(err)
	case words:
		known := t.words()
		for _, w := range known {
			if text == w {
				reflect.ValueOf(target).Elem().SetString(text)
				return nil
			}
		}
		return fault{"is not known here", didYouMean(text, known, "write one of "+strings.Join(known, ", "))}
	}
	return nil
}

func notWhole(err error) error {
	if err != nil {
		return fault{"is not a whole number", "write digits only, like 1000000"}
	}
	return nil
}
