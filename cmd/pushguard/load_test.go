package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/guard"
	"github.com/pushguard/pushguard/cmd/pushguard/loadgen"
	"github.com/pushguard/pushguard/pusher/sim"
)

// A scenario of two callers: what each phase met is told, the distribution is
// kept, and the verdict holds.
func TestALoadScenario(t *testing.T) {
	behind := sim.New(sim.Config{Apps: []sim.App{{ID: "1", Key: "k", Secret: "s"}}, Subscribers: 1})
	srv := httptest.NewServer(behind)
	defer srv.Close()
	dir := t.TempDir()
	file, hdr := filepath.Join(dir, "peak.yaml"), filepath.Join(dir, "peak.hdr")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "TARGET", srv.URL)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(`
target: TARGET
timeout: 5s
expect: ["answered=100%", "p99<5s", "refused=0%"]
streams:
  - name: refresh
    app: "1:k:${LOAD_SECRET}"
    event: notification.refresh
    channel: private-user-*
    connections: 4
    phases:
      - { rate: 50, for: 400ms }
      - { rate: 50..150, for: 400ms }
  - name: alarms
    app: "1:k:s"
    event: alarm.raised
    phases: [ { rate: 0, for: 200ms }, { rate: 20, for: 500ms } ]
`)
	getenv := func(name string) string { return map[string]string{"LOAD_SECRET": "s"}[name] }
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"load", file, "--json", "--hdr", hdr}, getenv, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out.String(), errs.String())
	}
	var got loadgen.Result
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	// 20 in the first phase, the ramp's mean of 100/s over 0.4 s, 10 alarms.
	ramp := got.Streams[0].Phases[1].Due
	if got.Streams[0].Phases[0].Due != 20 || ramp < 36 || ramp > 42 || got.Streams[1].Phases[0].Due != 0 || got.Streams[1].Phases[1].Due != 10 || got.Due != 30+ramp || got.Answered != got.Due {
		t.Errorf("%+v", got)
	}
	if st := behind.Stats(); st.Events != got.Due {
		t.Errorf("%d arrived", st.Events)
	}
	if text, err := os.ReadFile(hdr); err != nil || !strings.Contains(string(text), fmt.Sprintf("Total count    = %12d]", got.Answered)) {
		t.Errorf("%v: %s", err, text)
	}
	if got.LatencyMS["p100"] < got.LatencyMS["p50"] || got.LatencyMS["p50"] <= 0 {
		t.Errorf("%v", got.LatencyMS)
	}

	put("target: TARGET\nstreams: [ { app: \"1:k:wrong\", phases: [ { rate: 20, for: 100ms } ] } ]\nexpect: [ refused=0% ]\n")
	out.Reset()
	errs.Reset()
	if code := run(t.Context(), []string{"load", file}, getenv, &out, &errs); code != 1 || !strings.Contains(errs.String(), "verdict: FAILED: refused is 2 of 2 (100.000%), expected refused=0%") {
		t.Errorf("exit %d: %s%s", code, out.String(), errs.String())
	}
	for _, m := range []struct{ text, want string }{
		{"target: TARGET\nstreams: []", "1 to 64 streams"},
		{"streams: [ { app: \"1:k:s\" } ]", "has no phases"},
		{"streams: [ { app: \"1:k\", phases: [ { rate: 1, for: 1s } ] } ]", "must be ID:KEY:SECRET"},
		{"streams: [ { app: \"1:k:${NOT_SET}\", phases: [ { rate: 1, for: 1s } ] } ]", "NOT_SET, which is not set"},
		{"streams: [ { app: \"1:k:s\", phases: [ { rate: 1 } ] } ]", "for how long"},
		{"streams: [ { app: \"1:k:s\", phases: [ { rate: fast, for: 1s } ] } ]", `"fast" is not a number`},
		{"streams: [ { app: \"1:k:s\", phases: [ { rate: 0, for: 1s } ] } ]", "no phase has a rate above zero"},
		{"stream: []", "unknown field"},
		{"streams: [ { app: \"1:k:s\", phases: [ { rate: 1, for: 1s } ] } ]\nexpect: [ p98<1s ]", "there is no p98"},
		{"target: http://example.com\nstreams: [ { app: \"1:k:s\", phases: [ { rate: 1, for: 1s } ] } ]", "--anywhere"},
	} {
		put(m.text)
		errs.Reset()
		if code := run(t.Context(), []string{"load", file}, getenv, &out, &errs); code == 0 || !strings.Contains(errs.String(), m.want) {
			t.Errorf("%s: exit %d, %s", m.text, code, errs.String())
		}
	}
}

// A stall of the server is felt by every publish that it delays, because latency
// counts from when each was meant to be sent.
func TestLoadSeesAStall(t *testing.T) {
	var n atomic.Int64
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 10 {
			<-release
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer srv.Close()
	time.AfterFunc(700*time.Millisecond, func() { close(release) })
	code, out, errs := command(t, "load", "--target", srv.URL, "--app", "1:k:s", "--rate", "100", "--duration", "500ms", "--connections", "1", "--json", "--expect", "answered=100%")
	if code != 0 {
		t.Fatal(out, errs)
	}
	var got loadgen.Result
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	// Of fifty, forty stood behind the one that hung.
	if got.Late < 30 || got.LatencyMS["p50"] < 200 {
		t.Errorf("late %d, %v", got.Late, got.LatencyMS)
	}
	if code, _, errs := command(t, "load", "--target", srv.URL, "--app", "1:k:s", "--rate", "10", "--duration", "200ms", "--expect", "p50<1ns"); code != 1 || !strings.Contains(errs, "verdict: FAILED: p50 is") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// --load-test says so in every publish: a guard that would send it refuses it.
func TestLoadSaysThatItIsATest(t *testing.T) {
	behind := sim.New(sim.Config{MessagesPerDay: 1 << 40, Apps: []sim.App{{ID: "1", Key: "app-key", Secret: "app-secret"}}})
	srv := httptest.NewServer(behind)
	t.Cleanup(srv.Close)
	cfg, err := config.Parse("load.yaml", fmt.Appendf(nil, `
listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
data_dir: %q
drain_delay: 0s
accounts:
  - name: care
    plan: startup
    apps: [ { id: "1", key: app-key, secret: app-secret, upstream: %q, callers: [ { name: storm, key: storm-1, secret: storm-secret, load_test: true } ] } ]
`, t.TempDir(), srv.URL), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.Start(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Stop(context.Background()) })
	target := "http://" + g.Addrs()["data"]
	code, out, errs := command(t, "load", "--target", target, "--app", "1:storm-1:storm-secret", "--rate", "50", "--duration", "200ms", "--load-test", "--expect", "refused=0%", "--expect", "answered=100%")
	if code != 0 || !strings.Contains(out, "outcomes  sent 10") || !strings.Contains(out, "verdict   passed: refused=0%, answered=100%") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	code, out, _ = command(t, "load", "--target", target, "--app", "1:app-key:app-secret", "--rate", "50", "--duration", "200ms", "--load-test", "--expect", "refused=100%")
	if st := behind.Stats(); code != 0 || st.Requests != 0 {
		t.Errorf("exit %d: %s; Pusher got %d requests", code, out, st.Requests)
	}
}
