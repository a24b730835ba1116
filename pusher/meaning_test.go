package pusher

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var pairs = flag.Int("pairs", 20_000, "how many pairs of JSON texts TestDigestsAgainstASecondReader draws")

// Publishes that differ in a member or a parameter that is not known here are different, and it is written again as it came.
func TestUnknownMembersAreKept(t *testing.T) {
	seed := NewSeed()
	var d Decoder
	read := func(body, query string) (Publish, [2]uint64, [2]uint64) {
		t.Helper()
		events, e := d.Events([]byte(body), parse(t, query), nil)
		if e != nil {
			t.Fatal(e)
		}
		p := events[0]
		p.Extra, p.Params = bytes.Clone(p.Extra), bytes.Clone(p.Params)
		return p, seed.Digest(&p), seed.Mix([2]uint64{}, &p)
	}
	const base = `{"name":"e","channel":"c","data":"d"`
	bodies := []string{base + `}`, base + `,"tags":{"a":1}}`, base + `,"tags":{"a":2}}`, base + `, "tags" : { "a" : 2 } }`, base + `,"idempotency_key":"x"}`, base + `,"idempotency_key":"y"}`, base + `,"":null}`,
		base + `,"big":12345678901234567890123}`, base + `,"big":12345678901234567890124}`, base + `,"x":"\ud800"}`, base + `,"x":"\ud801"}`, base + `,"x":1,"x":2}`, base + `,"x":2,"x":1}`}
	seen := map[[2]uint64]string{}
	for _, body := range bodies {
		p, digest, group := read(body, "")
		for _, id := range [][2]uint64{digest, group} {
			if other, twice := seen[id]; twice && id != [2]uint64{} {
				t.Errorf("%s is the same as %s", body, other)
			}
			seen[id] = body
		}
		again := string(AppendEvent(nil, &p))
		if !json.Valid([]byte(again)) || !strings.HasSuffix(again, string(p.Extra)+"}") {
			t.Errorf("%s is written again as %s", body, again)
		}
		if i := strings.Index(body, `"d",`); i > 0 && !strings.Contains(again, strings.TrimSpace(body[i+4:len(body)-1])) {
			t.Errorf("of %s not all bytes are in %s", body, again)
		}
		if batch := string(AppendBatchEvent(nil, &p)); !strings.Contains(batch, string(p.Extra)) {
			t.Errorf("%s in a batch is %s", body, batch)
		}
	}
	a, one, _ := read(base+"}", "trace=1")
	_, two, _ := read(base+"}", "trace=2")
	if one == two || !a.Alone {
		t.Error("a parameter that is not known is lost")
	}
	if _, e := d.Batch([]byte(`{"x":[1, 2],"batch":[`+base+`}],"y":"z"}`), nil); e != nil || string(d.Envelope()) != `,"x":[1, 2],"y":"z"` {
		t.Errorf("the envelope is %s, %v", d.Envelope(), e)
	}
}

// Half a surrogate pair has no bytes in UTF-8: what holds one goes on as it came.
func TestHalfASurrogatePair(t *testing.T) {
	seed := NewSeed()
	var d Decoder
	seen := map[[2]uint64]bool{}
	for _, data := range []string{`\ud800`, `\ud801`, `\udc00`, `\ufffd`, "\uFFFD", `\"\ud800\"`, `\"\ud801\"`, `\"\\ud800\"`, `\"\\ud801\"`, `{\"\\ud800\":1}`, `{\"\\ud801\":1}`} {
		events, e := d.Events([]byte(`{"name":"e","channel":"c","data":"`+data+`"}`), nil, nil)
		if e != nil {
			t.Fatal(e)
		}
		id := seed.Digest(&events[0])
		if seen[id] && data != "\uFFFD" { // which is \ufffd
			t.Errorf("%s is the same as another", data)
		}
		seen[id] = true
		if lossy := strings.HasPrefix(data, `\ud`) || strings.HasPrefix(data, `\"\ud`); events[0].Lossy != lossy {
			t.Errorf("%s: lossy %v", data, events[0].Lossy)
		}
	}
	for _, pair := range [][2]string{{`{"id":"\ud800"}`, `{"id":"\ud801"}`}, {`{"id":"\ud800"}`, `{"id":"\ufffd"}`}} {
		x, _ := seed.ValueAt([]byte(pair[0]), "/id")
		if y, _ := seed.ValueAt([]byte(pair[1]), "/id"); x == y {
			t.Errorf("%s are conflated", pair)
		}
	}
}

var escapedUnit = regexp.MustCompile(`\\u[0-9a-fA-F]{4}`)

// asRead is the value of a JSON text as encoding/json reads it, in a form of its own: keys sorted where order does not
// matter, numbers as they are written, halves of surrogate pairs named. It is "" for what is no JSON text.
func asRead(text string) string {
	high := ""
	named := escapedUnit.ReplaceAllStringFunc(text, func(u string) string { return "\x01" + strings.ToLower(u[2:]) })
	var b strings.Builder
	for i := 0; i < len(named); i++ { // whole pairs become escapes again, halves a mark that no text here has
		if named[i] != 1 {
			b.WriteByte(named[i])
			continue
		}
		unit := named[i+1 : i+5]
		i += 4
		switch {
		case unit >= "d800" && unit <= "dbff" && i+5 < len(named) && named[i+1] == 1 && named[i+2:i+6] >= "dc00" && named[i+2:i+6] <= "dfff":
			high = unit
			fmt.Fprintf(&b, `\u%s\u%s`, high, named[i+2:i+6])
			i += 5
		case unit >= "d800" && unit <= "dfff":
			b.WriteString("\uFDD0" + unit)
		default:
			b.WriteString(`\u` + unit)
		}
	}
	d := json.NewDecoder(strings.NewReader(b.String()))
	d.UseNumber()
	var value func() string
	value = func() string {
		tok, err := d.Token()
		if err != nil {
			return ""
		}
		switch v := tok.(type) {
		case json.Delim:
			var parts, keys []string
			for d.More() {
				key := ""
				if v == '{' {
					k, err := d.Token()
					if err != nil {
						return ""
					}
					key = fmt.Sprintf("%q", k)
				}
				val := value()
				if val == "" {
					return ""
				}
				keys = append(keys, key)
				parts = append(parts, key+":"+val)
			}
			if _, err := d.Token(); err != nil {
				return ""
			}
			if v == '[' {
				return "[" + strings.Join(parts, ",") + "]"
			}
			sorted := slices.Sorted(slices.Values(keys))
			if len(slices.Compact(sorted)) == len(keys) && len(keys) <= maxUnordered {
				slices.Sort(parts)
				return "{" + strings.Join(parts, ",") + "}"
			}
			return "{in order " + strings.Join(parts, ",") + "}"
		case json.Number:
			return "n" + v.String()
		case string:
			return fmt.Sprintf("s%q", v)
		}
		return fmt.Sprintf("w%v", tok)
	}
	out := value()
	if _, err := d.Token(); err != io.EOF {
		return ""
	}
	return out
}

// No two payloads that a second reader tells apart are taken for one. The long form is go test ./pusher -run SecondReader -pairs
// 100000.
func TestDigestsAgainstASecondReader(t *testing.T) {
	seed := NewSeed()
	r := rand.New(rand.NewPCG(3, 4))
	equal, different := 0, 0
	for range *pairs {
		a := randomJSON(r, 0)
		b := mutateJSON(r, a)
		x, y := asRead(a), asRead(b)
		same := digestOf(&seed, "e", a, "") == digestOf(&seed, "e", b, "")
		switch {
		case same && a != b && (x == "" || x != y):
			t.Fatalf("taken for one:\n%s\n%s\nread as\n%s\n%s", a, b, x, y)
		case same:
			equal++
		default:
			different++
			if x != "" && x == y && !strings.Contains(x, `\ufdd0`) && !strings.Contains(x, "\uFDD0") {
				t.Fatalf("not known to be one:\n%s\n%s", a, b)
			}
		}
	}
	t.Logf("%d pairs: %d taken for one, %d for two", *pairs, equal, different)
	if equal < *pairs/20 || different < *pairs/20 {
		t.Error("the generator tests little")
	}
}

func randomString(r *rand.Rand) string {
	var b strings.Builder
	b.WriteByte('"')
	for range r.IntN(5) {
		b.WriteString([]string{"a", "b", `\u0061`, `\u0062`, `\ud83d\ude00`, "😀", `\ud83d`, `\ude00`, `\uD83D`, `\ufffd`, "\uFFFD", `\n`, `\u000a`, `\/`, "/", `\u002f`, `\"`, `\u0022`, `\\`, `\u005c`, "é", `\u00e9`, "e\u0301", `\u0000`, " "}[r.IntN(25)])
	}
	b.WriteByte('"')
	return b.String()
}

func randomJSON(r *rand.Rand, depth int) string {
	switch n := r.IntN(10); {
	case depth < 3 && n < 3:
		var parts []string
		for range r.IntN(4) {
			parts = append(parts, randomString(r)+":"+randomJSON(r, depth+1))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case depth < 3 && n < 4:
		var parts []string
		for range r.IntN(4) {
			parts = append(parts, randomJSON(r, depth+1))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case n < 8:
		return randomString(r)
	}
	return []string{"0", "-0", "1", "1.0", "1e0", "10e-1", "9007199254740993", "9007199254740992", "1e999", "1e998", "true", "false", "null", "123456789012345678901234567890"}[r.IntN(14)]
}

var mutations = [][2]string{{`\u0061`, "a"}, {"a", `\u0061`}, {`\ud83d\ude00`, "😀"}, {"😀", `\ud83d\ude00`}, {`\ud83d`, `\ufffd`}, {`\ude00`, `\ud83d`}, {`\uD83D`, `\ud83d`}, {`\ufffd`, "\uFFFD"}, {"\uFFFD", `\ud83d`},
	{`\n`, `\u000a`}, {`\/`, "/"}, {`\"`, `\u0022`}, {`\\`, `\u005c`}, {"é", `\u00e9`}, {"é", "e\u0301"}, {"1", "1.0"}, {"9007199254740993", "9007199254740992"}, {"1e999", "1e998"}, {":", " : "}, {",", ",\n"}, {"{", "[{"}, {"}", "}]"}, {"b", "a"}, {"[", "["}, {`"`, ""}}

func mutateJSON(r *rand.Rand, s string) string {
	for range 1 + r.IntN(3) {
		m := mutations[r.IntN(len(mutations))]
		if r.IntN(8) == 0 { // two members change places
			if parts := strings.SplitN(strings.Trim(s, "{}"), ",", 3); len(parts) == 2 && strings.HasPrefix(s, "{") {
				s = "{" + parts[1] + "," + parts[0] + "}"
			}
			continue
		}
		s = strings.Replace(s, m[0], m[1], 1+r.IntN(2))
	}
	return s
}
