package guard

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/replay"
	"github.com/pushguard/pushguard/limiter"
)

func (l *life) status() ops.AccountStatus {
	l.t.Helper()
	var st ops.Status
	if err := json.Unmarshal([]byte(strings.TrimPrefix(l.get("/api/v1/status"), "200 ")), &st); err != nil {
		l.t.Fatal(err)
	}
	return st.Accounts[0]
}

const loadTestCaller = `- { name: storm, key: storm-1, secret: storm-secret, load_test: true }`

// Whoever holds the key of a load test can send nothing to Pusher and spend
// nothing that others may spend, whatever he does.
func TestALoadTestNeverLeavesTheGuard(t *testing.T) {
	l := begin(t, "#caller", loadTestCaller, "#rule", `- { name: slow, match: { event: "slow.*" }, rate: 3/h, burst: 3 }`, `#account`, "")
	slow := func(n int) string { return fmt.Sprintf(`{"name":"slow.x","channel":"c","data":"%d"}`, n) }
	outcomes := map[string]int{}
	for n := range 8 {
		got := l.send("1", "storm-1", "storm-secret", slow(n), nil)
		outcomes[fmt.Sprint(got.status, " ", got.header.Get("Pushguard-Outcome"))]++
	}
	if outcomes["200 sent"] != 3 || outcomes["429 throttled"] != 5 {
		t.Errorf("the load test was judged %v, not by the rule", outcomes)
	}
	got := l.send("1", "storm-1", "storm-secret", `{"name":"x","channels":["a","b"],"data":"1","info":"subscription_count"}`, http.Header{"Pushguard-Load-Test": {"1"}})
	if got.status != 200 || got.body != `{"channels":{"a":{"subscription_count":1},"b":{"subscription_count":1}}}` {
		t.Errorf("info: %d %s", got.status, got.body)
	}
	if st := l.pusher.Stats(); st.Requests != 0 {
		t.Errorf("Pusher got %d requests", st.Requests)
	}
	st := l.status()
	// Three publishes to one subscriber cost 2 each; one to two channels with
	// info costs the call, two deliveries and the info.
	if st.Used != 0 || st.Swallowed == nil || st.Swallowed.Messages != 3*2+4 || st.Swallowed.Events != 4 || st.Sink {
		t.Errorf("used %d, swallowed %+v, sink %v", st.Used, st.Swallowed, st.Sink)
	}
	// The bucket that the rule shares is as full as ever.
	for n := range 4 {
		got := l.send("1", "app-key", "app-secret", slow(100+n), nil)
		if want := map[bool]int{true: 200, false: 429}[n < 3]; got.status != want {
			t.Errorf("publish %d of the app: %d %s", n, got.status, got.body)
		}
	}
	// Who is no load test cannot be one by saying so: it would be sent.
	before := l.pusher.Stats().Requests
	got = l.send("1", "app-key", "app-secret", `{"name":"x","channel":"c","data":"1"}`, http.Header{"Pushguard-Load-Test": {"1"}})
	if got.status != 403 || !strings.Contains(got.body, "load_test: true") || l.pusher.Stats().Requests != before {
		t.Errorf("a mark without the right: %d %s", got.status, got.body)
	}
	for _, row := range l.top() {
		if row.Key == "storm" {
			t.Error("the detector saw the load test")
		}
	}
	// A reload changes its rules too, and forgets nothing.
	l.write("#caller", loadTestCaller, "#rule", `- { name: slow, match: { event: "slow.*" }, rate: 3/h, burst: 9 }`)
	if err := l.reload(); err != nil {
		t.Fatal(err)
	}
	if got := l.send("1", "storm-1", "storm-secret", slow(200), nil); got.status != 200 {
		t.Errorf("after the reload: %d %s", got.status, got.body)
	}
	if st := l.status(); st.Swallowed.Events != 5 || l.pusher.Stats().Requests != before {
		t.Errorf("after the reload: %+v, Pusher got %d requests, before %d", st.Swallowed, l.pusher.Stats().Requests, before)
	}
}

func (l *life) top() (rows []ops.TopRow) {
	l.t.Helper()
	text, ok := strings.CutPrefix(l.get("/api/v1/top?by=caller"), "200 ")
	if err := json.Unmarshal([]byte(text), &rows); !ok || err != nil {
		l.t.Fatal(text, err)
	}
	return rows
}

// serve --sink sends nothing of anybody, goes on so after a reload, and tells
// what it would have cost.
func TestASinkSendsNothing(t *testing.T) {
	l := beginWith(t, func(l *life) extras { l.sinkDir = t.TempDir(); return extras{Sink: true} }, "upstream: UPSTREAM", `upstream: "http://127.0.0.1:9"`)
	for range 20 {
		if got := l.send("1", "app-key", "app-secret", `{"name":"alarm.x","channel":"c","data":"1"}`, nil); got.status != 200 || got.body != "{}" {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	l.write("upstream: UPSTREAM", `upstream: "http://127.0.0.1:9"`, "#caller", loadTestCaller)
	loaded, err := l.load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.Config.Store.Embedded() || loaded.Config.DataDir != l.sinkDir {
		t.Errorf("a sink would use %s and %s", loaded.Config.Store, loaded.Config.DataDir)
	}
	if err := l.reload(); err == nil || !strings.Contains(err.Error(), "data_dir") {
		// The guard of this test began in its own data_dir; serve begins in the sink's.
		t.Errorf("reload: %v", err)
	}
	if st := l.status(); !st.Sink || st.Swallowed.Messages != 40 || st.Used != 40 {
		t.Errorf("sink %v, swallowed %+v, used %d", st.Sink, st.Swallowed, st.Used)
	}
	l.g.SaySunk()
	if !strings.Contains(l.log.String(), "messages=40 part_of_plan=0.00%") {
		t.Errorf("nothing is told at the end:\n%s", l.log)
	}
}

// What serve --record writes, replay reads: the same rules come to the same
// verdicts.
func TestARecordedHourIsReplayed(t *testing.T) {
	file := ""
	l := beginWith(t, func(l *life) extras {
		file = filepath.Join(l.dir, "day.jsonl")
		rec, err := StartRecording(file, 1<<20, time.Hour, slog.New(slog.NewTextHandler(l.log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		return extras{Record: rec}
	}, "#rule", `- { name: slow, match: { event: "slow.*" }, dedupe: 1h, rate: 3/h per channel }`)
	for n := range 60 {
		l.send("1", "app-key", "app-secret", fmt.Sprintf(`{"name":"slow.x","channel":"private-user-%d","data":"secret-%d"}`, n%3, n%12), nil)
		l.send("1", "web-1", "old-secret", fmt.Sprintf(`{"name":"x","channel":"c","data":"%d"}`, n), nil)
	}
	st := l.status()
	live := map[string]int64{}
	for _, c := range st.Callers {
		for o, n := range c.Outcomes {
			live[o] += n
		}
	}
	if err := l.g.extras.Record.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("secret-")) {
		t.Error("a payload stands in the trace")
	}
	recorded := map[string]int64{}
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		var r replay.Record
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		recorded[r.Outcome]++
	}
	if _, err := StartRecording(file, 1<<20, 0, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a trace was written over")
	}

	scenario, err := replay.OfTrace(l.file, file, "", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ForReplay(scenario.Config, scenario.Account, scenario.App)
	if err != nil {
		t.Fatal(err)
	}
	result, err := replay.Run(t.Context(), scenario, 1, []replay.Side{{Name: "with the guard", Guard: own}})
	if err != nil {
		t.Fatal(err)
	}
	guarded := result.Sides[0]
	for _, o := range []string{"sent", "deduplicated", "throttled"} {
		if live[o] == 0 || live[o] != recorded[o] || live[o] != guarded.Outcomes[o] {
			t.Errorf("%s: live %d, recorded %d, replayed %d", o, live[o], recorded[o], guarded.Outcomes[o])
		}
	}
	if guarded.Total != st.Used || result.Publishes != 120 {
		t.Errorf("replayed %d publishes for %d messages, live they cost %d", result.Publishes, guarded.Total, st.Used)
	}
}

// A recording ends at its bound, in whole lines, and serving goes on.
func TestARecordingEndsWhereItMust(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.jsonl")
	log := &logBuffer{}
	rec, err := StartRecording(file, 64<<10, 0, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	note := rec.of("1")
	for end := time.Now().Add(30 * time.Second); !rec.over.Load(); {
		note(time.Now(), "web", "x", []string{"c"}, [2]uint64{1, 2}, 3, 4, "sent")
		if time.Now().After(end) {
			t.Fatal("it never ended")
		}
	}
	written := rec.rec.Written()
	note(time.Now(), "web", "x", []string{"c"}, [2]uint64{1, 2}, 3, 4, "sent")
	if rec.rec.Written() != written {
		t.Error("noted after the end")
	}
	if err := rec.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || len(text) == 0 || len(text) > 64<<10 || !bytes.HasSuffix(text, []byte("}\n")) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if !strings.Contains(log.String(), "recording is over") {
		t.Error("nobody was told")
	}
}

// receiver is a collector of OTLP over HTTP.
type receiver struct {
	mu    sync.Mutex
	spans []*tracepb.Span
	auth  string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(req.Body)
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		body = zr
	}
	b, err := io.ReadAll(body)
	var in collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(b, &in) != nil || req.URL.Path != "/v1/traces" {
		http.Error(w, "no", 400)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth = req.Header.Get("Authorization")
	for _, rs := range in.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			r.spans = append(r.spans, ss.Spans...)
		}
	}
}

func (r *receiver) span(name string) *tracepb.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// A trace goes through: what the caller began is gone on with here, at the
// collector and at Pusher.
func TestATraceGoesThrough(t *testing.T) {
	got := &receiver{}
	otlp := httptest.NewServer(got)
	defer otlp.Close()
	var mu sync.Mutex
	var upstream []string
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		upstream = append(upstream, r.Header.Get("Traceparent"))
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	defer behind.Close()
	l := begin(t, "#top", fmt.Sprintf("tracing: { otlp: %q, sample: 0%%, authorization: Bearer abc }", otlp.URL), "upstream: UPSTREAM", fmt.Sprintf("upstream: %q", behind.URL))
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	traced := http.Header{"Traceparent": {"00-" + id + "-" + parent + "-01"}}
	if got := l.send("1", "app-key", "app-secret", `{"name":"x","channel":"private-user-4711","data":"1"}`, traced); got.status != 200 {
		t.Fatal(got)
	}
	// Not sampled by its caller, and sample is 0%: no span, but the context goes on.
	l.send("1", "app-key", "app-secret", `{"name":"x","channel":"c","data":"2"}`, http.Header{"Traceparent": {"00-" + strings.Repeat("a", 32) + "-" + parent + "-00"}})
	l.until("the collector has both spans", func() bool { return got.span("pushguard POST events") != nil && got.span("pusher POST") != nil })
	server, client := got.span("pushguard POST events"), got.span("pusher POST")
	if hex.EncodeToString(server.TraceId) != id || hex.EncodeToString(server.ParentSpanId) != parent || !bytes.Equal(client.ParentSpanId, server.SpanId) {
		t.Errorf("the spans do not hang together: %v %v", server, client)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(upstream) != 2 || upstream[0] != "00-"+id+"-"+hex.EncodeToString(client.SpanId)+"-01" || !strings.HasPrefix(upstream[1], "00-"+strings.Repeat("a", 32)) || !strings.HasSuffix(upstream[1], "-00") {
		t.Errorf("Pusher got %q", upstream)
	}
	attributes := server.String()
	for _, want := range []string{`"pushguard.outcome"`, `"sent"`, `"pushguard.caller"`, `"app"`} {
		if !strings.Contains(attributes, want) {
			t.Errorf("%s is not in the span: %s", want, attributes)
		}
	}
	if strings.Contains(attributes, "4711") || strings.Contains(client.String(), "4711") {
		t.Error("a channel's name is in a span")
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if got.auth != "Bearer abc" || len(got.spans) != 2 {
		t.Errorf("authorization %q, %d spans", got.auth, len(got.spans))
	}
}

// The admin port's names and its authenticating proxy come from the config.
func TestTheAdminPortsDoorIsConfigured(t *testing.T) {
	door := `admin: { listen: "127.0.0.1:0", hosts: [guard.internal], trust_header: { name: X-Forwarded-User, from: ["127.0.0.0/8"] } }`
	l := begin(t, `admin: { listen: "127.0.0.1:0" }`, door)
	ask := func(method, path, host, user, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+l.g.admin.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if user != "" {
			req.Header.Set("X-Forwarded-User", user)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for host, want := range map[string]int{"guard.internal:8081": 200, "GUARD.internal": 200, "127.0.0.1:8081": 200, "evil.example": 401} {
		if code, text := ask("GET", "/api/v1/status", host, "", ""); code != want {
			t.Errorf("asked for as %s: %d %s, want %d", host, code, text, want)
		}
	}
	if code, text := ask("PUT", "/api/v1/accounts/care/plan", "127.0.0.1", "", `{"messages_per_day":2000000,"reason":"x"}`); code == 200 {
		t.Errorf("a lever without a name: %d %s", code, text)
	}
	if code, text := ask("PUT", "/api/v1/accounts/care/plan", "guard.example", "anna@example.com", `{"messages_per_day":2000000,"reason":"raised"}`); code != 200 {
		t.Errorf("a lever through the proxy: %d %s", code, text)
	}
	if text := l.get("/api/v1/audit"); !strings.Contains(text, `"anna@example.com"`) {
		t.Errorf("who it was is not in the audit trail: %s", text)
	}
	l.write(`admin: { listen: "127.0.0.1:0" }`, strings.Replace(door, "127.0.0.0/8", "127.0.0.1", 1))
	if err := l.reload(); err == nil || !strings.Contains(err.Error(), "admin.trust_header: needs a restart") {
		t.Errorf("the door was changed by a reload: %v", err)
	}
}

// What the breaker does while an incident is open, and where it stood when it
// opened, stands in its timeline; a probe that fails each minute does not.
func TestMovesOfTheBreakerWaitForTheWatch(t *testing.T) {
	l := begin(t)
	a := l.g.fleet.Load().accounts[0]
	moved := func(state string) bool {
		return strings.Contains(l.get("/metrics"), `pushguard_breaker_transitions_total{account="care",state="`+state+`"} 1`)
	}
	now := time.Now()
	if err := a.Ledger.SetUsage(t.Context(), now, 850_000, "ann", "test"); err != nil {
		t.Fatal(err)
	}
	l.until("the breaker sheds", func() bool { return moved("shed_bulk") })
	l.until("the watch was told", func() bool {
		a.moves.mu.Lock()
		defer a.moves.mu.Unlock()
		return len(a.moves.all) == 0
	})
	m := &breakerMoves{}
	for range maxMoves {
		m.add(limiter.Transition{From: limiter.Open, To: limiter.HalfOpen})
		m.add(limiter.Transition{From: limiter.HalfOpen, To: limiter.Open})
		m.add(limiter.Transition{From: limiter.Closed, To: limiter.Open})
		m.add(limiter.Transition{From: limiter.HalfOpen, To: limiter.Closed})
	}
	if len(m.all) != maxMoves {
		t.Errorf("%d wait", len(m.all))
	}
	for _, x := range m.all {
		if x.From == limiter.Open && x.To == limiter.HalfOpen || x.From == limiter.HalfOpen && x.To == limiter.Open {
			t.Errorf("a probe is news: %v", x)
		}
	}
}
