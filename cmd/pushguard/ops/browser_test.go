package ops

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/learn"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota/fanout"
)

// port is an admin port that can be taken away and brought back, as a guard that
// is restarted is, or be frozen, as one whose machine hangs.
type port struct {
	stage *stage
	mute  *mute
	addr  string
	mu    sync.Mutex
	srv   *http.Server
	stop  context.CancelFunc
	ops   *Server
}

func (p *port) up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.addr = ln.Addr().String()
	cfg := p.stage.cfg
	cfg.Started = time.Now()
	p.ops = New(cfg)
	p.stage.yesterday(p.ops, time.Now())
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.srv = &http.Server{Handler: p.ops, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = p.srv.Serve(ln) }()
	go p.ops.Run(ctx)
	return nil
}

func (p *port) down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	_ = p.srv.Close()
}

// ServeHTTP is the other end of the browser test's strings.
func (p *port) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.URL.Path {
	case "/down":
		p.down()
	case "/up":
		p.down()
		err = p.up()
	case "/freeze":
		// The connection stays open and nothing comes any more.
		p.mu.Lock()
		p.ops.stream.mu.Lock()
		for pg := range p.ops.stream.pages {
			delete(p.ops.stream.pages, pg)
		}
		p.ops.stream.most = 0
		p.ops.stream.mu.Unlock()
		p.mu.Unlock()
	case "/mute":
		err = p.mute.fall()
	case "/speak":
		err = p.mute.speak()
	case "/acts":
		p.stage.detector.mu.Lock()
		defer p.stage.detector.mu.Unlock()
		err = json.NewEncoder(w).Encode(p.stage.detector.acts)
	default:
		err = errors.New("unknown")
	}
	if err != nil {
		http.Error(w, err.Error(), 500)
	}
}

// TestInABrowser plays what an operator does in headless Chromium. What each
// part is about stands in browser/test.mjs. Pictures go to browser/shots.
func TestInABrowser(t *testing.T) {
	if testing.Short() {
		t.Log("short: the browser is left out")
		return
	}
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		var err error
		if chromium, err = exec.LookPath("chromium"); err != nil {
			t.Fatal("chromium is missing: make deps installs it, or name one in CHROMIUM")
		}
	}
	if _, err := os.Stat(filepath.Join("browser", "node_modules", "playwright-core")); err != nil {
		t.Fatal("npm packages are missing: make deps installs them, or run npm ci in cmd/pushguard/ops/browser")
	}
	s := newStage(t)
	s.detector.incidents = []Incident{storm(time.Now()), resolved(time.Now())}
	counts := s.accounts[0].Apps[0].Fanout
	counts.Learn(time.Now(), "private-user-17", 3, fanout.FromWebhook)
	counts.Learn(time.Now(), "room/none", 0, fanout.FromWebhook)
	s.accounts[0].Learned = func() map[string]learn.Status {
		return map[string]learn.Status{"care-1": {On: true, Budget: 100, Spent: 40, Off: map[string]float64{"poll": 0.25}}}
	}
	judge := s.accounts[0].Apps[0].Limiter
	s.detector.contain = func(on bool) {
		if !on {
			judge.SetContainment(nil)
			return
		}
		var mu sync.Mutex
		n := 0
		judge.SetContainment(func(_ time.Time, c *limiter.Claim) bool {
			mu.Lock()
			defer mu.Unlock()
			n++
			return c.Caller.Name() != "refresher" || n%14 == 0
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { s.live(ctx) })
	p := &port{stage: s, mute: newMute(t, s.accounts[1].Apps[0]), addr: "127.0.0.1:0"}
	if err := p.up(); err != nil {
		t.Fatal(err)
	}
	strings, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	control := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = control.Serve(strings) }()
	defer func() {
		_ = control.Close()
		p.down()
		cancel()
		running.Wait()
	}()

	cmd := exec.CommandContext(ctx, "node", "test.mjs")
	cmd.Dir = "browser"
	cmd.Env = append(os.Environ(), "BASE=http://"+p.addr, "CONTROL=http://"+strings.Addr().String(), "TOKEN="+stageToken, "CHROMIUM="+chromium)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var res struct {
			Name, Error string
			Ms          int
		}
		if err := json.Unmarshal(lines.Bytes(), &res); err != nil {
			t.Log(lines.Text())
			continue
		}
		ran++
		t.Run(res.Name, func(t *testing.T) {
			if res.Error != "" {
				t.Error(res.Error)
			}
		})
	}
	if err := cmd.Wait(); err != nil {
		t.Error("the browser test ended badly:", err)
	}
	if ran < 20 && os.Getenv("ONLY") == "" {
		t.Errorf("only %d parts ran", ran)
	}
}
