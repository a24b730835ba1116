package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
)

// mute is a Pusher that can fall silent, before the data port of one app of a
// stage, so that what the admin port then tells of it has happened.
type mute struct {
	app  *proxy.App
	key  *pusher.Key
	addr string // the data port's

	mu      sync.Mutex
	silence chan struct{} // closed when it speaks again; nil: it does
	waiting sync.WaitGroup
}

func newMute(t *testing.T, app *proxy.App) *mute {
	t.Helper()
	m := &mute{app: app, key: pusher.NewKey("checkout", "checkout-secret")}
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		m.mu.Lock()
		silence := m.silence
		m.mu.Unlock()
		if silence != nil {
			<-silence
		}
		_, _ = io.WriteString(w, "{}")
	}))
	up, err := proxy.NewUpstream(proxy.UpstreamConfig{URL: behind.URL, Key: pusher.NewKey("k", "s"), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	app.Upstream, app.Keys = up, []proxy.CallerKey{{Key: m.key, Caller: "checkout"}}
	app.Fold = &proxy.FoldConfig{Batch: 1, Channels: 1}
	p := proxy.New(proxy.Config{Log: silent})
	if err := p.Apply([]*proxy.App{app}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	m.waiting.Go(func() {
		if err := p.Serve(ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := m.speak(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		m.waiting.Wait()
		up.Close()
		behind.Close()
	})
	return m
}

// fall has it answer nothing, and enough come that it is noticed.
func (m *mute) fall() error {
	m.mu.Lock()
	if m.silence == nil {
		m.silence = make(chan struct{})
	}
	m.mu.Unlock()
	m.publish(6) // which hang for as long as the timeout is
	return m.until(true)
}

// publish sends so many, and does not wait for the answers.
func (m *mute) publish(n int) {
	for i := range n {
		path, body := "/apps/"+m.app.ID+"/events", fmt.Sprintf(`{"name":"order.placed","channel":"till-%d","data":"%d"}`, i, stageSerial.Add(1))
		signed := m.key.AppendSigned(nil, "POST", []byte(path), nil, []byte(body), time.Now())
		m.waiting.Go(func() { // some hang until it speaks
			if resp, err := http.Post("http://"+m.addr+path+"?"+string(signed), "application/json", strings.NewReader(body)); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
}

// speak has it answer, also what it was asked before.
func (m *mute) speak() error {
	m.mu.Lock()
	if m.silence != nil {
		close(m.silence)
		m.silence = nil
	}
	m.mu.Unlock()
	m.publish(1) // or nobody asks whether it does
	return m.until(false)
}

func (m *mute) until(silent bool) error {
	for deadline := time.Now().Add(20 * time.Second); m.app.Upstream.Overload().Silent != silent; {
		if time.Now().After(deadline) {
			return errors.New("the guard did not notice")
		}
		<-time.After(5 * time.Millisecond)
		if !silent {
			m.publish(1)
		}
	}
	return nil
}
