package store

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Whatever happens to the files of the embedded store: it comes up as it was, or does not come up, or says aloud what it
// lost. It never begins anew in silence.
func TestDamageIsNeverSilent(t *testing.T) {
	made := func(snapshots int) (dir, said string) {
		dir = t.TempDir()
		s := openDir(t, dir)
		for n := range snapshots + 1 {
			for range 5 {
				say(t, s, "x")
			}
			if n < snapshots {
				if err := s.emb.snapshot(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 3 {
			say(t, s, "y")
		}
		said = trail(t, s)
		s.Close()
		return dir, said
	}
	type kept struct{ dir, said string }
	var stores []kept
	for n := range 4 {
		dir, said := made(n % 3)
		stores = append(stores, kept{dir, said})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	came := map[string]int{}
	for n := range 200 {
		from := stores[rng.IntN(len(stores))]
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(from.dir)); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(filepath.Join(dir, "store.[sj]*"))
		file := files[rng.IntN(len(files))]
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		what := ""
		switch rng.IntN(6) {
		case 0:
			what = "removed " + filepath.Base(file)
			os.Remove(file)
		case 1:
			what = "emptied " + filepath.Base(file)
			os.Truncate(file, 0)
		case 2:
			what = "cut short " + filepath.Base(file)
			os.Truncate(file, 1+rng.Int64N(int64(len(data))-1))
		case 3:
			what = "changed a byte of " + filepath.Base(file)
			data[rng.IntN(len(data))] ^= byte(1 + rng.IntN(255))
			os.WriteFile(file, data, 0o600)
		case 4:
			other := stores[rng.IntN(len(stores))]
			what = "put another store's file in place of " + filepath.Base(file)
			foreign, err := os.ReadFile(filepath.Join(other.dir, filepath.Base(file)))
			if err != nil {
				continue
			}
			os.WriteFile(file, foreign, 0o600)
		case 5:
			what = "renamed " + filepath.Base(file)
			os.Rename(file, filepath.Join(dir, "store.journal.7"))
		}
		var log bytes.Buffer
		s, err := Open(ctx, "embedded", Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			came["refused"]++
			continue
		}
		said := trail(t, s)
		s.Close()
		switch {
		case said == from.said:
			came["exact"]++
		case log.Len() > 0:
			came["said"]++
		default:
			left, _ := filepath.Glob(filepath.Join(dir, "*"))
			t.Errorf("damage %d, %s: up in silence with %q of %q; %v", n, what, said, from.said, left)
		}
	}
	t.Logf("%v", came)
}
