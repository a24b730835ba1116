package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/pushguard/pushguard/pusher/sim"
)

// The one app of the run, and its account.
const appID, appKey, appSecret = "1234", "chaos-key", "chaos-secret"
const account = "chaos"

// judge is the simulator, with a count of each publish by its id. Its own plan is
// without end, so that nothing but the guard keeps the bill down.
type judge struct {
	addr string
	sim  *sim.Server
	srv  *http.Server

	mu   sync.Mutex
	seen map[string]int
}

func newJudge() (*judge, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	j := &judge{addr: ln.Addr().String(), seen: map[string]int{}}
	j.sim = sim.New(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, Subscribers: 1, Record: -1})
	j.srv = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: j}
	go func() { _ = j.srv.Serve(ln) }()
	return j, nil
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the replica died in the middle of it
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	rec := httptest.NewRecorder()
	j.sim.ServeHTTP(rec, r)
	if rec.Code == http.StatusOK && r.Method == http.MethodPost {
		j.note(body)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// event is one publish as it arrives: alone, to several channels because equal
// ones were folded, or in a batch.
type event struct {
	Data  string  `json:"data"`
	Batch []event `json:"batch"`
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

// bill is what the simulator counts, over all days.
func (j *judge) bill() int64 { return j.sim.Stats().Messages }

// verdict compares what callers were told with what arrived.
func (j *judge) verdict(l *load) (lost, doubled int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range l.accepted {
		if j.seen[id] == 0 {
			lost++
			l.example(id)
		}
	}
	for _, n := range j.seen {
		if n > 1 {
			doubled++
		}
	}
	return lost, doubled
}

func (j *judge) url() string { return "http://" + j.addr }
func (j *judge) close()      { _ = j.srv.Close() }
