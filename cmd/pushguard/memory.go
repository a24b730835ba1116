package main

import (
	"io/fs"
	"log/slog"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// boundMemory makes Go collect harder before the kernel kills the process, where
// nobody said GOMEMLIMIT but a control group has a limit: nine tenths of that are
// for Go, the rest is for what Go does not count. It returns what was set, 0 for
// nothing.
func boundMemory(getenv func(string) string, root fs.FS, log *slog.Logger) int64 {
	if getenv("GOMEMLIMIT") != "" {
		return 0 // the runtime has read it
	}
	limit := groupMemory(root)
	if limit <= 0 {
		return 0
	}
	limit -= limit / 10
	debug.SetMemoryLimit(limit)
	log.Info("memory bound by the control group", "go_limit_mib", limit>>20)
	return limit
}

// groupMemory is the least limit of this process's control group and those above
// it, in bytes; 0 where there is none. See cgroups(7); both versions are read.
func groupMemory(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	var least int64
	look := func(dir, under, file string) {
		for {
			if text, err := fs.ReadFile(root, path.Join(dir, under, file)); err == nil {
				// v1 says "no limit" by a number near the largest.
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && n < 1<<60 && (least == 0 || n < least) {
					least = n
				}
			}
			if under == "/" || under == "." || under == "" {
				return
			}
			under = path.Dir(under)
		}
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			look("sys/fs/cgroup", parts[2], "memory.max")
		case strings.Contains(","+parts[1]+",", ",memory,"):
			look("sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes")
		}
	}
	return least
}
