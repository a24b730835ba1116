package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
)

// patience is for how long a process may take to start or to end on a busy machine.
const patience = time.Minute

// fleet are the replicas, of which some may be dead.
type fleet struct {
	dir, binary string
	files       [3]string

	mu       sync.Mutex
	replicas [3]*stage.Replica
	unready  [3]bool // by /readyz; of followReady

	following sync.WaitGroup
	stopReady chan struct{}
}

func (f *fleet) start(i int) error {
	r, err := stage.Start(f.dir, f.binary, nil, nil, patience, "--config", f.files[i])
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.replicas[i] = r
	f.mu.Unlock()
	return nil
}

// take removes a replica from those that are sent to.
func (f *fleet) take(i int) *stage.Replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.replicas[i]
	f.replicas[i] = nil
	return r
}

// address is where the n-th publish goes: in turn, as a load balancer that notices
// the dead at once does. Empty: nobody lives.
func (f *fleet) address(n uint64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var any string
	for i := range uint64(len(f.replicas)) {
		k := (n + i) % uint64(len(f.replicas))
		if r := f.replicas[k]; r != nil && !f.unready[k] {
			return r.Data
		} else if r != nil && any == "" {
			any = r.Data
		}
	}
	return any
}

func (f *fleet) kill() {
	for i := range f.replicas {
		f.take(i).Kill()
	}
}

// used is the count that the replicas agree on.
func (f *fleet) used() (int64, error) {
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end); stage.Pause(200 * time.Millisecond) {
		var counts []int64
		last = nil
		for i, r := range f.replicas {
			n, leased, state, err := status(r)
			if err != nil {
				last = err
				break
			}
			if state != "up" {
				last = fmt.Errorf("replica %d: the store is %s", i, state)
				break
			}
			_ = leased
			counts = append(counts, n)
		}
		if last == nil && counts[0] == counts[1] && counts[1] == counts[2] {
			return counts[0], nil
		}
		if last == nil {
			last = fmt.Errorf("the replicas count %v", counts)
		}
	}
	return 0, fmt.Errorf("no count that all agree on: %w", last)
}

func status(r *stage.Replica) (used, leased int64, state string, err error) {
	if r == nil {
		return 0, 0, "", errors.New("a replica is dead")
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + r.Admin + "/api/v1/status")
	if err != nil {
		return 0, 0, "", err
	}
	defer resp.Body.Close()
	var s struct {
		Store    struct{ State string }
		Accounts []struct{ Used, Leased int64 }
	}
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return 0, 0, "", err
	}
	if len(s.Accounts) != 1 {
		return 0, 0, "", fmt.Errorf("status of %d accounts", len(s.Accounts))
	}
	return s.Accounts[0].Used, s.Accounts[0].Leased, s.Store.State, nil
}
