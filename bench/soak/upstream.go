package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher/sim"
)

// How Pusher is.
const (
	well    int32 = iota
	failing       // answers 503, without effect
	silent        // takes the request and does not answer, without effect
)

// upstream is the simulator with moods, and a count of each critical publish that
// had an effect.
type upstream struct {
	addr string
	srv  *http.Server
	mode atomic.Int32

	mu   sync.Mutex
	seen map[uint64]int
}

func newUpstream() (*upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{addr: ln.Addr().String(), seen: map[uint64]int{}}
	server := sim.New(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, MessagesPerDay: 1 << 40, Subscribers: 1, Latency: 5 * time.Millisecond, Record: -1})
	u.srv = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch u.mode.Load() {
		case failing:
			http.Error(w, "service unavailable", http.StatusServiceUnavailable)
			return
		case silent:
			<-r.Context().Done()
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		kept := &answer{ResponseWriter: w}
		server.ServeHTTP(kept, r)
		if kept.code == http.StatusOK {
			u.note(body)
		}
	})}
	go func() { _ = u.srv.Serve(ln) }()
	return u, nil
}

// answer knows its status.
type answer struct {
	http.ResponseWriter
	code int
}

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// event is one publish as it arrives, alone or in a batch. Critical ones have
// data of their own, so none is ever folded into a publish to several channels.
type event struct {
	Name  string  `json:"name"`
	Data  string  `json:"data"`
	Batch []event `json:"batch"`
}

func (u *upstream) note(body []byte) {
	var e event
	if json.Unmarshal(body, &e) != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range append(e.Batch, e) {
		if one.Name == "alarm" {
			if id, err := strconv.ParseUint(one.Data, 10, 64); err == nil {
				u.seen[id]++
			}
		}
	}
}

func (u *upstream) arrived() map[uint64]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.seen)
}

func (u *upstream) url() string { return "http://" + u.addr }
func (u *upstream) close()      { _ = u.srv.Close() }
