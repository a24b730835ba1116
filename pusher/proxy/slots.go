package proxy

import (
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// slots bounds the calls under way to an upstream, and with them its connections.
//
// Those that hang from before the end of a silence hold none any more, as they hold
// no place (silence): the first answer begins a new era. So there can be as many
// connections besides as hang. Who goes to find out whether the upstream still is
// silent needs none.
type slots struct {
	most int
	era  atomic.Pointer[slotEra]
}

// slotEra is where one who has a slot gives it back.
type slotEra struct {
	taken chan struct{}
	over  chan struct{} // closed when another one has begun
}

func (s *slots) init(most int) {
	s.most = most
	s.era.Store(s.fresh())
}

func (s *slots) fresh() *slotEra {
	return &slotEra{taken: make(chan struct{}, s.most), over: make(chan struct{})}
}

// anew has nobody hold a slot who has one.
func (s *slots) anew() { close(s.era.Swap(s.fresh()).over) }

// try takes a slot, or returns nil if none is free.
func (s *slots) try() *slotEra {
	e := s.era.Load()
	select {
	case e.taken <- struct{}{}:
		return e
	default:
		return nil
	}
}

// take takes a slot and waits for it, until a time at the longest.
func (s *slots) take(until time.Time) (*slotEra, error) {
	if e := s.try(); e != nil {
		return e, nil
	}
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	for {
		e := s.era.Load()
		select {
		case e.taken <- struct{}{}:
			return e, nil
		case <-e.over:
		case <-late.C:
			return nil, fasthttp.ErrNoFreeConns
		}
	}
}

// free gives a slot back; nil: there was none.
func (e *slotEra) free() {
	if e != nil {
		<-e.taken
	}
}
