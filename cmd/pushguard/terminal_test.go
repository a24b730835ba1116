package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
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
		Verdict:    ops.Verdict{Severity: "warn", Title: "Saving the plan: refusing bulk", Text: "85 % is used.", Lasts: "It lasts.", Who: "refresher.", Doing: "490 of 510 publishes were refused."},
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
		if out != "" || strings.Count(errs, "\n") > 1 && c.code < 2 {
			t.Errorf("--fail-if %s prints more than what failed:\n%s%s", c.cond, out, errs)
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
	for _, want := range []string{"[####################....] 85.0 %", "quota    refusing bulk",
		"burning  times its even rate: 3.5 over 2 min; asks for trying again (burn_rate: observe): after 5 min; began to refuse 2 times today", "WARNING: Saving the plan", "incident i1", "40 times"} {
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

// Whatever the window's width, no line is wider; the busiest is there, and the idle are one line.
func TestTerminalFitsItsWindow(t *testing.T) {
	st := oneAccount()
	st.Accounts[0].Name = "care-notifications-production-eu-central-1-primary"
	for i := range 60 {
		st.Accounts[0].Callers = append(st.Accounts[0].Callers, ops.CallerStatus{Name: fmt.Sprintf("svc-%02d", i)})
	}
	for i := range 9 {
		quiet := oneAccount().Accounts[0]
		quiet.Name, quiet.Verdict = fmt.Sprintf("team-%d", i), ops.Verdict{Severity: "good", Short: "All right"}
		st.Accounts = append(st.Accounts, quiet)
	}
	addr, _ := adminOf(t, map[string]any{"GET /api/v1/status": st, "GET /api/v1/incidents": []ops.Incident{}, "GET /api/v1/audit": []ops.AuditEntry{{Account: "care", What: "brake on", Who: "anna", Why: strings.Repeat("because ", 20), At: time.Now()}},
		"GET /api/v1/top": []ops.TopRow{{Key: strings.Repeat("private-user-", 12), Count: 900, Error: 12, Share: 0.9}}})
	for _, width := range []int{40, 60, 80, 120, 200} {
		for _, args := range [][]string{{"status"}, {"top", "--once"}, {"top", "--once", "--by", "channel"}, {"audit"}} {
			var out, errs bytes.Buffer
			code := run(t.Context(), append(args, "--admin", addr), func(name string) string {
				return map[string]string{"COLUMNS": fmt.Sprint(width)}[name]
			}, &out, &errs)
			if code != 0 {
				t.Fatalf("%v: %d %s", args, code, &errs)
			}
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
					t.Errorf("%v at %d columns: a line of %d: %q", args, width, n, line)
				}
			}
			if args[0] != "audit" && len(args) < 3 && (!strings.Contains(out.String(), "re?[2J") || !strings.Contains(out.String(), "60 callers idle")) {
				t.Errorf("%v at %d columns: the busiest or the idle are missing:\n%s", args, width, &out)
			}
			if args[0] == "top" && !strings.Contains(out.String(), "team-3") {
				t.Errorf("%v at %d columns: the quiet accounts are missing:\n%s", args, width, &out)
			}
		}
	}
	if code, out, errs := command(t, "status", "--account", "team-3", "--admin", addr); code != 0 || strings.Contains(out, "team-4") {
		t.Errorf("status of one account: %d %s\n%s", code, errs, out)
	}
	if code, _, errs := command(t, "status", "--account", "taem", "--admin", addr); code != 2 || !strings.Contains(errs, "team-8") {
		t.Errorf("status of none: %d %s", code, errs)
	}
}

// Each command that an alert, the page or the terminal tells is one that the parser takes.
func TestToldCommandsExist(t *testing.T) {
	for _, told := range []string{
		words.Contain("20260310t034005z-care"), words.Release("20260310t034005z-care"), words.Incident("x"), words.BrakeOn("care"), words.BrakeOff("care"),
		words.PlanSet("care"), words.UsageSet("care"), words.Status(), words.Top(), words.CheckConfig(), words.CheckAround(),
	} {
		args := strings.Fields(strings.ReplaceAll(told, " N ", " 1000 "))
		// An admin port that is none: a command that exists fails there, and not on its words.
		admin := []string{"--admin", "127.0.0.1:1"}
		if args[1] == "check" {
			admin = nil
		}
		if code, _, errs := command(t, append(args[1:], admin...)...); args[0] != "pushguard" || code != 1 {
			t.Errorf("%q: exit code %d: %s", told, code, errs)
		}
	}
	// And those of the alert rules and the pages for people.
	files, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal("no runbooks", err)
	}
	line := regexp.MustCompile("`(pushguard [^`]+)`|((?:pushguard) (?:brake|plan|usage|incidents|top|status)[^\".;:]*)")
	for _, f := range append(files, "../../deploy/prometheus/rules.yaml") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(strings.ReplaceAll(string(text), "{{ $labels.account }}", "care"), -1) {
			told := cmp.Or(m[1], m[2])
			told, _, _ = strings.Cut(told, " > ")
			for _, r := range [][2]string{{" N ", " 1000 "}, {"OTHER:8081", "127.0.0.1:1"}} {
				told = strings.ReplaceAll(told, r[0], r[1])
			}
			args := strings.Fields(told)[1:]
			if args[0] != "check" && !strings.Contains(told, "--admin") {
				args = append(args, "--admin", "127.0.0.1:1")
			}
			if len(args) > 1 && args[0] == "plan" && !strings.Contains(told, "1000") || args[0] == "usage" && !strings.Contains(told, "1000") {
				continue // the name of a command alone
			}
			if code, _, errs := command(t, args...); code != 1 {
				t.Errorf("%s tells %q: exit code %d: %s", f, told, code, errs)
			}
		}
	}
}

func TestUnknownCommandsGetTheNearest(t *testing.T) {
	for args, want := range map[string]string{"stauts": `did you mean "status"?`, "incident": `did you mean "incidents"?`, "brake onn": `did you mean "on"?`, "plan get 5": `did you mean "set"?`, "foo": "pushguard has serve", "brake on --for 2x --reason x": "2d"} {
		if code, _, errs := command(t, strings.Fields(args)...); code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
}
