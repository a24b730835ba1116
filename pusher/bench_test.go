package pusher

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"
)

// benchBody is a trigger of n bytes of data, plain or JSON (so that it is full
// of escapes), as SDKs send it.
func benchBody(n int, escaped bool) []byte {
	data := strings.Repeat("abcdefghij", n/10)
	if escaped {
		var b strings.Builder
		b.WriteString(`{"id":12345`)
		for b.Len() < n-30 {
			b.WriteString(`,"key` + string(rune('a'+b.Len()%26)) + string(rune('a'+b.Len()/26%26)) + `":"value ` + string(rune('a'+b.Len()%7)) + `","n`)
			b.WriteString(string(rune('a'+b.Len()%26)) + string(rune('a'+b.Len()/7%26)) + `":1234`)
		}
		b.WriteString(`}`)
		data = b.String()
	}
	return AppendEvent(nil, &Publish{Name: []byte("notification.created"), Data: []byte(data), Channels: [][]byte{[]byte("private-user-12345")}})
}

var benchNow = time.Unix(1700000000, 0)

func BenchmarkQueryParse(b *testing.B) {
	raw := NewKey("278d425bdf160c739803", "s").AppendSigned(nil, "POST", []byte("/apps/3/events"), nil, []byte("x"), benchNow)
	var q Query
	b.ReportAllocs()
	for b.Loop() {
		if err := q.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	k := NewKey("278d425bdf160c739803", "7ad3773142a6692b25b8")
	body := benchBody(500, false)
	path := []byte("/apps/3/events")
	raw := k.AppendSigned(nil, "POST", path, nil, body, benchNow)
	var q Query
	if err := q.Parse(raw); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if e := k.Verify("POST", path, &q, body, benchNow); e != nil {
			b.Fatal(e)
		}
	}
}

func BenchmarkAppendSigned(b *testing.B) {
	k := NewKey("278d425bdf160c739803", "7ad3773142a6692b25b8")
	body := benchBody(500, false)
	path := []byte("/apps/3/events")
	dst := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		dst = k.AppendSigned(dst[:0], "POST", path, nil, body, benchNow)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name    string
		n       int
		escaped bool
	}{{"500plain", 500, false}, {"500escaped", 400, true}, {"10kescaped", 8000, true}} {
		b.Run(c.name, func(b *testing.B) {
			body := benchBody(c.n, c.escaped)
			var d Decoder
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, e := d.Events(body, nil, nil); e != nil {
					b.Fatal(e)
				}
			}
		})
	}
}

func BenchmarkDigest(b *testing.B) {
	for _, c := range []struct {
		name    string
		n       int
		escaped bool
	}{{"500plain", 500, false}, {"500json", 400, true}, {"10kjson", 8000, true}} {
		b.Run(c.name, func(b *testing.B) {
			var d Decoder
			events, e := d.Events(benchBody(c.n, c.escaped), nil, nil)
			if e != nil {
				b.Fatal(e)
			}
			seed := NewSeed()
			b.SetBytes(int64(len(events[0].Data)))
			b.ReportAllocs()
			for b.Loop() {
				seed.Digest(&events[0])
			}
		})
	}
}

// The same bodies by other readers, for comparison in one run. Neither checks a
// limit, keeps the raw object, or says where a fault is.
func BenchmarkDecodePeers(b *testing.B) {
	for _, c := range []struct {
		name    string
		n       int
		escaped bool
	}{{"500plain", 500, false}, {"500escaped", 400, true}, {"10kescaped", 8000, true}} {
		body := benchBody(c.n, c.escaped)
		b.Run("fastjson/"+c.name, func(b *testing.B) {
			var p fastjson.Parser
			b.ReportAllocs()
			for b.Loop() {
				v, err := p.ParseBytes(body)
				if err != nil || len(v.GetStringBytes("name")) == 0 || len(v.GetArray("channels")) != 1 || len(v.GetStringBytes("data")) == 0 {
					b.Fatal(err)
				}
			}
		})
		b.Run("encodingjson/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var v struct {
					Name, Data string
					Channels   []string
				}
				if err := json.Unmarshal(body, &v); err != nil || v.Data == "" {
					b.Fatal(err)
				}
			}
		})
	}
}
