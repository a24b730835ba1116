package proxy

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is how long the threads of this process have run so far, and how
// long they were ready to and did not, because others had the processor or the
// container's share was spent (run_delay of schedstat:
// https://docs.kernel.org/scheduler/sched-stats.html). It is at most processorLook
// old.
func processorTime() (used, waited time.Duration) {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	lastProcessorTime.Lock()
	defer lastProcessorTime.Unlock()
	l := &lastProcessorTime
	if now := time.Duration(t.Nano()); now-l.at >= processorLook || l.at == 0 {
		l.at = now
		var u unix.Rusage
		if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
			l.used = time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		l.waited = max(l.waited, threadsWaited())
	}
	return l.used, l.waited
}

const processorLook = 20 * time.Millisecond

var lastProcessorTime struct {
	sync.Mutex
	at, used, waited time.Duration
}

// threadsWaited adds up what /proc says of the threads that there are.
func threadsWaited() (sum time.Duration) {
	dir, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(dir)
	var entries, text [4096]byte
	var names []string
	for {
		n, err := unix.ReadDirent(dir, entries[:])
		if err != nil || n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(entries[:n], -1, names)
	}
	for _, name := range names {
		f, err := unix.Openat(dir, name+"/schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		n, err := unix.Read(f, text[:])
		_ = unix.Close(f)
		if err != nil {
			continue
		}
		if part := bytes.Fields(text[:n]); len(part) > 1 {
			if ns, err := strconv.ParseInt(string(part[1]), 10, 64); err == nil {
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}
