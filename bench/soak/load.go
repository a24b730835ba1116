package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
)

// load publishes at a steady rate, open loop, and remembers what it was told.
type load struct {
	addr     string
	rate     int
	key      *pusher.Key
	client   *fasthttp.HostClient
	answered atomic.Int64
	broken   atomic.Int64
	dialled  atomic.Int64
	dropped  atomic.Bool // what is due is not made any more

	mu       sync.Mutex
	outcomes map[string]int64
	took     *hdrhistogram.Histogram
	accepted map[uint64]bool // ids of critical publishes that were answered 200
}

func newLoad(addr string, rate int) *load {
	l := &load{addr: addr, rate: rate, key: pusher.NewKey(appKey, appSecret), outcomes: map[string]int64{}, took: hdrhistogram.New(1, 60e6, 3), accepted: map[uint64]bool{}}
	l.client = &fasthttp.HostClient{Addr: addr, MaxConns: 512, MaxConnWaitTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, MaxIdemponentCallAttempts: 1,
		RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false }}
	plain := fasthttp.Dial
	l.client.Dial = func(addr string) (net.Conn, error) {
		l.dialled.Add(1)
		return plain(addr)
	}
	return l
}

// drive publishes until stop is closed, and returns when every answer is in. What
// is due while the machine was away is made up for at once.
func (l *load) drive(stop <-chan struct{}) {
	due := make(chan uint64, 1<<16)
	var workers sync.WaitGroup
	for i := range 512 {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for n := range due {
				if !l.dropped.Load() {
					l.publish(n, rng)
				}
			}
		})
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for n := uint64(0); ; {
		select {
		case <-stop:
			close(due)
			workers.Wait()
			return
		case <-tick.C:
		}
		for end := uint64(time.Since(began).Seconds() * float64(l.rate)); n < end; n++ {
			select {
			case due <- n:
			default: // everybody waits for answers: not made, and counted as missing
			}
		}
	}
}

// publish makes the n-th publish: two of five are critical, two repeat or replace
// one another, one is an empty note that everybody sends.
func (l *load) publish(n uint64, rng *rand.Rand) {
	event, channel, data := "alarm", "room-"+strconv.Itoa(rng.IntN(5000)), strconv.FormatUint(n, 10)
	switch n % 5 {
	case 1, 2:
		event, channel = "state", "board-"+strconv.Itoa(rng.IntN(200))
	case 3:
		event, data = "note", "again-"+strconv.Itoa(rng.IntN(50))
		channel = "all-" + data
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer func() { fasthttp.ReleaseRequest(req); fasthttp.ReleaseResponse(resp) }()
	body := pusher.AppendEvent(nil, &pusher.Publish{Name: []byte(event), Channels: [][]byte{[]byte(channel)}, Data: []byte(data)})
	path := []byte("/apps/" + appID + "/events")
	req.Header.SetMethod("POST")
	req.SetRequestURIBytes(l.key.AppendSigned(append(slices.Clone(path), '?'), "POST", path, nil, body, time.Now()))
	req.Header.SetHost(l.addr)
	req.Header.SetContentType("application/json")
	req.SetBodyRaw(body)
	if n%50 == 0 {
		req.SetConnectionClose()
	}
	began := time.Now()
	err := l.client.Do(req, resp)
	took := time.Since(began)
	l.answered.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.broken.Add(1)
		l.outcomes["no answer: "+kind(err)]++
		return
	}
	word := string(resp.Header.Peek("Pushguard-Outcome"))
	if word == "unavailable" {
		l.outcomes[word]++
		word += " (" + string(resp.Header.Peek("Pushguard-Reason")) + ")"
	}
	l.outcomes[word]++
	if resp.StatusCode() == fasthttp.StatusOK {
		_ = l.took.RecordValue(took.Microseconds())
		if event == "alarm" {
			l.accepted[n] = true
		}
	}
}

// kind is an error without addresses.
func kind(err error) string {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err.Error()
}

// compare holds what callers were told against what arrived, by id.
func (l *load) compare(arrived map[uint64]int) (lost, doubled int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.accepted {
		if arrived[id] == 0 {
			lost++
		}
	}
	for _, n := range arrived {
		if n > 1 {
			doubled++
		}
	}
	return lost, doubled
}

type counts struct {
	total, broken, connections, critical int64
	outcomes                             map[string]int64
	p50, p99                             float64
}

func (l *load) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{total: l.answered.Load(), broken: l.broken.Load(), connections: l.dialled.Load(), critical: int64(len(l.accepted)), outcomes: maps.Clone(l.outcomes),
		p50: float64(l.took.ValueAtQuantile(50)) / 1000, p99: float64(l.took.ValueAtQuantile(99)) / 1000}
}

func (c counts) words() string {
	var all []string
	for word, n := range c.outcomes {
		if word != "unavailable" { // its reasons are there
			all = append(all, fmt.Sprintf("%s %d", word, n))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
