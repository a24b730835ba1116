package store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	ctx   = context.Background()
	noon  = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
)

func openDir(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(ctx, "embedded", Options{Dir: dir, Log: quiet, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func say(t testing.TB, s *Store, what string) {
	t.Helper()
	if err := s.AuditAppend(ctx, "care", AuditEntry{At: noon, Who: "ann", What: what}); err != nil {
		t.Fatal(err)
	}
}

func trail(t testing.TB, s *Store) string {
	t.Helper()
	lines, err := s.Audit(ctx, "care", 100)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, l := range lines {
		words = append(words, l.What)
	}
	return strings.Join(words, " ")
}

func TestEmbeddedRemembers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	s := openDir(t, dir)
	say(t, s, "one")
	say(t, s, "two")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.AuditAppend(ctx, "care", AuditEntry{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("a closed store took a write: %v", err)
	}
	s = openDir(t, dir)
	if got := trail(t, s); got != "two one" {
		t.Fatal(got)
	}
	// Through a snapshot and what comes after it.
	if err := s.emb.snapshot(); err != nil {
		t.Fatal(err)
	}
	say(t, s, "three")
	s.Close()
	s = openDir(t, dir)
	if got := trail(t, s); got != "three two one" {
		t.Fatal(got)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 3 {
		t.Fatalf("files left over: %v", names)
	}
}

// What is kept for a time goes when that is over, and not before.
func TestEmbeddedForgets(t *testing.T) {
	s := openDir(t, t.TempDir())
	if err := s.PutPoll(ctx, "care", "1", noon, noon, []byte("list")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		later time.Duration
		want  string
	}{{time.Minute, "list"}, {occupiedKept*time.Second - 2*time.Minute, "list"}, {time.Minute + ageEvery, ""}} {
		s.emb.aged.Add(-int64(c.later))
		say(t, s, "something")
		if b, err := s.LastPoll(ctx, "care", "1"); err != nil || string(b) != c.want {
			t.Fatalf("%v later: %q %v, want %q", c.later, b, err, c.want)
		}
	}
}

func TestEmbeddedServesOneProcess(t *testing.T) {
	dir := t.TempDir()
	openDir(t, dir)
	_, err := Open(ctx, "embedded", Options{Dir: dir, Log: quiet})
	if err == nil || !strings.Contains(err.Error(), "held by another pushguard") {
		t.Fatal(err)
	}
}

func TestTornTailIsDropped(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	say(t, s, "one")
	say(t, s, "two")
	s.Close()
	path := filepath.Join(dir, journalName+"0")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndex(string(whole), frameMagic)
	for cut := last; cut < len(whole); cut++ {
		os.WriteFile(path, whole[:cut], 0o600)
		s := openDir(t, dir)
		if got := trail(t, s); got != "one" {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		s.Close()
		if info, _ := os.Stat(path); info.Size() != int64(last) {
			t.Fatalf("cut at %d: the torn part was left in place", cut)
		}
	}
	// Torn inside: the length got to disk, the bytes did not.
	torn := append([]byte(nil), whole...)
	torn[len(torn)-1] ^= 1
	os.WriteFile(path, torn, 0o600)
	s = openDir(t, dir)
	if got := trail(t, s); got != "one" {
		t.Fatal(got)
	}
	say(t, s, "three")
	s.Close()
	s = openDir(t, dir)
	if got := trail(t, s); got != "three one" {
		t.Fatal(got)
	}
}

func TestDamageIsRefusedWithAdvice(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string)
		want string
	}{
		{"middle of the journal", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, journalName+"1"), frameHeader+5) }, "usage set"},
		{"snapshot", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, stateName), frameHeader+5) }, "usage set"},
		{"snapshot cut short", func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, stateName), 10) }, "ends too early"},
		{"snapshot emptied", func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, stateName), 0) }, "ends too early"},
		{"newer disk format", func(t *testing.T, dir string) {
			body := appendCommand(nil, []string{markCommand, "99", "1"})
			os.WriteFile(filepath.Join(dir, stateName), appendFrame(nil, body), 0o600)
		}, "upgrade"},
		{"another file", func(t *testing.T, dir string) {
			body := appendCommand(nil, []string{"HSET", "a", "b", "c"})
			os.WriteFile(filepath.Join(dir, stateName), appendFrame(nil, body), 0o600)
		}, "damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openDir(t, dir)
			say(t, s, "zero")
			if err := s.emb.snapshot(); err != nil {
				t.Fatal(err)
			}
			say(t, s, "one")
			say(t, s, "two")
			s.Close()
			c.do(t, dir)
			_, err := Open(ctx, "embedded", Options{Dir: dir, Log: quiet})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "embedded store") {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func flip(t *testing.T, path string, at int) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x40
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A crash at any moment of a snapshot leaves one complete pair of files.
func TestCrashDuringSnapshot(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	say(t, s, "one")
	s.Close()
	// The new journal and the temporary snapshot are there, the rename never happened.
	os.WriteFile(filepath.Join(dir, journalName+"1"), nil, 0o600)
	os.WriteFile(filepath.Join(dir, stateName+".tmp"), []byte("half a snap"), 0o600)
	s = openDir(t, dir)
	if got := trail(t, s); got != "one" {
		t.Fatal(got)
	}
	// The rename happened, the old journal was not yet removed.
	old, _ := os.ReadFile(filepath.Join(dir, journalName+"0"))
	if err := s.emb.snapshot(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	os.WriteFile(filepath.Join(dir, journalName+"0"), old, 0o600)
	s = openDir(t, dir)
	if got := trail(t, s); got != "one" {
		t.Fatalf("%q: the old journal was replayed on top of its snapshot", got)
	}
}

// The disk fails: the store says so and takes nothing; when the disk is well again it goes on by itself.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	say(t, s, "one")
	s.emb.j.file.Close() // every write fails from here on
	err := s.AuditAppend(ctx, "care", AuditEntry{What: "two"})
	if err == nil || !strings.Contains(err.Error(), "cannot write") {
		t.Fatal(err)
	}
	if s.Ping(ctx) == nil {
		t.Fatal("Ping saw nothing")
	}
	// The next operation tries a snapshot into new files, which works.
	say(t, s, "three")
	if s.Ping(ctx) != nil {
		t.Fatal(s.Ping(ctx))
	}
	s.Close()
	if got := trail(t, openDir(t, dir)); got != "three two one" {
		t.Fatal(got)
	}
}

func TestJournalIsCompacted(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	big := strings.Repeat("x", 1<<20)
	for range 8 {
		say(t, s, big)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		s.emb.snap.Lock()
		s.emb.j.mu.Lock()
		gen := s.emb.j.gen
		s.emb.j.mu.Unlock()
		s.emb.snap.Unlock()
		if gen > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the journal grew without a snapshot")
		}
		say(t, s, "again")
	}
	want := trail(t, s)
	s.Close()
	if got := trail(t, openDir(t, dir)); got != want {
		t.Fatal("the snapshot is not the state")
	}
}

// Snapshots while others write lose nothing and repeat nothing.
func TestSnapshotUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	done := make(chan int)
	for w := range 4 {
		go func() {
			for range 50 {
				say(t, s, string(rune('a'+w)))
			}
			done <- w
		}()
	}
	for n := 0; n < 4; {
		if err := s.emb.snapshot(); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
			n++
		default:
		}
	}
	if err := s.emb.snapshot(); err != nil {
		t.Error(err)
	}
	count := func(s *Store) int {
		lines, err := s.Audit(ctx, "care", 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(lines)
	}
	if n := count(s); n != 200 {
		t.Fatal(n)
	}
	s.Close()
	if n := count(openDir(t, dir)); n != 200 {
		t.Fatalf("%d of 200 after a restart", n)
	}
}

func FuzzReadFrames(f *testing.F) {
	body := appendCommand(appendCommand(nil, []string{"HSET", "k", "f", "v"}), []string{"DEL", ""})
	f.Add(appendFrame(nil, body))
	f.Add(appendFrame(appendFrame(nil, body), nil))
	f.Add(append(appendFrame(nil, body), frameMagic+"\x00\x00\x00\x09"...))
	f.Add([]byte(frameMagic + "\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var got [][]string
		sound, err := readFrames(data, func(args []string) error {
			if len(args) == 0 {
				t.Fatal("an empty command")
			}
			got = append(got, args)
			return nil
		})
		if sound < 0 || sound > len(data) {
			t.Fatal(sound)
		}
		if err != nil {
			return
		}
		// What was read is exactly what the sound part says.
		var again [][]string
		if n, err := readFrames(data[:sound], func(args []string) error { again = append(again, args); return nil }); err != nil || n != sound || len(again) != len(got) {
			t.Fatal(n, err)
		}
		var all []byte
		for _, c := range got {
			all = appendCommand(all, c)
		}
		n := 0
		if _, err := readFrames(appendFrame(nil, all), func([]string) error { n++; return nil }); err != nil || n != len(got) {
			t.Fatal("what is written cannot be read back", err)
		}
	})
}

// A script of the store runs beside requests, on the same processor where there is but one: it must not keep it until
// the runtime takes it away, after 10 ms.
func TestScriptsGiveWay(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		s := openDir(t, dir)
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		done := make(chan error, 1)
		before := processorTime(t)
		go func() {
			done <- s.rdb.Eval(ctx, "for i = 1, 10000 do redis.call('EXISTS', 'k' .. i) end return 1", nil).Err()
		}()
		turns := 0
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				took := processorTime(t) - before
				if took < 10*time.Millisecond {
					t.Fatalf("the script took %v: too short to tell", took)
				}
				if most := int(took / time.Millisecond); turns < most {
					t.Errorf("others ran %d times in %v of a script; want at least %d", turns, took, most)
				}
			default:
				turns++
				runtime.Gosched()
				continue
			}
			break
		}
	}
}

// processorTime is what this process has used.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
