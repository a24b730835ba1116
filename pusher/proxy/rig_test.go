package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/dedupe"
	"github.com/pushguard/pushguard/quota/delayed"
	"github.com/pushguard/pushguard/quota/fanout"
	"github.com/pushguard/pushguard/quota/store"
)

// rig is the data port in front of a simulated Pusher, both on loopback.
type rig struct {
	t      testing.TB
	sim    *sim.Server
	proxy  *Proxy
	app    *App
	ledger *quota.Ledger
	addr   string
	caller *pusher.Key
	logs   *lockedBuffer
	store  *store.Store
	shelf  *delayed.Queue
	twins  *dedupe.Claims
	client *http.Transport
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type rigConfig struct {
	plan      int64
	policy    limiter.Policy
	upstream  string         // instead of the simulator
	roots     *x509.CertPool // who may sign for it; nil: the system's
	timeout   time.Duration
	conns     int // at most, to the upstream; 0: the default
	fold      *FoldConfig
	sim       sim.Config
	minCalls  uint
	billing   pusher.Billing
	store     *store.Store // shared with another rig, whose it is
	simulator *sim.Server  // likewise
	release   bool         // what is held goes out
	twins     bool         // shares what it deduplicates
	maxBody   int          // of a request; 0: the default
}

const (
	rigSecret       = "upstream-secret-never-logged"
	rigCallerSecret = "caller-secret-never-logged"
)

func newRig(t testing.TB, c rigConfig) *rig {
	t.Helper()
	r := &rig{t: t, logs: &lockedBuffer{}, caller: pusher.NewKey("ck", rigCallerSecret), client: &http.Transport{}}
	log := slog.New(slog.NewTextHandler(r.logs, nil))
	if c.plan == 0 {
		c.plan = 1 << 30
	}
	c.sim.Apps = []sim.App{{ID: "7", Key: "k", Secret: rigSecret}}
	c.sim.MessagesPerDay = c.plan
	c.sim.Billing = c.billing
	if c.sim.Subscribers == 0 {
		c.sim.Subscribers = 2
	}
	if r.sim = c.simulator; r.sim == nil {
		r.sim = sim.New(c.sim)
	}
	if c.upstream == "" {
		addr, err := r.sim.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.upstream = "http://" + addr
	}
	ctx, cancel := context.WithCancel(context.Background())
	st := c.store
	var err error
	if st == nil {
		if st, err = store.Open(ctx, "embedded", store.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	r.store = st
	r.ledger, err = quota.Open(ctx, time.Now(), st, t.Name()+rand.Text(), quota.Config{Account: "a", Plan: quota.Plan{Name: "custom", MessagesPerDay: c.plan}}, log)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { r.ledger.Run(ctx) })
	breaker, err := limiter.NewBreaker(time.Now(), limiter.BreakerConfig{ShedBulkAt: 1, ShedNormalAt: 1, CriticalOnlyAt: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.policy.App = "7"
	c.policy.Callers = append(c.policy.Callers, limiter.CallerPolicy{Name: "care-api"})
	judge, err := limiter.New(c.policy, r.ledger, breaker)
	if err != nil {
		t.Fatal(err)
	}
	key := pusher.NewKey("k", rigSecret)
	up, err := NewUpstream(UpstreamConfig{URL: c.upstream, Key: key, Timeout: c.timeout, MaxCalls: c.conns, MinCalls: c.minCalls, Off: c.minCalls == 0})
	if err != nil {
		t.Fatal(err)
	}
	if c.roots != nil {
		up.client.TLSConfig.RootCAs = c.roots
	}
	r.app = &App{
		ID: "7", Account: "a", Upstream: up, Limiter: judge, Ledger: r.ledger, Breaker: breaker, Fold: c.fold, Billing: c.billing,
		Fanout: fanout.New(2, nil),
		Seed:   &pusher.Seed{},
		Keys:   []CallerKey{{Key: key, Caller: "app", Own: true}, {Key: r.caller, Caller: "care-api"}},
	}
	r.shelf = r.ledger.Shelf()
	r.app.Shelf = r.shelf
	running.Go(func() { r.shelf.Run(ctx) })
	if c.twins {
		r.twins = r.ledger.Twins()
		judge.SetTwins(r.twins)
		running.Go(func() { r.twins.Run(ctx) })
		eventually(t, "a running record", func() bool { return r.twins.Stats().Up })
	}
	r.proxy = New(Config{Log: log, MaxBody: c.maxBody})
	if c.release {
		running.Go(func() { r.proxy.Release(ctx, r.shelf) })
	}
	if err := r.proxy.Apply([]*App{r.app}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	running.Go(func() {
		if err := r.proxy.Serve(ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		// A connection that was opened and never used looks to the server like one
		// whose first request is on its way, and is waited for.
		r.client.CloseIdleConnections()
		stop, done := context.WithTimeout(context.Background(), 30*time.Second)
		defer done()
		if err := r.proxy.Shutdown(stop); err != nil {
			t.Error("shutdown:", err)
		}
		up.Close()
		if err := r.ledger.Close(stop); err != nil {
			t.Error("ledger:", err)
		}
		cancel()
		running.Wait()
		if c.store == nil {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		}
		if c.simulator == nil {
			_ = r.sim.Close()
		}
		if strings.Contains(r.logs.String(), "never-logged") || strings.Contains(r.logs.String(), "auth_signature") {
			t.Error("a secret or a signed URL reached the log:\n" + r.logs.String())
		}
	})
	return r
}

// reply is an answer of the data port, read whole.
type reply struct {
	status  int
	outcome string
	header  http.Header
	body    string
}

// do signs a request as the caller and sends it.
func (r *rig) do(method, path string, params url.Values, body string) reply {
	r.t.Helper()
	return r.as(r.caller, method, path, params, body)
}

func (r *rig) as(k *pusher.Key, method, path string, params url.Values, body string) reply {
	r.t.Helper()
	got, err := r.try(k, method, path, params, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) try(k *pusher.Key, method, path string, params url.Values, body string) (reply, error) {
	var q pusher.Query
	if err := q.Parse([]byte(params.Encode())); err != nil {
		return reply{}, err
	}
	signed := k.AppendSigned(nil, method, []byte(path), &q, []byte(body), time.Now())
	req, err := http.NewRequest(method, "http://"+r.addr+path+"?"+string(signed), strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	resp, err := r.client.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header.Get("Pushguard-Outcome"), resp.Header, string(b)}, err
}

func (r *rig) publish(event, channel, data string) reply {
	r.t.Helper()
	return r.do("POST", "/apps/7/events", nil, eventBody(event, channel, data))
}

func eventBody(event, channel, data string) string {
	return fmt.Sprintf(`{"name":%q,"channel":%q,"data":%q}`, event, channel, data)
}

// used is what the ledger has booked.
func (r *rig) used() int64 {
	n, _ := r.ledger.Used(time.Now())
	return n
}

// agree holds the ledger's count against the simulated Pusher's bill.
func (r *rig) agree() {
	r.t.Helper()
	if got, billed := r.used(), r.sim.Stats().Messages; got != billed {
		r.t.Errorf("the ledger booked %d messages, Pusher billed %d", got, billed)
	}
}
