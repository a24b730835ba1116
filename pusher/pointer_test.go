package pusher

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func TestValueAt(t *testing.T) {
	seed := NewSeed()
	at := func(data, pointer string) string {
		id, ok := seed.ValueAt([]byte(data), pointer)
		if !ok {
			return "none"
		}
		return fmt.Sprintf("%x", id)
	}
	want := map[string]string{}
	for _, v := range []string{`7`, `"7"`, `{"a":1,"b":[2]}`, `[]`, `true`} {
		want[v] = at(`{"x":`+v+`}`, "/x")
	}
	for v, id := range want {
		for u, other := range want {
			if u != v && id == other {
				t.Errorf("%s and %s look alike", u, v)
			}
		}
	}
	for _, c := range []struct{ data, pointer, same string }{
		{`{"order":{"id":7}}`, "/order/id", `7`},
		{"\n{ \"o\" : 1 , \"order\" : { \"z\":{}, \"\\u0069d\" : \"\\u0037\" } } ", "/order/id", `"7"`},
		{`[1,[2,{"k":7}]]`, "/1/1/k", `7`},
		{`{"0":7}`, "/0", `7`},
		{`{"a/b":{"c~d":7}}`, "/a~1b/c~0d", `7`},
		{`{"~1":7}`, "/~01", `7`},
		{`{"":{"":7}}`, "//", `7`},
		{`{"x":{ "b":[ 2 ],"a":1 }}`, "/x", `{"a":1,"b":[2]}`},
		{`{"x":1,"x":7}`, "/x", `7`}, // the last one, as JavaScript has it
		{`{"x":{"y":1},"x":{"y":7}}`, "/x/y", `7`},
		{`{"x":7,"y":[true,null,1.5e3,"s"]}`, "/x", `7`},
		{`{"x":{"y":7},"x":1}`, "/x/y", ""},
		{`{"x":null}`, "/x", ""},
		{`{"y":7}`, "/x", ""},
		{`[7]`, "/00", ""}, {`[7]`, "/-", ""}, {`[7]`, "/1", ""}, {`[7]`, "/x", ""},
		{`7`, "/x", ""}, {`"x"`, "/x", ""}, {``, "/x", ""}, {`hello`, "/x", ""},
		{`{"x":7`, "/x", ""}, {`{"x":7}}`, "/x", ""}, {`{"x":7,"y":}`, "/x", ""}, {`{"x":7 "y":1}`, "/x", ""},
		{`{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "/x", ""},
	} {
		id := "none"
		if c.same != "" {
			id = want[c.same]
		}
		if got := at(c.data, c.pointer); got != id {
			t.Errorf("%s of %s: %s, want that of %q", c.pointer, c.data, got, c.same)
		}
	}
}

func TestValueAtDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("sync.Pool drops at random under the race detector; what is counted here is counted without it")
	}
	seed, data := NewSeed(), []byte(`{"a":[1,2,{"b":"\u0041x"}],"order":{"id":"\u0041-77","lines":[1,2,3]}}`)
	allocs := testing.AllocsPerRun(200, func() {
		if _, ok := seed.ValueAt(data, "/order/id"); !ok {
			t.Fatal("not found")
		}
	})
	if allocs > 0 && !raceEnabled {
		t.Errorf("%v allocations", allocs)
	}
}

// ValueAt finds what encoding/json finds.
func FuzzValueAt(f *testing.F) {
	for _, s := range []string{`{"a":{"b":[1,2]}}`, `[[{"a":7}]]`, `{"a":1,"a":{"b":2}}`, `x`, `{"~/":1}`} {
		for _, p := range []string{"/a", "/a/b/1", "/0/0/a", "/~0~1"} {
			f.Add([]byte(s), p)
		}
	}
	seed := NewSeed()
	f.Fuzz(func(t *testing.T, data []byte, pointer string) {
		if pointer == "" || pointer[0] != '/' {
			return
		}
		_, ok := seed.ValueAt(data, pointer)
		var v any
		if json.Unmarshal(data, &v) != nil {
			if ok {
				t.Fatalf("found in what is no JSON: %q", data)
			}
			return
		}
		if strings.Count(string(data), "[")+strings.Count(string(data), "{") > maxDepth || !plainKeys(data) {
			return // deeper than ours goes; or bytes that encoding/json replaces
		}
		for _, token := range strings.Split(pointer[1:], "/") {
			if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(token), "~") {
				return // no pointer
			}
			token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
			switch x := v.(type) {
			case map[string]any:
				v = x[token]
			case []any:
				n, err := strconv.Atoi(token)
				if err != nil || n < 0 || n >= len(x) || strconv.Itoa(n) != token {
					v = nil
				} else {
					v = x[n]
				}
			default:
				v = nil
			}
		}
		if ok != (v != nil) {
			t.Fatalf("%q at %q: found %v, encoding/json has %v", data, pointer, ok, v)
		}
	})
}

func plainKeys(data []byte) bool {
	for _, c := range data {
		if c >= 0x80 || c == '\\' {
			return false
		}
	}
	return true
}
