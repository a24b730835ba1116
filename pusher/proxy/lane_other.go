//go:build !linux

package proxy

import (
	"context"
	"net"
	"time"

	"github.com/pushguard/pushguard/pusher/upstream"
	"github.com/pushguard/pushguard/pusher/wire"
)

// processorTime is not asked for here.
func processorTime() (used, waited time.Duration) { return 0, 0 }

// lane is for Linux alone; elsewhere fasthttp's server does all.
type lane struct{}

// visit is a request of the lane.
type visit struct{ call upstream.Call }

func (*visit) leave(*job)  {}
func (*visit) goOn()       {}
func (*visit) Resume()     {}
func (*visit) full()       {}
func (*visit) sample() int { return 0 }

func (*visit) asked() *wire.Request { return nil }
func (*visit) take(*wire.Response)  {}

func newLane(*Proxy) *lane { return nil }

func (*lane) over(ln net.Listener) net.Listener { return ln }
func (*lane) shutdown(context.Context) error    { return nil }
func (*lane) count() int64                      { return 0 }
