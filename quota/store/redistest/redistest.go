// Package redistest starts real redis-server processes on loopback for tests.
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is one redis-server of a test. It lives in a temporary directory and dies with the test.
type Server struct {
	Port int
	Dir  string
	args []string
	cmd  *exec.Cmd
	out  *buffer
	t    testing.TB
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
	s := &Server{Port: FreePort(t), Dir: t.TempDir(), args: args, t: t}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// Addr is host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// URL is the address as a store URL.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Restart starts the server again on the same port and directory, after Kill.
func (s *Server) Restart() {
	s.t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatalf("redis-server is needed: apt-get install redis-server (%v)", err)
	}
	args := append([]string{"--port", fmt.Sprint(s.Port), "--bind", "127.0.0.1", "--save", "", "--dir", s.Dir,
		"--repl-diskless-sync-delay", "0"}, s.args...)
	s.out = &buffer{}
	s.cmd = exec.Command(bin, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = childAttr()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.Await()
}

// Await returns when the server accepts connections.
func (s *Server) Await() {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
		if err == nil {
			c.Close()
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	s.t.Fatalf("redis-server did not come up:\n%s", s.out)
}

// Log is what the server printed since it was started.
func (s *Server) Log() string { return s.out.String() }

// Kill ends it as a power cut does.
func (s *Server) Kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		s.cmd.Process.Signal(syscall.SIGCONT)
		s.cmd.Process.Kill()
		s.cmd.Wait()
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
