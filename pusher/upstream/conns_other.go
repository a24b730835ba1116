//go:build !linux

package upstream

import (
	"time"

	"github.com/valyala/fasthttp"
)

// Conns are for Linux alone; elsewhere fasthttp's client makes all calls.
type Conns struct{}

// Resumer is who goes on with a call that nobody waits for.
type Resumer interface{ Resume() }

// Call is a call on its way.
type Call struct{}

// NewConns returns nil: there are none here.
func NewConns(string, *fasthttp.HostClient, Dial, *Slots) *Conns { return nil }

func (*Conns) Do([]byte, bool, *fasthttp.Response, time.Time) error { return fasthttp.ErrNoFreeConns }
func (*Conns) Reserve(*Call) bool                                   { return false }
func (*Conns) Cancel(*Call)                                         {}
func (*Conns) Start(*Call, []byte, time.Time, Resumer) bool         { return false }
func (*Conns) Close()                                               {}

func (*Conns) Finish(*Call, []byte, *fasthttp.Response, time.Time) error {
	return fasthttp.ErrNoFreeConns
}
