//go:build linux

package main

import (
	"bufio"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
)

const (
	bulk = iota
	normal
	critical
	classes
)

var events = [classes]string{"bulk", "normal", "critical"}

// result is one phase as callers saw it.
type result struct {
	due, missed, broken int64
	ok, shed            [classes]int64
	inTime              int64                            // answered 200 before the phase was over
	took                [classes]*hdrhistogram.Histogram // of what was answered 200, µs from when it was due
	seconds             float64
	ends                time.Time
}

// goodput leaves out what is answered after the phase, from the line that it left.
func (r result) goodput() float64 { return float64(r.inTime) / r.seconds }
func (r result) at(class int, q float64) float64 {
	return float64(r.took[class].ValueAtQuantile(q)) / 1000
}

// generator sends over as many connections as there are publishes in flight, up
// to maxConnections; they stay open between phases.
type generator struct {
	addr string
	key  *pusher.Key
	jobs chan publish
	all  sync.WaitGroup
	open int

	mu sync.Mutex
	r  *result
}

type publish struct {
	n   uint64
	due time.Time
	in  *sync.WaitGroup
}

func newGenerator(addr string) (*generator, error) {
	return &generator{addr: addr, key: pusher.NewKey(appKey, appSecret), jobs: make(chan publish)}, nil
}

func (g *generator) close() { close(g.jobs); g.all.Wait() }

// run is one phase; it ends when every answer is in.
func (g *generator) run(rate float64, long time.Duration) result {
	r := &result{}
	for i := range r.took {
		r.took[i] = hdrhistogram.New(1, 60e6, 3)
	}
	var in sync.WaitGroup
	began := time.Now()
	r.seconds, r.ends = long.Seconds(), began.Add(long)
	g.mu.Lock()
	g.r = r
	g.mu.Unlock()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for n := uint64(0); ; {
		<-tick.C
		now := time.Now()
		if now.Sub(began) >= long {
			break
		}
		for end := uint64(now.Sub(began).Seconds() * rate); n < end; n++ {
			p := publish{n, began.Add(time.Duration(float64(n) / rate * 1e9)), &in}
			r.due++
			in.Add(1)
			select {
			case g.jobs <- p:
				continue
			default:
			}
			if g.open < maxConnections {
				g.open++
				g.all.Go(func() { g.work(p) })
				continue
			}
			in.Done()
			g.mu.Lock()
			r.missed++
			g.mu.Unlock()
		}
	}
	in.Wait()
	return *r
}

// work is one connection, with its first publish.
func (g *generator) work(p publish) {
	var c net.Conn
	var in *bufio.Reader
	var resp fasthttp.Response
	var b, body []byte
	path := []byte("/apps/" + appID + "/events")
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for more := true; more; p, more = <-g.jobs {
		class := bulk
		switch {
		case p.n%20 == 0:
			class = critical
		case p.n%2 == 1:
			class = normal
		}
		body = pusher.AppendEvent(body[:0], &pusher.Publish{Name: []byte(events[class]), Channels: [][]byte{strconv.AppendUint([]byte("room-"), p.n%5000, 10)}, Data: strconv.AppendUint([]byte("the data of a publish, number "), p.n, 10)})
		b = append(append(append(b[:0], "POST "...), path...), '?')
		b = g.key.AppendSigned(b, "POST", path, nil, body, time.Now())
		b = append(b, " HTTP/1.1\r\nHost: overload\r\nContent-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...)
		b = append(b, body...)
		err := error(nil)
		if c == nil {
			if c, err = net.DialTimeout("tcp", g.addr, 5*time.Second); err == nil {
				in = bufio.NewReaderSize(c, 1024)
			}
		}
		if err == nil {
			if err = c.SetDeadline(time.Now().Add(10 * time.Second)); err == nil {
				if _, err = c.Write(b); err == nil {
					resp.Reset()
					err = resp.Read(in)
				}
			}
		}
		took := time.Since(p.due)
		if err != nil && c != nil {
			c.Close()
			c = nil
		}
		g.mu.Lock()
		switch {
		case err != nil:
			g.r.broken++
		case resp.StatusCode() == fasthttp.StatusOK:
			g.r.ok[class]++
			if time.Now().Before(g.r.ends) {
				g.r.inTime++
			}
			_ = g.r.took[class].RecordValue(took.Microseconds())
		case resp.StatusCode() == fasthttp.StatusServiceUnavailable:
			g.r.shed[class]++
		default:
			g.r.broken++
		}
		g.mu.Unlock()
		p.in.Done()
	}
}
