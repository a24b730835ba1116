package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher/upstream"
	"github.com/pushguard/pushguard/pusher/wire"
)

// Reads go to Pusher on connections of their own, and are passed on while they arrive: a list of a million channels costs no
// memory and stands in no publish's way. Whether they succeed says nothing about publishes, so the breaker neither hears of
// them nor keeps them.

const (
	// defaultReadMost bounds an answer to a read: about two million channels.
	defaultReadMost = 256 << 20
	// readsAtOnce bounds the reads under way to one upstream.
	readsAtOnce = 32
	// readWhole is up to how many bytes an answer is held back until it is there whole, so that one that breaks off can be
	// answered with a status of its own.
	readWhole = 256 << 10
)

// reads is how an upstream is read from.
type reads struct {
	most   int64
	busy   chan struct{}
	once   sync.Once
	client *http.Client
}

// linkLocal refuses to connect to a link-local address: a name that comes to mean the machine's credentials is not called.
func linkLocal(_, addr string, _ syscall.RawConn) error {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); ip != nil && (ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast()) {
			return errors.New("its name means a link-local address")
		}
	}
	return nil
}

// httpClient is net/http's client with the upstream's bounds.
func (u *Upstream) httpClient(perHost int) *http.Client {
	d := &net.Dialer{Timeout: u.timeout, Control: linkLocal}
	t := &http.Transport{
		DialContext: d.DialContext, MaxConnsPerHost: perHost, MaxIdleConnsPerHost: 2, IdleConnTimeout: 15 * time.Second,
		TLSHandshakeTimeout: u.timeout, ResponseHeaderTimeout: u.timeout, MaxResponseHeaderBytes: maxAnswerHead, DisableCompression: true, ForceAttemptHTTP2: true,
	}
	if u.proxy != nil {
		// A tunnel here too. For http:// net/http would send the signed URL to the proxy, and not ask for one.
		t.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) { return u.dial(addr, u.timeout) }
	}
	if c := u.client.TLSConfig; c != nil {
		t.TLSClientConfig = c.Clone()
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (u *Upstream) reader() *http.Client {
	u.reads.once.Do(func() { u.reads.client = u.httpClient(0) })
	return u.reads.client
}

// answerStream is an answer that arrives while it is passed on.
type answerStream struct {
	head    []byte // what was read of it already
	body    io.ReadCloser
	left    int64 // how much may come
	idle    *time.Timer
	timeout time.Duration
	end     func()
	once    sync.Once
}

var errTooMuch = errors.New("the answer is longer than read_max")

// Read ends with an error where the answer breaks off, so that its receiver sees that it is not whole.
func (s *answerStream) Read(b []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(b, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	if s.left <= 0 {
		return 0, errTooMuch
	}
	s.idle.Reset(s.timeout)
	n, err := s.body.Read(b[:min(int64(len(b)), s.left+1)])
	s.idle.Stop()
	if s.left -= int64(n); s.left < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// Close lets go of the connection.
func (s *answerStream) Close() error {
	s.once.Do(func() {
		s.idle.Stop()
		_ = s.body.Close()
		s.end()
	})
	return nil
}

// read asks Pusher something and has the answer, or the beginning of one: then stream is not nil, to be passed on and closed,
// and size is its length, -1 if that is not known.
func (u *Upstream) read(j *job, out outgoing, now time.Time) (got answer, stream *answerStream, size int) {
	if u.sink != nil {
		return u.call(j, out, now), nil, 0
	}
	began := moment()
	wait := time.NewTimer(u.timeout)
	defer wait.Stop()
	select {
	case u.reads.busy <- struct{}{}:
	case <-wait.C:
		return answer{fate: limiter.NotSent, outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, word: "upstream_reads_busy", status: fasthttp.StatusServiceUnavailable, retryAfter: time.Second,
			text: fmt.Sprintf("%d reads to Pusher are under way already; this one was not sent and cost no message. Publishes go on.", readsAtOnce)}, nil, 0
	}
	ctx, cancel := context.WithCancel(context.Background())
	idle := time.AfterFunc(u.timeout, cancel)
	end := func() {
		idle.Stop()
		cancel()
		<-u.reads.busy
	}
	resp, got, ok := u.ask(ctx, j, &out, began, now)
	if !ok {
		end()
		return got, nil, 0
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, readWhole))
	idle.Stop()
	s := &answerStream{head: head, body: resp.Body, left: u.reads.most - int64(len(head)), idle: idle, timeout: u.timeout, end: end}
	whole := err == nil && len(head) < readWhole
	if out.method == http.MethodHead {
		whole, err = true, nil
	}
	r := &j.resp
	r.Reset()
	j.answered = true
	r.SetStatusCode(resp.StatusCode)
	for _, name := range []string{"Content-Type", "Content-Encoding", wire.HeaderRetry, "Location"} {
		if v := resp.Header.Get(name); v != "" {
			r.Header.Set(name, v)
		}
	}
	r.SetBody(head)
	switch {
	case err != nil:
		s.Close()
		if ctx.Err() != nil {
			err = fasthttp.ErrTimeout
		}
		return u.failed(&out, err), nil, 0
	case resp.StatusCode >= 500:
		s.Close()
		got := u.failing(&out, r, now)
		return got, nil, 0
	case whole:
		s.Close()
		got, _ := u.understand(j, &out, r, now)
		return got, nil, 0
	case resp.StatusCode >= 300 || len(bytes.TrimLeft(head, " \t\r\n")) > 0 && bytes.TrimLeft(head, " \t\r\n")[0] != '{' && shapeOf(&out) == objectShape && resp.Header.Get("Content-Encoding") == "":
		s.Close()
		got, _ := u.understand(j, &out, r, now)
		return got, nil, 0
	case resp.ContentLength > u.reads.most:
		s.Close()
		return answer{fate: limiter.Delivered, outcome: limiter.Unavailable, reason: limiter.UpstreamFailing, word: "answer_too_large", status: fasthttp.StatusBadGateway,
			text: fmt.Sprintf("Pusher's answer has %d bytes, more than pushguard passes on (read_max, %d). Ask for less, as with filter_by_prefix.", resp.ContentLength, u.reads.most)}, nil, 0
	}
	got = answer{fate: limiter.Delivered, outcome: limiter.Sent, status: resp.StatusCode, contentType: bytes.Clone(r.Header.ContentType()), encoding: bytes.Clone(r.Header.Peek("Content-Encoding"))}
	if len(got.contentType) >= 200 || hasSignature(got.contentType) {
		got.contentType = contentJSON
	}
	return got, s, int(max(resp.ContentLength, -1))
}

// ask makes the call of a read. ok is false if there is no answer, but got.
func (u *Upstream) ask(ctx context.Context, j *job, out *outgoing, began, now time.Time) (resp *http.Response, got answer, ok bool) {
	u.sign(j, out, now)
	req, err := http.NewRequestWithContext(ctx, out.method, u.Host()+string(j.target), nil)
	if err == nil {
		if len(out.library) > 0 {
			req.Header.Set("X-Pusher-Library", string(out.library))
		}
		req.Header.Set("User-Agent", "")
		resp, err = u.reader().Do(req)
	} else {
		err = &upstream.NotSentError{Err: errors.New("the path is none")}
	}
	if u.seconds != nil {
		u.seconds.Observe(moment().Sub(began).Seconds())
	}
	if err == nil {
		if resp.StatusCode >= 0 && resp.StatusCode < len(u.codes) {
			u.codes[resp.StatusCode].Add(1)
		}
		return resp, got, true
	}
	u.codes[0].Add(1)
	var wrapped *url.Error
	if errors.As(err, &wrapped) { // which holds the signed URL
		err = wrapped.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = &upstream.NotSentError{Err: err}
	}
	if ctx.Err() != nil {
		err = fasthttp.ErrTimeout
	}
	return nil, u.failed(out, err), false
}

// whole reads what is still arriving, for a border that writes answers from memory. Only a request that mayStream took for one
// with a short answer comes here.
func whole(r *wire.Response) {
	if r.Stream == nil {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Stream, maxDecoded+1))
	_ = r.Stream.Close()
	r.Stream = nil
	if err != nil || len(body) > maxDecoded {
		refuse(r, fasthttp.StatusBadGateway, "answer_too_large", "Pusher's answer broke off, or is longer than is expected of this endpoint.")
		return
	}
	r.Body = body
}
