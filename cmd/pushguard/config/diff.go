package config

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	say "github.com/pushguard/pushguard/cmd/pushguard/words"
)

// String says how much is in c, and none of its values.
func (c *Config) String() string {
	apps, callers, rules := 0, 0, 0
	for _, a := range c.Accounts {
		apps, rules = apps+len(a.Apps), rules+len(a.Rules)
		for _, app := range a.Apps {
			callers += len(app.Callers)
		}
	}
	return fmt.Sprintf("config of %d accounts, %d apps, %d callers, %d rules", len(c.Accounts), apps, callers, rules)
}

// GoString is String.
func (c *Config) GoString() string { return c.String() }

// Equal says whether two Configs mean the same, secrets included. Warnings,
// and whether a value stood in the file or came by reference, do not count.
func Equal(a, b *Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Warnings, y.Warnings, x.refs, y.refs = nil, nil, nil, nil
	x.FromLastGood, y.FromLastGood = nil, nil
	return reflect.DeepEqual(x, y)
}

// Diff tells in sorted lines what a reload changes, for the log: empty if and
// only if the two are Equal. Accounts, apps, callers and rules are told apart
// by name, so that one that moved is no change of what it says. Secrets are
// only said to have changed, and so is what came by reference.
func Diff(old, new *Config) []string {
	d := &differ{old: old.refs, new: new.refs}
	d.walk(place2{"", "", ""}, reflect.ValueOf(*old), reflect.ValueOf(*new))
	sort.Strings(d.lines)
	if len(d.lines) == 0 && !Equal(old, new) {
		d.lines = append(d.lines, "order of lists changed")
	}
	return d.lines
}

type differ struct {
	old, new map[string]string
	lines    []string
}

// place2 is a setting in both: as shown, and as path in each.
type place2 struct{ shown, old, new string }

func (p place2) child(key string) place2 {
	return place2{child(p.shown, key), child(p.old, key), child(p.new, key)}
}

func (d *differ) line(p place2, format string, args ...any) {
	d.lines = append(d.lines, p.shown+": "+fmt.Sprintf(format, args...))
}

func (d *differ) walk(p place2, a, b reflect.Value) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return
	}
	t := a.Type()
	switch {
	case t == reflect.TypeFor[Secret]() || t == reflect.TypeFor[Secrets]():
		d.line(p, "secret changed")
	case t == reflect.TypeFor[Store]() && a.Interface().(Store).String() == b.Interface().(Store).String():
		d.line(p, "password or options changed")
	case t == reflect.TypeFor[Globs]() || t == reflect.TypeFor[Rates]() || t == reflect.TypeFor[Quotas]() || t.Kind() == reflect.Pointer && t.Elem() == reflect.TypeFor[Rate]() || isLeaf(t):
		d.line(p, "%s -> %s", d.show(d.old, p.old, a), d.show(d.new, p.new, b))
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			if name != "" && name != "-" {
				d.walk(p.child(name), a.Field(i), b.Field(i))
			}
		}
	case t.Kind() == reflect.Slice:
		d.list(p, a, b)
	case t.Kind() == reflect.Pointer:
		switch {
		case a.IsNil():
			d.line(p, "added")
		case b.IsNil():
			d.line(p, "removed")
		default:
			d.walk(p, a.Elem(), b.Elem())
		}
	}
}

func isLeaf(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[Store](), reflect.TypeFor[Plan](), reflect.TypeFor[LastGood](), reflect.TypeFor[Subscribers]():
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Pointer
}

// show is a value for the log; what a reference brought in is shown as the
// reference.
func (d *differ) show(refs map[string]string, path string, v reflect.Value) string {
	for at, raw := range refs {
		if at == path {
			return raw
		}
		if rest, ok := strings.CutPrefix(at, path); ok && (rest[0] == '.' || rest[0] == '[') {
			return "(by reference)"
		}
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return say.Setting(x)
	case Store:
		return x.String()
	case Percent:
		return x.String()
	case *Rate:
		if x == nil {
			return "none"
		}
		return fmt.Sprintf("%s burst %d", x, x.Burst)
	case Rates:
		parts := make([]string, len(x))
		for i, r := range x {
			parts[i] = fmt.Sprintf("%s burst %d", r, r.Burst)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case Quotas:
		return fmt.Sprint(x)
	case Plan:
		return fmt.Sprintf("%s (%d a day)", x.Name, x.MessagesPerDay)
	case Globs:
		return fmt.Sprintf("%q", []string(x))
	}
	if v.Kind() == reflect.String {
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}

// list compares by name; items that have none are compared by their place.
func (d *differ) list(p place2, a, b reflect.Value) {
	old, new := d.index(d.old, p.old, a), d.index(d.new, p.new, b)
	for key, i := range old {
		q := place2{fmt.Sprintf("%s[%s]", p.shown, key), fmt.Sprintf("%s[%d]", p.old, i), ""}
		j, ok := new[key]
		if !ok {
			d.line(q, "removed")
			continue
		}
		q.new = fmt.Sprintf("%s[%d]", p.new, j)
		d.walk(q, a.Index(i), b.Index(j))
	}
	for key := range new {
		if _, ok := old[key]; !ok {
			d.line(place2{shown: fmt.Sprintf("%s[%s]", p.shown, key)}, "added")
		}
	}
	if a.Len() == b.Len() && a.Type() == reflect.TypeFor[[]Rule]() {
		for i := range a.Len() {
			if a.Index(i).Interface().(Rule).Name != b.Index(i).Interface().(Rule).Name {
				d.line(p, "order changed")
				return
			}
		}
	}
}

func (d *differ) index(refs map[string]string, path string, list reflect.Value) map[string]int {
	keys := make(map[string]int, list.Len())
	for i := range list.Len() {
		field, key := "", ""
		switch x := list.Index(i).Interface().(type) {
		case Account:
			field, key = "name", x.Name
		case App:
			field, key = "id", x.ID
		case Caller:
			field, key = "name", x.Name
		case Rule:
			field, key = "name", x.Name
		default:
			key = fmt.Sprint(i)
		}
		if raw, ok := refs[fmt.Sprintf("%s[%d].%s", path, i, field)]; ok {
			key = raw
		}
		if _, dup := keys[key]; dup {
			key = fmt.Sprintf("%s #%d", key, i)
		}
		keys[key] = i
	}
	return keys
}
