package main

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The soak's shortest form, with every fault in it twice.
func TestTwoCycles(t *testing.T) {
	s := soak{long: 20 * time.Second, cycle: 10 * time.Second, rate: 200, svg: filepath.Join(t.TempDir(), "soak.svg")}
	var out strings.Builder
	if err := s.run(t.Context(), &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	chart, err := os.ReadFile(s.svg)
	if err != nil {
		t.Fatal(err)
	}
	for dec := xml.NewDecoder(bytes.NewReader(chart)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// What grows is found out: a run whose process holds ever more is not called flat.
func TestGrowthIsSeen(t *testing.T) {
	s := soak{long: 40 * time.Second, cycle: 10 * time.Second}
	for i := range 40 {
		s.samples = append(s.samples, sample{at: time.Duration(i) * time.Second, resident: 50 + float64(i), goroutines: 20, heap: 10, files: 20})
	}
	quiet := s.quiet()
	if len(quiet) != 4 || len(quiet[0]) != 2 {
		t.Fatalf("%d cycles of %d", len(quiet), len(quiet[0]))
	}
	first, last := middle(measures[0], quiet[1:2]), middle(measures[0], quiet[3:])
	if last-first != 20 || last-first < measures[0].slack {
		t.Errorf("from %v to %v", first, last)
	}
}

// Who got no place is told by cause, and by the fault that was on.
func TestCausesOfNoPlace(t *testing.T) {
	var s soak
	if got := s.shedWords(); got != "none" {
		t.Error(got)
	}
	for _, step := range []struct {
		fault string
		shed  map[string]float64
	}{
		{"", map[string]float64{"waited": 1, "silent": 0}},
		{"Pusher does not answer", map[string]float64{"waited": 3, "silent": 0}}, // begins now
		{"Pusher does not answer", map[string]float64{"waited": 3, "silent": 40}},
		{"", map[string]float64{"waited": 5, "silent": 70}}, // ends now
		{"", map[string]float64{"waited": 6, "silent": 70}},
	} {
		one := sample{shed: step.shed}
		s.attribute(one, step.fault)
		s.samples = append(s.samples, one)
	}
	if got := s.shedWords(); got != "Pusher does not answer: silent 70, waited 2; no fault: waited 4" {
		t.Error(got)
	}
}

// TestMain lets this binary be the soak itself.
func TestMain(m *testing.M) {
	if os.Getenv("SOAK_ITSELF") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A soak that was started in the background, where a shell has it ignore SIGINT,
// ends by it all the same, and by SIGTERM, and leaves nothing behind.
func TestASignalEndsItAndItsChildren(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		dir := t.TempDir()
		cmd := exec.Command("/bin/sh", "-c", `trap "" INT HUP; exec "$0" "$@"`, self, "--for", "5m", "--rate", "100", "--watch")
		cmd.Env = append(os.Environ(), "SOAK_ITSELF=1", "TMPDIR="+dir)
		told, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(told)
		if !lines.Scan() || !strings.Contains(lines.Text(), "under way") {
			_ = cmd.Process.Kill()
			t.Fatalf("it does not run: %q", lines.Text())
		}
		children := childrenOf(t, cmd.Process.Pid)
		if len(children) != 2 {
			t.Errorf("children %v: not Redis and serve", children)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
		deaf := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer deaf.Stop()
		var last string
		for lines.Scan() {
			last = lines.Text()
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || last != "soak: "+errStopped.Error() {
			t.Errorf("%s: %v, %q", sig, err, last)
		}
		for _, pid := range children {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("%s: its child %d is left: %v", sig, pid, err)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "pushguard-soak-*")); len(left) > 0 {
			t.Errorf("%s: left %v", sig, left)
		}
	}
}

// childrenOf are the processes that pid started and that run.
func childrenOf(t *testing.T, pid int) (children []int) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(all) == 0 {
		t.Fatal("no /proc: ", err)
	}
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // after the name: state, parent
		var state string
		var parent, child int
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == pid && state != "Z" {
			if _, err := fmt.Sscan(string(text), &child); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}
