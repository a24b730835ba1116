package pusher

import (
	"fmt"
	"strings"
	"testing"
)

func digestOf(s *Seed, name, data, socket string, info ...string) [2]uint64 {
	p := Publish{Name: []byte(name), Data: []byte(data), Channels: [][]byte{[]byte("c")}}
	if socket != "" {
		p.SocketID = []byte(socket)
	}
	if len(info) > 0 {
		p.HasInfo, p.Info = true, []byte(info[0])
	}
	return s.Digest(&p)
}

func deep(n int, inside string) string {
	return strings.Repeat("[", n) + inside + strings.Repeat("]", n)
}

// Each line is one meaning, written in several ways. Two writings have the same
// digest exactly if they stand in the same line.
func TestDigest(t *testing.T) {
	many := func(n int, reverse bool) string {
		members := make([]string, n)
		for i := range members {
			at := i
			if reverse {
				at = n - 1 - i
			}
			members[at] = fmt.Sprintf(`"k%d":%d`, i, i)
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	lines := [][]string{
		{``},
		{` `},
		{`text`},
		{`"text"`, ` "text"`, `"\u0074ext"`, "\t\"te\\u0078t\"\n"},
		{`{}`, `{ }`},
		{`[]`, ` [ ] `},
		{`[[]]`},
		{`[[],[]]`},
		{`null`}, {`true`}, {`false`}, {`"null"`}, {`"true"`},
		{`1`, ` 1 `}, {`1.0`}, {`1e0`}, {`"1"`}, {`-1`}, {`[1]`}, {`01`},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, "{ \"b\" :2,\n\"\\u0061\":1}"},
		{`{"a":2,"b":1}`},
		{`{"a":1}`}, {`{"b":1}`}, {`{"a":"1"}`}, {`{"a":[1]}`}, {`{"a":{}}`}, {`{"a":null}`},
		{`{"a":{"b":1},"c":2}`, `{"c":2,"a":{"b":1}}`},
		{`{"a":{"c":2},"b":1}`, `{"b":1,"a":{"c":2}}`},
		{`{"a":{},"b":1,"c":2}`},
		{`{"a":1,"a":2}`}, {`{"a":2,"a":1}`}, {`{"a":1,"a":1}`}, // the last one wins, so order matters
		{`[1,2]`}, {`[2,1]`}, {`[12]`}, {`["1","2"]`}, {`["12"]`}, {`["1,2"]`}, {`[[1],2]`}, {`[1,[2]]`}, {`[[1,2]]`},
		{`["a","b"]`}, {`["ab",""]`}, {`["","ab"]`}, {`["ab"]`},
		{`[{"a":1},{"b":2}]`}, {`[{"b":2},{"a":1}]`}, {`[{"a":1,"b":2}]`, `[{"b":2,"a":1}]`},
		{`"0123456789abcde"`}, {`"0123456789abcdef"`}, {`"0123456789abcdef0"`}, {`"0123456789abcdef\u0000"`}, {`["0123456789abcdef",""]`}, {`["0123456789abcdef0123456789abcdef"]`}, {`["0123456789abcdef","0123456789abcdef"]`},
		{`"é"`, `"\u00e9"`, `"\u00E9"`}, {`"e"`}, {"\"\xe9\""}, {`"😀"`, `"\ud83d\ude00"`},
		{`"/"`, `"\/"`},
		{many(64, false), many(64, true)},
		{many(65, false)}, {many(65, true)}, // dear to compare: in order
		{deep(64, "{}")}, {deep(64, "{ }")}, // too deep to read: by bytes
		{deep(63, "{}"), deep(63, "{ }")},
		{`{"a":1,}`}, {`{"a":1, }`}, // no JSON: by bytes
		{`{"a":1} x`}, {`{"a":1}  x`},
		{"{\"a\":\"\x01\"}"}, {"{\"a\": \"\x01\"}"},
	}
	var zero Seed
	for _, seed := range []Seed{NewSeed(), SeedFrom([32]byte{1, 2, 3}), zero} {
		seen := map[[2]uint64][2]int{}
		halves := map[uint64][2]int{}
		for i, line := range lines {
			for j, data := range line {
				d := digestOf(&seed, "event", data, "")
				if at, ok := seen[d]; ok && at[0] != i {
					t.Errorf("%q and %q agree", data, lines[at[0]][at[1]])
				} else if j > 0 && !ok {
					t.Errorf("%q and %q differ", data, line[0])
				}
				seen[d] = [2]int{i, j}
				for _, half := range d {
					if at, ok := halves[half]; ok && at[0] != i {
						t.Errorf("%q and %q agree in 64 bits", data, lines[at[0]][at[1]])
					}
					halves[half] = [2]int{i, j}
				}
			}
		}
	}
}

// Every part counts, and none can be mistaken for its neighbour; where it goes
// does not count.
func TestDigestParts(t *testing.T) {
	seed := NewSeed()
	all := map[[2]uint64]string{}
	add := func(what string, d [2]uint64) {
		if other, ok := all[d]; ok {
			t.Errorf("%s and %s agree", what, other)
		}
		all[d] = what
	}
	add("plain", digestOf(&seed, "e", "d", ""))
	add("other name", digestOf(&seed, "f", "d", ""))
	add("other data", digestOf(&seed, "e", "f", ""))
	add("socket", digestOf(&seed, "e", "d", "1.2"))
	add("other socket", digestOf(&seed, "e", "d", "1.3"))
	add("info", digestOf(&seed, "e", "d", "", "user_count"))
	add("empty info", digestOf(&seed, "e", "d", "", ""))
	add("socket as info", digestOf(&seed, "e", "d", "", "1.2"))
	add("name and data shifted", digestOf(&seed, "ed", "", ""))
	add("data and name shifted", digestOf(&seed, "", "ed", ""))

	p := Publish{Name: []byte("e"), Data: []byte("d"), Channels: [][]byte{[]byte("x"), []byte("y")}}
	if seed.Digest(&p) != digestOf(&seed, "e", "d", "") {
		t.Error("channels count")
	}
	other := NewSeed()
	third := NewSeed()
	if other.Digest(&p) == seed.Digest(&p) || other == third {
		t.Error("the seed does not count")
	}
	a, b := SeedFrom([32]byte{7}), SeedFrom([32]byte{7})
	if a.Digest(&p) != b.Digest(&p) {
		t.Error("two replicas with one seed differ")
	}
}

// A digest that is compared between versions of the program must not change
// unnoticed.
func TestDigestIsStable(t *testing.T) {
	seed := SeedFrom([32]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32})
	got := fmt.Sprintf("%x", digestOf(&seed, "order.created", `{"id":17,"lines":[{"sku":"a long article number","n":2}],"ok":true}`, "12.34", "user_count"))
	if want := "[565906ef21c2baa6 673e6385a7db7b17]"; got != want {
		t.Errorf("%s, was %s", got, want)
	}
}

// Flipping any bit of the data changes about half of the digest's.
func TestDigestSpreads(t *testing.T) {
	seed := SeedFrom([32]byte{9})
	data := []byte(`x{"some":"data that is no JSON, so that every byte counts"}`)
	base := digestOf(&seed, "e", string(data), "")
	total, n := 0, 0
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			d := digestOf(&seed, "e", string(data), "")
			data[i] ^= 1 << bit
			changed := 0
			for h := range 2 {
				for x := d[h] ^ base[h]; x != 0; x &= x - 1 {
					changed++
				}
			}
			if changed < 30 || changed > 98 {
				t.Errorf("byte %d, bit %d: %d of 128 bits change", i, bit, changed)
			}
			total, n = total+changed, n+1
		}
	}
	if mean := float64(total) / float64(n); mean < 62 || mean > 66 {
		t.Errorf("%.1f of 128 bits change on average", mean)
	}
}
