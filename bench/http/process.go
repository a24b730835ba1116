//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child that runs for the whole benchmark, on one core.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	gone chan struct{} // closed when it has ended
	err  error         // valid then
}

// command runs a program on one core. It ends when this process does, however that comes.
func command(ctx context.Context, core int, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(core), name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// start runs a child until ctx ends. Its first line of output comes back on the channel, if anybody listens.
// env is added to this process' environment.
func start(ctx context.Context, core int, env []string, firstLine chan<- string, name string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(name), log: &tail{}, gone: make(chan struct{})}
	p.cmd = command(ctx, core, name, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.log
	p.cmd.Stdout = io.Discard
	if firstLine != nil {
		p.cmd.Stdout = &lineOnce{to: firstLine}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// alive is an error with what the child said last, once it has ended.
func (p *process) alive() error {
	select {
	case <-p.gone:
		return fmt.Errorf("%s ended too early: %v\n%s", p.name, p.err, p.log)
	default:
		return nil
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	t.b = t.b[max(0, len(t.b)-4096):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

// lineOnce hands on the first line and drops the rest.
type lineOnce struct {
	to chan<- string
	b  []byte
}

func (l *lineOnce) Write(b []byte) (int, error) {
	if l.to != nil {
		l.b = append(l.b, b...)
		if line, _, ok := bytes.Cut(l.b, []byte("\n")); ok {
			l.to <- string(line)
			l.to = nil
		}
	}
	return len(b), nil
}

// ticksPerSecond is the unit of /proc/PID/stat, the same on all of Linux's architectures.
const ticksPerSecond = 100

// cpuSeconds is what a process and all that descend from it have used so far, in user and kernel mode.
func cpuSeconds(pid int) (float64, error) {
	parents, ticks := map[int]int{}, map[int]int64{}
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// The name in parentheses may hold anything; what follows is numbers. Fields as in proc(5).
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 15 {
			return 0, fmt.Errorf("%s: unexpected form", name)
		}
		parents[id], _ = strconv.Atoi(f[1])
		for _, field := range f[11:15] { // utime, stime, and those of children that were waited for
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			ticks[id] += n
		}
	}
	if _, ok := parents[pid]; !ok {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	var sum int64
	for id := range parents {
		for up := id; up > 1; up = parents[up] {
			if up == pid {
				sum += ticks[id]
				break
			}
		}
	}
	return float64(sum) / ticksPerSecond, nil
}

// machineTicks is how long the given cores were busy since boot, and how long the host took them away, in seconds.
func machineTicks(cores ...int) (busy, stolen float64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		for _, core := range cores {
			if len(f) < 9 || f[0] != "cpu"+strconv.Itoa(core) {
				continue
			}
			for i, field := range f[1:9] { // user nice system idle iowait irq softirq steal
				n, err := strconv.ParseFloat(field, 64)
				switch {
				case err != nil:
					return 0, 0, err
				case i == 7:
					stolen += n / ticksPerSecond
				case i != 3 && i != 4:
					busy += n / ticksPerSecond
				}
			}
		}
	}
	return busy, stolen, nil
}

// twoCores picks the cores: two that this process may use, and no two threads of one core if that can be had.
func twoCores() (load, proxy int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, err
	}
	var usable []int
	for i := range 1024 {
		if set.IsSet(i) {
			usable = append(usable, i)
		}
	}
	if len(usable) < 2 {
		return 0, 0, errors.New("two processor cores are needed: one for the proxy, one for the load")
	}
	siblings := func(cpu int) string {
		b, _ := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
		return string(b)
	}
	for _, other := range usable[1:] {
		if siblings(other) != siblings(usable[0]) {
			return usable[0], other, nil
		}
	}
	return usable[0], usable[1], nil
}
