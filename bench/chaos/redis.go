package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushguard/pushguard/bench/stage"
)

// server is one redis-server without persistence.
type server struct {
	addr string
	args []string
	cmd  *exec.Cmd
	bus  string // port, in a cluster
}

func newServer(dir string, args ...string) (*server, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server is needed: %w", err)
	}
	addr, err := stage.FreePort()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return &server{addr: addr, args: append(append([]string{bin}, args...), "--port", port, "--bind", "127.0.0.1", "--dir", dir)}, nil
}

// start returns when it answers.
func (s *server) start() error {
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	return s.until(func(ctx context.Context, c *redis.Client) bool { return c.Ping(ctx).Err() == nil })
}

// until asks the server again and again.
func (s *server) until(ok func(ctx context.Context, c *redis.Client) bool) error {
	c := redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for !ok(ctx, c) {
		if ctx.Err() != nil {
			return fmt.Errorf("redis-server on %s does not become what it should", s.addr)
		}
		stage.Pause(20 * time.Millisecond)
	}
	return nil
}

func (s *server) freeze() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *server) thaw()   { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *server) kill() {
	if s.cmd != nil {
		s.thaw()
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// servers are Redis as the replicas see it: one server, or a master, its replica
// and a sentinel that watches both.
type servers struct {
	nodes    []*server
	now      atomic.Int64 // which of them is the master
	sentinel *server
}

const memoryOnly = "--save"

func startServers(dir, kind string) (s *servers, err error) {
	s = &servers{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	n := 1
	if kind == "sentinel" {
		n = 2
	}
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprint("redis-", i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return s, err
		}
		node, err := newServer(sub, memoryOnly, "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--min-replicas-max-lag", "2")
		if err != nil {
			return s, err
		}
		s.nodes = append(s.nodes, node)
		if err := node.start(); err != nil {
			return s, err
		}
	}
	if kind != "sentinel" {
		return s, nil
	}
	if err := s.follow(s.nodes[1], s.nodes[0]); err != nil {
		return s, err
	}
	host, port, err := net.SplitHostPort(s.nodes[0].addr)
	if err != nil {
		return s, err
	}
	conf := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "sentinel monitor chaos %s %s 1\nsentinel down-after-milliseconds chaos 1500\nsentinel failover-timeout chaos 4000\n", host, port), 0o600); err != nil {
		return s, err
	}
	if s.sentinel, err = newServer(dir, conf, "--sentinel"); err != nil {
		return s, err
	}
	if err := s.sentinel.start(); err != nil {
		return s, err
	}
	return s, s.sentinel.until(func(ctx context.Context, c *redis.Client) bool {
		sc := redis.NewSentinelClient(c.Options())
		defer sc.Close()
		r, err := sc.Replicas(ctx, "chaos").Result()
		return err == nil && len(r) == 1
	})
}

// follow makes node a replica of master and waits until it is in step.
func (s *servers) follow(node, master *server) error {
	host, port, err := net.SplitHostPort(master.addr)
	if err != nil {
		return err
	}
	return node.until(func(ctx context.Context, c *redis.Client) bool {
		if c.Do(ctx, "replicaof", host, port).Err() != nil {
			return false
		}
		stage.Pause(100 * time.Millisecond)
		info, err := c.InfoMap(ctx, "replication").Result()
		return err == nil && info["Replication"]["master_link_status"] == "up"
	})
}

func (s *servers) master() *server { return s.nodes[s.now.Load()] }

func (s *servers) url() string {
	if s.sentinel != nil {
		return "redis+sentinel://" + s.sentinel.addr + "/chaos"
	}
	return "redis://" + s.nodes[0].addr
}

// current asks Sentinel who is the master; it may have changed while one hung.
func (s *servers) current() (*server, error) {
	if s.sentinel == nil {
		return s.nodes[0], nil
	}
	var found *server
	err := s.sentinel.until(func(ctx context.Context, c *redis.Client) bool {
		sc := redis.NewSentinelClient(c.Options())
		defer sc.Close()
		at, err := sc.GetMasterAddrByName(ctx, "chaos").Result()
		if err != nil || len(at) != 2 {
			return false
		}
		for i, n := range s.nodes {
			if n.addr == net.JoinHostPort(at[0], at[1]) {
				s.now.Store(int64(i))
				found = n
			}
		}
		return found != nil
	})
	return found, err
}

func (s *servers) flush() error {
	m, err := s.current()
	if err != nil {
		return err
	}
	return m.until(func(ctx context.Context, c *redis.Client) bool { return c.FlushAll(ctx).Err() == nil })
}

// failover kills the master, waits for Sentinel to name the other one, and brings
// the dead one back as its replica.
func (s *servers) failover() error {
	old, err := s.current()
	if err != nil {
		return err
	}
	old.kill()
	end := time.Now().Add(30 * time.Second)
	var next *server
	for next == nil || next == old {
		if time.Now().After(end) {
			return errors.New("sentinel did not name another master within 30 s")
		}
		stage.Pause(50 * time.Millisecond)
		if next, err = s.current(); err != nil {
			return err
		}
	}
	if err := old.start(); err != nil {
		return err
	}
	return s.follow(old, next)
}

func (s *servers) stop() {
	for _, n := range append(s.nodes, s.sentinel) {
		if n != nil {
			n.kill()
		}
	}
}
