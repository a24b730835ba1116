// Package redistest starts real redis-server processes on loopback for tests.
package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is one redis-server of a test. It lives in a temporary directory and dies with the test.
type Server struct {
	Port  int
	Dir   string
	args  []string
	first []string // before all other arguments: a config file
	cmd   *exec.Cmd
	ended chan struct{}
	out   *buffer
	t     testing.TB
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// FreePort is a port that was free a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start runs redis-server with extra arguments, as in "--appendonly", "yes". Persistence is off unless asked for.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{Dir: t.TempDir(), args: args, t: t}
	t.Cleanup(s.Kill)
	for range 5 { // somebody else may take the port first
		s.Port = FreePort(t)
		if s.run() {
			return s
		}
	}
	t.Fatalf("redis-server did not come up:\n%s", s.out)
	return nil
}

// Addr is host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// URL is the address as a store URL.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Restart starts the server again on the same port and directory, after Kill.
func (s *Server) Restart() {
	s.t.Helper()
	if !s.run() {
		s.t.Fatalf("redis-server did not come up:\n%s", s.out)
	}
}

// run starts the server and waits until it serves; false if it ended instead.
func (s *Server) run() bool {
	s.t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatalf("redis-server is needed: apt-get install redis-server (%v)", err)
	}
	args := append(append([]string(nil), s.first...), "--port", fmt.Sprint(s.Port), "--bind", "127.0.0.1", "--dir", s.Dir)
	if s.first == nil {
		args = append(args, "--save", "", "--repl-diskless-sync-delay", "0")
	}
	args = append(args, s.args...)
	s.out = &buffer{}
	cmd := exec.Command(bin, args...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd, s.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(s.ended)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		select {
		case <-s.ended:
			return false
		case <-end:
			s.Kill()
			return false
		case <-tick.C:
		}
		// A sentinel says nothing when it is ready.
		if log := s.out.String(); strings.Contains(log, "Ready to accept connections") || strings.Contains(log, "+monitor") {
			return true
		}
	}
}

// Log is what the server printed since it was started.
func (s *Server) Log() string { return s.out.String() }

// Kill ends it as a power cut does.
func (s *Server) Kill() {
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGCONT)
		s.cmd.Process.Kill()
		<-s.ended
		s.cmd = nil
	}
}

// Stop makes it hang (SIGSTOP); Continue ends that.
func (s *Server) Stop()     { s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *Server) Continue() { s.cmd.Process.Signal(syscall.SIGCONT) }

// WriteConfig puts a file beside the server's data and returns its path.
func WriteConfig(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Do sends one command, words separated by spaces, and returns the first line of the answer, or the bulk string.
func (s *Server) Do(command string) string {
	s.t.Helper()
	c, err := net.DialTimeout("tcp", s.Addr(), 5*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "%s\r\n", command)
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		s.t.Fatalf("%s: %v", command, err)
	}
	line = strings.TrimRight(line, "\r\n")
	var n int
	if _, err := fmt.Sscanf(line, "$%d", &n); err == nil && n >= 0 {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			s.t.Fatal(err)
		}
		return string(b)
	}
	return line
}
