package quota

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// The data directory of an older release, killed with 120 publishes sent, one held
// and the brake pulled: this release reads all of it. testdata/form-1 was recorded
// with the binary of commit 21631d3 and is never recorded anew: what a later
// release writes gets a directory of its own beside it.
func TestReadsWhatAnOlderReleaseWrote(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/form-1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	st := open(t, "embedded", store.Options{Dir: dir})
	now := time.Date(2026, 11, 25, 16, 5, 0, 0, time.UTC)
	l := join(t, st, now, "fixture", Config{Account: "care", Plan: Plan{"custom", 1_000_000}, Shares: map[string]float64{"api": 0.4}})
	beat(t, now, l)
	snap := l.Snapshot(now)
	// It had spent 242 and held a lease of 339, which a killed process wastes.
	if snap.Used < 242 || snap.Used > 242+339 {
		t.Errorf("used %d, it was at least 242 and at most 581", snap.Used)
	}
	if snap.Plan.MessagesPerDay != 1_000_000 {
		t.Errorf("plan %+v", snap.Plan)
	}
	if b := l.CurrentBrake(now); b == nil || b.Reason != "fixture" || b.Allow != "critical" || !b.Until.After(now) {
		t.Errorf("brake %+v", b)
	}
	if b := l.CurrentBrake(now.Add(24 * time.Hour)); b != nil {
		t.Errorf("the brake has no end any more: %+v", b)
	}
	if lines, err := l.Audit(ctx, 10); err != nil || !slices.ContainsFunc(lines, func(e store.AuditEntry) bool { return strings.Contains(e.What, "brake") }) {
		t.Errorf("audit %v %v", lines, err)
	}
	held, err := l.Shelf().Claim(ctx, now.Add(time.Hour), now.Add(2*time.Hour), 10)
	if err != nil || len(held) != 1 || !strings.Contains(string(held[0].Body), `"app":"1"`) {
		t.Errorf("held %+v %v", held, err)
	}
}

var updateForm = flag.Bool("update-form", false, "write testdata/form.golden anew; see TestStoredForm before you do")

// What is stored, by key and field. A release shares its store with the one before
// and the one after it (docs/operations.md), so a field may be added, and what it
// means may not change: if this test fails, either the form is kept readable both
// ways, which bench/drill -only upgrade proves, and the new list is written with
// -update-form; or readerVersion and `min` are raised, and the release before
// refuses to start.
func TestStoredForm(t *testing.T) {
	server := redistest.Start(t)
	st := open(t, server.URL(), store.Options{})
	cfg := plan(100_000)
	cfg.Shares = map[string]float64{"api": 0.4}
	l := join(t, st, noon, "one", cfg)
	gone := join(t, st, noon, "two", cfg)
	beat(t, noon, l, gone)
	spend(l, noon, l.Share("api"), Normal, 10)
	spend(gone, noon, nil, Bulk, 10)
	if err := gone.Close(ctx); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	beat(t, noon.Add(time.Second), l)
	must(l.SetBrake(ctx, noon, &Brake{Allow: "critical", Reason: "form", By: "test", Since: noon, Until: noon.Add(time.Hour)}))
	must(l.SetPlan(ctx, noon, 90_000, "test", "form"))
	must(l.SetUsage(ctx, noon, 50, "test", "form"))
	must(l.Exhaust(ctx, noon, "form"))
	shelf := l.Shelf()
	done := make(chan struct{})
	run, stop := context.WithCancel(ctx)
	go func() { shelf.Run(run); close(done) }()
	_, err := shelf.Put(ctx, "1", noon.Add(time.Minute), []byte("body"))
	must(err)
	_, err = shelf.Put(ctx, "2", noon.Add(2*time.Minute), []byte("body"))
	must(err)
	_, err = shelf.Claim(ctx, noon.Add(time.Minute), noon.Add(time.Hour), 1)
	must(err)
	stop()
	<-done

	keys := strings.Split(server.Do(`EVAL "return table.concat(redis.call('KEYS','*'),' ')" 0`), " ")
	slices.Sort(keys)
	var b strings.Builder
	for _, k := range keys {
		kind := strings.TrimPrefix(server.Do("TYPE "+k), "+")
		b.WriteString(k + " " + kind)
		if kind == "hash" {
			fields := strings.Split(server.Do(`EVAL "return table.concat(redis.call('HKEYS',KEYS[1]),' ')" 1 `+k), " ")
			slices.Sort(fields)
			b.WriteString(" " + strings.Join(fields, " "))
			if strings.HasSuffix(k, ":live") || strings.HasSuffix(k, ":gone") { // a replica's entry is a row of numbers
				fmt.Fprintf(&b, " (%d numbers)", len(strings.Fields(server.Do("HGET "+k+" "+fields[0]))))
			}
		}
		b.WriteByte('\n')
	}
	// Names that are made up anew each time.
	got := regexp.MustCompile(`\b[A-Z2-7]{10,}[0-9.:a-z-]*`).ReplaceAllString(b.String(), "TOKEN")
	file := filepath.Join("testdata", "form.golden")
	if *updateForm {
		must(os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(err)
	if got != string(want) {
		t.Errorf("the stored form is another one:\n%s\nwanted:\n%s", got, want)
	}
}
