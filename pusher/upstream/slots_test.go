package upstream

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

// A slot is waited for until a time; when an era ends, who waits has one of the next,
// and what is given back of the one before is nobody's.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Slots
		s.SetMost(1)
		began := time.Now()
		take := func(patience time.Duration) (chan *Generation, chan time.Duration) {
			got, took := make(chan *Generation, 1), make(chan time.Duration, 1)
			go func() {
				e, err := s.Take(time.Now().Add(patience))
				if (e == nil) != (err == fasthttp.ErrNoFreeConns) {
					t.Error(e, err)
				}
				got <- e
				took <- time.Since(began)
			}()
			synctest.Wait()
			return got, took
		}
		first := s.try()
		if first == nil || s.try() != nil {
			t.Fatal("one slot, and not one has it")
		}
		if got, took := take(time.Second); <-got != nil || <-took != time.Second {
			t.Error("in vain")
		}
		second, took := take(time.Second)
		time.Sleep(300 * time.Millisecond)
		first.Free()
		if first = <-second; first == nil || <-took != 1300*time.Millisecond {
			t.Error("who waited has not what was given back")
		}
		third, took := take(time.Second)
		time.Sleep(100 * time.Millisecond)
		s.Reset()
		fresh := <-third
		if fresh == nil || fresh == first || <-took != 1400*time.Millisecond {
			t.Error("a new era has no slot for who waited")
		}
		if first.Free(); s.try() != nil {
			t.Error("the era before gave a slot to this one")
		}
		if fresh.Free(); s.try() == nil {
			t.Error("the slot did not come back")
		}
	})
}
