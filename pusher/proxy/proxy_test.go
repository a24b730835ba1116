package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
)

func policyOf(rules ...limiter.Rule) limiter.Policy { return limiter.Policy{Rules: rules} }

func want(t *testing.T, got reply, status int, outcome string) {
	t.Helper()
	if got.status != status || got.outcome != outcome {
		t.Fatalf("got %d %q %q, want %d %q", got.status, got.outcome, got.body, status, outcome)
	}
}

func TestAPublishArrivesByteForByte(t *testing.T) {
	r := newRig(t, rigConfig{})
	for _, data := range []string{`{"a":"<b>&\u2028é"}`, `plain`, "tab\\t \xff\xfe invalid", `{"nonce":"x","ciphertext":"y"}`} {
		body := `{"name":"e","channel":"private-encrypted-c","data":` + string(pusher.AppendString(nil, []byte(data))) + `}`
		want(t, r.do("POST", "/apps/7/events", nil, body), 200, "sent")
		events := r.sim.Events(1)
		if len(events) != 1 || string(events[0].Data) != data {
			t.Errorf("sent %q, arrived %+v", data, events)
		}
	}
	r.agree()
}

func TestWhatPusherRefusesCostsNothing(t *testing.T) {
	r := newRig(t, rigConfig{})
	stranger := pusher.NewKey("nobody", "x")
	forged := pusher.NewKey("ck", "wrong")
	cases := []struct {
		name   string
		do     func() reply
		status int
		says   string
	}{
		{"unknown key", func() reply { return r.as(stranger, "POST", "/apps/7/events", nil, eventBody("e", "c", "d")) }, 401, "Unknown auth_key"},
		{"wrong secret", func() reply { return r.as(forged, "POST", "/apps/7/events", nil, eventBody("e", "c", "d")) }, 401, "Invalid signature"},
		{"another app", func() reply { return r.do("POST", "/apps/8/events", nil, eventBody("e", "c", "d")) }, 401, "Unknown auth_key"},
		{"no JSON", func() reply { return r.do("POST", "/apps/7/events", nil, `{"name":`) }, 400, ""},
		{"bad channel", func() reply { return r.publish("e", "a b", "d") }, 400, "a b"},
		{"too large", func() reply { return r.publish("e", "c", strings.Repeat("x", 10241)) }, 413, "10240"},
		{"eleven in a batch", func() reply {
			return r.do("POST", "/apps/7/batch_events", nil, `{"batch":[`+strings.Repeat(`{"name":"e","channel":"c","data":"d"},`, 10)+`{"name":"e","channel":"c","data":"d"}]}`)
		}, 400, "10"},
		{"user_count of all", func() reply { return r.do("GET", "/apps/7/channels", url.Values{"info": {"user_count"}}, "") }, 400, "presence"},
		{"users of a public channel", func() reply { return r.do("GET", "/apps/7/channels/c/users", nil, "") }, 400, "presence"},
	}
	for _, c := range cases {
		got := c.do()
		if got.status != c.status || got.outcome != "refused" || !strings.Contains(got.body, c.says) {
			t.Errorf("%s: got %d %q %q, want %d with %q", c.name, got.status, got.outcome, got.body, c.status, c.says)
		}
	}
	if st := r.sim.Stats(); st.Requests != 0 || r.used() != 0 {
		t.Errorf("%d requests reached Pusher, %d messages booked; want none", st.Requests, r.used())
	}
}

func TestABatchIsJudgedEventByEvent(t *testing.T) {
	r := newRig(t, rigConfig{policy: policyOf(limiter.Rule{Match: limiter.Match{Channel: []string{"slow"}}, Rates: []limiter.Rate{{PerSecond: 0.001, Burst: 1, Per: limiter.PerChannel}}})})
	want(t, r.publish("e", "slow", "1"), 200, "sent")
	got := r.do("POST", "/apps/7/batch_events", nil, `{"batch":[{"name":"e","channel":"a","data":"1","info":"subscription_count"},{"name":"e","channel":"slow","data":"2","info":"subscription_count"},{"name":"e","channel":"b","data":"3","info":"subscription_count"}]}`)
	want(t, got, 200, "sent, throttled, sent")
	if want := `{"batch":[{"subscription_count":2},{},{"subscription_count":2}]}`; got.body != want {
		t.Errorf("body %s, want %s", got.body, want)
	}
	if got.header.Get("Retry-After") == "" || got.header.Get("Pushguard-Reason") != "channel_rate" {
		t.Errorf("headers do not tell what was held back: %v", got.header)
	}
	got = r.do("POST", "/apps/7/batch_events", nil, `{"batch":[{"name":"e","channel":"slow","data":"4"}]}`)
	want(t, got, 429, "throttled")
	if !strings.Contains(got.body, `"slow"`) || strings.HasPrefix(got.body, "{") {
		t.Errorf("the refusal is no sentence with the channel in it: %q", got.body)
	}
	if n := r.sim.Stats().Events; n != 3 {
		t.Errorf("%d events arrived, want 3", n)
	}
	r.agree()
}

func TestTheSameEventTwiceInABatchGoesOnce(t *testing.T) {
	r := newRig(t, rigConfig{policy: policyOf(limiter.Rule{Dedupe: time.Minute})})
	got := r.do("POST", "/apps/7/batch_events", nil, `{"batch":[{"name":"e","channel":"a","data":"1"},{"name":"e","channel":"a","data":"1"}]}`)
	want(t, got, 200, "sent, deduplicated")
	want(t, r.publish("e", "a", "1"), 200, "deduplicated")
	if n := r.sim.Stats().Events; n != 1 {
		t.Errorf("%d events arrived, want 1", n)
	}
	r.agree()
}

// Sixty-four callers send the same at once. One goes out; the others wait for
// it and share its fate, whatever that is.
func TestADuplicateSharesTheFateOfItsTwin(t *testing.T) {
	for _, c := range []struct {
		name      string
		fail      sim.Fail
		delivered bool
	}{{"delivered", sim.FailNone, true}, {"failing", sim.FailError, false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigConfig{policy: policyOf(limiter.Rule{Dedupe: time.Minute}), sim: sim.Config{Latency: 20 * time.Millisecond}})
			r.sim.SetFail(c.fail)
			outcomes := map[string]int{}
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 64 {
				all.Go(func() {
					got, err := r.try(r.caller, "POST", "/apps/7/events", nil, eventBody("e", "c", "same"))
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					outcomes[fmt.Sprint(got.status, " ", got.outcome)]++
				})
			}
			all.Wait()
			if c.delivered && (outcomes["200 sent"] != 1 || outcomes["200 deduplicated"] != 63) {
				t.Errorf("outcomes %v, want 1 sent and 63 deduplicated", outcomes)
			}
			if !c.delivered && outcomes["502 unavailable"]+outcomes["503 unavailable"] != 64 {
				t.Errorf("outcomes %v: a 200 stands for something that was not delivered", outcomes)
			}
			if n := r.sim.Stats().Events; (n == 1) != c.delivered {
				t.Errorf("%d events arrived", n)
			}
		})
	}
}

func TestTheFateOfARequestDecidesItsPrice(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does net/http notice that the client hangs up
		<-r.Context().Done()
	}))
	defer hang.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	status := func(code int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, body, code) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	for _, c := range []struct {
		name, upstream string
		status         int
		outcome        string
		reason, says   string
		used           int64
	}{
		{"nobody listens", "http://" + closed.Addr().String(), 502, "unavailable", "upstream_unreachable", "not sent", 0},
		{"no answer", hang.URL, 504, "unavailable", "upstream_timeout", "may or may not", 3},
		{"cut off", cut.URL, 502, "unavailable", "upstream_connection_lost", "may or may not", 3},
		{"500", status(500, "boom"), 502, "unavailable", "upstream_error", "may or may not", 3},
		{"503", status(503, "busy"), 503, "unavailable", "upstream_error", "may or may not", 3},
		{"400 of Pusher's", status(400, "no such thing"), 400, "refused", "upstream_refused", "no such thing", 1},
		{"app disabled", status(403, "app disabled"), 403, "refused", "upstream_refused", "app disabled", 1},
		{"over quota", status(403, pusher.QuotaText), 403, "over_budget", "exhausted", "over message quota", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigConfig{upstream: c.upstream, timeout: 300 * time.Millisecond})
			got := r.publish("e", "c", "d")
			if got.status != c.status || got.outcome != c.outcome || got.header.Get("Pushguard-Reason") != c.reason || !strings.Contains(got.body, c.says) {
				t.Errorf("got %d %s %s %q", got.status, got.outcome, got.header.Get("Pushguard-Reason"), got.body)
			}
			if r.used() != c.used {
				t.Errorf("%d messages booked, want %d", r.used(), c.used)
			}
			if c.name == "over quota" {
				got := r.publish("e", "c", "d2")
				want(t, got, 403, "over_budget")
				if st := r.app.Breaker.State(time.Now()); st.State != limiter.Open {
					t.Errorf("breaker %s after Pusher's word, want open", st.State)
				}
			}
			if c.name == "app disabled" && r.app.Breaker.State(time.Now()).State != limiter.Closed {
				t.Error("a disabled app is no spent plan, but the quota breaker opened")
			}
		})
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	var calls atomic.Int64
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1)%2 == 0 {
			panic(http.ErrAbortHandler) // the kept-alive connection dies under the request
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer cut.Close()
	r := newRig(t, rigConfig{upstream: cut.URL})
	for i := range 10 {
		r.publish("e", "c", fmt.Sprint(i))
	}
	if n := calls.Load(); n != 10 {
		t.Errorf("10 publishes made %d calls", n)
	}
}

func TestTheUpstreamBreakerOpensOnARatio(t *testing.T) {
	r := newRig(t, rigConfig{minCalls: 20})
	r.sim.SetFail(sim.FailError)
	opened := 0
	for i := range 40 {
		if got := r.publish("e", "c", fmt.Sprint(i)); got.header.Get("Pushguard-Reason") == "upstream_breaker_open" {
			opened++
			want(t, got, 503, "unavailable")
		}
	}
	if opened != 20 {
		t.Errorf("%d of 40 publishes met an open breaker, want the last 20", opened)
	}
	if state, rate := r.app.Upstream.State(); state != "open" || rate != 1 {
		t.Errorf("breaker %s with %.2f errors", state, rate)
	}
}

func TestObserveChangesNothing(t *testing.T) {
	p := policyOf(limiter.Rule{Rates: []limiter.Rate{{PerSecond: 0.001, Burst: 1}}})
	p.Mode = limiter.Observe
	r := newRig(t, rigConfig{policy: p})
	r.publish("e", "c", "1")
	got := r.publish("e", "c", "2")
	want(t, got, 200, "sent")
	if got.header.Get("Pushguard-Would") != "throttled" {
		t.Errorf("the answer does not tell what would have happened: %v", got.header)
	}
	if n := r.sim.Stats().Events; n != 2 {
		t.Errorf("%d events arrived, want 2", n)
	}
	r.agree()
}

func TestARuleChoosesItsAnswer(t *testing.T) {
	rate := []limiter.Rate{{PerSecond: 0.001, Burst: 1}}
	r := newRig(t, rigConfig{policy: policyOf(
		limiter.Rule{Match: limiter.Match{Event: []string{"ok"}}, Rates: rate, Answer: limiter.AnswerOK},
		limiter.Rule{Match: limiter.Match{Event: []string{"forbid"}}, Rates: rate, Answer: limiter.Answer403})})
	r.publish("ok", "c", "1")
	got := r.publish("ok", "c", "2")
	want(t, got, 200, "throttled")
	if got.body != "{}" {
		t.Errorf("an accepted publish must look like one: %q", got.body)
	}
	r.publish("forbid", "c", "1")
	want(t, r.publish("forbid", "c", "2"), 403, "throttled")
}

func TestReadsAndUnknownEndpointsArePassedOn(t *testing.T) {
	r := newRig(t, rigConfig{})
	for _, c := range []struct {
		method, path, body string
		params             url.Values
		status             int
		outcome            string
	}{
		{"GET", "/apps/7/channels", "", url.Values{"filter_by_prefix": {"presence-"}, "info": {"user_count"}}, 200, "sent"},
		{"GET", "/apps/7/channels/presence-a;b,c", "", url.Values{"info": {"user_count"}}, 200, "sent"},
		{"GET", "/apps/7/channels/presence-a/users", "", nil, 200, "sent"},
		{"POST", "/apps/7/users/u1/terminate_connections", "{}", nil, 200, "sent"},
		{"POST", "/users/u1/terminate_connections", "{}", nil, 200, "sent"},
		{"GET", "/apps/7/something/new", "", nil, 404, "refused"},
	} {
		got := r.do(c.method, c.path, c.params, c.body)
		if got.status != c.status || got.outcome != c.outcome {
			t.Errorf("%s %s: %d %s %q", c.method, c.path, got.status, got.outcome, got.body)
		}
	}
	if n := r.sim.Stats().Requests; n != 6 {
		t.Errorf("%d requests reached Pusher, want 6", n)
	}
}

func TestInfoTeachesWhatAPublishCosts(t *testing.T) {
	r := newRig(t, rigConfig{sim: sim.Config{Subscribers: 50}})
	got := r.do("POST", "/apps/7/events", nil, `{"name":"e","channels":["a","b"],"data":"d","info":"subscription_count"}`)
	want(t, got, 200, "sent")
	if !strings.Contains(got.body, `"subscription_count":50`) {
		t.Errorf("body %s", got.body)
	}
	r.agree() // settled by what the answer told, not by the default of 2
}

func TestWebhooksAreBelievedOnlyWithASignature(t *testing.T) {
	r := newRig(t, rigConfig{})
	body := `{"time_ms":1,"events":[{"name":"subscription_count","channel":"w","subscription_count":9}]}`
	post := func(key, signature string) int {
		req, _ := http.NewRequest("POST", "http://"+r.addr+"/webhooks/7", strings.NewReader(body))
		req.Header.Set("X-Pusher-Key", key)
		req.Header.Set("X-Pusher-Signature", signature)
		resp, err := r.client.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	good := pusher.SignWebhook(r.app.Upstream.key, []byte(body))
	if got := post("k", strings.Repeat("0", 64)); got != 401 {
		t.Errorf("a forged webhook got %d", got)
	}
	if got := post("k", good); got != 200 {
		t.Errorf("a signed webhook got %d", got)
	}
}

func TestDrainingSaysSo(t *testing.T) {
	r := newRig(t, rigConfig{})
	r.proxy.Drain()
	got := r.publish("e", "c", "d")
	want(t, got, 503, "unavailable")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestAPanicCostsOneRequest(t *testing.T) {
	r := newRig(t, rigConfig{})
	ledger := r.app.Ledger
	r.app.Limiter, r.app.Ledger = nil, nil // what no configuration can bring about
	if got := r.publish("e", "c", "d"); got.status != 500 {
		t.Errorf("got %d", got.status)
	}
	if r.proxy.Stats().Panics() != 1 {
		t.Error("the panic was not counted")
	}
	if got := r.do("GET", "/nothing", nil, ""); got.status != 404 {
		t.Errorf("the next request got %d", got.status)
	}
	r.app.Ledger = ledger
}

func TestOriginsAreBounded(t *testing.T) {
	var o origins
	for i := range 10_000 {
		o.of(fmt.Appendf(nil, "sdk %d", i)).publishes.Add(1)
	}
	list := o.list()
	if len(list) != maxOrigins+1 {
		t.Errorf("%d origins kept", len(list))
	}
	var sum int64
	for _, x := range list {
		sum += x.Publishes
	}
	if sum != 10_000 {
		t.Errorf("%d publishes counted of 10000", sum)
	}
}

func TestOwnKeyTellsOriginsApart(t *testing.T) {
	r := newRig(t, rigConfig{})
	own := pusher.NewKey("k", rigSecret)
	r.as(own, "POST", "/apps/7/events", nil, eventBody("e", "c", "d"))
	list := r.app.CallerOrigins()
	if len(list) != 1 || list[0].Name != "unnamed SDK from 127.0.0.1" || list[0].Publishes != 1 {
		t.Errorf("origins %+v", list)
	}
	if got := r.app.Limiter.Caller("app").Stats(time.Now()).Outcomes[limiter.Sent]; got != 1 {
		t.Errorf("caller app has %d sent", got)
	}
}

func TestTheBrakeIsObeyed(t *testing.T) {
	r := newRig(t, rigConfig{policy: policyOf(limiter.Rule{Match: limiter.Match{Event: []string{"alarm"}}, Priority: quota.Critical})})
	err := r.ledger.SetBrake(t.Context(), time.Now(), &quota.Brake{Allow: "critical", Reason: "runaway", By: "anna", Since: time.Now(), Until: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	got := r.publish("news", "c", "d")
	want(t, got, 403, "braked")
	for _, word := range []string{"anna", "runaway", "until"} {
		if !strings.Contains(got.body, word) {
			t.Errorf("%q does not tell %s", got.body, word)
		}
	}
	want(t, r.publish("alarm", "c", "d"), 200, "sent")
}

// Whoever serves and whoever shuts down do not know which of them comes first.
func TestAShutdownThatComesFirst(t *testing.T) {
	for range 200 {
		p := New(Config{Log: slog.New(slog.DiscardHandler)})
		if err := p.Apply(nil); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- p.Serve(ln) }()
		if err := p.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
			c.Close()
			t.Fatal("it still listens")
		}
	}
}
