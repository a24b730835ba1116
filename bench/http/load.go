//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// client sends the requests of a pool over kept-alive connections, one in flight on each.
//
// With a rate it is an open loop: request i is due at start + i/rate whether or not the ones before it were answered,
// and its latency counts from that moment, so a proxy that stalls is charged for all who waited. Without one, each
// connection sends as soon as it has its answer.
type client struct {
	pool  [][]byte
	conns []*conn
	byFD  map[int]*conn
	free  []*conn // first in, first out
	poll  *poller
	took  []time.Duration // every latency that counts: few enough to keep, and then percentiles are exact
	res   loadResult
	skip  int64 // answers that are not recorded: warming up
}

type conn struct {
	fd  int
	due time.Time
	in  []byte
	n   int
}

// loadResult is what a run saw. Latencies are in microseconds.
type loadResult struct {
	Answers int64   `json:"answers"`
	OK      int64   `json:"ok"`   // 200
	Sent    int64   `json:"sent"` // those that bear Pushguard-Outcome: sent
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	P999    float64 `json:"p999_us"`
	Max     float64 `json:"max_us"`
	Behind  int64   `json:"behind"` // requests that were due and were never sent: the rate was too high
}

func load(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	addr := fs.String("addr", "", "`host:port` to send to")
	file := fs.String("pool", "", "`file` of signed requests")
	rate := fs.Float64("rate", 0, "requests a second, constant; 0: as fast as answers come")
	conns := fs.Int("conns", 64, "connections")
	duration := fs.Duration("duration", 5*time.Second, "how long; the first tenth is not recorded")
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	c := &client{byFD: map[int]*conn{}, took: make([]time.Duration, 0, 1<<20)}
	var err error
	if c.pool, err = readPool(*file); err != nil {
		return err
	}
	if err := c.dial(*addr, *conns); err != nil {
		return err
	}
	// A timer may be late by 50 µs unless told otherwise, which is more than the latencies measured here.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return err
	}
	if *rate > 0 {
		c.skip = int64(*rate * duration.Seconds() / 10)
	}
	if err := c.run(*rate, *duration); err != nil {
		return err
	}
	slices.Sort(c.took)
	c.res.P50, c.res.P99, c.res.P999, c.res.Max = c.us(50), c.us(99), c.us(99.9), c.us(100)
	return json.NewEncoder(stdout).Encode(c.res)
}

// us is the latency that so many percent of the requests did not exceed, in microseconds; took is sorted.
func (c *client) us(percent float64) float64 {
	if len(c.took) == 0 {
		return 0
	}
	rank := int(math.Ceil(percent*float64(len(c.took))/100 - 1e-6)) // 99.9 has no exact form
	return float64(c.took[max(rank-1, 0)]) / 1e3
}

func (c *client) dial(addr string, n int) (err error) {
	if c.poll, err = newPoller(); err != nil {
		return err
	}
	for range n {
		nc, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return err
		}
		fd, err := detach(nc.(*net.TCPConn)) // Go's connections have TCP_NODELAY on
		if err != nil {
			return err
		}
		if err := c.poll.add(fd); err != nil {
			return err
		}
		k := &conn{fd: fd, in: make([]byte, 16<<10)}
		c.conns, c.free, c.byFD[fd] = append(c.conns, k), append(c.free, k), k
	}
	return nil
}

func (c *client) run(rate float64, duration time.Duration) error {
	start := time.Now()
	end := start.Add(duration)
	due := func(i int64) time.Time {
		if rate == 0 {
			return start
		}
		return start.Add(time.Duration(float64(i) / rate * 1e9))
	}
	var i int64
	sending := true
	for {
		now := time.Now()
		sending = sending && now.Before(end)
		for sending && len(c.free) > 0 {
			at := due(i)
			if at.After(now) {
				break
			}
			if rate == 0 {
				at = time.Now()
			}
			if err := c.send(at, i); err != nil {
				return err
			}
			i++
		}
		if !sending && len(c.free) == len(c.conns) {
			break
		}
		wait := end.Add(5 * time.Second).Sub(now) // answers that do not come end the run below
		if sending && len(c.free) > 0 {
			wait = min(max(due(i).Sub(now), 0), max(end.Sub(now), 0))
		}
		ready, err := c.poll.wait(max(wait, 0))
		if err != nil {
			return err
		}
		if len(ready) == 0 && now.After(end.Add(5*time.Second)) {
			return fmt.Errorf("%d requests had no answer 5 s after the end", len(c.conns)-len(c.free))
		}
		for _, e := range ready {
			if err := c.receive(c.byFD[int(e.Fd)]); err != nil {
				return err
			}
		}
	}
	c.res.Seconds = time.Since(start).Seconds()
	if rate > 0 {
		c.res.Behind = max(int64(duration.Seconds()*rate)-i-1, 0)
	}
	return nil
}

func (c *client) send(due time.Time, i int64) error {
	k := c.free[0]
	c.free = append(c.free[:0], c.free[1:]...)
	k.due, k.n = due, 0
	req := c.pool[i%int64(len(c.pool))]
	n, err := unix.Write(k.fd, req)
	if err == nil && n < len(req) {
		err = errors.New("the socket took only a part of a request")
	}
	return err
}

func (c *client) receive(k *conn) error {
	n, err := unix.Read(k.fd, k.in[k.n:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errors.New("the server closed a connection")
	}
	k.n += n
	h, err := readHead(k.in[:k.n])
	if errors.Is(err, errIncomplete) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.res.Answers++; c.res.Answers > c.skip {
		c.took = append(c.took, time.Since(k.due))
	}
	if status(h.first) == 200 {
		c.res.OK++
	}
	if string(h.outcome) == "sent" {
		c.res.Sent++
	}
	c.free = append(c.free, k)
	return nil
}
