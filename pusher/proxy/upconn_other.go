//go:build !linux

package proxy

import (
	"time"

	"github.com/valyala/fasthttp"
)

// upConns are for Linux alone; elsewhere fasthttp's client does all.
type upConns struct{}

func newUpConns(string, *fasthttp.HostClient, dialTCP, *slots) *upConns { return nil }

func (*upConns) do([]byte, bool, *fasthttp.Response, time.Time) error { return fasthttp.ErrNoFreeConns }
func (*upConns) reserve(*visit) bool                                  { return false }
func (*upConns) unreserve(*visit)                                     {}
func (*upConns) launch(*visit, *job, time.Time) bool                  { return false }
func (*upConns) close()                                               {}

func (*upConns) landed(*visit, []byte, *fasthttp.Response, time.Time) error {
	return fasthttp.ErrNoFreeConns
}
