package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/netpoll"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// asleep has upstream connections whose poller does not run, and what the
// upstream hears. The upstream says word at once.
func asleep(t *testing.T, timeout time.Duration, word string) (s *Conns, heard func() string) {
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
	poll, err := netpoll.New()
	if err != nil {
		t.Fatal(err)
	}
	poll.Writes.Processors(1)
	poll.Writes.Flush(true)
	s = NewConns(ln.Addr().String(), &fasthttp.HostClient{ReadTimeout: timeout, MaxIdleConnDuration: time.Minute},
		func(addr string, d time.Duration) (net.Conn, error) { return net.DialTimeout("tcp", addr, d) }, oneSlot())
	s.poll = poll
	t.Cleanup(func() { s.Close(); _ = ln.Close(); poll.Stop() })
	return s, func() string { return <-got }
}

func oneSlot() *Slots {
	s := new(Slots)
	s.SetMost(1)
	return s
}

// A request whose time is over before it was written is not written any more,
// and its caller is told that nothing was sent.
func TestALateRequestIsTakenBack(t *testing.T) {
	s, heard := asleep(t, 50*time.Millisecond, "")
	var resp fasthttp.Response
	wire := []byte("POST / HTTP/1.1\r\n\r\n")
	err := s.Do(wire, false, &resp, time.Now())
	var unsent *NotSentError
	if !errors.As(err, &unsent) {
		t.Fatalf("%v", err)
	}
	clear(wire)
	s.poll.Writes.Flush(true)
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
				l.Wake(unix.EPOLLIN)
				s.put(l, time.Now())
			case "while":
				s.put(l, time.Now())
				l.Wake(unix.EPOLLIN)
			case "used":
				l.tell()
				if err := l.begin(time.Now().Add(time.Minute)); !errors.Is(err, errUnsent) {
					t.Errorf("it is used: %v", err)
				}
				l.close()
			}
			if n := s.Kept(); n != 0 {
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
		failed <- s.Do([]byte("POST / HTTP/1.1\r\n\r\n"), false, &resp, time.Now())
	}()
	var l *conn
	for l == nil {
		s.poll.Watched(func(w netpoll.Waker) {
			if c, ok := w.(*conn); ok && c.of == s && c.writing.Load() == writeWaits {
				l = c
			}
		})
		runtime.Gosched()
	}
	l.Wake(unix.EPOLLIN)
	s.poll.Writes.Flush(true)
	var unsent *NotSentError
	if err := <-failed; !errors.As(err, &unsent) {
		t.Errorf("%v", err)
	}
	if got := heard(); got != "" {
		t.Errorf("the upstream got %q", got)
	}
}
