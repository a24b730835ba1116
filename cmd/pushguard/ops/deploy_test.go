package ops

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/forecast"
)

const deploy = "../../../deploy"

// tool runs a tool that make deps installs.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s\n(make deps installs Debian's prometheus and prometheus-alertmanager)", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestAlertRules(t *testing.T) {
	tool(t, "promtool", "check", "rules", filepath.Join(deploy, "prometheus", "rules.yaml"))
	tool(t, "promtool", "test", "rules", filepath.Join(deploy, "prometheus", "rules_test.yaml"))
	tool(t, "promtool", "check", "config", "--syntax-only", filepath.Join(deploy, "prometheus", "prometheus.yaml"))
	tool(t, "amtool", "check-config", filepath.Join(deploy, "alertmanager", "alertmanager.yaml"))
}

var metricName = regexp.MustCompile(`\b(pushguard_[a-z_]+|process_[a-z_]+)\b`)

// known are the metrics that a guard can show, by the names that a query uses.
func known(t *testing.T) map[string]bool {
	t.Helper()
	s := newStage(t, noon)
	srv := s.server()
	s.publish(noon, "care", "care-api", "x", "c", 1)
	srv.Sample(noon)
	for i := range 20 { // how fast the plan burns is known after a while
		s.accounts[0].Breaker.ObserveBurn(s.at(noon.Add(time.Duration(i)*time.Second)), 2, 2, 1_000_000, func() forecast.Forecast { return forecast.Forecast{} })
	}
	names := map[string]bool{
		// What the data port and the guard around it add.
		"pushguard_upstream_seconds_bucket": true, "pushguard_upstream_requests_total": true, "pushguard_refused_requests_total": true,
	}
	for line := range strings.Lines(ask(t, srv, "GET", "/metrics", nil).Body.String()) {
		if name, _, ok := strings.Cut(line, " "); ok && name != "#" {
			name, _, _ = strings.Cut(name, "{")
			names[name] = true
		}
	}
	return names
}

func TestGrafanaAsksForMetricsThatExist(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(deploy, "grafana", "pushguard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	metrics := known(t)
	var rules bytes.Buffer
	rules.WriteString("groups:\n  - name: g\n    rules:\n")
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("panel %q: its id is taken, or it asks nothing", p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or beside the board", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for i, q := range p.Targets {
			for _, name := range metricName.FindAllString(q.Expr, -1) {
				if !metrics[name] {
					t.Errorf("panel %q asks for %s, which no guard has", p.Title, name)
				}
			}
			expr := strings.NewReplacer("$__rate_interval", "1m", "$account", ".*", "$job", ".*").Replace(q.Expr)
			fmt.Fprintf(&rules, "      - { record: 'p%d_%d', expr: '%s' }\n", p.ID, i, expr)
		}
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, rules.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "promtool", "check", "rules", file)

	b, err = os.ReadFile(filepath.Join(deploy, "prometheus", "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range metricName.FindAllString(string(b), -1) {
		if name = strings.TrimSuffix(name, "_"); !metrics[name] && name != "pushguard_burn" {
			t.Errorf("rules.yaml asks for %s, which no guard has", name)
		}
	}
}

// A real Prometheus scrapes the guard and evaluates the rules.
func TestPrometheusScrapes(t *testing.T) {
	s := newStage(t)
	srv := s.server()
	s.publish(time.Now(), "care", "care-api", "x", "c", 5)
	srv.Sample(time.Now())
	guard := httptest.NewServer(srv)
	t.Cleanup(guard.Close)

	dir := t.TempDir()
	rules, err := filepath.Abs(filepath.Join(deploy, "prometheus", "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: { scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 1s }\nrule_files: [%q]\nscrape_configs:\n  - job_name: pushguard\n    static_configs: [{ targets: [%q] }]\n",
		rules, strings.TrimPrefix(guard.URL, "http://"))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal("make deps installs Debian's prometheus:", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	query := func(q string) string {
		resp, err := http.Get("http://" + addr + "/api/v1/query?query=" + url.QueryEscape(q))
		if err != nil {
			return ""
		}
		defer resp.Body.Close()
		var out struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if json.NewDecoder(resp.Body).Decode(&out) != nil || len(out.Data.Result) == 0 {
			return ""
		}
		return fmt.Sprint(out.Data.Result[0].Value[1])
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); ; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("Prometheus saw nothing in a minute:\n%s", log.String())
		}
		if query(`pushguard_messages_limit{account="care"}`) == "1000000" &&
			query(`pushguard_publishes_total{caller="care-api",outcome="sent"}`) == "5" && query(`up{job="pushguard"}`) == "1" {
			return
		}
	}
}
