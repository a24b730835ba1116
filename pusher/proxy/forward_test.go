package proxy

import (
	"bufio"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// tunnels is a proxy that knows CONNECT, for a user and a password.
func tunnels(t *testing.T, to string) (addr string, asked *atomic.Int64) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	asked = &atomic.Int64{}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				asked.Add(1)
				switch {
				case req.Method != http.MethodConnect:
					io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\n\r\n")
					return
				case req.Header.Get("Proxy-Authorization") != "Basic dTpw":
					io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
					return
				}
				up, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer up.Close()
				io.WriteString(c, "HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
				go io.Copy(up, in)
				io.Copy(c, up)
			}()
		}
	}()
	return ln.Addr().String(), asked
}

// Publishes and reads go through the proxy that the environment names, to an upstream whose certificate a file vouches for.
func TestThroughAProxy(t *testing.T) {
	for _, secure := range []bool{true, false} {
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") })
		up := httptest.NewUnstartedServer(h)
		scheme := "http"
		if secure {
			scheme = "https"
			up.StartTLS()
		} else {
			up.Start()
		}
		defer up.Close()
		addr, asked := tunnels(t, up.Listener.Addr().String())
		t.Setenv("HTTPS_PROXY", "http://u:p@"+addr)
		t.Setenv("HTTP_PROXY", "http://u:p@"+addr)
		t.Setenv("NO_PROXY", "left-out.example")
		c := rigConfig{upstream: scheme + "://example.com"} // of which the test server's certificate is
		if secure {
			file := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			roots, err := Roots(file)
			if err != nil {
				t.Fatal(err)
			}
			c.roots = roots
		}
		r := newRig(t, c)
		if got := r.publish("e", "c", "d"); got.status != 200 || got.outcome != "sent" {
			t.Errorf("%s: %+v", scheme, got)
		}
		if got := r.do("GET", "/apps/7/channels", nil, ""); got.status != 200 {
			t.Errorf("%s: a read: %+v", scheme, got)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("%s: the proxy was asked %d times", scheme, n)
		}
		if name := r.app.Upstream.ProxyName(); name != "http://"+addr {
			t.Errorf("the proxy's name is %s", name)
		}
	}
	if p, err := ForwardProxy("https://left-out.example"); p != nil || err != nil {
		t.Errorf("NO_PROXY: %v, %v", p, err)
	}
	for _, bad := range []string{"socks5://127.0.0.1:1", "https://127.0.0.1:1"} {
		t.Setenv("HTTPS_PROXY", bad)
		if _, err := ForwardProxy("https://example.com"); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// What a proxy refuses was not sent, and the sentence says what to do, without the password.
func TestAProxyThatRefuses(t *testing.T) {
	addr, _ := tunnels(t, "127.0.0.1:1")
	t.Setenv("HTTP_PROXY", "http://u:wrong-password@"+addr)
	r := newRig(t, rigConfig{upstream: "http://example.com"})
	for _, got := range []reply{r.publish("e", "c", "d"), r.do("GET", "/apps/7/channels", nil, "")} {
		if got.status != 502 || !strings.Contains(got.body, "wants a user and a password") || !strings.Contains(got.body, "was not sent") || strings.Contains(got.body, "wrong-password") {
			t.Errorf("%+v", got)
		}
	}
}

// What is held is bounded in bytes; what is beyond goes out at once, and what replaces an older value is never refused.
func TestHeldBytesAreBounded(t *testing.T) {
	var h heldBytes
	now := time.Unix(1e9, 0)
	due := now.Add(time.Minute)
	add := func(id, caller string, n int64) (ok, over bool) {
		return h.add(id, caller, n-heldEntry, due, now, 10_000, 6_000, false)
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		if ok, over := add(id, "a", 2000); !ok || over {
			t.Fatalf("%s: %v %v", id, ok, over)
		}
	}
	if ok, _ := add("a4", "a", 2000); ok {
		t.Error("a caller holds more than it may")
	}
	if ok, over := add("a3", "a", 3000); !ok || !over {
		t.Errorf("a newer value: %v %v", ok, over)
	}
	if ok, _ := add("b1", "b", 3000); !ok {
		t.Error("another caller finds no room beside the first")
	}
	if ok, _ := add("b2", "b", 2000); ok {
		t.Error("the account holds more than it may")
	}
	h.over("a3", due)
	h.over("b1", now) // which a newer one has replaced since
	if h.size() != 7000 {
		t.Errorf("%d bytes", h.size())
	}
	now = due.Add(heldSettles + time.Second)
	due = now.Add(time.Minute)
	if ok, over := add("a5", "a", 5000); !ok || over || h.size() != 5000 {
		t.Errorf("after their time: %v %v, %d bytes", ok, over, h.size())
	}
	now = due.Add(time.Hour)
	if ok, _ := h.add("a6", "a", 5000, due, now, 10_000, 6_000, true); ok {
		t.Error("what waits because the brake is on is taken for sent")
	}
}
