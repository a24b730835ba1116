package pusher

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzQuery(f *testing.F) {
	for _, s := range []string{docQuery, "", "&=&", "a=%", "A=1&a=2", "channels[]=a;b&Channels%5B%5d=%2c", "a+b=c+d%00", "a=1#", strings.Repeat("k[]=&", 170)} {
		f.Add([]byte(s))
	}
	var q Query
	k := NewKey("k", "s")
	f.Fuzz(func(t *testing.T, raw []byte) {
		kept := bytes.Clone(raw)
		err := q.Parse(raw)
		if !bytes.Equal(kept, raw) {
			t.Fatal("the query was changed")
		}
		if err != nil {
			if e := err.(*Error); e.Status != 400 || len(e.Text) > 500 || q.Len() != 0 {
				t.Fatalf("%+v", e)
			}
			return
		}
		// net/url agrees, pair by pair, as far as it can (it knows no `;`).
		i := 0
		for piece := range strings.SplitSeq(string(raw), "&") {
			if piece == "" {
				continue
			}
			rawKey, rawValue, _ := strings.Cut(piece, "=")
			key, err1 := url.QueryUnescape(rawKey)
			value, err2 := url.QueryUnescape(rawValue)
			gotKey, gotValue := q.At(i)
			if err1 != nil || err2 != nil || string(gotKey) != lowerASCII(key) || string(gotValue) != value {
				t.Fatalf("pair %d: %q=%q, want %q=%q (%v, %v)", i, gotKey, gotValue, key, value, err1, err2)
			}
			if first, ok := q.Get(string(gotKey)); !ok || !bytes.HasSuffix(gotKey, arraySuffix) && string(first) != value {
				t.Fatalf("Get(%q) = %q", gotKey, first)
			}
			i++
		}
		if i != q.Len() {
			t.Fatalf("%d pairs, want %d", q.Len(), i)
		}
		k.Verify("GET", raw, &q, raw, docTime)
	})
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// checkRefusal holds for every refusal of a body.
func checkRefusal(t *testing.T, body []byte, e *Error) {
	t.Helper()
	if e.Status != 400 && e.Status != 413 || e.Text == "" || len(e.Text) > 2000 {
		t.Fatalf("%+v", e)
	}
	if rest, ok := strings.CutPrefix(e.Text, "The body is not valid JSON: "); ok && json.Valid(body) &&
		!strings.HasPrefix(rest, "it is nested too deeply") && !strings.HasPrefix(rest, "an object ") {
		t.Fatalf("encoding/json accepts %q: %s", body, e.Text)
	}
}

// checkEvent compares a publish with what encoding/json reads from its object.
func checkEvent(t *testing.T, p *Publish, lim Limits) {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(p.Raw, &m); err != nil {
		t.Fatalf("%s: %v", p.Raw, err)
	}
	same := func(what string, got []byte) {
		t.Helper()
		var want *string
		if err := json.Unmarshal(m[what], &want); err != nil {
			t.Fatalf("%s of %s: %v", what, p.Raw, err)
		}
		if want == nil {
			t.Fatalf("no %s in %s", what, p.Raw)
		}
		// encoding/json replaces what is not UTF-8.
		if utf8.Valid(m[what]) && string(got) != *want {
			t.Fatalf("%s is %q, want %q", what, got, *want)
		}
	}
	same("name", p.Name)
	same("data", p.Data)
	if p.SocketID != nil {
		same("socket_id", p.SocketID)
	}
	if p.HasInfo {
		same("info", p.Info)
	}
	if one, ok := m["channel"]; ok && string(one) != "null" {
		if same("channel", p.Channels[0]); len(p.Channels) != 1 {
			t.Fatalf("%q", p.Channels)
		}
	} else {
		var want []string
		if err := json.Unmarshal(m["channels"], &want); err != nil || len(want) != len(p.Channels) {
			t.Fatalf("%q, want %q", p.Channels, want)
		}
		for i := range want {
			if utf8.Valid(m["channels"]) && want[i] != string(p.Channels[i]) {
				t.Fatalf("%q, want %q", p.Channels, want)
			}
		}
	}
	if len(p.Name) == 0 || len(p.Name) > lim.EventName || len(p.Data) > lim.DataBytes || len(p.Channels) > lim.Channels {
		t.Fatalf("over a limit: %s", p.Raw)
	}
}

func FuzzEvents(f *testing.F) {
	for _, c := range refusedEvents {
		if len(c.body) < 2000 {
			f.Add([]byte(c.body), []byte(c.query))
		}
	}
	f.Add([]byte(docBody), []byte(docQuery))
	f.Add([]byte(`{"name":"\ud83d\ude00\ud83d","data":"{\"a\":[1,-0.5e+7,true]}","channels":["presence-a","b"],"socket_id":"1.2","info":"user_count","x":{"y":[null]}}`), []byte(""))
	f.Add([]byte(""), []byte("name=e&data=d&channels[]=a"))
	var d Decoder
	var q Query
	lim := &Limits{DataBytes: 100, Channels: 3}
	seed := NewSeed()
	f.Fuzz(func(t *testing.T, body, query []byte) {
		if q.Parse(query) != nil {
			return
		}
		kept := bytes.Clone(body)
		events, e := d.Events(body, &q, lim)
		if !bytes.Equal(kept, body) {
			t.Fatal("the body was changed")
		}
		if e != nil {
			checkRefusal(t, body, e)
			return
		}
		if len(events) != 1 || len(body) > 0 && !json.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
		p := &events[0]
		if p.Raw != nil {
			checkEvent(t, p, lim.full())
		}
		if p.Lossy || len(p.Params) > 0 {
			return // it is sent as it came, or not folded
		}
		// What is written again reads the same, and is the same by value.
		before := viewOf(p)
		digest := seed.Digest(p)
		var again Decoder
		second, e := again.Events(AppendEvent(nil, p), nil, lim)
		if e != nil {
			t.Fatalf("%+v written again: %v", before, e)
		}
		after := viewOf(&second[0])
		after.Raw, before.Raw = nil, nil
		if b, a := toJSON(t, before), toJSON(t, after); b != a || seed.Digest(&second[0]) != digest || string(p.Data) != string(second[0].Data) {
			t.Fatalf("%s written again is %s", b, a)
		}
	})
}

func toJSON(t *testing.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"batch":[{"channel":"a","name":"e","data":"\u0041"},{"channel":"b","name":"e","data":"","info":"subscription_count","socket_id":"1.2"}],"x":[]}`))
	f.Add([]byte(`{"b\u0061tch":[{"channels":["a"],"name":"e","data":"d"}]}`))
	f.Add([]byte(`{"batch":[[]]}`))
	f.Add([]byte(`{"batch":[],"batch":[]}`))
	var d Decoder
	lim := &Limits{DataBytes: 100, Batch: 3}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, e := d.Batch(body, lim)
		if e != nil {
			checkRefusal(t, body, e)
			return
		}
		if !json.Valid(body) || len(events) == 0 || len(events) > 3 {
			t.Fatalf("accepted %q", body)
		}
		var m struct{ Batch []json.RawMessage }
		var all map[string]json.RawMessage
		if json.Unmarshal(body, &all) != nil || json.Unmarshal(all["batch"], &m.Batch) != nil || len(m.Batch) != len(events) {
			t.Fatalf("%q", body)
		}
		for i := range events {
			if !bytes.Equal(m.Batch[i], events[i].Raw) || len(events[i].Channels) != 1 {
				t.Fatalf("event %d is %q, want %q", i, events[i].Raw, m.Batch[i])
			}
			checkEvent(t, &events[i], lim.full())
		}
	})
}

func FuzzVerifyRoundTrip(f *testing.F) {
	f.Add("key", "secret", "/apps/1/events", []byte("channels[]=b&channels[]=a&INFO=x%2Cy"), []byte(docBody), int64(1353088179), uint16(3))
	f.Add("k", "", "/apps/1/users/a%20b/terminate_connections", []byte(""), []byte(""), int64(0), uint16(40))
	f.Add("ü +", "s", "/%zz", []byte("z=%2b+&a"), []byte("\xff"), int64(1<<33), uint16(9999))
	f.Fuzz(func(t *testing.T, name, secret, path string, extra, body []byte, unix int64, at uint16) {
		if unix < 0 || unix > 1<<40 {
			return
		}
		now := time.Unix(unix, 0)
		var q Query
		if q.Parse(extra) != nil || q.Len() > 100 {
			return
		}
		k := NewKey(name, secret)
		raw := k.AppendSigned(nil, "POST", []byte(path), &q, body, now)
		var got Query
		if err := got.Parse(raw); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if e := k.Verify("POST", []byte(path), &got, body, now); e != nil {
			t.Fatalf("%s: %v", raw, e)
		}
		if e := NewKey(name, secret+"x").Verify("POST", []byte(path), &got, body, now); e == nil {
			t.Fatal("another secret is accepted")
		}
		// One byte changed anywhere is refused, unless it means the same:
		// a key's case, another writing of an escape.
		flip := bytes.Clone(raw)
		flip[int(at)%len(flip)] ^= byte(at>>8) | 1
		var changed Query
		if changed.Parse(flip) == nil && !sameMeaning(&got, &changed) {
			if k.Verify("POST", []byte(path), &changed, body, now) == nil {
				t.Fatalf("%s is accepted as %s", raw, flip)
			}
		}
		if len(body) > 0 {
			flipped := bytes.Clone(body)
			flipped[int(at)%len(body)] ^= 1
			if k.Verify("POST", []byte(path), &got, flipped, now) == nil {
				t.Fatal("another body is accepted")
			}
		}
		if len(path) > 0 {
			flipped := []byte(path)
			flipped[int(at)%len(path)] ^= 1
			var m mac
			if decoded, differs := m.decodePath(flipped); (!differs || string(decoded) != path) &&
				k.Verify("POST", flipped, &got, body, now) == nil {
				t.Fatalf("path %q is accepted as %q", path, flipped)
			}
		}
	})
}

// sameMeaning compares two queries by the pairs that are signed.
func sameMeaning(a, b *Query) bool {
	if a.Len() != b.Len() {
		return false
	}
	for i := range a.order {
		x, y := a.pairs[a.order[i]], b.pairs[b.order[i]]
		if !bytes.Equal(x.key, y.key) || !bytes.Equal(x.value, y.value) {
			return false
		}
	}
	return true
}

// FuzzJSON: the scanner accepts what encoding/json accepts, up to its depth, and
// a digest is the same however a value is written.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-3,"\u00e9\ud83d\ude00",null],"b":{"c":true}}`, `[]`, `"`, `-`, `1.`, `{"a":1,"a":2}`, "\"\xff\"", deep(70, ""), ` 0 `, `"\ud83d\u0041"`} {
		f.Add([]byte(s))
	}
	seed := NewSeed()
	f.Fuzz(func(t *testing.T, b []byte) {
		s := scan{b: b}
		ok := s.skip(0) && s.end()
		if valid := json.Valid(b); ok != valid && s.fault != "it is nested too deeply" {
			t.Fatalf("%q: %v, encoding/json says %v (%s at %d)", b, ok, valid, s.fault, s.at)
		}
		if !ok || s.lossy || !utf8.Valid(b) || !plainObjects(b) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		indented, err := json.MarshalIndent(v, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		want := digestOf(&seed, "e", string(b), "")
		if digestOf(&seed, "e", string(sorted), "") != want || digestOf(&seed, "e", string(indented), "") != want {
			t.Fatalf("%q and %q differ", b, sorted)
		}
	})
}

// plainObjects reports that no object of a JSON text has a key twice or more
// than maxUnordered keys.
func plainObjects(b []byte) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	var read func() bool
	read = func() bool {
		tok, err := d.Token()
		if err != nil {
			return false
		}
		delim, ok := tok.(json.Delim)
		if !ok {
			return true
		}
		keys := map[any]bool{}
		for d.More() {
			if delim == '{' {
				key, err := d.Token()
				if err != nil || keys[key] {
					return false
				}
				keys[key] = true
			}
			if !read() {
				return false
			}
		}
		_, err = d.Token()
		return err == nil && len(keys) <= maxUnordered
	}
	return read()
}
