//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// neighbour takes as much of core 1 as serve, until stop. Without it the core of
// generator and upstream is full before serve's is, and the overload is theirs.
func neighbour() (stop func(), err error) {
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return nil, fmt.Errorf("the processor can be the bottleneck only where cores can be told apart (Debian: apt install util-linux): %w", err)
	}
	cmd := exec.Command(taskset, "-c", "1", "/bin/sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// cores is how long the first two were idle, and how long they were there, in
// clock ticks.
type cores [2]struct{ idle, all float64 }

func readCores() (c cores, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		for i := range c {
			if len(f) < 9 || f[0] != "cpu"+strconv.Itoa(i) {
				continue
			}
			for n, v := range f[1:9] { // user nice system idle iowait irq softirq steal
				ticks, err := strconv.ParseFloat(v, 64)
				if err != nil {
					return c, fmt.Errorf("/proc/stat: %w", err)
				}
				c[i].all += ticks
				if n == 3 || n == 4 {
					c[i].idle += ticks
				}
			}
		}
	}
	return c, nil
}

// idleSince is which part of the time since then the cores of generator and
// upstream, and of serve, had nothing to do.
func (c cores) idleSince(then cores) (load, serve float64) {
	part := func(i int) float64 { return (c[i].idle - then[i].idle) / (c[i].all - then[i].all) }
	return part(0), part(1)
}
