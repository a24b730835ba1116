package netpoll

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// letter is to be written once, with the bytes that were put.
type letter struct {
	t    *testing.T
	want []byte
	n    atomic.Int32
}

func (l *letter) Transmit(b []byte) {
	if !bytes.Equal(b, l.want) {
		l.t.Errorf("%q is written as %q", l.want, b)
	}
	l.n.Add(1)
}

// Whoever writes, and whether the poller sleeps or not, each is written once, as
// it was when it was put.
func TestAnOutboxWritesEachOnce(t *testing.T) {
	var o WriteBatch
	o.Processors(1)
	o.Flush(true)
	end := make(chan struct{})
	var poller sync.WaitGroup
	poller.Go(func() {
		for open := false; ; open = !open {
			select {
			case <-end:
				o.Flush(false)
				return
			default:
				o.Flush(open)
				runtime.Gosched()
			}
		}
	})
	const writers, each = 8, 4000
	letters := make([]letter, writers*each)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			var mine []byte
			for i := range each {
				l := &letters[w*each+i]
				*l = letter{t: t, want: bytes.Repeat([]byte{byte('a' + i%26)}, 1+i%700)}
				mine = append(mine[:0], l.want...)
				if keep := i%3 == 0; keep {
					o.Put(l, l.want, true)
				} else {
					o.Put(l, mine, false)
					clear(mine)
				}
			}
		})
	}
	all.Wait()
	close(end)
	poller.Wait()
	for i := range letters {
		if n := letters[i].n.Load(); n != 1 {
			t.Fatalf("number %d was written %d times", i, n)
		}
	}
}

// The poller need not come back for a large number to go out.
func TestAFullOutboxIsWrittenByWhoFillsIt(t *testing.T) {
	var o WriteBatch
	o.Flush(true)
	l := letter{t: t, want: []byte("x")}
	for range writesMost - 1 {
		o.Put(&l, l.want, false)
	}
	if n := l.n.Load(); n != 0 {
		t.Fatalf("%d were written before the turn's end", n)
	}
	o.Put(&l, l.want, false)
	if n := l.n.Load(); n != writesMost {
		t.Fatalf("%d of %d were written", n, writesMost)
	}
	l.want = make([]byte, writesRoom+1)
	o.Put(&l, l.want, false)
	if n := l.n.Load(); n != writesMost+1 {
		t.Fatal("what does not fit was not written")
	}
}
