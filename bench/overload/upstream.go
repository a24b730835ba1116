//go:build linux

package main

import (
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// upstream answers each call after callTime, so many at once and the others after
// them.
type upstream struct {
	addr  string
	srv   *fasthttp.Server
	slots chan struct{}
}

func newUpstream(slots int) (*upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{addr: ln.Addr().String(), slots: make(chan struct{}, slots)}
	u.srv = &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		u.slots <- struct{}{}
		<-time.After(callTime)
		<-u.slots
		ctx.SetContentType("application/json")
		ctx.SetBodyString("{}")
	}}
	go func() { _ = u.srv.Serve(ln) }()
	return u, nil
}

func (u *upstream) url() string { return "http://" + u.addr }
func (u *upstream) close()      { _ = u.srv.Shutdown() }
