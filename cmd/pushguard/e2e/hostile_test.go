package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// assault is one thing that comes down a raw connection.
type assault struct {
	name   string
	bytes  string
	status []int // any of them; nil: any 4xx, or the connection closed without a word
	says   string
	// silent allows the connection to end without an answer, where no HTTP was
	// spoken at all.
	silent bool
}

const fine = `{"name":"n","channel":"c","data":"x"}`

// request writes a POST with its length.
func request(target, body string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", target, lines(headers), len(body), body)
}

func lines(headers []string) string {
	if len(headers) == 0 {
		return ""
	}
	return strings.Join(headers, "\r\n") + "\r\n"
}

func signedAs(key, secret, body string, at time.Time) string {
	return signedPath("POST", "/apps/"+appID+"/events", body, key, secret, at)
}

// bad is a body that is signed well and must be refused for what it says.
func bad(name, body, says string, status ...int) assault {
	if len(status) == 0 {
		status = []int{400}
	}
	return assault{name: name, bytes: request(eventsPath(body), body), status: status, says: says}
}

func assaults() []assault {
	good := eventsPath(fine)
	chunked := func(n, size int) string {
		var b strings.Builder
		for range n {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", size, strings.Repeat("x", size))
		}
		return b.String() + "0\r\n\r\n"
	}
	flood := func(n, size int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "X-%d: %s\r\n", i, strings.Repeat("y", size))
		}
		return b.String()
	}
	return []assault{
		// What is no HTTP.
		{name: "zero bytes", bytes: strings.Repeat("\x00", 100) + "\r\n\r\n", silent: true},
		{name: "a TLS hello", bytes: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\xaa", 500) + "\r\n\r\n", silent: true},
		{name: "HTTP/2 without asking", bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", silent: true},
		{name: "a request line without a version", bytes: "POST " + good + "\r\nHost: x\r\n\r\n", silent: true},
		{name: "a request line of one word", bytes: "POST\r\n\r\n", silent: true},
		{name: "a request line with a bad version", bytes: "POST " + good + " HTTP/9.9\r\nHost: x\r\nContent-Length: 37\r\n\r\n" + fine, silent: true},
		{name: "a request line of 1 MiB", bytes: "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", status: []int{414, 431, 400}},
		{name: "spaces in the target", bytes: "POST /apps/1234/ev ents?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", silent: true},
		{name: "a null in the target", bytes: "POST /apps/1234/events\x00?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", silent: true},

		// Headers.
		{name: "a header of 1 MiB", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n", status: []int{431, 400}},
		{name: "100,000 headers", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\n" + flood(100_000, 10) + "\r\n", status: []int{431, 400}},
		{name: "a header without a colon", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nnonsense\r\nContent-Length: 37\r\n\r\n" + fine, silent: true},
		{name: "a header name with a space before the colon", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length : 37\r\n\r\n" + fine, silent: true},
		{name: "a folded header", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\n{\"a\":", silent: true},
		{name: "a negative length", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + fine, silent: true},
		{name: "a length that overflows", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n" + fine, silent: true},
		{name: "a length with a sign", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: +37\r\n\r\n" + fine, silent: true},

		// Where two readers of the same bytes could disagree (RFC 9112, 6.3 and 11.2).
		{name: "two different lengths", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\nContent-Length: 5\r\n\r\n" + fine},
		{name: "two different lengths in one", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: 37, 5\r\n\r\n" + fine},
		{name: "a length and chunks", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\nTransfer-Encoding: chunked\r\n\r\n25\r\n" + fine + "\r\n0\r\n\r\n"},
		{name: "chunks and a length", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n25\r\n" + fine + "\r\n0\r\n\r\n"},
		{name: "an encoding that is not chunked", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, identity\r\n\r\n25\r\n" + fine + "\r\n0\r\n\r\n"},
		{name: "chunked in disguise", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: 37\r\n\r\n" + fine},
		{name: "chunked twice", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n25\r\n" + fine + "\r\n0\r\n\r\n"},
		{name: "a chunk with a bad length", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + fine + "\r\n0\r\n\r\n", silent: true},
		{name: "a chunk with a huge length", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + fine + "\r\n0\r\n\r\n", silent: true},
		{name: "a second request in the body of a first that has no length", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\n\r\n" + request(good, "{}")},

		// Sizes.
		{name: "a body of 50 MiB by length", bytes: request(good, strings.Repeat("x", 50<<20)), status: []int{413}, says: "larger"},
		{name: "a body of 50 MiB by length, waiting for 100-continue", bytes: request(good, strings.Repeat("x", 50<<20), "Expect: 100-continue"), status: []int{413}, says: "larger"},
		{name: "a body of 50 MiB in chunks", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(50<<5, 32<<10), status: []int{413}, says: "larger"},
		{name: "a body of 50 MiB in chunks of one byte", bytes: "POST " + good + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(4<<20, 1), status: []int{413}, says: "larger"},
		bad("data of 10,241 bytes", `{"name":"n","channel":"c","data":"`+strings.Repeat("x", 10241)+`"}`, "exceeds the allowed maximum (10240 bytes)", 413),
		bad("101 channels", `{"name":"n","channels":[`+strings.TrimSuffix(strings.Repeat(`"c",`, 101), ",")+`],"data":"x"}`, "100"),
		bad("a channel of 201 bytes", `{"name":"n","channel":"`+strings.Repeat("c", 201)+`","data":"x"}`, "200"),
		bad("an event of 201 bytes", `{"name":"`+strings.Repeat("n", 201)+`","channel":"c","data":"x"}`, "200"),
		{name: "a batch of 11", bytes: func() string {
			body := `{"batch":[` + strings.TrimSuffix(strings.Repeat(fine+",", 11), ",") + `]}`
			return request(signedPath("POST", "/apps/"+appID+"/batch_events", body, appKey, appSecret, time.Now()), body)
		}(), status: []int{400, 413}, says: "10"},

		// Who it claims to be.
		{name: "nothing signed", bytes: request("/apps/1234/events", fine), status: []int{401}, says: "Missing parameter: auth_key"},
		{name: "an unknown app", bytes: request(signedPath("POST", "/apps/666/events", fine, appKey, appSecret, time.Now()), fine), status: []int{401}, says: "Unknown auth_key"},
		{name: "an unknown key", bytes: request(signedAs("nobody", appSecret, fine, time.Now()), fine), status: []int{401}, says: "Unknown auth_key"},
		{name: "a wrong secret", bytes: request(signedAs(appKey, wrongSecret, fine, time.Now()), fine), status: []int{401}, says: "Invalid signature: you should have sent HmacSHA256Hex("},
		{name: "a signature cut short", bytes: request(good[:len(good)-1], fine), status: []int{401}, says: "Invalid signature"},
		{name: "an empty signature", bytes: request(good[:len(good)-64], fine), status: []int{401}},
		{name: "another body", bytes: request(good, strings.Replace(fine, `"x"`, `"y"`, 1)), status: []int{401}, says: "body_md5"},
		{name: "no md5", bytes: request(signedAs(appKey, appSecret, "", time.Now()), fine), status: []int{401}, says: "body_md5"},
		{name: "replayed after 700 s", bytes: request(signedAs(appKey, appSecret, fine, time.Now().Add(-700*time.Second)), fine), status: []int{401}, says: "Timestamp expired"},
		{name: "from 700 s ahead", bytes: request(signedAs(appKey, appSecret, fine, time.Now().Add(700*time.Second)), fine), status: []int{401}, says: "Timestamp expired"},
		{name: "a version to come", bytes: request(strings.Replace(good, "auth_version=1.0", "auth_version=2.0", 1), fine), status: []int{401}, says: "Version not supported"},
		{name: "another method", bytes: "PUT " + good + " HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\n\r\n" + fine},
		{name: "10,000 parameters", bytes: request("/apps/1234/events?"+strings.Repeat("a=b&", 2000), fine), says: "query"},
		{name: "a bad escape in a parameter", bytes: request("/apps/1234/events?auth_key=%zz", fine)},
		{name: "an app of another path", bytes: request(strings.Replace(good, "/apps/1234/", "/apps/1234/../1234/", 1), fine)},
		{name: "no path of ours", bytes: request("/etc/passwd", fine), status: []int{404}},
		{name: "a webhook that nobody signed", bytes: request("/webhooks/1234", `{"time_ms":1,"events":[]}`), status: []int{401}},

		// What it says.
		bad("no JSON", "nonsense", ""),
		bad("an empty body", "", ""),
		bad("half an object", `{"name":"n","channel":"c","data":"x"`, ""),
		bad("two objects", fine+fine, ""),
		bad("an array", `[`+fine+`]`, ""),
		bad("100,000 arrays deep", `{"name":"n","channel":"c","data":"x","deep":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`}`, ""),
		bad("100,000 objects deep", `{"name":"n","channel":"c","data":"x","deep":`+strings.Repeat(`{"a":`, 100_000)+"1"+strings.Repeat("}", 100_000)+`}`, ""),
		bad("100,000 objects deep, not closed", strings.Repeat(`{"a":`, 100_000), ""),
		bad("invalid UTF-8 in a channel", "{\"name\":\"n\",\"channel\":\"c\xff\xfe\",\"data\":\"x\"}", "channel"),
		bad("a control character in a string", "{\"name\":\"n\",\"channel\":\"c\",\"data\":\"\x01\"}", ""),
		bad("data that is no string", `{"name":"n","channel":"c","data":{"a":1}}`, "data"),
		bad("no event name", `{"channel":"c","data":"x"}`, "name"),
		bad("no channel", `{"name":"n","data":"x"}`, "channel"),
		bad("no data", `{"name":"n","channel":"c"}`, "data"),
		bad("a bad channel name", `{"name":"n","channel":"a b","data":"x"}`, "Invalid channel name"),
		bad("a reserved channel name", `{"name":"n","channel":"#secret","data":"x"}`, "reserved"),
		bad("a bad socket id", `{"name":"n","channel":"c","data":"x","socket_id":"1.2; drop"}`, "socket_id"),
		bad("encrypted among several", `{"name":"n","channels":["private-encrypted-a","b"],"data":"x"}`, "encrypted"),
		bad("user_count of no presence channel", `{"name":"n","channel":"c","data":"x","info":"user_count"}`, "presence"),

		// Other protocols over this one.
		{name: "an upgrade to HTTP/2", bytes: "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", status: []int{404}},
		{name: "an upgrade to WebSocket", bytes: "GET /app/" + appKey + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", status: []int{404}},
		{name: "CONNECT", bytes: "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"},
		{name: "TRACE", bytes: "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"},
	}
}

// Nothing that comes down a raw connection costs a message, ends the process,
// grows it without bound, or goes without a reason.
func TestHostile(t *testing.T) {
	s := startSim(t)
	g := serve(t, "guard", t.TempDir(), oneApp(s.addr))
	if a := mustPost(t, g.data, fine); a.outcome() != "sent" {
		t.Fatalf("a good publish is answered %d %s", a.status, a.body)
	}
	before, _ := memory(t, g.cmd.Process.Pid)
	legitimate := s.stats(t)
	used := g.account(t, "care").Used

	for _, a := range assaults() {
		t.Run(a.name, func(t *testing.T) {
			all, err := exchange(g.data, a.bytes, 1)
			if len(all) > 0 && all[0].status == http.StatusContinue {
				t.Fatal("invited to send what will be refused")
			}
			if len(all) == 0 {
				if !a.silent {
					t.Fatalf("no answer: %v", err)
				}
				if strings.Contains(err.Error(), "timeout") {
					t.Fatalf("neither an answer nor an end: %v", err)
				}
				return
			}
			got := all[0]
			if got.status < 400 || got.status > 499 {
				t.Errorf("answered %d, want a 4xx: %s", got.status, got.body)
			}
			if len(a.status) > 0 && !slices.Contains(a.status, got.status) {
				t.Errorf("answered %d, want one of %v: %s", got.status, a.status, got.body)
			}
			if got.body == "" || !strings.Contains(strings.ToLower(got.body), strings.ToLower(a.says)) {
				t.Errorf("answered %d %q, which does not say %q", got.status, got.body, a.says)
			}
			if len(got.body) > 2000 {
				t.Errorf("the reason is %d bytes long", len(got.body))
			}
			if got.outcome() != "refused" {
				t.Errorf("Pushguard-Outcome is %q, want refused", got.outcome())
			}
			if !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
				t.Errorf("the reason is %s, want text/plain", got.header.Get("Content-Type"))
			}
		})
		if !g.alive() {
			t.Fatalf("%s: the process ended", a.name)
		}
	}
	if now := s.stats(t); now.Messages != legitimate.Messages || now.Requests != legitimate.Requests {
		t.Errorf("%d requests and %d messages reached the simulator", now.Requests-legitimate.Requests, now.Messages-legitimate.Messages)
	}
	if now := g.account(t, "care").Used; now != used {
		t.Errorf("the ledger counted %d messages", now-used)
	}
	now, peak := memory(t, g.cmd.Process.Pid)
	t.Logf("resident memory %d MiB before, %d MiB after, at most %d MiB", before>>20, now>>20, peak>>20)
	bound := int64(128 << 20)
	if raceEnabled {
		bound *= 8
	}
	if peak > bound {
		t.Errorf("the process grew to %d MiB", peak>>20)
	}
	if a := mustPost(t, g.data, `{"name":"after","channel":"c","data":"x"}`); a.outcome() != "sent" {
		t.Errorf("a good publish afterwards is answered %d %s", a.status, a.body)
	}
	if _, metrics := g.get(t, "/metrics"); !strings.Contains(metrics, "pushguard_panics_total 0\n") {
		t.Error("a request made the guard panic, or it does not say")
	}
}

// Forms that HTTP/1.1 allows and no SDK uses: they work, and mean the same.
func TestUnusualButLegal(t *testing.T) {
	s := startSim(t)
	g := serve(t, "guard", t.TempDir(), oneApp(s.addr))
	body := func(name string) string { return `{"name":"` + name + `","channel":"c","data":"x"}` }
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the guard went where the request line pointed")
	}))
	t.Cleanup(elsewhere.Close)
	cases := []struct {
		name, bytes string
		want        []int
		events      []string
	}{
		{"chunked", func() string {
			b := body("chunked")
			return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", eventsPath(b), 10, b[:10], len(b)-10, b[10:])
		}(), []int{200}, []string{"chunked"}},
		{"absolute form, of another host", request(elsewhere.URL+eventsPath(body("absolute")), body("absolute")), []int{200}, []string{"absolute"}},
		{"pipelined", request(eventsPath(body("p1")), body("p1")) + request(eventsPath(body("p2")), body("p2")) + request(eventsPath(body("p3")), body("p3")), []int{200, 200, 200}, []string{"p1", "p2", "p3"}},
		{"a refused one among pipelined", request(eventsPath(body("q1")), body("q1")) + request("/apps/1234/events?auth_key=no", body("q2")) + request(eventsPath(body("q3")), body("q3")), []int{200, 401, 200}, []string{"q1", "q3"}},
		{"HTTP/1.0", strings.Replace(request(eventsPath(body("old")), body("old")), "HTTP/1.1", "HTTP/1.0", 1), []int{200}, []string{"old"}},
		{"the same length twice", strings.Replace(request(eventsPath(body("twice")), body("twice")), "Host: x\r\n", fmt.Sprintf("Host: x\r\nContent-Length: %d\r\n", len(body("twice"))), 1), nil, nil}, // may be refused (RFC 9112, 6.3)
		{"100-continue", request(eventsPath(body("expect")), body("expect"), "Expect: 100-continue"), []int{200}, []string{"expect"}},
		{"other case in header names", strings.Replace(request(eventsPath(body("case")), body("case")), "Content-Length", "cOnTeNt-LeNgTh", 1), []int{200}, []string{"case"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := int64(len(s.events(t, 0)))
			all, err := exchange(g.data, c.bytes, max(1, len(c.want)))
			var got []int
			for _, a := range all {
				if a.status != http.StatusContinue {
					got = append(got, a.status)
				}
			}
			if c.want == nil {
				return
			}
			if !slices.Equal(got, c.want) {
				t.Fatalf("answered %v (%v), want %v: %+v", got, err, c.want, all)
			}
			var names []string
			for _, e := range s.events(t, before) {
				names = append(names, e.Name)
			}
			if !slices.Equal(names, c.events) {
				t.Errorf("%q arrived, want %q", names, c.events)
			}
		})
	}
}
