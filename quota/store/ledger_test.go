package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

// replica drives the typed operations by hand.
type replica struct {
	t     *testing.T
	s     *Store
	id    string
	seq   int64
	epoch string
	acked int64
	last  *Pulse
	rep   PotReport
}

func (r *replica) beat(now time.Time, want int64) *Pulse {
	r.t.Helper()
	p, err := r.try(now, want)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *replica) frame(now time.Time) *Beat {
	return &Beat{Account: "care", ID: r.id, Day: 20000, Now: now, Seq: r.seq, Epoch: r.epoch, Join: r.acked == 0,
		TTL: 10 * time.Second, Plan: 1000, PlanName: "test", Pots: []PotReport{r.rep}}
}

func (r *replica) try(now time.Time, want int64) (*Pulse, error) {
	r.seq++
	r.rep.Acked, r.rep.Want = r.acked, Counts{want}
	p, err := r.s.Beat(ctx, r.frame(now))
	if err == nil {
		r.epoch, r.acked, r.last = p.Epoch, r.seq, p
	}
	return p, err
}

func eachStore(t *testing.T, story func(t *testing.T, s *Store, forget func())) {
	t.Run("embedded", func(t *testing.T) {
		s := openDir(t, t.TempDir())
		story(t, s, func() { s.emb.mr.FlushAll() })
	})
	t.Run("redis", func(t *testing.T) {
		srv := redistest.Start(t)
		s, err := Open(ctx, srv.URL(), Options{Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		story(t, s, func() { srv.Do("FLUSHALL") })
	})
}

func TestOperations(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store, forget func()) {
		a, b := &replica{t: t, s: s, id: "a"}, &replica{t: t, s: s, id: "b"}
		if p := a.beat(noon, 100); p.Pots[0].Granted.Sum() != 100 || p.Pots[0].Limit != 1000 {
			t.Fatalf("%+v", p)
		}
		if p := b.beat(noon, 5000); p.Pots[0].Granted.Sum() != 225 || p.Replicas != 2 {
			t.Fatalf("%+v; want a quarter of the 900 left, for there are two", p)
		}
		at := At{Account: "care", Epoch: a.epoch, Day: 20000}
		a.rep.Spent = 60
		a.beat(noon, 0)
		for what, err := range map[string]error{
			"usage":   s.SetUsage(ctx, at, 400, nil),
			"brake":   s.SetBrake(ctx, at, `{"allow":"none"}`, nil),
			"exhaust": s.SetExhausted(ctx, at, noon, "over", &AuditEntry{At: noon, What: "exhausted"}),
		} {
			if err != nil {
				t.Fatal(what, err)
			}
		}
		p := a.beat(noon, 0)
		st := p.State
		if p.Pots[0].Spent != 400 || p.Pots[0].Taken != 325+340 || p.Pots[0].Adjust != 340 || st.Brake != `{"allow":"none"}` ||
			st.ExhaustedDay != "20000" || st.ExhaustedWhy != "over" {
			t.Fatalf("%+v", p)
		}
		if err := s.ClearExhausted(ctx, at, nil); err != nil {
			t.Fatal(err)
		}
		if p := b.beat(noon, 0); p.State.ExhaustedDay != "" || len(p.Pots[0].Others) != 1 {
			t.Fatalf("%+v", p)
		}

		// The store forgets. Nothing works until somebody tells it; then everything is as before.
		forget()
		if err := s.SetPlan(ctx, at, 5, "", nil); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		if _, err := a.try(noon, 10); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		know := func(r *replica) []Knowledge {
			return []Knowledge{{Report: r.rep, Granted: r.last.Pots[0].Granted, Last: r.last.Pots[0]}}
		}
		epoch, err := s.Heal(ctx, a.frame(noon), a.last.State, know(a))
		if err != nil || epoch == a.epoch {
			t.Fatal(epoch, err)
		}
		if err := s.SetPlan(ctx, at, 5, "", nil); !errors.Is(err, ErrLost) {
			t.Fatalf("a lever of the old epoch: %v", err)
		}
		a.epoch = epoch
		if p := a.beat(noon, 50); !p.Withheld || p.Pots[0].Taken != 665 || p.Pots[0].Granted.Sum() != 100 || p.Pots[0].Spent != 400 {
			t.Fatalf("%+v", p)
		}
		if _, err := b.try(noon, 0); !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		second, err := s.Heal(ctx, b.frame(noon), b.last.State, know(b))
		if err != nil || second != epoch {
			t.Fatalf("the second healer began another epoch: %v %v", second, err)
		}
		b.epoch = second
		b.beat(noon, 0)
		if p := a.beat(noon.Add(HealQuiet-1), 50); !p.Withheld || p.Pots[0].Granted.Sum() != 100 {
			t.Fatalf("others may not have spoken yet: %+v", p)
		}
		if p := a.beat(noon.Add(HealQuiet), 50); p.Withheld || p.Pots[0].Granted.Sum() != 150 || p.State.Brake == "" {
			t.Fatalf("%+v", p)
		}

		// b falls silent, is closed, and is buried without being counted twice.
		later := noon.Add(time.Minute)
		if p := a.beat(later, 0); p.Replicas != 1 || p.Pots[0].Spent != 340+60+225 {
			t.Fatalf("%+v", p)
		}
		bury := b.frame(later)
		bury.Bury = true
		if _, err := s.Beat(ctx, bury); err != nil {
			t.Fatal(err)
		}
		if p := a.beat(later, 0); p.Replicas != 1 || p.Pots[0].Spent != 340+60+225 || p.Pots[0].Taken != 340+150+225 {
			t.Fatalf("%+v", p)
		}
		stranger := &replica{t: t, s: s, id: "never-joined", epoch: a.epoch}
		bury = stranger.frame(later)
		bury.Bury = true
		if p, err := s.Beat(ctx, bury); err != nil || p.Pots[0].Taken != 340+150+225 {
			t.Fatal(p, err)
		}
		if p := a.beat(later, 0); p.Replicas != 1 {
			t.Fatalf("a stranger's burial left an entry: %+v", p)
		}
	})
}

func TestBlobsAndLearned(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store, forget func()) {
		if b, err := s.GetBlob(ctx, "care", "x"); b != nil || err != nil {
			t.Fatal(b, err)
		}
		if err := s.PutBlob(ctx, "care", "x", []byte("a\x00b")); err != nil {
			t.Fatal(err)
		}
		if b, err := s.GetBlob(ctx, "care", "x"); string(b) != "a\x00b" || err != nil {
			t.Fatal(b, err)
		}
		n, msgs, err := s.ShareLearned(ctx, "care", "app", 0, []byte("one"))
		if err != nil || n != 1 || len(msgs) != 1 {
			t.Fatal(n, msgs, err)
		}
		s.ShareLearned(ctx, "care", "app", n, []byte("two"))
		if n, msgs, err = s.ShareLearned(ctx, "care", "app", n, nil); err != nil || n != 2 || len(msgs) != 1 || string(msgs[0]) != "two" {
			t.Fatal(n, msgs, err)
		}
		forget()
		if n, msgs, err = s.ShareLearned(ctx, "care", "app", n, nil); err != nil || n != 0 || len(msgs) != 0 {
			t.Fatal(n, msgs, err)
		}
	})
}

// texts is what records of dead processes say; those of others are closed.
func texts(mine *Record, others []*Record) (all []string) {
	if mine.Left != nil {
		all = append(all, string(mine.Left))
	}
	for _, r := range others {
		all = append(all, string(r.Left))
		r.Close()
	}
	return all
}

func TestRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	a, more, err := OpenRecord(dir, "care@a/b")
	left := texts(a, more)
	if err != nil || left != nil {
		t.Fatal(left, err)
	}
	for _, v := range []string{"one", "two, which is longer", "three"} {
		if err := a.Save([]byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	b, more, err := OpenRecord(dir, "care@a/b") // side by side
	left = texts(b, more)
	if err != nil || left != nil {
		t.Fatal(left, err)
	}
	b.Save([]byte("other"))
	a.Close()
	c, more, err := OpenRecord(dir, "care@a/b")
	left = texts(c, more)
	if err != nil || len(left) != 1 || left[0] != "three" {
		t.Fatalf("%q %v", left, err)
	}
	b.Close()
	c.Close()
	d, more, err := OpenRecord(dir, "care@a/b")
	left = texts(d, more)
	if err != nil || len(left) != 2 {
		t.Fatalf("%q %v", left, err)
	}
	d.Save([]byte("four"))
	d.Close()
	// The last save was torn: the one before counts.
	files, _ := filepath.Glob(filepath.Join(dir, "*.0.*"))
	if len(files) != 2 {
		t.Fatal(files)
	}
	for _, f := range files {
		raw, _ := os.ReadFile(f)
		if strings.Contains(string(raw), "four") {
			raw[frameHeader+9] ^= 1
			os.WriteFile(f, raw, 0o600)
		}
	}
	e, more, err := OpenRecord(dir, "care@a/b")
	left = texts(e, more)
	if err != nil || len(left) != 2 || left[0] != "three" {
		t.Fatalf("%q %v", left, err)
	}
	if f, more, _ := OpenRecord(dir, "care@a"); texts(f, more) != nil {
		t.Fatal("somebody else's record")
	}
}

// A snapshot that cannot be written leaves the old journal in force.
func TestSnapshotFails(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	say(t, s, "one")
	if err := os.Mkdir(filepath.Join(dir, stateName+".tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.emb.snapshot(); err == nil {
		t.Fatal("no error")
	}
	say(t, s, "two")
	s.Close()
	os.Remove(filepath.Join(dir, stateName+".tmp"))
	if got := trail(t, openDir(t, dir)); got != "two one" {
		t.Fatal(got)
	}
	// The dump itself fails: something is in there that no script of ours writes.
	s = openDir(t, t.TempDir())
	s.emb.mr.PfAdd("x", "y")
	if err := s.emb.snapshot(); err == nil {
		t.Fatal("no error")
	}
	say(t, s, "three")
}

func TestStrangeAnswers(t *testing.T) {
	for _, res := range [][]string{nil, {"e", "r", "0", "1"}, {"e", "r", "0", "x"}, append([]string{"e", "r", "0", "1"}, make([]string, 12)...)} {
		if _, err := parsePulse(res, 1); err == nil {
			t.Errorf("%q was understood", res)
		}
	}
	s := openDir(t, t.TempDir())
	for body, want := range map[string]string{
		"return {'WHAT'}":                     "WHAT",
		"return {}":                           "nothing",
		"return redis.error_reply('ERR odd')": "odd",
	} {
		if _, err := s.run(ctx, script(body), []string{"k"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if err := s.state(ctx, At{Account: "none"}, nil, "plan"); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
}
