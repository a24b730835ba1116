//go:build !linux

package proxy

import (
	"time"

	"github.com/valyala/fasthttp"
)

// upConns are for Linux alone; elsewhere fasthttp's client does all.
type upConns struct{}

func newUpConns(string, *fasthttp.HostClient) *upConns { return nil }

func (*upConns) do([]byte, bool, *fasthttp.Response, time.Time) error { return fasthttp.ErrNoFreeConns }
func (*upConns) close()                                               {}
