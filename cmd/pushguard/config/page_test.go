package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const configurationPage = "../../../docs/configuration.md"

const pageHead = `# Configuration

One YAML file, read strictly: a key that does not exist is an error with file, line and column.
This page is made from the types that read the file; a test holds it to them.

` + "```sh" + `
pushguard check --config pushguard.yaml           # every mistake, with line and column
pushguard check --config pushguard.yaml --online  # the store and Pusher too; costs one message an app
pushguard check --schema > pushguard.schema.json  # for editors
` + "```" + `

- A complete example with comments: [pushguard.example.yaml](pushguard.example.yaml).
- Any value can be a reference: ` + "`${NAME}`" + ` (environment), ` + "`${file:/run/secrets/x}`" + `, ` + "`${aws-sm:NAME#json-key}`" + `, ` + "`${aws-ssm:/path}`" + `.
- A duration has a unit: ` + "`500ms`, `2s`, `1m30s`" + `. A part of something is a percentage: ` + "`40%`" + `. A size may have a unit: ` + "`512KiB`" + `.
- In patterns ` + "`*`" + ` stands for any run of characters and ` + "`?`" + ` for one.
- What a reload takes and what needs a restart: [operations.md](operations.md#changing-the-config).

`

// schemaNode is the part of a JSON Schema that the page shows.
type schemaNode struct {
	Ref         string           `json:"$ref"`
	Type        string           `json:"type"`
	AnyOf       []schemaNode     `json:"anyOf"`
	Items       *schemaNode      `json:"items"`
	Enum        []any            `json:"enum"`
	Pattern     string           `json:"pattern"`
	Description string           `json:"description"`
	Default     any              `json:"default"`
	Minimum     json.Number      `json:"minimum"`
	Maximum     json.Number      `json:"maximum"`
	Required    []string         `json:"required"`
	Properties  *json.RawMessage `json:"properties"`
	Extra       any              `json:"additionalProperties"`
}

// orderedKeys are an object's keys as they stand in the text.
func orderedKeys(t *testing.T, object []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(object))
	d.Token()
	var keys []string
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key.(string))
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// value says in a few words what may stand there; blocks are the definitions
// that it leads to.
func (n *schemaNode) value() (words []string, blocks []string) {
	add := func(w []string, b []string) {
		for _, s := range w {
			if !slices.Contains(words, s) {
				words = append(words, s)
			}
		}
		blocks = append(blocks, b...)
	}
	switch {
	case n.Ref != "":
		name := strings.TrimPrefix(n.Ref, "#/$defs/")
		return []string{"[block](#" + strings.ToLower(name) + ")"}, []string{name}
	case n.Pattern == reference:
		return nil, nil
	case len(n.AnyOf) > 0:
		for i := range n.AnyOf {
			add(n.AnyOf[i].value())
		}
		if slices.Contains(words, "text") { // a name or secret that YAML reads as a number
			words = slices.DeleteFunc(words, func(s string) bool { return s == "number" })
		}
		return words, blocks
	case n.Items != nil:
		w, b := n.Items.value()
		for _, s := range w {
			if strings.HasPrefix(s, "[block]") {
				words = append(words, "list of "+strings.Replace(s, "block", "blocks", 1))
			} else {
				words = append(words, "list")
			}
		}
		return slices.Compact(words), b
	case len(n.Enum) > 0:
		for _, e := range n.Enum {
			if s, ok := e.(string); ok {
				words = append(words, "`"+s+"`")
			}
		}
		return words, nil
	case n.Pattern == duration:
		return []string{"duration"}, nil
	case strings.Contains(n.Pattern, "%$"):
		return []string{"percentage"}, nil
	case strings.Contains(n.Pattern, "KMG"):
		return []string{"size"}, nil
	case strings.Contains(n.Pattern, "[smhd]"):
		return []string{"rate"}, nil
	case strings.Contains(n.Pattern, "embedded"):
		return []string{"`embedded`", "URL"}, nil
	case n.Type == "boolean":
		return []string{"`true`", "`false`"}, nil
	case n.Type == "integer":
		return []string{"number"}, nil
	case n.Type == "object":
		return []string{"map"}, nil
	}
	return []string{"text"}, nil
}

var wholeUnits = regexp.MustCompile(`([hm])0[ms]$`)

// plainDuration writes 10m0s as people do.
func plainDuration(s string) string {
	for wholeUnits.MatchString(s) {
		s = wholeUnits.ReplaceAllString(s, "$1")
	}
	return s
}

func makePage(t *testing.T) []byte {
	t.Helper()
	var s struct {
		Defs map[string]schemaNode `json:"$defs"`
	}
	if err := json.Unmarshal(makeSchema(t), &s); err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	page.WriteString(pageHead)
	done := map[string]bool{}
	var block func(name, path string)
	block = func(name, path string) {
		if done[name] {
			return
		}
		done[name] = true
		def := s.Defs[name]
		title := name
		if name == "Config" {
			title = "Top level"
		}
		fmt.Fprintf(&page, "## %s\n\n", title)
		if path != "" {
			fmt.Fprintf(&page, "Path: `%s`. %s\n\n", path, strings.TrimSuffix(strings.Join(strings.Fields(def.Description), " "), ".")+".")
		}
		page.WriteString("| field | value | default | meaning |\n|---|---|---|---|\n")
		type next struct{ name, path string }
		var then []next
		for _, key := range orderedKeys(t, *def.Properties) {
			var props map[string]schemaNode
			if err := json.Unmarshal(*def.Properties, &props); err != nil {
				t.Fatal(err)
			}
			p := props[key]
			words, blocks := p.value()
			at := strings.TrimPrefix(path+"."+key, ".")
			for _, b := range blocks {
				if p.Items != nil {
					at += "[]"
				}
				then = append(then, next{b, at})
			}
			standard := ""
			switch d := p.Default.(type) {
			case nil:
			case float64:
				standard = fmt.Sprintf("`%.0f`", d)
			case string:
				standard = "`" + plainDuration(d) + "`"
			default:
				standard = fmt.Sprintf("`%v`", d)
			}
			if slices.Contains(def.Required, key) {
				standard = "required"
			}
			cell := strings.ReplaceAll(p.Description, "|", `\|`)
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", key, strings.Join(words, ", "), standard, cell)
		}
		page.WriteByte('\n')
		for _, n := range then {
			block(n.name, n.path)
		}
	}
	block("Config", "")
	for name := range s.Defs {
		if !done[name] {
			t.Errorf("no field leads to the block %s", name)
		}
	}
	return []byte(strings.TrimRight(page.String(), "\n") + "\n")
}

func TestConfigurationPageIsCurrent(t *testing.T) {
	made := makePage(t)
	if *update {
		if err := os.WriteFile(configurationPage, made, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, made) {
		t.Errorf("%s is not what the types say: run go generate ./cmd/pushguard/config", configurationPage)
	}
}
