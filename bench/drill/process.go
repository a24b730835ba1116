package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// replica is one serve process.
type replica struct {
	cmd   *exec.Cmd
	out   *safeBuffer
	ended chan struct{}
	file  string // its --addr-file
	Data  string `json:"data"`
	Admin string `json:"admin"`
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// launch starts a process and does not wait for it. Sockets become its
// LISTEN_FDS, as systemd passes them.
func launch(dir, binary string, env []string, sockets []*os.File, args ...string) (*replica, error) {
	f, err := os.CreateTemp(dir, "addr-*.json")
	if err != nil {
		return nil, err
	}
	f.Close()
	os.Remove(f.Name())
	r := &replica{out: &safeBuffer{}, ended: make(chan struct{}), file: f.Name()}
	args = append(append([]string{"serve"}, args...), "--addr-file", r.file)
	if len(sockets) > 0 {
		// LISTEN_PID must be the pid that exec keeps.
		args = append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary}, args...)
		binary, env = "/bin/sh", append(env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES=data:admin")
	}
	r.cmd = exec.Command(binary, args...)
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.ExtraFiles = sockets
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = r.cmd.Wait(); close(r.ended) }()
	return r, nil
}

// ready waits until the process says that it serves, or has ended.
func (r *replica) ready(within time.Duration) error {
	end := time.After(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.ended:
			return fmt.Errorf("it ended instead: %s", r.out)
		case <-end:
			return fmt.Errorf("not ready after %s: %s", within, r.out)
		case <-tick.C:
		}
		if data, err := os.ReadFile(r.file); err == nil && json.Unmarshal(data, r) == nil {
			return nil
		}
	}
}

// leave is SIGTERM and the wait for the end; the exit code must be 0.
func (r *replica) leave(within time.Duration) error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(within):
		return fmt.Errorf("it did not end in %s: %s", within, r.out)
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("exit code %d: %s", code, r.out)
	}
	return nil
}

func (r *replica) kill() {
	if r != nil {
		_ = r.cmd.Process.Kill()
		<-r.ended
	}
}

var prober = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}

func (r *replica) isReady() bool {
	resp, err := prober.Get("http://" + r.Admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// startRedis runs a redis-server without persistence on a free port.
func startRedis(dir string) (url string, stop func(), err error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, fmt.Errorf("redis-server is needed: apt-get install redis-server: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	cmd := exec.Command(bin, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return "redis://" + addr, stop, nil
		}
		select {
		case <-end:
			stop()
			return "", nil, fmt.Errorf("redis-server did not come up")
		case <-tick.C:
		}
	}
}

// writeConfig makes a config file of its own for each story.
func writeConfig(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name+".yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}
