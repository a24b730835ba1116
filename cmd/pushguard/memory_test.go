package main

import (
	"log/slog"
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestMemoryOfTheControlGroup(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	for name, c := range map[string]struct {
		files fstest.MapFS
		env   string
		want  int64
	}{
		"a container, v2":         {fstest.MapFS{"proc/self/cgroup": file("0::/"), "sys/fs/cgroup/memory.max": file("1000")}, "", 900},
		"a unit, v2":              {fstest.MapFS{"proc/self/cgroup": file("0::/system.slice/pushguard.service"), "sys/fs/cgroup/system.slice/pushguard.service/memory.max": file("2000")}, "", 1800},
		"a smaller one above":     {fstest.MapFS{"proc/self/cgroup": file("0::/a/b"), "sys/fs/cgroup/a/b/memory.max": file("max"), "sys/fs/cgroup/a/memory.max": file("500")}, "", 450},
		"no limit, v2":            {fstest.MapFS{"proc/self/cgroup": file("0::/a"), "sys/fs/cgroup/a/memory.max": file("max")}, "", 0},
		"v1":                      {fstest.MapFS{"proc/self/cgroup": file("5:cpu,cpuacct:/x\n4:memory:/x"), "sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("4000")}, "", 3600},
		"no limit, v1":            {fstest.MapFS{"proc/self/cgroup": file("4:memory:/"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712")}, "", 0},
		"GOMEMLIMIT says it":      {fstest.MapFS{"proc/self/cgroup": file("0::/"), "sys/fs/cgroup/memory.max": file("1000")}, "450MiB", 0},
		"no control groups":       {fstest.MapFS{}, "", 0},
		"nothing that is legible": {fstest.MapFS{"proc/self/cgroup": file("::::\n0:\n"), "sys/fs/cgroup/memory.max": file("many")}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetMemoryLimit(math.MaxInt64)
			getenv := func(string) string { return c.env }
			if got := boundMemory(getenv, c.files, slog.New(slog.DiscardHandler)); got != c.want {
				t.Errorf("set %d, want %d", got, c.want)
			}
			inForce := debug.SetMemoryLimit(-1)
			if c.want == 0 && inForce != math.MaxInt64 || c.want > 0 && inForce != c.want {
				t.Errorf("in force: %d", inForce)
			}
		})
	}
}
