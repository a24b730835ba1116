package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

// list is an upstream with an app of very many channels.
func list(t *testing.T, channels int, length bool, end string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			w.Write([]byte("{}"))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if length {
			w.Header().Set("Content-Length", fmt.Sprint(len(`{"channels":{`)+channels*len(`"channel-00000000":{},`)+len(end)))
		}
		b := bufio.NewWriterSize(w, 64<<10)
		b.WriteString(`{"channels":{`)
		for i := range channels {
			fmt.Fprintf(b, `"channel-%08d":{},`, i)
		}
		if end == "break" {
			b.Flush()
			panic(http.ErrAbortHandler)
		}
		b.WriteString(end)
		b.Flush()
	}))
	t.Cleanup(s.Close)
	return s
}

func (r *rig) get(t *testing.T, way, path string) (status int, n int64, begins, ends string, err error) {
	t.Helper()
	target := path + "?" + string(r.caller.AppendSigned(nil, "GET", []byte(path), nil, nil, time.Now()))
	if way == "HTTP/2" {
		got := r.sendBy(t, way, "GET", target, "")
		return got.status, int64(len(got.body)), got.body[:min(20, len(got.body))], got.body[max(0, len(got.body)-10):], nil
	}
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, int64(len(b)), string(b[:min(20, len(b))]), string(b[max(0, len(b)-10):]), err
}

// A list is passed on whole, however long it is, and a publish beside it goes out.
func TestReadsAreStreamed(t *testing.T) {
	for _, length := range []bool{true, false} {
		const channels = 500_000
		up := list(t, channels, length, `"last":{}}}`)
		r := newRig(t, rigConfig{upstream: up.URL, minCalls: 1})
		want := int64(len(`{"channels":{`) + channels*len(`"channel-00000000":{},`) + len(`"last":{}}}`))
		for _, way := range []string{"fasthttp", "HTTP/2"} {
			status, n, begins, ends, err := r.get(t, way, "/apps/7/channels")
			if status != 200 || n != want || !strings.HasPrefix(begins, `{"channels":{`) || !strings.HasSuffix(ends, `{}}}`) || err != nil {
				t.Errorf("by %s, with a length %v: %d, %d of %d bytes, %s … %s, %v", way, length, status, n, want, begins, ends, err)
			}
		}
		if got := r.publish("e", "c", "d"); got.status != 200 {
			t.Error(got)
		}
	}
}

// What breaks off, or is longer than may be, is seen to be not whole, and is none of the publishes' business.
func TestReadsThatFail(t *testing.T) {
	up := list(t, 100_000, false, "break")
	r := newRig(t, rigConfig{upstream: up.URL, minCalls: 1})
	if status, n, _, _, err := r.get(t, "fasthttp", "/apps/7/channels"); err == nil && status == 200 {
		t.Errorf("%d bytes of an answer that broke off look whole", n)
	}
	for range 30 {
		r.get(t, "fasthttp", "/apps/7/channels")
	}
	if state, rate := r.app.Upstream.State(); state != "closed" || rate != 0 {
		t.Errorf("reads moved the breaker: %s %v", state, rate)
	}
	if got := r.publish("e", "c", "d"); got.status != 200 {
		t.Error(got)
	}
	for _, length := range []bool{true, false} {
		long := newRig(t, rigConfig{upstream: list(t, 100_000, length, `"l":{}}}`).URL})
		long.app.Upstream.reads.most = 1 << 20
		status, n, begins, _, err := long.get(t, "fasthttp", "/apps/7/channels")
		if length && (status != 502 || !strings.Contains(begins, "Pusher's answer has")) {
			t.Errorf("longer than may be: %d %s", status, begins)
		}
		if !length && err == nil || n > 1<<20 {
			t.Errorf("longer than may be: %d bytes, %v", n, err)
		}
	}
	none := newRig(t, rigConfig{upstream: "http://127.0.0.1:1", minCalls: 1})
	if status, _, begins, _, _ := none.get(t, "fasthttp", "/apps/7/channels/a"); status != 502 || !strings.HasPrefix(begins, "Pusher at 127.0.0.1") {
		t.Errorf("%d %s", status, begins)
	}
}

// With the brake on, reads pass and publishes do not; terminate_connections counts as critical.
func TestReadsAndSafetyCallsUnderTheBrake(t *testing.T) {
	r := newRig(t, rigConfig{policy: limiter.Policy{Rules: []limiter.Rule{{Match: limiter.Match{Kind: limiter.KindRead, Caller: []string{"care-api"}}, Priority: quota.Bulk, Rates: []limiter.Rate{{PerSecond: 1e-9, Burst: 3, Per: limiter.PerCaller}}}}}})
	if err := r.ledger.SetBrake(t.Context(), time.Now(), &quota.Brake{Allow: "critical", Reason: "a test", By: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if got := r.publish("e", "c", "d"); got.outcome != "braked" {
		t.Errorf("a publish: %+v", got)
	}
	if got := r.do("GET", "/apps/7/channels", nil, ""); got.status != 200 || got.outcome != "sent" {
		t.Errorf("a read: %+v", got)
	}
	if got := r.do("GET", "/apps/7/channels/c", nil, ""); got.status != 200 {
		t.Errorf("a read of one: %+v", got)
	}
	if got := r.do("POST", "/apps/7/users/u%20x/terminate_connections", nil, "{}"); got.status != 200 {
		t.Errorf("a safety call: %+v", got)
	}
	r.do("GET", "/apps/7/channels/c", nil, "")
	if got := r.do("GET", "/apps/7/channels/c", nil, ""); got.outcome != "throttled" {
		t.Errorf("the rule for reads is not looked at: %+v", got)
	}
}

// A server that unescapes paths before it checks, and one that does not, are both spoken to after one refusal.
func TestWhichPathIsSigned(t *testing.T) {
	for _, unescaped := range []bool{false, true} {
		key := pusher.NewKey("k", rigSecret)
		calls := 0
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			calls++
			path := req.URL.EscapedPath()
			if unescaped {
				path = req.URL.Path
			}
			var q pusher.Query
			q.Parse([]byte(req.URL.RawQuery))
			body, _ := io.ReadAll(req.Body)
			if e := key.Verify(req.Method, []byte(path), &q, body, time.Now()); e != nil {
				w.WriteHeader(e.Status)
				io.WriteString(w, e.Text)
				return
			}
			io.WriteString(w, "{}")
		}))
		defer up.Close()
		r := newRig(t, rigConfig{upstream: up.URL})
		for range 3 {
			if got := r.do("POST", "/apps/7/users/a%20b/terminate_connections", nil, "{}"); got.status != 200 {
				t.Errorf("unescaped %v: %+v", unescaped, got)
			}
		}
		if most := 4; calls > most {
			t.Errorf("unescaped %v: %d calls", unescaped, calls)
		}
	}
}

// A well-signed webhook is always forwarded and answered, whatever is in it.
func TestWebhooksThatAreOdd(t *testing.T) {
	var got []string
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		got = append(got, string(b))
	}))
	defer behind.Close()
	r := newRig(t, rigConfig{})
	var err error
	if r.app.Webhooks, err = NewEndpoint(behind.URL); err != nil {
		t.Fatal(err)
	}
	send := func(path, body string) reply {
		t.Helper()
		req, _ := http.NewRequest("POST", "http://"+r.addr+path, strings.NewReader(body))
		req.Header.Set("X-Pusher-Key", "k")
		req.Header.Set("X-Pusher-Signature", pusher.SignWebhook(pusher.NewKey("k", rigSecret), []byte(body)))
		resp, err := r.client.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return reply{resp.StatusCode, resp.Header.Get("Pushguard-Outcome"), resp.Header, string(b)}
	}
	bodies := []string{`{"events":[{"name":"client_event","channel":"c","data":{"x":1},"user_id":5},{"name":"subscription_count","channel":"counted","subscription_count":9}]}`, `no JSON`, `[]`, ``, `{"events":7}`, `{"events":[7]}`,
		`{"time_ms":-1,"events":[{"name":"subscription_count","channel":"huge","subscription_count":1e18}]}`}
	for _, body := range bodies {
		if got := send("/webhooks/7", body); got.status != 200 {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	if len(got) != len(bodies) || got[0] != bodies[0] {
		t.Errorf("forwarded: %q", got)
	}
	if n := r.app.Fanout.Estimate("counted"); n != 9 {
		t.Errorf("the readable event of an odd webhook taught %d", n)
	}
	if n := r.app.Fanout.Estimate("huge"); n > pusher.MaxSubscribers {
		t.Errorf("a count of 1e18 is believed: %d", n)
	}
	if got := send("/webhooks/7/", bodies[0]); got.status != 400 || !strings.Contains(got.body, "ends in a slash") {
		t.Errorf("a slash at the end: %d %s", got.status, got.body)
	}
	if got := send("/webhooks/8", bodies[0]); got.status != 404 || !strings.Contains(got.body, "no app") {
		t.Errorf("another app: %d %s", got.status, got.body)
	}
}
