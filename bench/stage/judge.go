package stage

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

// Judge is the simulator on a port of its own, with a count of each publish by
// its data, which the drills make different in each: what callers were told is
// held against what really arrived and what it cost. Safe for concurrent use.
type Judge struct {
	addr string
	sim  *sim.Server
	srv  *http.Server

	mu   sync.Mutex
	seen map[string]int
}

// StartJudge listens on loopback.
func StartJudge(cfg sim.Config) (*Judge, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	j := &Judge{addr: ln.Addr().String(), sim: sim.New(cfg), seen: map[string]int{}}
	j.srv = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: j}
	go func() { _ = j.srv.Serve(ln) }()
	return j, nil
}

// ServeHTTP is the simulator's, and notes what it accepted.
func (j *Judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

// arrived is a publish: alone, to several channels because equal ones were
// folded, or in a batch.
type arrived struct {
	Data  string    `json:"data"`
	Batch []arrived `json:"batch"`
}

func (j *Judge) note(body []byte) {
	var a arrived
	if json.Unmarshal(body, &a) != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, one := range append(a.Batch, a) {
		if one.Data != "" {
			j.seen[one.Data]++
		}
	}
}

// Verdict tells which of the publishes that callers were told are sent never
// arrived, and how many of all arrived more than once.
func (j *Judge) Verdict(accepted []string) (lost []string, doubled int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range accepted {
		if j.seen[id] == 0 {
			lost = append(lost, id)
		}
	}
	for _, n := range j.seen {
		if n > 1 {
			doubled++
		}
	}
	return lost, doubled
}

// Wait waits until the publish with this data has arrived.
func (j *Judge) Wait(id string, within time.Duration) error {
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

// Bill is what the simulator counted, in messages, over all days.
func (j *Judge) Bill() int64 { return j.sim.Stats().Messages }

// URL is where a guard's upstream is.
func (j *Judge) URL() string { return "http://" + j.addr }

// Close stops listening.
func (j *Judge) Close() { _ = j.srv.Close() }
