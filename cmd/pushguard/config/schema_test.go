package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/pushguard/pushguard/quota"
)

var update = flag.Bool("update", false, "write schema.json, docs/pushguard.schema.json and docs/configuration.md anew")

const (
	publishedSchema = "../../../docs/pushguard.schema.json"
	reference       = `\$\{`
	duration        = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d|w))+$|` + reference
)

func text(pattern string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: pattern}
}

func whole(minimum string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "integer", Minimum: json.Number(minimum)}
}

func anyOf(s ...*jsonschema.Schema) *jsonschema.Schema { return &jsonschema.Schema{AnyOf: s} }

func oneOrMore(s *jsonschema.Schema) *jsonschema.Schema {
	one := uint64(1)
	return anyOf(s, &jsonschema.Schema{Type: "array", Items: s, MinItems: &one})
}

func ref(name string) *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/" + name} }

// schemaOf is the schema of one of the file's types; plain are types that are
// taken as the structs that they are.
func schemaOf(t reflect.Type) *jsonschema.Schema {
	one := uint64(1)
	short := &jsonschema.Schema{Type: "string", MinLength: &one}
	rate := anyOf(text(`^[0-9]+(\.[0-9]+)?/([0-9]+)?(s|sec|second|m|min|minute|h|hour|d|day)( +per +(app|caller|event|channel))?$|`+reference), ref("RateAndBurst"))
	day := text(`^[0-9][0-9_]* *(messages|publishes)? */ *(d|day)( +(messages|publishes))?( +per +(app|caller|event|channel)( +[^ ].*)?)?$|` + reference)
	secret := anyOf(short, whole("0"))
	switch t {
	case reflect.TypeFor[Secret]():
		return secret
	case reflect.TypeFor[Secrets]():
		return oneOrMore(secret)
	case reflect.TypeFor[Globs]():
		return oneOrMore(short)
	case reflect.TypeFor[Rate]():
		return rate
	case reflect.TypeFor[Rates]():
		return oneOrMore(rate)
	case reflect.TypeFor[Quota]():
		return day
	case reflect.TypeFor[Quotas]():
		return oneOrMore(day)
	case reflect.TypeFor[time.Duration]():
		return text(duration)
	case reflect.TypeFor[Dedupe]():
		return anyOf(text(duration), ref("Dedupe"))
	case reflect.TypeFor[Conflate]():
		return anyOf(text(duration), ref("Conflate"))
	case reflect.TypeFor[Fold]():
		return anyOf(&jsonschema.Schema{Type: "boolean"}, text(reference), ref("Fold"))
	case reflect.TypeFor[Percent]():
		return text(`^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?) ?%$|` + reference)
	case reflect.TypeFor[Bytes]():
		return anyOf(whole("1024"), text(`^[0-9]+ ?([KMG]iB|kB|MB|GB|B)?$|`+reference))
	case reflect.TypeFor[Store]():
		return text(`^embedded$|^(redis|rediss|redis\+sentinel|redis\+cluster)://.|` + reference)
	case reflect.TypeFor[Plan]():
		var names []any
		for _, n := range quota.PlanNames() {
			names = append(names, n)
		}
		return anyOf(&jsonschema.Schema{Enum: names}, ref("CustomPlan"), text(reference))
	case reflect.TypeFor[LastGood]():
		return anyOf(&jsonschema.Schema{Type: "boolean"}, short)
	case reflect.TypeFor[Subscribers]():
		return &jsonschema.Schema{Type: "object", AdditionalProperties: anyOf(whole("0"), text(reference))}
	}
	if w, ok := reflect.Zero(t).Interface().(words); ok {
		var known []any
		for _, s := range w.words() {
			known = append(known, s)
			var number any // 403 and 1.2 are numbers when nobody quotes them
			if json.Unmarshal([]byte(s), &number) == nil {
				known = append(known, number)
			}
		}
		return anyOf(&jsonschema.Schema{Enum: known}, text(reference))
	}
	return nil
}

func makeSchema(t *testing.T) []byte {
	t.Helper()
	reflector := func(plain ...reflect.Type) *jsonschema.Reflector {
		r := &jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, BaseSchemaID: "https://pushguard.github.io"}
		r.Mapper = func(t reflect.Type) *jsonschema.Schema {
			if slices.Contains(plain, t) {
				return nil
			}
			s := schemaOf(t)
			if t == reflect.TypeFor[Rate]() && len(plain) > 0 {
				s = s.AnyOf[0] // the long form of a rate has the short one in it
			}
			return s
		}
		if err := r.AddGoComments("github.com/pushguard/pushguard/cmd/pushguard/config", ".", jsonschema.WithFullComment()); err != nil {
			t.Fatal(err)
		}
		return r
	}
	s := reflector().Reflect(&Config{})
	for _, extra := range []any{&CustomPlan{}, &RateAndBurst{}, &Dedupe{}, &Conflate{}, &Fold{}} {
		for name, def := range reflector(reflect.TypeOf(extra).Elem()).Reflect(extra).Definitions {
			s.Definitions[name] = def
		}
	}
	defaults := map[string]any{"Config": *Default(), "Admin": Default().Admin, "Breaker": Default().Breaker, "Log": Default().Log,
		"Account": DefaultAccount(), "Billing": DefaultAccount().Billing, "App": DefaultApp(), "Limits": DefaultApp().Limits,
		"UpstreamBreaker": DefaultApp().UpstreamBreaker, "Rule": DefaultRule(), "Dedupe": DefaultDedupe(), "Digest": DefaultDigest(), "Fold": DefaultFold(), "Learn": DefaultLearn(), "TLS": DefaultTLS(), "Tracing": DefaultTracing()}
	for name, def := range s.Definitions {
		finish(def, defaults[name])
	}
	s.ID = SchemaURL
	s.Title = "pushguard's configuration"
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

// finish gives each property its default, lets numbers and switches come by
// reference, and asks for one item in lists and one character in texts.
func finish(def *jsonschema.Schema, defaults any) {
	values := map[string]any{}
	if defaults != nil {
		v := reflect.ValueOf(defaults)
		for name, f := range fieldsOf(v.Type()) {
			if field := v.Field(f.index); !field.IsZero() {
				switch x := field.Interface().(type) {
				case time.Duration:
					values[name] = x.String()
				case Percent, Store:
					values[name] = x.(interface{ String() string }).String()
				default:
					if isLeaf(field.Type()) && field.Type() != reflect.TypeFor[Subscribers]() {
						values[name] = x
					}
				}
			}
		}
	}
	one := uint64(1)
	for p := def.Properties.Oldest(); p != nil; p = p.Next() {
		s := p.Value
		switch s.Type {
		case "integer", "boolean":
			s.AnyOf = []*jsonschema.Schema{{Type: s.Type, Minimum: s.Minimum, Maximum: s.Maximum}, text(reference)}
			s.Type, s.Minimum, s.Maximum = "", "", ""
		case "string":
			if s.Pattern == "" {
				s.MinLength = &one
				if p.Key == "id" || p.Key == "key" || p.Key == "name" {
					s.AnyOf = []*jsonschema.Schema{{Type: "string", MinLength: &one}, whole("0")}
					s.Type, s.MinLength = "", nil
				}
			}
		case "array":
			s.MinItems = &one
		}
		s.Description = strings.Join(strings.Fields(s.Description), " ")
		if v, ok := values[p.Key]; ok {
			s.Default = v
		}
	}
}

func TestSchemaIsCurrent(t *testing.T) {
	made := makeSchema(t)
	for _, path := range []string{"schema.json", publishedSchema} {
		if *update {
			if err := os.WriteFile(path, made, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, made) {
			t.Errorf("%s is not what the types say: run go generate ./cmd/pushguard/config", path)
		}
	}
	if !*update && !bytes.Equal(Schema(), made) {
		t.Error("Schema() is not what the types say")
	}
}

// Each field that the loader reads is in the schema, described.
func TestSchemaDescribesEveryField(t *testing.T) {
	var s struct {
		Defs map[string]struct {
			Properties map[string]struct{ Description string } `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	types := []any{Config{}, Admin{}, Account{}, Digest{}, Floors{}, Billing{}, App{}, UpstreamBreaker{}, Limits{}, Caller{}, Rule{}, Match{},
		Breaker{}, Alert{}, TLS{}, Log{}, CustomPlan{}, RateAndBurst{}, Dedupe{}, Conflate{}, Fold{}, Learn{}, TrustHeader{}, Tracing{}}
	if len(s.Defs) != len(types) {
		t.Errorf("the schema has %d definitions, the file %d types", len(s.Defs), len(types))
	}
	for _, v := range types {
		typ := reflect.TypeOf(v)
		for key := range fieldsOf(typ) {
			if d := s.Defs[typ.Name()].Properties[key].Description; len(d) < 10 {
				t.Errorf("%s.%s has the description %q", typ.Name(), key, d)
			}
		}
	}
}

func schemaValidator(t *testing.T) func(yamlText string) error {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource(SchemaURL, doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile(SchemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) error {
		j, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		v, err := validator.UnmarshalJSON(bytes.NewReader(j))
		if err != nil {
			t.Fatal(err)
		}
		return compiled.Validate(v)
	}
}
