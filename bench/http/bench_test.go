//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// What wrk is given must be what Pusher would take, or the benchmark measures refusals.
func TestPoolHoldsPublishesThatPusherTakes(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for _, s := range []poolSpec{
		{App: "1", Key: "k", Secret: "s", Event: "notification.created", Requests: 30, Channels: 7, BodyBytes: 500},
		{App: "1", Key: "k", Secret: "s", Event: "notification.created", Requests: 30, Channels: 30, BodyBytes: 500, Same: true},
	} {
		var b bytes.Buffer
		if err := writePool(&b, s, now); err != nil {
			t.Fatal(err)
		}
		channels, payloads := map[string]bool{}, map[string]bool{}
		requests := bytes.Split(b.Bytes(), []byte{0})
		for _, r := range requests {
			h, err := readHead(r)
			if err != nil || h.size != len(r) {
				t.Fatalf("%v: %d of %d bytes: %q", err, h.size, len(r), r)
			}
			target := bytes.Fields(h.first)[1]
			path, query, _ := bytes.Cut(target, []byte("?"))
			var q pusher.Query
			if err := q.Parse(query); err != nil {
				t.Fatal(err)
			}
			if e := pusher.NewKey("k", "s").Verify("POST", path, &q, h.body, now.Add(time.Minute)); e != nil {
				t.Fatal(e)
			}
			var d pusher.Decoder
			events, e := d.Events(h.body, &q, nil)
			if e != nil {
				t.Fatal(e)
			}
			if len(h.body) != 500 || publishes(false, h.body) != 1 {
				t.Fatalf("%d bytes, %d publishes: %s", len(h.body), publishes(false, h.body), h.body)
			}
			channels[string(events[0].Channels[0])] = true
			payloads[string(events[0].Data)] = true
		}
		if len(requests) != s.Requests || len(channels) != s.Channels || (len(payloads) == 1) != s.Same {
			t.Fatalf("%d requests, %d channels, %d payloads for %+v", len(requests), len(channels), len(payloads), s)
		}
	}
	if err := writePool(io.Discard, poolSpec{Requests: 1, Channels: 1, BodyBytes: 50}, now); err == nil {
		t.Fatal("a body that cannot be that small was written")
	}
}

func TestReadHead(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nPushguard-Outcome: sent\r\n\r\n{}"
	h, err := readHead([]byte(whole + "HTTP/1.1 "))
	if err != nil || h.size != len(whole) || string(h.body) != "{}" || string(h.outcome) != "sent" || status(h.first) != 200 {
		t.Fatalf("%+v %v", h, err)
	}
	for n := range len(whole) {
		if _, err := readHead([]byte(whole[:n])); !errors.Is(err, errIncomplete) {
			t.Fatalf("%q: %v", whole[:n], err)
		}
	}
	for _, bad := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if _, err := readHead([]byte(bad)); err == nil || errors.Is(err, errIncomplete) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for line, code := range map[string]int{"HTTP/1.1 429 Too Many Requests": 429, "HTTP/1.0 200 OK": 0, "HTTP/1.1 2x0 OK": 0, "HTTP": 0} {
		if got := status([]byte(line)); got != code {
			t.Errorf("%q: %d, want %d", line, got, code)
		}
	}
}

// However publishes are folded, the upstream must count as many as the callers sent.
func TestPublishesAreCountedHoweverTheyAreFolded(t *testing.T) {
	for body, want := range map[string]int64{
		`{"name":"e","channel":"a","data":"x"}`:                                            1,
		`{"name":"e","channels":["a"],"data":"{\"channels\":[\"x\",\"y\"]}"}`:              1,
		`{"data":"{\"channels\":[1,2,3]}","name":"e","channels":["a,b;c","d", "e" ]}`:      3,
		`{"name":"e","channels":["a","b"],"data":"x","info":"subscription_count"}`:         2,
		`B{"batch":[{"name":"e","channel":"a","data":"x"},{"name":"e","channel":"b"}]}`:    2,
		`B{"batch":[{"name":"e","channel":"a","data":"{\"channel\":\"x\"}"}],"more":true}`: 1,
	} {
		body, batch := strings.CutPrefix(body, "B")
		if got := publishes(batch, []byte(body)); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
}

// A benchmark that measures errors is a defect: each of these must be noticed.
func TestDisagreementIsNoticed(t *testing.T) {
	good := sample{answered: 1000, ok: 1000, published: 1064, sent: 1064, slack: 64, guarded: true}
	refusing := sample{answered: 1000, ok: 3, published: 3, sent: 3, throttled: 997 + 64, slack: 64, guarded: true, refuses: true}
	for _, s := range []sample{good, refusing} {
		if why := s.disagreement(); why != "" {
			t.Fatal(why)
		}
	}
	for name, change := range map[string]func(s *sample){
		"an answer that is not 200":               func(s *sample) { s.ok-- },
		"a publish that the upstream did not get": func(s *sample) { s.published, s.sent = 999, 999 },
		"publishes that nobody was told of":       func(s *sample) { s.published, s.sent = 1065, 1065 },
		"sent, but not counted":                   func(s *sample) { s.sent-- },
		"a duplicate":                             func(s *sample) { s.otherwise++ },
		"a throttled one":                         func(s *sample) { s.throttled++ },
	} {
		s := good
		if change(&s); s.disagreement() == "" {
			t.Errorf("not noticed: %s", name)
		}
	}
	for name, change := range map[string]func(s *sample){
		"too many let through":      func(s *sample) { s.ok, s.published, s.sent, s.throttled = 100, 100, 100, 900 },
		"another refusal":           func(s *sample) { s.otherwise++ },
		"refusals that nobody made": func(s *sample) { s.throttled = 900 },
		"refusals that nobody saw":  func(s *sample) { s.throttled++ },
	} {
		s := refusing
		if change(&s); s.disagreement() == "" {
			t.Errorf("not noticed: %s", name)
		}
	}
}

func TestFiguresArePairedByRound(t *testing.T) {
	r := newResults([]row{{name: "a"}, {name: direct}})
	// The machine becomes half as fast in the second round, and a third of that in the third.
	for _, speed := range []float64{1, 0.5, 0.1} {
		r.add("a", &sample{perSecond: 80 * speed, p99: 3})
		r.add(direct, &sample{perSecond: 100 * speed, p99: 1})
	}
	if got := r.ratio("a", direct, perSecond); math.Abs(got-0.8) > 1e-9 {
		t.Errorf("ratio %v, want 0.8", got)
	}
	if got := r.added("a", p99); got != 2 {
		t.Errorf("added %v, want 2", got)
	}
	if got := r.median("a", perSecond); got != 40 {
		t.Errorf("median %v, want 40", got)
	}
	if got := number("%.2f", r.ratio("nobody", "nothing", perSecond)); got != "–" {
		t.Errorf("a row that was not measured has the ratio %s", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of an even number: %v", got)
	}
}

func TestPercentiles(t *testing.T) {
	c := &client{}
	for i := range 1000 {
		c.took = append(c.took, time.Duration(i+1)*time.Microsecond)
	}
	for percent, want := range map[float64]float64{50: 500, 99: 990, 99.9: 999, 100: 1000} {
		if got := c.us(percent); got != want {
			t.Errorf("p%v is %v µs, want %v", percent, got, want)
		}
	}
}

// The ceiling of a row follows from what nginx itself pays, and only the guard's rows have one.
func TestCeilingsAreOfNginxsOwnCosts(t *testing.T) {
	full := newResults([]row{{name: nginxLimit}, {name: guardRow}, {name: foldingRow}})
	refusing := newResults([]row{{name: nginxRefuses}})
	full.add(nginxLimit, &sample{cpuPer10k: 0.120, callsPer: 1})
	full.add(guardRow, &sample{cpuPer10k: 0.150, callsPer: 1, guarded: true})
	full.add(foldingRow, &sample{cpuPer10k: 0.100, callsPer: 0.1, guarded: true})
	var none strings.Builder
	if ceilings(&none, full, refusing); none.Len() > 0 {
		t.Errorf("without refusals: %s", none.String())
	}
	refusing.add(nginxRefuses, &sample{cpuPer10k: 0.075})
	var b strings.Builder
	ceilings(&b, full, refusing)
	for _, line := range []string{
		"| " + guardRow + " | 1.000 | 1.00 | 0.80 |",
		"| " + foldingRow + " | 0.100 | 1.51 | 1.20 |", // 0.120 / (0.075 + 0.1 * 0.045)
	} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
	if strings.Contains(b.String(), "| "+nginxLimit+" |") {
		t.Errorf("nginx has a ceiling of its own:\n%s", b.String())
	}
}
