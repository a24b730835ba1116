package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream"

	"github.com/valyala/fasthttp"
)

const (
	// passTimeout bounds one webhook passed on: Pusher waits 4 s for its own answer and then sends the webhook again.
	passTimeout = 3500 * time.Millisecond
	// passMost bounds how many are under way at once, so that an endpoint that hangs costs no more than that.
	passMost = 64
)

// Endpoint is where an app wants Pusher's webhooks passed on to. It is safe for concurrent use.
//
// A webhook goes there as it came: the same body with Pusher's own signature, so that the app checks it as it always
// did. Pusher is told 200 only after the endpoint took it with 2xx; otherwise Pusher sends it again, for minutes. So
// the endpoint gets each at least once, as from Pusher itself, and nothing is kept here.
type Endpoint struct {
	client *fasthttp.HostClient
	url    string // may hold a password: never logged
	host   string
	busy   chan struct{}
	failed atomic.Bool // the last one was not taken: the log says so once
}

// NewEndpoint checks the URL and connects to nothing yet.
func NewEndpoint(raw string) (*Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("webhooks are passed on to an http:// or https:// URL")
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	dialer := &fasthttp.TCPDialer{Concurrency: passMost, DNSCacheDuration: 30 * time.Second, Resolver: upstream.NoLinkLocal{Next: net.DefaultResolver}}
	return &Endpoint{url: u.String(), host: u.Host, busy: make(chan struct{}, passMost), client: &fasthttp.HostClient{
		Addr: addr, IsTLS: u.Scheme == "https",
		DialTimeout: func(addr string, _ time.Duration) (net.Conn, error) {
			return dialer.DialDualStackTimeout(addr, passTimeout)
		},
		MaxConns:            passMost,
		MaxConnWaitTimeout:  passTimeout,
		MaxIdleConnDuration: 15 * time.Second,
		// A webhook may arrive twice, and Pusher repeats it anyway.
		MaxIdemponentCallAttempts: 1,
		ReadTimeout:               passTimeout,
		WriteTimeout:              passTimeout,
		MaxResponseBodySize:       64 << 10,
		NoDefaultUserAgentHeader:  true,
		SecureErrorLogMessage:     true,
	}}, nil
}

// pass sends one webhook on. Its error says what to look at and holds no part of the URL but the host.
func (e *Endpoint) pass(from *fasthttp.RequestHeader, body []byte) error {
	select {
	case e.busy <- struct{}{}:
		defer func() { <-e.busy }()
	default:
		return fmt.Errorf("%s has %d webhooks to answer already", e.host, passMost)
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.Header.SetMethod(fasthttp.MethodPost)
	req.SetRequestURI(e.url)
	for _, h := range [...][]byte{headerWebhookKey, headerWebhookSignature, headerContentType} {
		if v := from.PeekBytes(h); len(v) > 0 {
			req.Header.SetBytesKV(h, v)
		}
	}
	req.SetBodyRaw(body)
	var wire net.Error
	switch err := e.client.DoTimeout(req, resp, passTimeout); {
	case errors.Is(err, fasthttp.ErrTimeout), errors.As(err, &wire) && wire.Timeout():
		return fmt.Errorf("%s did not answer within %v", e.host, passTimeout)
	case err != nil:
		return fmt.Errorf("%s: %s", e.host, connectFailure(err))
	}
	if s := resp.StatusCode(); s < 200 || s > 299 {
		return fmt.Errorf("%s answered %d", e.host, s)
	}
	return nil
}
