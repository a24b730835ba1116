package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// The one app of the drill.
const appID, appKey, appSecret = "1234", "drill-key", "drill-secret"

// result is what callers saw.
type result struct {
	mu       sync.Mutex
	sent     int
	refused  int // no connection
	broken   int // a connection that ended without an answer
	notOK    map[string]int
	accepted []string
	errs     map[string]int
	slowest  time.Duration
}

// target says where to send now; empty: nowhere, which counts as refused.
type target func(n int64) string

// drive publishes at rate a second, open loop, over kept-alive connections,
// until stop is closed; it returns when every answer is in.
func drive(rate int, to target, stop <-chan struct{}, story string, fresh bool) *result {
	r := &result{notOK: map[string]int{}, errs: map[string]int{}}
	key := pusher.NewKey(appKey, appSecret)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableKeepAlives: fresh, Proxy: nil}}
	var ids atomic.Int64
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			wg.Wait()
			return r
		case <-tick.C:
		}
		n := ids.Add(1)
		wg.Go(func() { r.publish(client, key, to(n), fmt.Sprintf("%s-%d", story, n), n) })
	}
}

func (r *result) publish(client *http.Client, key *pusher.Key, addr, id string, n int64) {
	body := fmt.Sprintf(`{"name":"drill","channel":"room-%d","data":%q}`, n%64, id)
	path := "/apps/" + appID + "/events"
	uri := key.AppendSigned([]byte(path+"?"), http.MethodPost, []byte(path), nil, []byte(body), time.Now())
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+string(uri), strings.NewReader(body))
	if err != nil {
		r.note("", 0, err, 0)
		return
	}
	req.GetBody = nil // what broke shows as broken: no silent second try
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		r.note("", 0, err, 0)
		return
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		r.note("", 0, err, 0)
		return
	}
	if resp.StatusCode == http.StatusOK {
		r.note(id, 200, nil, time.Since(began))
		return
	}
	first, _, _ := strings.Cut(string(text), "\n")
	r.note(fmt.Sprintf("%d %s", resp.StatusCode, first), resp.StatusCode, nil, time.Since(began))
}

func (r *result) note(text string, status int, err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	r.slowest = max(r.slowest, took)
	switch {
	case err != nil && errors.Is(err, syscall.ECONNREFUSED), err != nil && strings.Contains(err.Error(), "no Host"):
		r.refused++
	case err != nil:
		r.broken++
		_, cause, _ := strings.Cut(err.Error(), `": `) // without the signed URL
		r.errs[cause]++
	case status == 200:
		r.accepted = append(r.accepted, text)
	default:
		r.notOK[text]++
	}
}
