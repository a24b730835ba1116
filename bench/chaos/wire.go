package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
)

// wire is the line from one replica to Redis, which can be cut and slowed.
type wire struct {
	ln    net.Listener
	to    string
	cut   atomic.Bool
	delay atomic.Int64 // ns, of each direction

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newWire(to string) (*wire, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{ln: ln, to: to, conns: map[net.Conn]bool{}}
	go w.serve()
	return w, nil
}

func (w *wire) serve() {
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		if w.cut.Load() {
			c.Close()
			continue
		}
		go w.carry(c)
	}
}

func (w *wire) carry(c net.Conn) {
	up, err := net.DialTimeout("tcp", w.to, time.Second)
	if err != nil {
		c.Close()
		return
	}
	w.mu.Lock()
	w.conns[c], w.conns[up] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	for _, d := range [][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			defer d[1].Close()
			defer d[0].Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := d[0].Read(buf)
				if n > 0 {
					if by := time.Duration(w.delay.Load()); by > 0 {
						stage.Pause(by)
					}
					if _, werr := d[1].Write(buf[:n]); werr != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		})
	}
	both.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	delete(w.conns, up)
	w.mu.Unlock()
}

// set cuts the line, with all that is on it, or joins it again.
func (w *wire) set(cut bool) {
	w.cut.Store(cut)
	if !cut {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

func (w *wire) close() { w.set(true); w.ln.Close() }
