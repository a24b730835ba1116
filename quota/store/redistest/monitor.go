package redistest

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Monitor is what a server was asked to do, as it tells itself (MONITOR).
type Monitor struct {
	s *Server
	c net.Conn
	r *bufio.Reader
}

// Monitor begins to listen.
func (s *Server) Monitor(t testing.TB) *Monitor {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.Addr(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m := &Monitor{s, c, bufio.NewReader(c)}
	fmt.Fprint(c, "MONITOR\r\n")
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if line, err := m.r.ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("MONITOR: %q %v", line, err)
	}
	return m
}

// Commands are those that came since the last call, or since Monitor, one a line and every word in quotes. What
// scripts did is not among them.
func (m *Monitor) Commands() (all []string) {
	m.s.t.Helper()
	end := rand.Text()
	m.s.Do("ECHO " + end)
	for {
		m.c.SetReadDeadline(time.Now().Add(10 * time.Second))
		line, err := m.r.ReadString('\n')
		if err != nil {
			m.s.t.Fatalf("MONITOR: %v", err)
		}
		_, command, _ := strings.Cut(line, "] ")
		switch {
		case strings.Contains(command, end):
			return all
		case !strings.Contains(line, " lua] "):
			all = append(all, strings.TrimSpace(command))
		}
	}
}
