package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// letter is to be written once, with the bytes that were put.
type letter struct {
	t    *testing.T
	want []byte
	n    atomic.Int32
}

func (l *letter) transmit(b []byte) {
	if !bytes.Equal(b, l.want) {
		l.t.Errorf("%q is written as %q", l.want, b)
	}
	l.n.Add(1)
}

// Whoever writes, and whether the poller sleeps or not, each is written once, as
// it was when it was put.
func TestAnOutboxWritesEachOnce(t *testing.T) {
	var o outbox
	o.processors(1)
	o.flush(true)
	end := make(chan struct{})
	var poller sync.WaitGroup
	poller.Go(func() {
		for open := false; ; open = !open {
			select {
			case <-end:
				o.flush(false)
				return
			default:
				o.flush(open)
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
					o.put(l, l.want, true)
				} else {
					o.put(l, mine, false)
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
	var o outbox
	o.flush(true)
	l := letter{t: t, want: []byte("x")}
	for range parcelsMost - 1 {
		o.put(&l, l.want, false)
	}
	if n := l.n.Load(); n != 0 {
		t.Fatalf("%d were written before the turn's end", n)
	}
	o.put(&l, l.want, false)
	if n := l.n.Load(); n != parcelsMost {
		t.Fatalf("%d of %d were written", n, parcelsMost)
	}
	l.want = make([]byte, parcelsRoom+1)
	o.put(&l, l.want, false)
	if n := l.n.Load(); n != parcelsMost+1 {
		t.Fatal("what does not fit was not written")
	}
}

// asleep has upstream connections whose poller does not run, and what the
// upstream hears. The upstream says word at once.
func asleep(t *testing.T, timeout time.Duration, word string) (s *upConns, heard func() string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- fmt.Sprint(err)
			return
		}
		_, _ = io.WriteString(c, word)
		b, _ := io.ReadAll(c) // until the proxy closes
		got <- string(b)
	}()
	poll, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	poll.out.processors(1)
	poll.out.flush(true)
	s = newUpConns(ln.Addr().String(), &fasthttp.HostClient{ReadTimeout: timeout, MaxIdleConnDuration: time.Minute},
		func(addr string, d time.Duration) (net.Conn, error) { return net.DialTimeout("tcp", addr, d) }, oneSlot())
	s.poll = poll
	t.Cleanup(func() { s.close(); _ = ln.Close(); _ = poll.file.Close() })
	return s, func() string { return <-got }
}

func oneSlot() *slots {
	s := new(slots)
	s.init(1)
	return s
}

// A request whose time is over before it was written is not written any more,
// and its caller is told that nothing was sent.
func TestALateRequestIsTakenBack(t *testing.T) {
	s, heard := asleep(t, 50*time.Millisecond, "")
	var resp fasthttp.Response
	wire := []byte("POST / HTTP/1.1\r\n\r\n")
	err := s.do(wire, false, &resp, time.Now())
	var unsent *notSentError
	if !errors.As(err, &unsent) {
		t.Fatalf("%v", err)
	}
	clear(wire)
	s.poll.out.flush(true)
	if got := heard(); got != "" {
		t.Errorf("the upstream got %q", got)
	}
}

// What an upstream says after its answer drops the connection, whenever the news
// of it comes: before it rests, while it does, or only when it is used again.
func TestAWordAfterTheAnswer(t *testing.T) {
	for _, when := range []string{"before", "while", "used"} {
		t.Run(when, func(t *testing.T) {
			s, _ := asleep(t, 30*time.Second, "HTTP/1.1 408 Request Timeout\r\n\r\n")
			l, _, err := s.get(time.Now().Add(10 * time.Second))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the word", l.unread)
			switch when {
			case "before":
				l.wake(unix.EPOLLIN)
				s.put(l, time.Now())
			case "while":
				s.put(l, time.Now())
				l.wake(unix.EPOLLIN)
			case "used":
				l.tell()
				if err := l.begin(time.Now().Add(time.Minute)); !errors.Is(err, errUnsent) {
					t.Errorf("it is used: %v", err)
				}
				l.close()
			}
			if n := s.kept(); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// What an upstream says before it was asked is nobody's answer.
func TestAnUpstreamThatSpeaksFirst(t *testing.T) {
	s, heard := asleep(t, 30*time.Second, "")
	failed := make(chan error, 1)
	go func() {
		var resp fasthttp.Response
		failed <- s.do([]byte("POST / HTTP/1.1\r\n\r\n"), false, &resp, time.Now())
	}()
	var l *upConn
	for l == nil {
		s.poll.out.mu.Lock()
		if list := s.poll.out.batch.list; len(list) > 0 {
			l = list[0].to.(*upConn)
		}
		s.poll.out.mu.Unlock()
		runtime.Gosched()
	}
	l.wake(unix.EPOLLIN)
	s.poll.out.flush(true)
	var unsent *notSentError
	if err := <-failed; !errors.As(err, &unsent) {
		t.Errorf("%v", err)
	}
	if got := heard(); got != "" {
		t.Errorf("the upstream got %q", got)
	}
}
