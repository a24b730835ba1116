package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// An upstream without batch_events is asked for it once; what was in that call goes out by itself, and what comes later shares
// calls to several channels only.
func TestAnUpstreamWithoutBatchEvents(t *testing.T) {
	var batches, singles atomic.Int64
	var held atomic.Bool
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/apps/7/batch_events" {
			batches.Add(1)
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "no such endpoint")
			return
		}
		singles.Add(1)
		if held.CompareAndSwap(false, true) { // the first of all: the others come together meanwhile
			select {
			case <-r.Context().Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		io.WriteString(w, "{}")
	}))
	defer up.Close()
	r := newRig(t, rigConfig{upstream: up.URL, fold: &FoldConfig{Window: time.Second}})
	for round := range 3 {
		held.Store(false)
		for i, got := range r.together(repeat(30, func(i int) string { return eventBody("e", fmt.Sprint("c", i), fmt.Sprint(round, i)) })) {
			if got.status != 200 || got.outcome != "sent" {
				t.Errorf("round %d, %d: %+v", round, i, got)
			}
		}
	}
	if !r.app.fold.noBatch.Load() || singles.Load() != 90 {
		t.Errorf("%d calls of batch_events, %d publishes arrived of 90", batches.Load(), singles.Load())
	}
	before := batches.Load()
	held.Store(false)
	r.together(repeat(30, func(i int) string { return eventBody("e", fmt.Sprint("c", i), fmt.Sprint("later", i)) }))
	if batches.Load() != before {
		t.Errorf("batch_events was asked for again")
	}
}
