package quota

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// crash ends a ledger as kill -9 does: nothing is handed back, the kernel drops the locks.
func crash(l *Ledger) {
	if l.record != nil {
		l.record.Close()
	}
}

// Redis is killed with its default settings, which forgets every count, and the replicas die with it. Their records
// bring the count back.
func TestEverythingDiesAtOnce(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{})
	dirs := []string{t.TempDir(), t.TempDir()}
	cfg := plan(10_000)
	cfg.Wait = -1
	cfg.Shares = map[string]float64{"api": 0.2}
	start := func(i int) *Ledger {
		c := cfg
		c.RecordDir = dirs[i]
		return join(t, st, noon, []string{"a", "b"}[i], c)
	}
	a, b := start(0), start(1)
	spend(a, noon, a.Share("api"), Normal, 700)
	spend(b, noon, nil, Normal, 800)
	if err := a.SetPlan(ctx, noon, 9000, "ann", ""); err != nil {
		t.Fatal(err)
	}
	spend(b, noon, nil, Normal, 50) // of the lease, never reported
	out := a.Snapshot(noon).Lease + b.Snapshot(noon).Lease
	crash(a)
	crash(b)
	srv.Kill()
	srv.Restart()
	await(t, "the store is back", func() bool { return st.Ping(ctx) == nil })
	if srv.Do("DBSIZE") != ":0" {
		t.Fatal("the store should have forgotten all")
	}
	a, b = start(0), start(1)
	now := noon.Add(store.HealQuiet)
	beat(t, now, a, b)
	var sent int
	for range 15 {
		x, _ := spend(a, now, nil, Normal, 20_000)
		y, _ := spend(b, now, nil, Normal, 20_000)
		sent += x + y
		now = now.Add(50 * time.Millisecond)
		beat(t, now, a, b)
		beat(t, now, a, b)
	}
	// b spoke second: what it took in the last moment was not yet known when a got its first, small lease.
	if total := 1550 + sent; total > 9000 || total < 9000-int(out)-1000 {
		t.Fatalf("%d went out in all, %d after the crash; %d were leased at the crash", total, sent, out)
	}
	if used, p := a.Used(now); used != 9000 || p != 9000 {
		t.Fatalf("used %d of %d", used, p)
	}
	share, why := spend(a, now, a.Share("api"), Normal, 5000)
	if share != 0 {
		t.Fatal(share, why)
	}
}

// After a crash with the store alive the next process goes on with the entry of the dead one: nothing of its lease is lost.
func TestRestartGoesOnWithTheDeadEntry(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{})
	cfg := plan(10_000)
	cfg.RecordDir = t.TempDir()
	a := join(t, st, noon, "a", cfg)
	spend(a, noon, nil, Normal, 100)
	beat(t, noon, a)
	crash(a)
	a = join(t, st, noon, "a", cfg)
	if s := a.Snapshot(noon); s.Used != 100 || s.Replicas != 1 || s.Faults != 0 {
		t.Fatalf("%+v", s)
	}
	// Again, with nothing new: nothing is counted twice. And a clean end leaves nothing to bury.
	if err := a.Close(ctx); err != nil {
		t.Fatal(err)
	}
	a = join(t, st, noon, "a", cfg)
	if s := a.Snapshot(noon); s.Used != 100 || s.Replicas != 1 {
		t.Fatalf("%+v", s)
	}
}

// Old and new process of one name side by side keep a record each, and leave each other alone.
func TestHandOver(t *testing.T) {
	st := open(t, redistest.Start(t).URL(), store.Options{})
	cfg := plan(10_000)
	cfg.RecordDir = t.TempDir()
	old := join(t, st, noon, "a", cfg)
	spend(old, noon, nil, Normal, 100)
	beat(t, noon, old)
	successor := join(t, st, noon, "a", cfg)
	if s := successor.Snapshot(noon); s.Used != 100 || s.Replicas != 2 {
		t.Fatalf("%+v", s)
	}
	if err := old.Close(ctx); err != nil {
		t.Fatal(err)
	}
	beat(t, noon, successor)
	if s := successor.Snapshot(noon); s.Used != 100 || s.Replicas != 1 {
		t.Fatalf("%+v", s)
	}
	if n, why := spend(successor, noon, nil, Normal, 20_000); n != 9900 {
		t.Fatal(n, why)
	}
}

func TestUnusableRecords(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{})
	cfg := plan(1000)
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	cfg.RecordDir = file // no directory: the ledger works without
	if n, _ := spend(join(t, st, noon, "a", cfg), noon, nil, Normal, 10); n != 10 {
		t.Fatal(n)
	}
	cfg.RecordDir = t.TempDir()
	a := join(t, st, noon, "b", cfg)
	spend(a, noon, nil, Normal, 500)
	a.record.Close() // every save fails from here on
	if n, _ := spend(a, noon.Add(time.Second), nil, Normal, 200); n != 200 || !a.recordFailed {
		t.Fatal(n, a.recordFailed)
	}
	// Damage: both slots of the record.
	names, _ := filepath.Glob(filepath.Join(cfg.RecordDir, "*.[ab]"))
	if len(names) != 2 {
		t.Fatal(names)
	}
	for _, n := range names {
		os.WriteFile(n, []byte("garbage"), 0o600)
	}
	join(t, st, noon, "b", cfg)
	// Far too old, and of another format: passed over.
	for _, text := range []string{`{"Format":1,"Account":"care","ID":"x","Day":5}`, `{"Format":9,"Account":"care"}`, `{`} {
		mine, _, err := store.OpenRecord(cfg.RecordDir, "care@c")
		if err != nil {
			t.Fatal(err)
		}
		if err := mine.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		mine.Close()
		join(t, st, noon, "c", cfg).record.Close()
	}
}
