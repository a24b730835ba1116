package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that should happen soon.
const patience = 20 * time.Second

// until polls cond until it holds, and fails the test when patience ends.
func until(t testing.TB, what string, cond func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	if !waitFor(cond) {
		t.Fatalf("after %s still not: %s", patience, what)
	}
	return time.Since(began)
}

// waitFor reports whether cond came to hold before patience ended.
func waitFor(cond func() bool) bool {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// child is a process that a test started.
type child struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed once it has ended
	err  error         // of its end; read after done
}

// start runs a program; it is ended with the test.
func start(t testing.TB, name string, env []string, program string, args ...string) *child {
	t.Helper()
	c := &child{name: name, cmd: exec.Command(program, args...), out: logs.open(t.Name() + "/" + name), done: make(chan struct{})}
	c.cmd.Env = append(cleanEnv(), env...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	dieWithTests(c.cmd)
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		c.end()
		if t.Failed() {
			t.Logf("the last lines of %s:\n%s", name, tail(c.out.String(), 30))
		}
	})
	return c
}

// cleanEnv is the environment without what would reach into pushguard.
func cleanEnv() (env []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PUSHER_") && !strings.HasPrefix(kv, "PUSHGUARD_") {
			env = append(env, kv)
		}
	}
	return env
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (c *child) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// kill is SIGKILL, and waits.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// end asks with SIGTERM, and after a while no longer asks.
func (c *child) end() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		c.kill()
	}
}

// exitCode waits for the end.
func (c *child) exitCode(t testing.TB) int {
	t.Helper()
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s did not end within %s", c.name, patience)
		return -1
	}
}

// addresses waits for an --addr-file.
func (c *child) addresses(t testing.TB, file string) (data, admin string) {
	t.Helper()
	var a struct{ Data, Admin string }
	until(t, c.name+" writes its --addr-file", func() bool {
		if !c.alive() {
			t.Fatalf("%s ended with %v:\n%s", c.name, c.err, tail(c.out.String(), 30))
		}
		b, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(b, &a) == nil
	})
	return a.Data, a.Admin
}

// sim is `pushguard sim`.
type sim struct {
	*child
	addr string
}

func startSim(t testing.TB, args ...string) *sim {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sim.json")
	all := append([]string{"sim", "--listen", "127.0.0.1:0", "--addr-file", file, "--log-level", "debug",
		"--app", appID + ":" + appKey + ":" + appSecret}, args...)
	s := &sim{child: start(t, "sim", nil, binary(), all...)}
	s.addr, _ = s.addresses(t, file)
	return s
}

// simEvent is an event as the simulator's record shows it.
type simEvent struct {
	Seq        int64    `json:"seq"`
	Request    int64    `json:"request"`
	App        string   `json:"app"`
	Key        string   `json:"key"`
	Endpoint   string   `json:"endpoint"`
	Name       string   `json:"name"`
	Channels   []string `json:"channels"`
	Data       string   `json:"data"`
	DataBase64 string   `json:"data_base64"`
	SocketID   string   `json:"socket_id"`
	Info       string   `json:"info"`
	BodyMD5    string   `json:"body_md5"`
	Deliveries int64    `json:"deliveries"`
}

type simStats struct {
	Requests   int64            `json:"requests"`
	Events     int64            `json:"events"`
	Deliveries int64            `json:"deliveries"`
	Messages   int64            `json:"messages"`
	Refused    int64            `json:"refused"`
	ByEndpoint map[string]int64 `json:"by_endpoint"`
	Forgotten  int64            `json:"forgotten"`
}

func (s *sim) stats(t testing.TB) (st simStats) {
	t.Helper()
	getJSON(t, "http://"+s.addr+"/sim/v1/stats", &st)
	return st
}

// events are those after a Seq, oldest first.
func (s *sim) events(t testing.TB, after int64) (all []simEvent) {
	t.Helper()
	getJSON(t, fmt.Sprintf("http://%s/sim/v1/events?limit=100000&after=%d", s.addr, after), &all)
	return all
}

// control changes the simulator while it runs.
func (s *sim) control(t testing.TB, change string) {
	t.Helper()
	resp, err := http.Post("http://"+s.addr+"/sim/v1/control", "application/json", strings.NewReader(change))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("sim control %s: %s %s", change, resp.Status, b)
	}
}

// guard is `pushguard serve`.
type guard struct {
	*child
	data, admin string
}

// serve starts a guard on a config and waits until it says ready. The config
// leaves out addresses; data_dir is dir.
func serve(t testing.TB, name, dir, config string) *guard {
	t.Helper()
	g := launch(t, name, dir, config)
	until(t, name+" is ready", func() bool {
		status, _ := g.get(t, "/readyz")
		return status == http.StatusOK
	})
	return g
}

func launch(t testing.TB, name, dir, config string) *guard {
	t.Helper()
	work := t.TempDir()
	file, addrs := filepath.Join(work, "pushguard.yaml"), filepath.Join(work, "addr.json")
	if !strings.Contains(config, "drain_delay:") {
		config += "drain_delay: 0s\n"
	}
	text := fmt.Sprintf("data_dir: %q\nreplica: %s\nadmin: { token: %q }\n%s", dir, name, adminToken, config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := &guard{child: start(t, name, nil, binary(), "serve", "--config", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--addr-file", addrs, "--log-level", "debug")}
	g.data, g.admin = g.addresses(t, addrs)
	t.Cleanup(func() { g.expose() })
	return g
}

// expose takes what the admin port shows to anybody into the sweep for secrets.
func (g *guard) expose() {
	if !g.alive() {
		return
	}
	for _, path := range []string{"/api/v1/status", "/metrics", "/readyz", "/api/v1/audit", "/"} {
		resp, err := http.Get("http://" + g.admin + path)
		if err != nil {
			continue
		}
		_, _ = io.Copy(logs.open(g.name+" "+path), resp.Body)
		resp.Body.Close()
	}
}

func (g *guard) get(t testing.TB, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + g.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// order sends one write to the admin API.
func (g *guard) order(t testing.TB, method, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+g.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s", method, path, resp.Status, b)
	}
}

type accountStatus struct {
	Name      string
	Used      int64
	Leased    int64
	Remaining int64
	Plan      struct {
		MessagesPerDay int64 `json:"messages_per_day"`
	}
	Brake *struct{ Reason string }
}

func (g *guard) account(t testing.TB, name string) accountStatus {
	t.Helper()
	var st struct{ Accounts []accountStatus }
	getJSON(t, "http://"+g.admin+"/api/v1/status", &st)
	for _, a := range st.Accounts {
		if a.Name == name {
			return a
		}
	}
	t.Fatalf("status shows no account %q", name)
	return accountStatus{}
}

func getJSON(t testing.TB, url string, out any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %s", url, resp.Status, b)
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(out); err != nil {
		t.Fatalf("GET %s: %v in %s", url, err, b)
	}
}

// freePort is a port that nobody had a moment ago. Somebody may take it before
// its user does; those who use it try again.
func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// onFreePort starts a server that cannot choose its port by itself, again on
// another port if that was taken meanwhile.
func onFreePort(t testing.TB, begin func(port int) *child, ready func(addr string) bool) (c *child, addr string) {
	t.Helper()
	for range 5 {
		port := freePort(t)
		addr = fmt.Sprintf("127.0.0.1:%d", port)
		c = begin(port)
		deadline := time.Now().Add(patience)
		tick := time.NewTicker(5 * time.Millisecond)
		for c.alive() && time.Now().Before(deadline) {
			if ready(addr) {
				tick.Stop()
				return c, addr
			}
			<-tick.C
		}
		tick.Stop()
		c.end()
	}
	t.Fatal("the server did not come up on any of five ports")
	return nil, ""
}

// startRedis runs a redis-server of the test's own, with a password and nothing
// on disk.
func startRedis(t testing.TB) (addr string) {
	t.Helper()
	_, addr = startRedisServer(t)
	return addr
}

func startRedisServer(t testing.TB) (server *child, addr string) {
	t.Helper()
	dir := t.TempDir()
	return onFreePort(t, func(port int) *child {
		return start(t, "redis", nil, "redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
			"--dir", dir, "--requirepass", redisSecret, "--loglevel", "warning")
	}, func(addr string) bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprintf(c, "AUTH %s\r\nPING\r\n", redisSecret)
		answer := make([]byte, 64)
		n, err := io.ReadAtLeast(c, answer, len("+OK\r\n+PONG\r\n"))
		return err == nil && strings.Contains(string(answer[:n]), "+PONG")
	})
}
