package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// ALPN are the protocols that the data port speaks over TLS, for whoever sets
// up the listener, the preferred one first. Without TLS it speaks HTTP/1.1 only:
// there is no h2c, neither by upgrade nor by prior knowledge.
var ALPN = []string{"h2", "http/1.1"}

// h2 serves the connections that agreed on HTTP/2 in their TLS handshake, as
// Go's SDK does. Such a connection counts as one against MaxConns and
// MaxConnsPerIP; each of its streams is a request like any other, through the
// same code: it is turned into the form that serve reads, and back.
//
// What it costs more than HTTP/1.1 is a copy and some allocations; this path is
// not the hot one.
type h2 struct {
	proxy   *Proxy
	server  *http.Server
	begin   sync.Once
	line    chan net.Conn // from serveConn to Accept
	over    chan struct{}
	end     sync.Once
	scratch sync.Pool // *fasthttp.RequestCtx
}

const (
	// h2Streams bounds the requests under way on one connection. A stream that its
	// client resets counts until its answer is done, so a flood of resets
	// (CVE-2023-44487) gains nothing.
	h2Streams = 128
	// h2Headers bounds the headers of one request, as ReadBufferSize does in
	// HTTP/1.1.
	h2Headers = 16 << 10
)

func newH2(p *Proxy) *h2 {
	h := &h2{proxy: p, line: make(chan net.Conn), over: make(chan struct{})}
	h.scratch.New = func() any { return &fasthttp.RequestCtx{} }
	// TLS is done with when a connection comes here, so to net/http it is one that
	// speaks HTTP/2 from its first byte.
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	h.server = &http.Server{
		Handler: h, Protocols: &only, MaxHeaderBytes: h2Headers, ErrorLog: discard,
		ReadTimeout: p.server.ReadTimeout, WriteTimeout: p.server.WriteTimeout, IdleTimeout: p.server.IdleTimeout,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: h2Streams, MaxReadFrameSize: 16 << 10,
			// What may lie unread: of one stream, and of a connection's together.
			MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: 10 * time.Second,
		},
	}
	p.server.NextProto("h2", h.serveConn)
	return h
}

// h2Conn tells when it is closed.
type h2Conn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *h2Conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// serveConn hands a connection to the server, and returns when it is over.
func (h *h2) serveConn(c net.Conn) error {
	h.begin.Do(func() { go func() { _ = h.server.Serve(h) }() })
	mine := &h2Conn{Conn: c, closed: make(chan struct{})}
	select {
	case h.line <- mine:
		<-mine.closed
	case <-h.over:
	}
	return nil
}

// Accept, Close and Addr make h the listener of its server.
func (h *h2) Accept() (net.Conn, error) {
	select {
	case c := <-h.line:
		return c, nil
	case <-h.over:
		return nil, net.ErrClosed
	}
}

// Close ends accepting.
func (h *h2) Close() error {
	h.end.Do(func() { close(h.over) })
	return nil
}

// Addr is of no connection in particular.
func (h *h2) Addr() net.Addr { return &net.TCPAddr{} }

// close tells every connection that it is over, once its streams are.
func (h *h2) close(ctx context.Context) {
	_ = h.Close()
	_ = h.server.Shutdown(ctx)
}

// ServeHTTP is one stream.
func (h *h2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := h.proxy
	ctx := h.scratch.Get().(*fasthttp.RequestCtx)
	defer func() {
		ctx.Request.Reset()
		ctx.Response.Reset()
		h.scratch.Put(ctx)
	}()
	peer, err := net.ResolveTCPAddr("tcp", r.RemoteAddr) // always an address: nothing is looked up
	if err != nil {
		peer = nil
	}
	var from net.Addr
	if peer != nil {
		from = peer
	}
	req := fasthttp.AcquireRequest()
	defer fasthttp.ReleaseRequest(req)
	req.Header.SetMethod(r.Method)
	req.SetRequestURI(r.RequestURI)
	req.Header.SetHost(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			req.Header.Add(name, v)
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(p.server.MaxRequestBodySize)+1))
	ctx.Init(req, from, nil)
	switch {
	case len(body) > p.server.MaxRequestBodySize:
		p.refuseUnread(ctx, fasthttp.ErrBodyTooLarge)
	case err != nil:
		p.refuseUnread(ctx, err)
	default:
		ctx.Request.SetBodyRaw(body)
		p.serve(ctx)
	}
	out := w.Header()
	for name, v := range ctx.Response.Header.All() {
		switch string(name) {
		case "Connection", "Content-Length", "Transfer-Encoding", "Server", "Date": // of HTTP/1.1, or set by the server
		default:
			out.Add(string(name), string(v))
		}
	}
	out.Set("Server", "pushguard")
	if ctx.Response.ConnectionClose() {
		out.Set("Connection", "close") // the server makes a GOAWAY of it
	}
	w.WriteHeader(ctx.Response.StatusCode())
	if ctx.Response.IsBodyStream() {
		_, err := io.Copy(w, ctx.Response.BodyStream())
		_ = ctx.Response.CloseBodyStream()
		if err != nil {
			panic(http.ErrAbortHandler) // the stream is reset: what came is not all
		}
		return
	}
	_, _ = w.Write(ctx.Response.Body()) // a peer that is gone does not hear it
}
