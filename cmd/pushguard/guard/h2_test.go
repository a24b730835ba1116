package guard

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	pusherhttp "github.com/pusher/pusher-http-go/v5"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/pushguard/pushguard/pusher"
)

// secure is a guard with TLS on its data port, and a client that takes its
// certificate.
func secure(t *testing.T) (*life, *http.Transport) {
	t.Helper()
	certs := t.TempDir()
	certificate(t, certs, "h2")
	l := begin(t, "#top", fmt.Sprintf("tls: { cert: %s/tls.crt, key: %s/tls.key }", certs, certs))
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return l, tr
}

// protoOf notes by what protocol answers came.
type protoOf struct {
	http.RoundTripper
	mu   sync.Mutex
	seen map[string]int
}

func (p *protoOf) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.RoundTripper.RoundTrip(r)
	if err == nil {
		p.mu.Lock()
		p.seen[resp.Proto]++
		p.mu.Unlock()
	}
	return resp, err
}

// Pusher's own Go SDK agrees on HTTP/2 over TLS by itself; everything is as it is
// over HTTP/1.1.
func TestGoSDKOverHTTP2(t *testing.T) {
	l, tr := secure(t)
	watch := &protoOf{RoundTripper: tr, seen: map[string]int{}}
	client := pusherhttp.Client{AppID: "1", Key: "app-key", Secret: "app-secret", Host: l.g.data.Addr().String(), Secure: true, HTTPClient: &http.Client{Transport: watch, Timeout: 10 * time.Second}}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if err := client.Trigger(fmt.Sprint("room-", i), "event", map[string]int{"n": i}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := client.TriggerBatch([]pusherhttp.Event{{Channel: "a", Name: "e", Data: "1"}, {Channel: "b", Name: "e", Data: "2"}}); err != nil {
		t.Error(err)
	}
	attributes := "subscription_count"
	info, err := client.TriggerWithParams("room", "event", "data", pusherhttp.TriggerParams{Info: &attributes})
	if err != nil || info.Channels["room"].SubscriptionCount == nil {
		t.Errorf("info %+v %v", info, err)
	}
	if _, err := client.Channels(pusherhttp.ChannelsParams{}); err != nil {
		t.Error(err)
	}
	if watch.seen["HTTP/2.0"] != 53 || len(watch.seen) != 1 {
		t.Errorf("answers came by %v", watch.seen)
	}
	wrong := client
	wrong.Secret = "wrong-secret"
	if err := wrong.Trigger("room", "event", "data"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong secret: %v", err)
	}
	if origins := l.g.proxy.Apps()[0].CallerOrigins(); len(origins) != 1 || !strings.HasPrefix(origins[0].Name, "pusher-http-go") || !strings.HasSuffix(origins[0].Name, "127.0.0.1") {
		t.Errorf("origins %+v", origins)
	}
	// Who speaks only HTTP/1.1 still does.
	plain := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	defer plain.CloseIdleConnections()
	old := client
	old.HTTPClient = &http.Client{Transport: &protoOf{RoundTripper: plain, seen: watch.seen}}
	if err := old.Trigger("room", "event", "data"); err != nil || watch.seen["HTTP/1.1"] != 1 {
		t.Errorf("%v, %v", err, watch.seen)
	}
}

type withContext struct {
	http.RoundTripper
	ctx context.Context
}

func (w withContext) RoundTrip(r *http.Request) (*http.Response, error) {
	return w.RoundTripper.RoundTrip(r.WithContext(w.ctx))
}

func post(t *testing.T, tr http.RoundTripper, addr, body string) (*http.Response, string) {
	t.Helper()
	path := "/apps/1/events"
	uri := pusher.NewKey("app-key", "app-secret").AppendSigned([]byte(path+"?"), "POST", []byte(path), nil, []byte(body), time.Now())
	req, err := http.NewRequest("POST", "https://"+addr+string(uri), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(strings.ReplaceAll(err.Error(), "auth_signature", ""))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const plainEvent = `{"name":"e","channel":"c","data":"d"}`

func TestHTTP2KeepsTheBounds(t *testing.T) {
	l, tr := secure(t)
	addr := l.g.data.Addr().String()
	for name, c := range map[string]struct {
		body   string
		status int
		reason string
	}{
		"a body over max_body": {strings.Repeat("a", 1<<20+1), 413, "invalid_request"},
		"data over 10 kB":      {`{"name":"e","channel":"c","data":"` + strings.Repeat("a", 10241) + `"}`, 413, "invalid_request"},
		"no JSON":              {"{", 400, "invalid_request"},
	} {
		resp, text := post(t, tr, addr, c.body)
		if resp.StatusCode != c.status || resp.Header.Get("Pushguard-Reason") != c.reason || resp.ProtoMajor != 2 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %s %v %s", name, resp.Status, resp.Header, text)
		}
	}
	req, err := http.NewRequest("GET", "https://"+addr+"/apps/1/channels", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("h", 64<<10))
	if resp, err := tr.RoundTrip(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != 431 {
			t.Errorf("64 KiB of headers: %s", resp.Status)
		}
	}
}

// A flood of streams that are reset as soon as they are opened (CVE-2023-44487)
// keeps no more requests under way than a connection may have, and other callers
// are served.
func TestHTTP2RapidReset(t *testing.T) {
	l, tr := secure(t)
	addr := l.g.data.Addr().String()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, c) }()
	f := http2.NewFramer(c, nil)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	var most int64
	sent := 0
	for ; sent < 20000; sent++ {
		block.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", addr}, {":path", "/apps/1/events"}, {"content-length", "10"}} {
			if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				t.Fatal(err)
			}
		}
		id := uint32(2*sent + 1)
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}) != nil || f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // cut off, as it should be
		}
		most = max(most, l.g.proxy.InFlight())
	}
	if most > 128 {
		t.Errorf("%d requests of one connection were under way", most)
	}
	if resp, text := post(t, tr, addr, plainEvent); resp.StatusCode != 200 {
		t.Errorf("another caller, after %d resets: %s %s", sent, resp.Status, text)
	}
	l.until("the flood is over", func() bool { return l.g.proxy.InFlight() == 0 })
}

// A leaving replica ends HTTP/2 connections in order, and does not wait for those
// that are idle.
func TestHTTP2Leaves(t *testing.T) {
	l, tr := secure(t)
	addr := l.g.data.Addr().String()
	for range 3 {
		if resp, text := post(t, tr, addr, plainEvent); resp.StatusCode != 200 {
			t.Fatal(resp.Status, text)
		}
	}
	// Retiring, it serves on, and each answer ends its connection.
	l.g.proxy.Retire()
	var reused []bool
	trace := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = append(reused, i.Reused) }})
	for range 3 {
		if resp, text := post(t, withContext{tr, trace}, addr, plainEvent); resp.StatusCode != 200 {
			t.Fatal(resp.Status, text)
		}
	}
	if len(reused) != 3 || !reused[0] || reused[1] || reused[2] {
		t.Errorf("connections were used again: %v", reused)
	}
	stay := tr.Clone()
	defer stay.CloseIdleConnections()
	post(t, stay, addr, plainEvent) // and is idle from now on
	began := time.Now()
	if err := l.g.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("leaving took %s", took)
	}
}

// An SDK that does not speak TLS is pointed at a port that does: it is told so, in the plain text that it reads.
func TestPlainHTTPSpokenToATLSPort(t *testing.T) {
	l, _ := secure(t)
	resp, err := http.Post("http://"+l.g.data.Addr().String()+"/apps/1/events?auth_key=k", "application/json", strings.NewReader(`{"name":"e","channel":"c","data":"d"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Pushguard-Outcome") != "refused" || !strings.Contains(string(said), "speaks TLS: turn it on in the SDK") {
		t.Errorf("%d %v %q %v", resp.StatusCode, resp.Header, said, err)
	}
}
