package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/replay"
)

// replayJSON runs the command as a user does and reads what it prints. It is a
// binary of its own, because the race detector makes days ten times longer.
func replayJSON(t *testing.T, args ...string) *replay.Result {
	t.Helper()
	return replayWith(t, buildPushguard(t), args...)
}

func buildPushguard(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "pushguard")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func replayWith(t *testing.T, bin string, args ...string) *replay.Result {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"replay", "--json"}, args...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("replay %v: %v\n%s", args, err, errs.String())
	}
	var r replay.Result
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// TestReplayCommand is the command line around it: what is wrong usage, what fails.
func TestReplayCommand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cfg := file("c.yaml", "accounts: [ { name: a, plan: sandbox, apps: [ { id: '1', key: k, secret: '${S}', cluster: eu } ] } ]\n")
	s := file("s.yaml", "accounts: [ { name: a, plan: sandbox, apps: [ { id: '1', key: k, secret: '${S}', cluster: eu } ] } ]\n"+
		"replay: { from: 2026-03-10, until: 2026-03-10T00:10Z, traffic: [ { caller: c, event: e, channel: x, rate: 5/s } ] }\n")
	trace := file("t.jsonl", `{"at":"2026-03-10T00:00:00Z","caller":"c","event":"e","channel":"x","size":1,"cost":2}`+"\n")
	strict := file("strict.yaml", "accounts: [ { name: a, plan: sandbox, apps: [ { id: '1', key: k, secret: '${S}', cluster: eu, rate: 1/s } ] } ]\n")
	chart := filepath.Join(dir, "x.svg")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{s}, exitDone, "with the guard"},
		{[]string{s, "--compare", strict}, exitDone, "with strict.yaml"},
		{[]string{s, "--chart", chart}, exitDone, "chart: "},
		{[]string{trace, "--config", cfg}, exitDone, "messages billed"},
		{[]string{trace}, exitUsage, "--config"},
		{[]string{s, "--config", cfg}, exitUsage, "--config is for traces"},
		{[]string{s, "--chart", "x.png"}, exitUsage, ".svg or .html"},
		{[]string{cfg}, exitFailed, "no section replay"},
		{[]string{filepath.Join(dir, "none.yaml")}, exitFailed, "no such file"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"replay"}, c.args...), func(string) string { return "" }, &out, &errs)
		if code != c.code || !strings.Contains(out.String()+errs.String(), c.says) {
			t.Errorf("replay %v: exit %d, want %d and %q\n%s%s", c.args, code, c.code, c.says, out.String(), errs.String())
		}
	}
	if svg, err := os.ReadFile(chart); err != nil || !bytes.HasPrefix(svg, []byte("<svg")) {
		t.Errorf("the chart: %v", err)
	}
}

// within fails unless got is the instant want, give or take by.
func within(t *testing.T, what string, got *time.Time, want string, by time.Duration) {
	t.Helper()
	w, err := time.Parse(time.RFC3339, want)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case got == nil:
		t.Errorf("%s: never, want %s", what, want)
	case got.Sub(w).Abs() > by:
		t.Errorf("%s: %s, want %s ± %v", what, got.Format(time.RFC3339), want, by)
	}
}

// TestReplayWelkin is the incident: without the guard its times come out as they
// were told, with it the figures that were promised.
func TestReplayWelkin(t *testing.T) {
	r := replayJSON(t, "../../bench/replay/welkin.yaml")
	alone, with := r.Sides[0], r.Sides[1]

	acted := map[string]*time.Time{}
	for _, l := range alone.Timeline {
		if l.Kind == "action" {
			acted[l.Text[:12]] = &l.At
		}
	}
	within(t, "noticed", acted["somebody not"], "2026-03-10T04:20:00Z", 5*time.Minute)
	within(t, "plan raised", acted["80 % of the "], "2026-03-10T14:30:00Z", 5*time.Minute)
	within(t, "used up", alone.UsedUpAt, "2026-03-10T20:24:00Z", 5*time.Minute)
	within(t, "stopped", acted["all notifica"], "2026-03-10T20:24:00Z", 5*time.Minute)
	if alone.HealthyDelivered > 0.90 {
		t.Errorf("without the guard %.3f of the healthy publishes are delivered; the night without notifications is missing", alone.HealthyDelivered)
	}
	if day := r.Sides[0].Days[0]; day.Plan != 10_000_000 || day.Billed > day.Plan {
		t.Errorf("without the guard the first day is %+v", day)
	}

	n := with.Naming[0]
	if n.AfterSeconds == nil || *n.AfterSeconds > 30 || n.Lost > 0.01 {
		t.Errorf("the culprit was named %+v; want within 30 s and before 1 %% of the plan is lost", n)
	}
	if with.UsedUpAt != nil {
		t.Errorf("with the guard the plan is used up at %v", with.UsedUpAt)
	}
	if with.HealthyDelivered < 0.999 {
		t.Errorf("with the guard %.5f of the healthy publishes are delivered, want 0.999", with.HealthyDelivered)
	}
	if with.WarmupIncidents > 0 {
		t.Errorf("%d false incidents in the three days before", with.WarmupIncidents)
	}
	for _, d := range with.Days {
		if d.Plan != 4_000_000 {
			t.Errorf("the plan became %d with nobody acting", d.Plan)
		}
	}
	last := with.Days[len(with.Days)-1]
	if with.LedgerUsed == nil || *with.LedgerUsed != last.Billed {
		t.Errorf("the ledger counts %v on the last day, Pusher billed %d", with.LedgerUsed, last.Billed)
	}
	t.Logf("%d publishes a second through two sides", int64(r.PerSecond))
}
