package netpoll_test

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pushguard/pushguard/pusher/netpoll"
)

// woken is a Waker that passes on what it is told.
type woken chan uint32

func (w woken) Wake(flags uint32) {
	select {
	case w <- flags:
	default: // it was told already
	}
}

// pair is two ends of one connection, the first as a descriptor.
func pair(t *testing.T) (fd int, peer net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if fd, err = netpoll.Detach(c.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	return fd, peer
}

func TestAWakerIsToldOfItsSocket(t *testing.T) {
	p := netpoll.Default()
	if p == nil {
		t.Fatal("the kernel gives no poller")
	}
	fd, peer := pair(t)
	defer p.Close(fd)
	w := make(woken, 1)
	if err := p.Add(fd, netpoll.Readable, w); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	if _, err := netpoll.Recv(fd, b); err != netpoll.ErrAgain {
		t.Fatalf("nothing was sent, and Recv says %v", err)
	}
	if _, err := io.WriteString(peer, "ask"); err != nil {
		t.Fatal(err)
	}
	if flags := <-w; flags&unix.EPOLLIN == 0 || flags&netpoll.Ended != 0 {
		t.Errorf("flags %x for bytes that came", flags)
	}
	if n, err := netpoll.Recv(fd, b); err != nil || string(b[:n]) != "ask" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if n, err := netpoll.Send(fd, []byte("told")); n != 4 || err != nil {
		t.Errorf("%d bytes were sent: %v", n, err)
	}
	if _, err := io.ReadFull(peer, b[:4]); err != nil || string(b[:4]) != "told" {
		t.Errorf("%q, %v", b[:4], err)
	}
	_ = peer.Close()
	for flags := range w {
		if flags&netpoll.Ended != 0 {
			break
		}
	}
	if _, err := netpoll.Recv(fd, b); err != io.EOF {
		t.Errorf("the peer has closed, and Recv says %v", err)
	}
}

// A descriptor that goes back to package net has lost no byte.
func TestASocketGoesBack(t *testing.T) {
	p := netpoll.Default()
	fd, peer := pair(t)
	if err := p.Add(fd, netpoll.Both, make(woken, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(peer, "whole"); err != nil {
		t.Fatal(err)
	}
	p.Forget(fd)
	c, err := netpoll.Attach(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = peer.Close()
	if b, err := io.ReadAll(c); string(b) != "whole" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// turns is a Loop that passes on that the poller has looked.
type turns chan struct{}

func (l turns) Pressed() bool { return false }
func (l turns) Looked() {
	select {
	case l <- struct{}{}:
	default:
	}
}

func TestALoopIsToldOfEachLook(t *testing.T) {
	p := netpoll.Default()
	fd, peer := pair(t)
	defer p.Close(fd)
	l := make(turns, 1)
	p.Join(l)
	defer p.Leave(l)
	if err := p.Add(fd, netpoll.Readable, make(woken, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(peer, "x"); err != nil {
		t.Fatal(err)
	}
	<-l
}
