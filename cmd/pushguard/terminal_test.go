package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
)

// adminOf is an admin port that answers what it is given, and notes what it is
// asked for.
func adminOf(t *testing.T, answers map[string]any) (addr string, asked func() string) {
	t.Helper()
	var calls []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Method + " " + r.URL.Path
		if r.URL.Query().Get("dry_run") != "" {
			key += " dry"
		}
		calls = append(calls, key)
		answer, ok := answers[key]
		if !ok {
			w.WriteHeader(404)
			answer = map[string]string{"error": "no " + key}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() string { return strings.Join(calls, ", ") }
}

// command runs pushguard as a shell would.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, func(string) string { return "" }, &out, &errs)
	return code, out.String(), errs.String()
}

func oneAccount() ops.Status {
	usual, burning := 2.0, 3.5
	return ops.Status{Version: "1", Replica: "a", Store: ops.StoreStatus{Kind: "redis", State: "up"}, Accounts: []ops.AccountStatus{{
		Name: "care", Plan: ops.PlanStatus{Name: "startup", MessagesPerDay: 1_000_000}, Day: "2026-05-11", Used: 850_000, Remaining: 150_000,
		ResetsAt: time.Now().Add(3 * time.Hour), Forecast: ops.ForecastStatus{UsedAtReset: 1_100_000, PerSecond: 23},
		Breaker: ops.BreakerStatus{State: "shed_bulk", Reason: "85 % of the plan used", Since: time.Now(), Burn: ops.BurnStatus{
			Mode: "observe", State: "half_open", Reason: "after 5 min", Trips: 2,
			Windows: []ops.BurnWindowStatus{{OverS: 120, Times: &burning, Mark: 14.4}, {OverS: 8640, Mark: 1}},
		}},
		Priorities: []ops.PriorityStatus{{Priority: "critical", Publishes: 10}, {Priority: "bulk", Publishes: 500, Refused: 490}},
		Callers: []ops.CallerStatus{
			{Name: "care-api", Rate10s: 3, Usual: &usual, Outcomes: map[string]int64{"sent": 9}},
			{Name: "re\x1b[2Jfresher", Rate10s: 80, Usual: &usual, Held1m: 490, Outcomes: map[string]int64{"over_budget": 490}},
		},
		Apps: []ops.AppStatus{{ID: "1", Mode: "enforce", Upstream: ops.UpstreamStatus{URL: "http://p", State: "closed"}}},
	}}}
}

func TestStatusInAScript(t *testing.T) {
	open := []ops.Incident{{ID: "i1", Account: "care", State: ops.IncidentOpen, Factor: 40, Action: ops.ActionContained, Culprits: []ops.Culprit{{Caller: "refresher"}}}}
	addr, _ := adminOf(t, map[string]any{"GET /api/v1/status": oneAccount(), "GET /api/v1/incidents": open})
	for _, c := range []struct {
		cond string
		code int
		says string
	}{
		{"breaker!=closed", 1, "it is shed_bulk"},
		{"breaker=open", 0, ""},
		{"used>=80%", 1, "it is 85.0%"},
		{"used>=850001", 0, ""},
		{"used>=850,000", 1, "it is 850,000"},
		{"forecast>100%", 1, "110.0%"},
		{"remaining<15%", 0, ""},
		{"remaining<=15%", 1, "15.0%"},
		{"refused>0", 1, "it is 490"},
		{"incidents>0", 1, "it is 1"},
		{"brake=on", 0, ""},
		{"store!=up", 0, ""},
		{"upstream!=closed", 0, ""},
		{"breaker!=shut", 2, "one of closed"},
		{"breaker>closed", 2, "a word"},
		{"used>lots", 2, "a number"},
		{"refused>5%", 2, "no part of the plan"},
		{"colour=red", 2, "no field"},
		{"breaker", 2, "FIELD OP VALUE"},
	} {
		code, out, errs := command(t, "status", "--admin", addr, "--fail-if", c.cond)
		if code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("--fail-if %s: code %d, %q; want %d and %q", c.cond, code, errs, c.code, c.says)
		}
		if c.code < 2 && !strings.Contains(out, "account care (startup)") {
			t.Errorf("--fail-if %s: the status is not printed:\n%s", c.cond, out)
		}
	}
	code, out, _ := command(t, "status", "--admin", addr, "--fail-if", "brake=on", "--fail-if", "used>1%", "--json")
	var st ops.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != 1 || st.Accounts[0].Used != 850_000 {
		t.Errorf("two conditions and --json: code %d, %v", code, err)
	}
}

func TestTerminalIsSafeAndTellsWho(t *testing.T) {
	open := []ops.Incident{{ID: "i1", Account: "care", State: ops.IncidentOpen, Factor: 40, Action: ops.ActionContained, Culprits: []ops.Culprit{{Caller: "refresher", Event: "x\x1b]0;evil\x07"}}}}
	addr, _ := adminOf(t, map[string]any{
		"GET /api/v1/status": oneAccount(), "GET /api/v1/incidents": open, "GET /api/v1/incidents/i1": open[0],
		"GET /api/v1/top": []ops.TopRow{{Key: "private-user-*\x1b[31m", Count: 900, Error: 12, Share: 0.9}},
	})
	for _, args := range [][]string{{"status"}, {"top", "--once"}, {"top", "--by", "channel"}, {"incidents"}, {"incidents", "i1"}} {
		code, out, errs := command(t, append(args, "--admin", addr)...)
		if code != 0 || strings.ContainsAny(out, "\x1b\x07") {
			t.Errorf("%v: code %d %s\n%q", args, code, errs, out)
		}
	}
	_, out, _ := command(t, "top", "--once", "--admin", addr)
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimSpace(l), "caller ") {
			if !strings.Contains(lines[i+1], "re?[2Jfresher") || !strings.Contains(lines[i+1], "far above its usual rate") {
				t.Errorf("the busiest is not first, or not marked: %q", lines[i+1])
			}
		}
	}
	for _, want := range []string{"[####################....] 85.0%", "breaker  shed_bulk",
		"burning  times its even rate: 3.5 over 2m0s; asks for half_open (burn_rate: observe): after 5 min; shed 2 times today", "510 publishes, 490 refused", "incident i1", "40 times"} {
		if !strings.Contains(out, want) {
			t.Errorf("top does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "RELOAD REFUSED") {
		t.Errorf("a reload is refused that was not:\n%s", out)
	}
	stale := oneAccount()
	stale.ReloadRefused = true
	old, _ := adminOf(t, map[string]any{"GET /api/v1/status": stale, "GET /api/v1/incidents": open})
	for _, args := range [][]string{{"status"}, {"top", "--once"}} {
		if _, out, _ := command(t, append(args, "--admin", old)...); !strings.Contains(out, "config RELOAD REFUSED") {
			t.Errorf("%v does not say that the config in force is not the file's:\n%s", args, out)
		}
	}
	if code, out, _ := command(t, "top", "--by", "channel", "--json", "--admin", addr); code != 0 || !strings.HasPrefix(strings.TrimSpace(out), "[") {
		t.Errorf("top --json: %d %s", code, out)
	}
}

func TestLeversTellBeforeTheyMove(t *testing.T) {
	n := int64(500)
	addr, asked := adminOf(t, map[string]any{
		"GET /api/v1/status":                     oneAccount(),
		"POST /api/v1/accounts/care/brake dry":   ops.Effect{Summary: "Refuses 500.", RefusedPerMinute: &n, Priorities: []ops.PriorityEffect{{Priority: "bulk", Publishes: 500, RefusedNow: 490, Refused: &n}, {Priority: "normal", Publishes: 3}}},
		"POST /api/v1/accounts/care/brake":       oneAccount().Accounts[0],
		"POST /api/v1/incidents/i1/contain":      ops.Incident{ID: "i1", State: "open", Action: "contained"},
		"POST /api/v1/incidents/i1/contain dry":  ops.Effect{Summary: "Holds them."},
		"DELETE /api/v1/accounts/care/brake dry": ops.Effect{Summary: "Nothing."},
		"DELETE /api/v1/accounts/care/brake":     oneAccount().Accounts[0],
	})
	code, out, _ := command(t, "brake", "on", "--reason", "x", "--dry-run", "--admin", addr)
	if code != 0 || !strings.Contains(out, "Refuses 500.") || !strings.Contains(out, "not known") || strings.Contains(asked(), "POST /api/v1/accounts/care/brake,") || strings.HasSuffix(asked(), "brake") {
		t.Errorf("dry run: %d %s\nasked %s", code, out, asked())
	}
	code, out, errs := command(t, "brake", "on", "--reason", "x", "--admin", addr)
	if code != 0 || !strings.Contains(errs, "Refuses 500.") || !strings.Contains(out, "brake on: account care") || !strings.HasSuffix(asked(), "POST /api/v1/accounts/care/brake") {
		t.Errorf("for real: %d %s %s\nasked %s", code, out, errs, asked())
	}
	if code, out, errs := command(t, "brake", "off", "--reason", "over", "--admin", addr); code != 0 || !strings.Contains(out, "brake off") {
		t.Errorf("brake off: %d %s %s", code, out, errs)
	}
	if code, out, _ := command(t, "incidents", "i1", "--contain", "--reason", "x", "--admin", addr); code != 0 || !strings.Contains(out, "action contained") {
		t.Errorf("contain: %d %s", code, out)
	}
	if code, _, errs := command(t, "incidents", "--contain", "--admin", addr); code != 2 || !strings.Contains(errs, "which incident") {
		t.Errorf("contain what? %d %s", code, errs)
	}
	for _, name := range []string{"status", "top", "incidents"} {
		if code, out, _ := command(t, name, "--help"); code != 0 || !strings.Contains(out, "Example") {
			t.Errorf("%s --help: %d %s", name, code, out)
		}
	}
}
