package proxy

import (
	"fmt"
	"math"
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
)

// stubTransport answers 200 {} without a network, so that what is measured is
// pushguard.
type stubTransport struct{}

func (stubTransport) RoundTrip(_ *fasthttp.HostClient, _ *fasthttp.Request, resp *fasthttp.Response) (bool, error) {
	resp.SetStatusCode(200)
	resp.Header.SetContentTypeBytes(contentJSON)
	resp.SetBodyRaw(emptyObject)
	return false, nil
}

// everyStage is a policy that asks every stage of the judgement.
func everyStage() limiter.Policy {
	return limiter.Policy{
		Rules: []limiter.Rule{
			{Match: limiter.Match{Event: []string{"alarm.*"}}},
			{Match: limiter.Match{Event: []string{"notification.*"}, Channel: []string{"private-user-*"}}, Dedupe: time.Millisecond,
				Rates: []limiter.Rate{{PerSecond: 1e9, Burst: 1e9, Per: limiter.PerChannel}, {PerSecond: 1e9, Burst: 1e9, Per: limiter.PerEvent}}},
		},
		AppRate: &limiter.Rate{PerSecond: 1e9, Burst: 1e9},
	}
}

func stubbed(t testing.TB, fold *FoldConfig) (*rig, []*fasthttp.RequestCtx) {
	r := newRig(t, rigConfig{policy: everyStage(), fold: fold})
	r.app.Upstream.client.Transport, r.app.Upstream.conns = stubTransport{}, nil
	ctxs := make([]*fasthttp.RequestCtx, 1024) // enough that none comes again inside the dedupe window
	for i := range ctxs {
		body := eventBody("notification.refresh", fmt.Sprintf("private-user-%d", i), fmt.Sprintf(`{"n":%d,"text":"%0400d"}`, i, i))
		path := "/apps/7/events"
		query := r.caller.AppendSigned(nil, "POST", []byte(path), nil, []byte(body), time.Now())
		var req fasthttp.Request
		req.Header.SetMethod("POST")
		req.SetRequestURI(path + "?" + string(query))
		req.Header.Set("X-Pusher-Library", "pusher-http-go 5.1.1")
		req.SetBodyString(body)
		ctxs[i] = &fasthttp.RequestCtx{}
		ctxs[i].Init(&req, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 999}, nil)
	}
	return r, ctxs
}

// A steady caller costs no heap allocation from the first byte of its request
// to the last of its answer: verify, decode, rule, buckets, dedupe, budget,
// counters, signing, settling.
func TestASteadyCallerAllocatesNothing(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates by itself; the same test runs without it in `make test`
	}
	for name, fold := range map[string]*FoldConfig{"folding off": nil, "folding on": {}} {
		t.Run(name, func(t *testing.T) {
			r, ctxs := stubbed(t, fold)
			for _, ctx := range ctxs {
				if r.proxy.serve(ctx); ctx.Response.StatusCode() != 200 {
					t.Fatalf("%d %s", ctx.Response.StatusCode(), ctx.Response.Body())
				}
			}
			i := 0
			// The ledger's heartbeat allocates in the background, and is counted too:
			// the quietest of several runs is the publish alone.
			got := math.Inf(1)
			for range 10 {
				got = min(got, testing.AllocsPerRun(200, func() {
					ctx := ctxs[i%len(ctxs)]
					i++
					r.proxy.serve(ctx)
				}))
			}
			if got != 0 {
				t.Errorf("%v allocations a publish", got)
			}
			if n := r.app.Limiter.Caller("care-api").Stats(time.Now()).Outcomes[limiter.Sent]; n < 1000 {
				t.Errorf("only %d publishes were sent: the measured path is not the one meant", n)
			}
		})
	}
}

func BenchmarkServe(b *testing.B) {
	for name, fold := range map[string]*FoldConfig{"alone": nil, "fold": {}} {
		b.Run(name, func(b *testing.B) {
			r, ctxs := stubbed(b, fold)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				r.proxy.serve(ctxs[i%len(ctxs)])
				i++
			}
		})
	}
}
