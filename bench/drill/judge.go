package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/pushguard/pushguard/pusher/sim"
)

// The one app of the drill.
const appID, appKey, appSecret = "1234", "drill-key", "drill-secret"

// judge is the simulator with a count of each publish by its id.
type judge struct {
	addr string
	srv  *http.Server
	sim  *sim.Server

	mu   sync.Mutex
	seen map[string]int
}

func newJudge() (*judge, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	j := &judge{addr: ln.Addr().String(), seen: map[string]int{}}
	server := sim.New(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, MessagesPerDay: 1 << 40, Subscribers: 1, Latency: 2 * time.Millisecond})
	j.sim = server
	j.srv = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		if rec.Code == http.StatusOK && r.Method == http.MethodPost {
			j.note(body)
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})}
	go func() { _ = j.srv.Serve(ln) }()
	return j, nil
}

// event is one publish as it arrives: alone, to several channels because equal
// ones were folded, or in a batch. Each channel is one publish of the drill.
type event struct {
	Data     string   `json:"data"`
	Channel  string   `json:"channel"`
	Channels []string `json:"channels"`
	Batch    []event  `json:"batch"`
}

func (j *judge) note(body []byte) {
	var e event
	if json.Unmarshal(body, &e) != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, one := range append(e.Batch, e) {
		if one.Data != "" {
			j.seen[one.Data]++
		}
	}
}

// verdict compares what callers were told with what arrived.
func (j *judge) verdict(accepted []string) (lost, doubled int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range accepted {
		if j.seen[id] == 0 {
			lost++
		}
	}
	for _, n := range j.seen {
		if n > 1 {
			doubled++
		}
	}
	return lost, doubled
}

// wait waits until the publish with id arrives.
func (j *judge) wait(id string, within time.Duration) error {
	end := time.After(within)
	for {
		j.mu.Lock()
		n := j.seen[id]
		j.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-end:
			return fmt.Errorf("%s did not arrive in %s", id, within)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// billed is what Pusher counted.
func (j *judge) billed() int64 { return j.sim.Stats().Messages }

func (j *judge) url() string { return fmt.Sprintf("http://%s", j.addr) }
func (j *judge) close()      { _ = j.srv.Close() }
