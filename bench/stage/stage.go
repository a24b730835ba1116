// Package stage puts up what the drills need around them: the binary, a Redis,
// serve processes, all on loopback, all ended by whoever put them up.
package stage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build makes the binary of the tree that contains the working directory, in
// dir. Flags are go build's, such as -race.
func Build(dir string, flags ...string) (binary string, err error) {
	if err := readSources(); err != nil {
		return "", err
	}
	return BuildIn("", dir, "pushguard", flags...)
}

// readSources opens the tree's directories. go test takes a result from its
// cache unless what the test opened has changed, and it does not see what go
// build opens: without this a test of the binary passes for one that is not
// there any more. https://pkg.go.dev/cmd/go#hdr-Test_packages
func readSources() error {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	for _, part := range []string{"cmd", "limiter", "pusher", "quota", "."} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.Name() == "node_modules" || d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() && part == "." && path != filepath.Join(root, part):
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// BuildIn makes the binary of another tree.
func BuildIn(tree, dir, name string, flags ...string) (binary string, err error) {
	binary = filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", binary}, flags...), "github.com/pushguard/pushguard/cmd/pushguard")...)
	cmd.Dir = tree
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, text)
	}
	return binary, nil
}

// Replica is one serve process.
type Replica struct {
	// Data and Admin are its ports, once it is Ready.
	Data  string `json:"data"`
	Admin string `json:"admin"`
	// Out is all that it wrote.
	Out *Buffer
	// Ended is closed when the process is gone.
	Ended chan struct{}

	cmd  *exec.Cmd
	file string // its --addr-file
}

// Buffer is a bytes.Buffer that a process may write to meanwhile.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *Buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *Buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Launch starts serve with args and does not wait for it; env is added to this
// process's. Sockets become its LISTEN_FDS, as systemd passes them.
func Launch(dir, binary string, env []string, sockets []*os.File, args ...string) (*Replica, error) {
	f, err := os.CreateTemp(dir, "addr-*.json")
	if err != nil {
		return nil, err
	}
	f.Close()
	os.Remove(f.Name())
	r := &Replica{Out: &Buffer{}, Ended: make(chan struct{}), file: f.Name()}
	args = append(append([]string{"serve"}, args...), "--addr-file", r.file)
	if len(sockets) > 0 {
		// LISTEN_PID must be the pid that exec keeps.
		args = append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary}, args...)
		binary, env = "/bin/sh", append(env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES=data:admin")
	}
	r.cmd = exec.Command(binary, args...)
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.ExtraFiles = sockets
	r.cmd.Stdout, r.cmd.Stderr = r.Out, r.Out
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = r.cmd.Wait(); close(r.Ended) }()
	return r, nil
}

// Ready waits until the process says that it serves; an error says that it has
// ended instead, and what it wrote.
func (r *Replica) Ready(within time.Duration) error {
	end := time.After(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Ended:
			return fmt.Errorf("it ended instead: %s", r.Out)
		case <-end:
			return fmt.Errorf("not ready after %s: %s", within, r.Out)
		case <-tick.C:
		}
		if data, err := os.ReadFile(r.file); err == nil && json.Unmarshal(data, r) == nil {
			return nil
		}
	}
}

// Start is Launch and Ready.
func Start(dir, binary string, env []string, sockets []*os.File, within time.Duration, args ...string) (*Replica, error) {
	r, err := Launch(dir, binary, env, sockets, args...)
	if err != nil {
		return nil, err
	}
	if err := r.Ready(within); err != nil {
		r.Kill()
		return nil, err
	}
	return r, nil
}

// Leave is SIGTERM and the wait for the end; the exit code must be 0.
func (r *Replica) Leave(within time.Duration) error {
	r.Signal(syscall.SIGTERM)
	select {
	case <-r.Ended:
	case <-time.After(within):
		return fmt.Errorf("it did not end in %s: %s", within, r.Out)
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("exit code %d: %s", code, r.Out)
	}
	return nil
}

// Signal sends sig to the process.
func (r *Replica) Signal(sig os.Signal) { _ = r.cmd.Process.Signal(sig) }

// Pid is the process's.
func (r *Replica) Pid() int { return r.cmd.Process.Pid }

// Kill is SIGKILL and the wait for the end. A nil Replica is dead already.
func (r *Replica) Kill() {
	if r != nil {
		_ = r.cmd.Process.Kill()
		<-r.Ended
	}
}

var prober = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}

// IsReady asks /readyz.
func (r *Replica) IsReady() bool {
	resp, err := prober.Get("http://" + r.Admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Redis is a redis-server without persistence on a free port.
type Redis struct {
	URL string
	cmd *exec.Cmd
}

// StartRedis waits until it answers.
func StartRedis(dir string) (*Redis, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server is needed: apt-get install redis-server: %w", err)
	}
	addr, err := FreePort()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	r := &Redis{URL: "redis://" + addr, cmd: exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no")}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return r, nil
		}
		select {
		case <-end:
			r.Stop()
			return nil, fmt.Errorf("redis-server did not come up")
		case <-tick.C:
		}
	}
}

// Freeze makes the server answer nothing until Thaw, as a host that hangs.
func (r *Redis) Freeze() { _ = r.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (r *Redis) Thaw() { _ = r.cmd.Process.Signal(syscall.SIGCONT) }

// Stop ends the server.
func (r *Redis) Stop() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() }

// FreePort is a free address on loopback that stays the same over processes.
func FreePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// WriteConfig makes the config file name.yaml in dir.
func WriteConfig(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name+".yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// Pause waits for d.
func Pause(d time.Duration) { <-time.After(d) }
