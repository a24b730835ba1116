package guard

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
)

// life is a guard in this process with its config file, in front of a
// simulator.
type life struct {
	t        *testing.T
	g        *Guard
	file     string
	dir      string
	upstream string
	pusher   *sim.Server
	log      *logBuffer
	sinkDir  string // where a sink keeps its own count; empty for a guard that sends
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const lifeConfig = `
listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
data_dir: DIR/data
drain_delay: 0s
#top
accounts:
  - name: care
    plan: { messages_per_day: 1000000 }
    apps:
      - id: "1"
        key: app-key
        secret: app-secret
        upstream: UPSTREAM
        callers:
          - { name: web, key: web-1, secret: "${file:web}", rate: 1/h, burst: 2 }
          #caller
    rules:
      - { match: { event: "alarm.*" }, priority: critical }
      #rule
#account
`

const secondAccount = `
  - name: second
    plan: sandbox
    apps: [ { id: "2", key: second-key, secret: second-secret, upstream: UPSTREAM } ]
`

func begin(t *testing.T, edits ...string) *life {
	t.Helper()
	return beginWith(t, nil, edits...)
}

// beginWith is begin with what a command line can ask for beside the config.
func beginWith(t *testing.T, asked func(*life) extras, edits ...string) *life {
	t.Helper()
	behind := sim.New(sim.Config{MessagesPerDay: 1 << 40, Subscribers: 1, Apps: []sim.App{
		{ID: "1", Key: "app-key", Secret: "app-secret"}, {ID: "2", Key: "second-key", Secret: "second-secret"}}})
	srv := httptest.NewServer(behind)
	t.Cleanup(srv.Close)
	l := &life{t: t, dir: t.TempDir(), upstream: srv.URL, pusher: behind, log: &logBuffer{}}
	l.file = filepath.Join(l.dir, "pushguard.yaml")
	l.put("web", "old-secret")
	l.write(edits...)
	loaded, err := l.load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	log, level, err := NewLevelLogger(l.log, "text", "debug")
	if err != nil {
		t.Fatal(err)
	}
	var given ports
	if asked != nil {
		given.Extras = asked(l)
	}
	if l.g, err = StartOn(context.Background(), loaded.Config, log, level, given); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.g.Stop(context.Background()); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	})
	return l
}

// write makes the config anew, with pairs of what to replace by what.
func (l *life) write(edits ...string) {
	l.t.Helper()
	text := lifeConfig
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			l.t.Fatalf("%q is not in the config", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	text = strings.NewReplacer("DIR", l.dir, "UPSTREAM", l.upstream).Replace(text)
	if err := os.WriteFile(l.file, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) put(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) load(ctx context.Context) (*config.Loaded, error) {
	loaded, err := (&config.Loader{Getenv: os.Getenv}).Load(ctx, l.file)
	if err == nil && l.sinkDir != "" {
		IsolateSink(loaded.Config, l.sinkDir)
	}
	return loaded, err
}

func (l *life) reload() error {
	l.t.Helper()
	loaded, err := l.load(context.Background())
	if err != nil {
		return err
	}
	_, err = l.g.reload(context.Background(), loaded.Config)
	return err
}

// publish returns the status of one publish signed with that pair.
func (l *life) publish(app, key, secret string) int {
	l.t.Helper()
	return l.send(app, key, secret, `{"name":"x","channel":"c","data":"`+rand.Text()+`"}`, nil).status
}

type heard struct {
	status int
	body   string
	header http.Header
}

// send makes one publish of that body, signed with that pair.
func (l *life) send(app, key, secret, body string, header http.Header) heard {
	l.t.Helper()
	path := "/apps/" + app + "/events"
	uri := pusher.NewKey(key, secret).AppendSigned([]byte(path+"?"), "POST", []byte(path), nil, []byte(body), time.Now())
	req, err := http.NewRequest("POST", "http://"+l.g.data.Addr().String()+string(uri), strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return heard{resp.StatusCode, string(text), resp.Header}
}

func (l *life) get(path string) string {
	l.t.Helper()
	resp, err := http.Get("http://" + l.g.admin.Addr().String() + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(text))
}

// until waits for a condition that comes about by itself.
func (l *life) until(what string, is func() bool) {
	l.t.Helper()
	end := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-end:
			l.t.Fatalf("never: %s\nreadyz %s\n%s", what, l.get("/readyz"), l.log)
		case <-tick.C:
		}
	}
}

func TestReloadOfTheSameIsNothing(t *testing.T) {
	l := begin(t)
	before := l.g.fleet.Load()
	if err := l.reload(); err != nil {
		t.Fatal(err)
	}
	if l.g.fleet.Load() != before {
		t.Error("the fleet was replaced")
	}
}

// What a reload does not speak of stays the very same thing: buckets, ledgers,
// connections, breakers keep what they know.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	l := begin(t)
	if a, b := l.publish("1", "web-1", "old-secret"), l.publish("1", "web-1", "old-secret"); a != 200 || b != 200 {
		t.Fatal(a, b)
	}
	was := l.g.fleet.Load().account("care").app("1")
	ledger := l.g.fleet.Load().account("care").Ledger

	steps := []struct {
		name                string
		edits               []string
		app, judge, up, fan bool // the same as at the start
	}{
		{"a rule", []string{"#rule", "- { match: { event: y }, priority: bulk }"}, true, true, true, true},
		{"a share and a mode", []string{"burst: 2", "burst: 2, share: 10%"}, true, true, true, true},
		{"the plan", []string{"messages_per_day: 1000000", "messages_per_day: 2000000"}, true, true, true, true},
		{"thresholds", []string{"#top", "breaker: { shed_bulk_at: 50% }"}, true, true, true, true},
		{"a caller", []string{"#caller", `- { name: cron, key: cron-1, secret: s }`}, false, true, true, true},
		{"fan-out", []string{"upstream: UPSTREAM", "upstream: UPSTREAM\n        subscribers: { default: 7 }"}, false, true, true, false},
		{"a timeout", []string{"upstream: UPSTREAM", "upstream: UPSTREAM\n        timeout: 2s"}, false, true, false, false},
	}
	for _, s := range steps {
		l.write(s.edits...)
		if err := l.reload(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		a := l.g.fleet.Load().account("care")
		is := a.app("1")
		if s.app && is.App != was.App || (is.Limiter == was.Limiter) != s.judge || (is.Upstream == was.Upstream) != s.up || s.fan && is.Fanout != was.Fanout || a.Ledger != ledger {
			t.Errorf("%s: app %v, judge %v, upstream %v, fan-out %v kept", s.name, is.App == was.App, is.Limiter == was.Limiter, is.Upstream == was.Upstream, is.Fanout == was.Fanout)
		}
		if got := l.publish("1", "web-1", "old-secret"); got != 429 {
			t.Errorf("%s: the caller's empty bucket was filled: %d", s.name, got)
		}
		if len(l.g.proxy.Apps()) != 1 || l.g.proxy.Apps()[0] != is.App {
			t.Errorf("%s: the proxy serves another app than the fleet has", s.name)
		}
	}
	if l.publish("1", "app-key", "app-secret") != 200 {
		t.Error("nothing passes any more")
	}
}

func TestReloadAddsAndRemovesAccounts(t *testing.T) {
	l := begin(t)
	if got := l.publish("2", "second-key", "second-secret"); got != 401 && got != 404 {
		t.Fatal(got)
	}
	l.write("#account", secondAccount)
	if err := l.reload(); err != nil {
		t.Fatal(err)
	}
	if got := l.publish("2", "second-key", "second-secret"); got != 200 {
		t.Errorf("the new account's app: %d", got)
	}
	if !strings.Contains(l.get("/readyz"), "account second") {
		t.Error("/readyz does not know the new account")
	}
	l.write()
	if err := l.reload(); err != nil {
		t.Fatal(err)
	}
	if got := l.publish("2", "second-key", "second-secret"); got == 200 {
		t.Error("the removed account's app still publishes")
	}
	if got := l.publish("1", "app-key", "app-secret"); got != 200 {
		t.Errorf("the account that stayed: %d", got)
	}
}

// A reload that fails half-way leaves nothing of itself: here the new account
// gets no first lease, after everything else was found good.
func TestReloadIsAllOrNothing(t *testing.T) {
	l := begin(t)
	before := l.g.fleet.Load()
	app := before.account("care").app("1")
	policy, served := app.Limiter.Policy(), l.g.proxy.Apps()[0]
	if err := l.g.store.Close(); err != nil {
		t.Fatal(err)
	}
	l.write("#account", secondAccount, "#rule", "- { match: { event: y }, priority: bulk }", "#caller", "- { name: cron, key: cron-1, secret: s }", "#top", "breaker: { shed_bulk_at: 50% }")
	err := l.reload()
	if err == nil || !strings.Contains(err.Error(), "account second") {
		t.Fatalf("got %v", err)
	}
	if l.g.fleet.Load() != before || l.g.proxy.Apps()[0] != served || len(app.Limiter.Policy().Rules) != len(policy.Rules) {
		t.Error("something of the refused config is in force")
	}
}

// The steps that put a reload in place are taken back when a late one fails.
func TestUndoRunsBackwards(t *testing.T) {
	var u undo
	var got []int
	for i := range 3 {
		u.add(func() { got = append(got, i) })
	}
	u.run()
	if fmt.Sprint(got) != "[2 1 0]" {
		t.Error(got)
	}
}

func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	l := begin(t)
	before := l.g.fleet.Load()
	for _, k := range [][3]string{
		{`listen: "127.0.0.1:0"`, `listen: "127.0.0.1:1"`, "listen"},
		{`admin: { listen: "127.0.0.1:0" }`, `admin: { listen: "127.0.0.1:0", token: long-enough-token-4711 }`, "admin.token"},
		{"data_dir: DIR/data", "data_dir: DIR/other", "data_dir"},
		{"#top", "store: redis://127.0.0.1:1", "store"},
		{"#top", "replica: other", "replica"},
		{"#top", "max_body: 2MiB", "max_body"},
		{"#top", "max_connections: 5", "max_connections"},
		{"#top", "max_connections_per_peer: 5", "max_connections_per_peer"},
		{"#top", "read_timeout: 5s", "read_timeout"},
		{"#top", "log: { format: json }", "log.format"},
	} {
		l.write(k[0], k[1], "#rule", "- { match: { event: y }, priority: bulk }")
		err := l.reload()
		if err == nil || !strings.HasPrefix(err.Error(), k[2]+": needs a restart") {
			t.Errorf("%s: got %v", k[2], err)
		}
	}
	if l.g.fleet.Load() != before {
		t.Error("something was taken all the same")
	}
}

// The watcher takes what changes in the file and in the secrets it refers to,
// and shows what it cannot take.
func TestWatchFollowsFileAndSecrets(t *testing.T) {
	l := begin(t)
	loaded, err := l.load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	hup := make(chan os.Signal, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { l.g.watch(ctx, hup, l.load, loaded); close(done) }()
	t.Cleanup(func() { cancel(); <-done })

	l.write("rate: 1/h, burst: 2", "rate: 1000/s, burst: 1000")
	l.until("the caller's rate is raised", func() bool {
		for range 3 { // the old burst is 2
			if l.publish("1", "web-1", "old-secret") != 200 {
				return false
			}
		}
		return true
	})

	// Kubernetes and careful people replace a file by a rename.
	l.put("web.new", "new-secret\n")
	if err := os.Rename(filepath.Join(l.dir, "web.new"), filepath.Join(l.dir, "web")); err != nil {
		t.Fatal(err)
	}
	l.until("the new secret is taken", func() bool { return l.publish("1", "web-1", "new-secret") == 200 })
	if got := l.publish("1", "web-1", "old-secret"); got != 401 {
		t.Errorf("the old secret gets %d", got)
	}

	l.write("plan: { messages_per_day: 1000000 }", "plan: nosuch", "rate: 1/h, burst: 2", "rate: 1000/s, burst: 1000")
	l.until("the refusal shows", func() bool { return strings.Contains(l.get("/readyz"), "RELOAD REFUSED") })
	if st := l.get("/api/v1/status"); !strings.Contains(st, `"reload_refused": true`) {
		t.Errorf("the status does not tell of the refusal:\n%s", st)
	}
	ready, metrics := l.get("/readyz"), l.get("/metrics")
	if !strings.HasPrefix(ready, "200") || !strings.Contains(metrics, "pushguard_config_last_reload_successful 0") || !strings.Contains(metrics, `pushguard_config_reloads_total{result="refused"} 1`) {
		t.Errorf("readyz %s\nmetrics %s", ready, metrics)
	}
	if got := l.publish("1", "web-1", "new-secret"); got != 200 {
		t.Errorf("while a bad file lies there: %d", got)
	}
	hup <- os.Interrupt // whatever the signal is called, it means: look again
	l.write("rate: 1/h, burst: 2", "rate: 1000/s, burst: 1000")
	l.until("the mended file is taken", func() bool {
		return strings.Contains(l.get("/metrics"), "pushguard_config_last_reload_successful 1")
	})
	if log := l.log.String(); strings.Contains(log, "new-secret") || !strings.Contains(log, "secret changed") || !strings.Contains(log, "1000/s") {
		t.Errorf("the log: %s", log)
	}
}

func certificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReplacedWhileServing(t *testing.T) {
	certs := t.TempDir()
	certificate(t, certs, "first")
	l := begin(t, "#top", fmt.Sprintf("tls: { cert: %s/tls.crt, key: %s/tls.key }", certs, certs))
	shown := func() string {
		c, err := tls.Dial("tcp", l.g.data.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "first" {
		t.Fatal(got)
	}
	if c, err := tls.Dial("tcp", l.g.data.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	certificate(t, certs, "second")
	if err := l.reload(); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != "second" {
		t.Errorf("after the reload: %s", got)
	}
	if err := os.WriteFile(filepath.Join(certs, "tls.key"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.reload(); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("a broken key: %v", err)
	}
	if got := shown(); got != "second" {
		t.Errorf("after the refused reload: %s", got)
	}
}

func TestSlowAndManyPeers(t *testing.T) {
	l := begin(t, "#top", "read_timeout: 200ms\nmax_connections_per_peer: 3")
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.g.data.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	slow := dial()
	fmt.Fprint(slow, "POST /apps/1/events HTTP/1.1\r\nHost: x\r\nX-Slow: ") // and never ends
	if err := slow.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	answer, err := io.ReadAll(slow)
	if err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("a slow request was kept for %s: %q %v", time.Since(began), answer, err)
	}
	var held []net.Conn
	for range 3 {
		held = append(held, dial())
	}
	fourth := dial()
	if err := fourth.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(fourth); err != nil {
		t.Errorf("the fourth connection of one peer was not closed: %v", err)
	}
	for _, c := range held {
		c.Close()
	}
}

// Who is in the kernel's queue when the gate shuts is still served.
func TestGateServesWhoIsQueued(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(ln, false)
	const n = 50
	for range n {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	done := make(chan int)
	start := make(chan struct{})
	go func() {
		<-start
		got := 0
		for {
			c, err := g.Accept()
			if err != nil {
				done <- got
				return
			}
			c.Close()
			got++
		}
	}()
	close(start)
	g.shut()
	if got := <-done; got != n {
		t.Errorf("%d of %d queued connections were accepted", got, n)
	}
	if err := g.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
}
