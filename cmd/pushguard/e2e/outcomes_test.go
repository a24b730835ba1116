package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

const outcomesDoc = "../../../docs/sdks/seen.md"

// place is an account with one app where one thing can happen.
type place struct {
	name, plan string
	upstream   *sim   // nil: nobody listens there
	more       string // settings of the app
	rules      string // of the account
}

// meeting is one thing that can happen to a publish, brought about for real.
type meeting struct {
	title   string
	place   string
	before  publication // made first by the same SDK, if it has an op
	call    publication
	secret  string // "" is the right one
	status  int    // on the wire; 0 is no answer at all
	outcome string // header Pushguard-Outcome
	reason  string // header Pushguard-Reason
}

func say(event, data string) publication {
	return publication{op: "trigger", channels: []string{"room"}, event: event, data: data}
}

// Where the same thing has several causes, each is there: a developer sees
// different sentences.
var meetings = []meeting{
	{title: "sent", place: "healthy", call: say("hello", "x"), status: 200, outcome: "sent"},
	{title: "sent, `info` asked for", place: "healthy", call: publication{op: "trigger", channels: []string{"room"}, event: "hello", data: "x", info: "subscription_count"}, status: 200, outcome: "sent"},
	{title: "would have been refused, but the rule says `mode: observe`", place: "healthy", before: say("watched", "x"), call: say("watched", "x"), status: 200, outcome: "sent", reason: "channel_rate"},
	{title: "the same a moment ago", place: "healthy", before: say("twice", "x"), call: say("twice", "x"), status: 200, outcome: "deduplicated", reason: "duplicate"},
	{title: "the same a moment ago, `info` asked for", place: "healthy",
		before: publication{op: "trigger", channels: []string{"room"}, event: "twice", data: "i", info: "subscription_count"},
		call:   publication{op: "trigger", channels: []string{"room"}, event: "twice", data: "i", info: "subscription_count"}, status: 200, outcome: "deduplicated", reason: "duplicate"},
	{title: "a newer value follows at the window's end", place: "healthy", before: say("burst", "1"), call: say("burst", "2"), status: 200, outcome: "conflated", reason: "newer_value"},
	{title: "nobody is subscribed, and the rule says `vacant: skip`", place: "healthy", call: publication{op: "trigger", channels: []string{"empty-room"}, event: "unheard", data: "x"}, status: 200, outcome: "vacant", reason: "nobody_there"},
	{title: "faster than a rule allows", place: "healthy", before: say("often", "x"), call: say("often", "x"), status: 429, outcome: "throttled", reason: "channel_rate"},
	{title: "faster than a rule allows, rule says `answer: 403`", place: "healthy", before: say("often403", "x"), call: say("often403", "x"), status: 403, outcome: "throttled", reason: "channel_rate"},
	{title: "faster than a rule allows, rule says `answer: ok`", place: "healthy", before: say("oftenok", "x"), call: say("oftenok", "x"), status: 200, outcome: "throttled", reason: "channel_rate"},
	{title: "a batch, of which one event is too fast", place: "healthy", call: publication{op: "batch", batch: []publication{say("mixed", "1"), say("mixed", "2"), say("hello", "3")}}, status: 200, outcome: "sent, throttled, sent", reason: "channel_rate"},
	{title: "the plan is used up", place: "spent", before: say("hello", "x"), call: say("hello", "x"), status: 403, outcome: "over_budget", reason: "plan_spent"},
	{title: "bulk is being shed", place: "shedding", call: say("bulk", "x"), status: 403, outcome: "over_budget", reason: "shedding_bulk"},
	{title: "bulk is being shed, and the account has a `digest`", place: "digesting", call: say("bulk", "x"), status: 200, outcome: "digested", reason: "refreshed"},
	{title: "Pusher itself says that the plan is used up", place: "exhausted", call: say("hello", "x"), status: 403, outcome: "over_budget", reason: "exhausted"},
	{title: "the next one after that, answered here", place: "exhausted", call: say("hello", "y"), status: 403, outcome: "over_budget", reason: "exhausted"},
	{title: "somebody pulled the brake", place: "braked", call: say("hello", "x"), status: 403, outcome: "braked", reason: "brake_pulled"},
	{title: "Pusher cannot be reached", place: "dead", call: say("hello", "x"), status: 502, outcome: "unavailable", reason: "upstream_unreachable"},
	{title: "Pusher answers 500", place: "failing", call: say("hello", "x"), status: 502, outcome: "unavailable", reason: "upstream_error"},
	{title: "Pusher does not answer in time", place: "hanging", call: say("hello", "x"), status: 504, outcome: "unavailable", reason: "upstream_timeout"},
	{title: "Pusher has answered nobody for a while, and as many as it may be sent hang", place: "silent", call: say("hello", "x"), status: 503, outcome: "unavailable", reason: "upstream_silent"},
	{title: "Pusher closes the connection instead of answering", place: "dropping", call: say("hello", "x"), status: 502, outcome: "unavailable", reason: "upstream_connection_lost"},
	{title: "the upstream breaker is open", place: "tripped", before: say("hello", "x"), call: say("hello", "x"), status: 503, outcome: "unavailable", reason: "upstream_breaker_open"},
	{title: "pushguard's store is lost, and with it the lease", place: "lost", call: say("hello", "x"), status: 503, outcome: "unavailable", reason: "store_lost"},
	{title: "the app was switched off at Pusher", place: "disabled", call: say("hello", "x"), status: 403, outcome: "refused", reason: "upstream_refused"},
	{title: "malformed (an `info` that does not exist)", place: "healthy", call: publication{op: "trigger", channels: []string{"room"}, event: "hello", data: "x", info: "weather"}, status: 400, outcome: "refused", reason: "invalid_request"},
	{title: "wrong secret", place: "healthy", secret: wrongSecret, call: say("hello", "x"), status: 401, outcome: "refused", reason: "invalid_request"},
	{title: "more than 10 kB", place: "healthy", call: say("hello", strings.Repeat("x", 10241)), status: 413, outcome: "refused", reason: "invalid_request"},
}

// TestOutcomes writes docs/sdks/seen.md from what the two SDKs told their
// callers in this run, and holds the page against it. With -update the page is
// written anew.
func TestOutcomes(t *testing.T) {
	var apps []string
	for k := range sdks {
		for i := range 20 {
			id := fmt.Sprintf("%d%03d", k+1, i)
			apps = append(apps, "--app", id+":key-"+id+":"+appSecret)
		}
	}
	broken := func(fail string) *sim {
		s := startSim(t, apps...)
		s.control(t, `{"fail":"`+fail+`"}`)
		return s
	}
	healthy, mute := startSim(t, apps...), startSim(t, apps...)
	places := []place{
		{name: "healthy", plan: "growth", upstream: healthy, rules: `
      - { match: { event: twice }, dedupe: 5m }
      - { match: { event: burst }, conflate: 5m }
      - { match: { event: unheard }, vacant: skip }
      - { match: { event: often }, rate: 1/m per channel }
      - { match: { event: often403 }, rate: 1/m per channel, answer: 403 }
      - { match: { event: oftenok }, rate: 1/m per channel, answer: ok }
      - { match: { event: mixed }, rate: 1/m per channel }
      - { match: { event: watched }, rate: 1/m per channel, mode: observe }`},
		{name: "spent", plan: "{ messages_per_day: 2 }", upstream: healthy},
		{name: "shedding", plan: "{ messages_per_day: 1000 }", upstream: healthy, rules: `
      - { match: { event: bulk }, priority: bulk }`},
		{name: "digesting", plan: "{ messages_per_day: 1000 }", upstream: healthy, rules: `
      - { match: { event: bulk }, priority: bulk }
    digest: { every: 10m }`},
		{name: "exhausted", plan: "growth", upstream: startSim(t, append(apps, "--messages-per-day", "1")...)},
		{name: "braked", plan: "growth", upstream: healthy},
		{name: "dead", plan: "growth"},
		{name: "failing", plan: "growth", upstream: broken("500")},
		{name: "hanging", plan: "growth", upstream: broken("hang"), more: ", timeout: 300ms"},
		{name: "silent", plan: "growth", upstream: mute, more: ", timeout: 3s, fold: { enabled: false }, upstream_breaker: { off: true }", rules: `
      - { match: { event: vital }, priority: critical }`},
		{name: "dropping", plan: "growth", upstream: broken("drop")},
		{name: "tripped", plan: "growth", more: ", upstream_breaker: { min_requests: 1, open_for: 5m }"},
		{name: "disabled", plan: "growth", upstream: broken("disabled")},
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := nobody.Addr().String()
	nobody.Close()

	config := "drain_delay: 2s\naccounts:\n"
	pairs := map[string]credentials{} // by "place-sdk"
	for k, kit := range sdks {
		for i, p := range places {
			id, name := fmt.Sprintf("%d%03d", k+1, i), p.name+"-"+kit.name
			upstream := dead
			if p.upstream != nil {
				upstream = p.upstream.addr
			}
			config += fmt.Sprintf("  - name: %s\n    plan: %s\n    apps:\n      - { id: %q, key: key-%s, secret: %s, upstream: \"http://%s\"%s }\n", name, p.plan, id, id, appSecret, upstream, p.more)
			if p.rules != "" {
				config += "    rules:" + p.rules + "\n"
			}
			pairs[name] = credentials{App: id, Key: "key-" + id, Secret: appSecret, Master: masterKey}
		}
	}
	g := serve(t, "guard", t.TempDir(), config)
	for _, kit := range sdks {
		g.order(t, "POST", "/api/v1/accounts/braked-"+kit.name+"/brake", `{"allow":"critical","reason":"runaway refresh","by":"ops","for":"2h"}`)
		vacate(t, g.data, pairs["healthy-"+kit.name], "empty-room")
		g.order(t, "PUT", "/api/v1/accounts/digesting-"+kit.name+"/usage", `{"used":850,"reason":"as Pusher's dashboard says","by":"ops"}`)
		g.order(t, "PUT", "/api/v1/accounts/shedding-"+kit.name+"/usage", `{"used":850,"reason":"as Pusher's dashboard says","by":"ops"}`)
	}

	// One more, whose store is gone.
	redis := redistest.Start(t)
	storeless := fmt.Sprintf("drain_delay: 0s\nstore: %s\non_store_loss: closed\naccounts:\n", redis.URL())
	for k, kit := range sdks {
		id, name := fmt.Sprintf("%d%03d", k+1, len(places)), "lost-"+kit.name
		storeless += fmt.Sprintf("  - name: %s\n    plan: growth\n    apps:\n      - { id: %q, key: key-%s, secret: %s, upstream: \"http://%s\" }\n", name, id, id, appSecret, healthy.addr)
		pairs[name] = credentials{App: id, Key: "key-" + id, Secret: appSecret, Master: masterKey}
	}
	lost := serve(t, "lost", t.TempDir(), storeless)
	redis.Kill()
	until(t, "the store is lost", func() bool {
		_, m := lost.get(t, "/metrics")
		return strings.Contains(m, "pushguard_store_up 0\n")
	})

	taps := map[bool]*tap{true: newTap(t, lost.data), false: newTap(t, g.data)}
	var rows []row
	meet := func(m meeting) {
		t.Run(m.title, func(t *testing.T) {
			r, tap := row{meeting: m}, taps[m.place == "lost"]
			for k, kit := range sdks {
				cred := pairs[m.place+"-"+kit.name]
				cred.Addr = tap.addr
				if m.secret != "" {
					cred.Secret = m.secret
				}
				sdk := kit.new(t, cred)
				if m.before.op != "" {
					sdk.do(t, m.before)
				}
				speaks := func() {}
				if m.place == "silent" {
					speaks = g.silenced(t, mute, cred)
				}
				got := sdk.do(t, m.call)
				wire := tap.last()
				for range 5 {
					if m.place != "silent" || wire.header.Get("Pushguard-Reason") != "upstream_timeout" {
						break
					} // else it was the one that went to find out
					got = sdk.do(t, m.call)
					wire = tap.last()
				}
				speaks()
				if wire.status != m.status || wire.outcome() != m.outcome || wire.header.Get("Pushguard-Reason") != m.reason {
					t.Errorf("%s met %d %q %q, want %d %q %q: %s", kit.name, wire.status, wire.outcome(), wire.header.Get("Pushguard-Reason"), m.status, m.outcome, m.reason, wire.body)
				}
				if m.status == http.StatusOK && !strings.HasPrefix(wire.body, "{") {
					t.Errorf("%s: accepted, but the body is no JSON object: %q", kit.name, wire.body)
				}
				if m.status >= 400 && (strings.HasPrefix(wire.body, "{") || !strings.HasPrefix(wire.header.Get("Content-Type"), "text/plain")) {
					t.Errorf("%s: a refusal must be one plain sentence, is %s %q", kit.name, wire.header.Get("Content-Type"), wire.body)
				}
				if (m.status == 200) != (got.Err == "") {
					t.Errorf("%s was told %+v of a %d", kit.name, got, m.status)
				}
				text := tell(k, got, wire.body)
				if r.sees[k] = text; k == 0 {
					r.sentence, r.retry = steady(wire.body), wire.header.Get("Retry-After") != ""
				} else if s := steady(wire.body); s != r.sentence {
					t.Errorf("two sentences for one thing:\n%s\n%s", r.sentence, s)
				}
			}
			rows = append(rows, r)
		})
	}
	for _, m := range meetings {
		meet(m)
	}

	// The end of a replica. Not through the tap: that would hide it.
	ending := func(m meeting) {
		t.Run(m.title, func(t *testing.T) {
			r := row{meeting: m}
			for k, kit := range sdks {
				cred := pairs["healthy-"+kit.name]
				cred.Addr = g.data
				got := kit.new(t, cred).do(t, say("hello", "end"))
				if (m.status == 200) != (got.Err == "") {
					t.Errorf("%s was told %+v", kit.name, got)
				}
				r.sees[k] = tell(k, got, "{}")
			}
			rows = append(rows, r)
		})
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	until(t, "the draining guard is no longer ready", func() bool { status, _ := g.get(t, "/readyz"); return status == http.StatusServiceUnavailable })
	ending(meeting{title: "SIGTERM came, within `drain_delay`", status: 200, outcome: "sent"})
	if code := g.exitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	ending(meeting{title: "the replica has ended"})

	page := render(rows)
	if *update {
		if err := os.MkdirAll(filepath.Dir(outcomesDoc), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(outcomesDoc, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(outcomesDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Errorf("docs/sdks/seen.md does not say what the SDKs saw; run: go test ./cmd/pushguard/e2e -run TestOutcomes -update\n%s", difference(string(have), page))
	}
}

// row is a meeting with what was seen.
type row struct {
	meeting
	sees     [2]string
	sentence string
	retry    bool
}

// tell puts what an SDK gave its caller into a table's cell. The body is in a
// table of its own.
func tell(k int, got seen, body string) string {
	if got.Err == "" {
		if k == 0 {
			return fmt.Sprintf("resolves; `status` %d, body `%s`", got.Status, got.Body)
		}
		return fmt.Sprintf("`err == nil`; result `%s`", got.Body)
	}
	s := got.Err
	s = strings.ReplaceAll(s, fmt.Sprintf("body %q", body), "`body` the sentence")
	s = strings.ReplaceAll(s, address.ReplaceAllString(strings.TrimSpace(body), "HOST:PORT"), "SENTENCE")
	if k == 0 {
		s = strings.Replace(s, "; status ", "`; `status` ", 1)
		if !strings.Contains(s, "`;") {
			s += "`"
		}
		return "rejects: `" + s
	}
	return "error `" + steady(s) + "`"
}

var volatile = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "HOST:PORT"},
	{regexp.MustCompile(`HmacSHA256Hex\("(?:[^"\\]|\\.)*"`), `HmacSHA256Hex("…"`},
	{regexp.MustCompile(`you sent "[0-9a-f]+"`), `you sent "…"`},
	{regexp.MustCompile(`\?auth_key=[^ "]*`), "?auth_key=…"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "DATE"},
	{regexp.MustCompile(`\b\d+(?:\.\d+)? ?(?:ms|s|m|h)(?:\d+(?:\.\d+)?(?:ms|s|m))*\b`), "N s"},
	{regexp.MustCompile(`(healthy|spent|shedding|exhausted|braked|lost)-(node|go)\b`), "ACCOUNT"},
	{regexp.MustCompile(`/apps/\d+/`), "/apps/ID/"},
}

// steady takes out of a sentence what differs from run to run.
func steady(s string) string {
	for _, v := range volatile {
		s = v.what.ReplaceAllString(s, v.with)
	}
	return strings.TrimSpace(s)
}

func render(rows []row) string {
	var b strings.Builder
	b.WriteString(`# What an SDK sees

Made by a test from what two real SDKs told their callers, each outcome brought
about for real (npm pusher 5.3.4, pusher-http-go 5.1.1). To make it anew:

    go test ./cmd/pushguard/e2e -run TestOutcomes -update

Neither SDK shows its caller the headers, and neither tries again by itself. A
refusal's body is one plain sentence, because the .NET SDK loses a JSON error
without a word. What is accepted is 200 with a JSON object, because PHP and Java
take nothing but 200, and Go and Python nothing but JSON.

The Go SDK's network errors, and the Node SDK's ` + "`error.url`" + `, hold the signed URL:
do not log them as they are.

| what happened | outcome | reason | HTTP | ` + "`Retry-After`" + ` | Node SDK | Go SDK |
|---|---|---|---|---|---|---|
`)
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	for _, r := range rows {
		status, retry := fmt.Sprint(r.status), ""
		if r.status == 0 {
			status = "none"
		}
		if r.retry {
			retry = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.title, r.outcome, r.reason, status, retry, cell(r.sees[0]), cell(r.sees[1]))
	}
	b.WriteString(`
## The sentences

HOST:PORT, DATE, ACCOUNT and N s stand for what differs from case to case.

| what happened | body |
|---|---|
`)
	for _, r := range rows {
		if r.status >= 400 {
			fmt.Fprintf(&b, "| %s | %s |\n", r.title, cell("`"+r.sentence+"`"))
		}
	}
	return b.String()
}

// difference is the first line in which two texts differ.
func difference(have, want string) string {
	a, b := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d\nhas  %s\nsaw  %s", i+1, x, y)
		}
	}
	return "no difference"
}

// silenced has more critical publishes under way to an upstream that hangs than
// it may be sent, and others in line before any of lesser priority, until ended.
func (g *guard) silenced(t *testing.T, upstream *sim, c credentials) (ended func()) {
	t.Helper()
	upstream.control(t, `{"fail":"hang"}`)
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 300 { // 256 may go to begin with
		all.Go(func() {
			again := time.NewTicker(100 * time.Millisecond)
			defer again.Stop()
			for !stop.Load() {
				got, err := postAs(g.data, c.App, c.Key, c.Secret, `{"name":"vital","channel":"room","data":"x"}`)
				if err != nil || got.status < 500 && !stop.Load() {
					t.Errorf("an upstream that hangs: %d %s %v", got.status, got.body, err)
					return
				}
				<-again.C
			}
		})
	}
	ended = sync.OnceFunc(func() {
		stop.Store(true)
		upstream.control(t, `{"fail":"none"}`) // those that hang are answered
		all.Wait()
	})
	t.Cleanup(ended)
	until(t, "Pusher is called silent", func() bool {
		_, metrics := g.get(t, "/metrics")
		return strings.Contains(metrics, fmt.Sprintf("pushguard_upstream_silent{app=%q} 1\n", c.App))
	})
	return ended
}

// tap stands between an SDK and the guard and notes what the SDKs do not show:
// status, headers and body as they were on the wire.
type tap struct {
	addr string
	mu   sync.Mutex
	note answer
}

func newTap(t *testing.T, to string) *tap {
	tp := &tap{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		req, err := http.NewRequest(r.Method, "http://"+to+r.RequestURI, bytes.NewReader(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		req.GetBody = nil // never twice
		req.Header = r.Header.Clone()
		resp, err := client.Do(req)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		tp.mu.Lock()
		tp.note = answer{resp.StatusCode, resp.Header, string(b)}
		tp.mu.Unlock()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(b)
	}))
	t.Cleanup(srv.Close)
	tp.addr = srv.Listener.Addr().String()
	return tp
}

func (tp *tap) last() answer {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return tp.note
}

// vacate sends Pusher's webhook that a channel's last subscriber has gone.
func vacate(t testing.TB, addr string, c credentials, channel string) {
	t.Helper()
	body := fmt.Sprintf(`{"time_ms":%d,"events":[{"name":"channel_vacated","channel":%q}]}`, time.Now().UnixMilli(), channel)
	mac := hmac.New(sha256.New, []byte(c.Secret))
	mac.Write([]byte(body))
	req, err := http.NewRequest("POST", "http://"+addr+"/webhooks/"+c.App, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Pusher-Key", c.Key)
	req.Header.Set("X-Pusher-Signature", hex.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("webhook: %s %s", resp.Status, b)
	}
}
