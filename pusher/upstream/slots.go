package upstream

import (
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Slots bounds the calls under way to an upstream, and with them its connections.
//
// Those that hang from before the end of a stall hold none any more, as they hold
// no place in the guard's queue: the first answer begins a new generation. So there can be as many
// connections besides as hang. Who goes to find out whether the upstream still is
// stalled needs none.
type Slots struct {
	most int
	era  atomic.Pointer[Generation]
}

// Generation is where one who has a slot gives it back.
type Generation struct {
	taken chan struct{}
	over  chan struct{} // closed when another one has begun
}

// SetMost sets how many there are, before the first is taken.
func (s *Slots) SetMost(most int) {
	s.most = most
	s.era.Store(s.fresh())
}

func (s *Slots) fresh() *Generation {
	return &Generation{taken: make(chan struct{}, s.most), over: make(chan struct{})}
}

// Reset begins a new generation: nobody holds a slot any more.
func (s *Slots) Reset() { close(s.era.Swap(s.fresh()).over) }

// try takes a slot, or returns nil if none is free.
func (s *Slots) try() *Generation {
	e := s.era.Load()
	select {
	case e.taken <- struct{}{}:
		return e
	default:
		return nil
	}
}

// Take takes a slot and waits for it, until a time at the longest.
func (s *Slots) Take(until time.Time) (*Generation, error) {
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

// Taken counts the slots that are in use.
func (s *Slots) Taken() int { return len(s.era.Load().taken) }

// Free gives a slot back; nil: there was none.
func (e *Generation) Free() {
	if e != nil {
		<-e.taken
	}
}
