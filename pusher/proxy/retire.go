package proxy

import (
	"context"
	"time"
)

// Retire begins an orderly leave: everything is served on, but every answer
// ends its connection, so that callers with kept-alive ones come back to
// whoever listens by then. Without it a kept-alive connection ends under a
// request that its caller has just sent, whose fate nobody knows.
func (p *Proxy) Retire() { p.retiring.Store(true) }

// Linger waits until no connection is open, or for d, or for ctx. It is for the
// time between the end of accepting and Shutdown: who was accepted last is
// still to be heard.
func (p *Proxy) Linger(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	l := p.lane.Load()
	for p.server.GetOpenConnectionsCount() >= 0 || l.count() > 0 { // after Serve the first is one too low
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
