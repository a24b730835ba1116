package quota

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pushguard/pushguard/quota/store"
)

// The child of TestUsageSurvivesKill: it spends and says so, until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("QUOTA_TEST_CHILD"); dir != "" {
		st, err := store.Open(ctx, "embedded", store.Options{Dir: dir, Log: quiet})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		l, err := Open(ctx, noon, st, "child", plan(100_000), quiet)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		used, _ := l.Used(noon)
		fmt.Println("start", used)
		for i := 0; ; i++ {
			h, d := l.Reserve(ctx, noon, nil, Normal, 1)
			if d != Granted {
				fmt.Println("end", d)
				select {}
			}
			l.Settle(noon, h, 1)
			fmt.Println("sent", i+1, l.Snapshot(noon).Lease)
		}
	}
	goleak.VerifyTestMain(m) // what a ledger starts has ended when its test ends
}

// run starts a child on dir, lets it send n messages and kills it; it returns what it found used at its start, how
// many it sent, and the lease it held at its death.
func runChild(t *testing.T, dir string, n int) (start, sent, lease int64) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "QUOTA_TEST_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	lines := bufio.NewScanner(out)
	killed := false
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch f[0] {
		case "start":
			start, _ = strconv.ParseInt(f[1], 10, 64)
		case "sent":
			sent, _ = strconv.ParseInt(f[1], 10, 64)
			lease, _ = strconv.ParseInt(f[2], 10, 64)
		default:
			t.Fatal(lines.Text())
		}
		if !killed && sent >= int64(n) {
			cmd.Process.Kill() // SIGKILL; what it wrote before that is still read
			killed = true
		}
	}
	return start, sent, lease
}

// Usage is never forgotten over kill -9 of the embedded store, and at most the lease that was out is counted on top.
func TestUsageSurvivesKill(t *testing.T) {
	dir := t.TempDir() + "/data"
	var total, bound int64
	for round, n := range []int{1, 10, 500, 3000} {
		start, sent, lease := runChild(t, dir, n)
		if start < total || start > total+bound {
			t.Fatalf("round %d: found %d used; %d were sent before, and at most %d more may be counted", round, start, total, bound)
		}
		total = start + sent // what was counted on top stays counted
		bound = max(lease, 2*sent+100)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	st := open(t, "embedded", store.Options{Dir: dir})
	cfg := plan(100_000)
	cfg.Wait = 20 * time.Second // the disk may be busy
	l := join(t, st, noon, "after", cfg)
	used, _ := l.Used(noon)
	rest, why := spend(l, noon, nil, Normal, 200_000)
	if used < total || int64(rest) != 100_000-used || why != PlanSpent {
		t.Fatalf("used %d of at least %d, then sent %d (%v)", used, total, rest, why)
	}
}
