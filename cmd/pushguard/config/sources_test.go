package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const sourced = `
data_dir: DIR
last_good: true
accounts:
  - name: a
    plan: startup
    apps:
      - { id: "1", key: k, secret: "${aws-sm:prod/pusher#secret}", cluster: eu,
          callers: [ { name: web, key: web-1, secret: "${file:web}" }, { name: cron, key: cron-1, secret: "${CRON}" } ] }
`

// place puts the file and its one referenced file into a directory of their own.
func put(t *testing.T, text string) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "pushguard.yaml")
	write(t, file, strings.Replace(text, "DIR", filepath.Join(dir, "data"), 1))
	write(t, filepath.Join(dir, "web"), "w3b-secret\n")
	return file, dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// world is a secret service and an environment that can go away.
type world struct {
	answers map[string]string
	env     map[string]string
	down    bool
	asked   int
}

func (w *world) loader() *Loader {
	return &Loader{Getenv: func(k string) string { return w.env[k] }, Sources: map[string]Source{
		"aws-sm": func(_ context.Context, name string) (string, error) {
			w.asked++
			if w.down {
				return "", ErrUnreachable
			}
			return w.answers[name], nil
		}}}
}

func newWorld() *world {
	return &world{answers: map[string]string{"prod/pusher#secret": "s3cret-1"}, env: map[string]string{"CRON": "cr0n-secret"}}
}

func secrets(c *Config) []string {
	app := c.Accounts[0].Apps[0]
	return []string{app.Secret.Current().Reveal(), app.Callers[0].Secret.Current().Reveal(), app.Callers[1].Secret.Current().Reveal()}
}

func TestLastGoodCarriesAStartOverLostSources(t *testing.T) {
	ctx := context.Background()
	file, dir := put(t, sourced)
	w := newWorld()
	got, err := w.loader().LoadOrLastGood(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"s3cret-1", "w3b-secret", "cr0n-secret"}
	if !reflect.DeepEqual(secrets(got.Config), want) || len(got.Config.FromLastGood) != 0 || !got.Remote {
		t.Fatalf("secrets %q, from the cache %q, remote %v", secrets(got.Config), got.Config.FromLastGood, got.Remote)
	}
	if len(got.Files) != 2 || got.Files[file] != Fingerprint(file) || got.Files[filepath.Join(dir, "web")] == "" {
		t.Fatalf("to be watched: %q", got.Files)
	}
	if err := got.Keep(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(got.LastGood)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the cache: %v, %v", info, err)
	}

	// Everything goes away at once, as in a bad night.
	w.down, w.env = true, nil
	if err := os.Remove(filepath.Join(dir, "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.loader().Load(ctx, file); err == nil {
		t.Error("a reload took secrets that are out of reach")
	}
	again, err := w.loader().LoadOrLastGood(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(secrets(again.Config), want) {
		t.Errorf("secrets %q", secrets(again.Config))
	}
	if names := []string{"${aws-sm:prod/pusher#secret}", "${file:web}", "${CRON}"}; !reflect.DeepEqual(again.Config.FromLastGood, names) {
		t.Errorf("from the cache %q", again.Config.FromLastGood)
	}
	before, _ := os.ReadFile(got.LastGood)
	if err := again.Keep(time.Unix(2, 0)); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(got.LastGood); string(before) != string(after) {
		t.Error("a start from the cache made the cache look fresh")
	}

	// One source is back with a new value: that one counts.
	w.down, w.answers["prod/pusher#secret"] = false, "s3cret-2"
	third, err := w.loader().LoadOrLastGood(ctx, file)
	if err != nil || secrets(third.Config)[0] != "s3cret-2" || len(third.Config.FromLastGood) != 2 {
		t.Errorf("%v, %q", err, third.Config.FromLastGood)
	}
	if err := third.Keep(time.Unix(3, 0)); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(got.LastGood); string(before) != string(after) {
		t.Error("a start that used the cache in part rewrote it")
	}
}

func TestLastGoodIsNotUsed(t *testing.T) {
	ctx := context.Background()
	for _, k := range []struct {
		name string
		do   func(t *testing.T, file, cache string)
		want string
	}{
		{"for a file with a mistake of its own", func(t *testing.T, file, _ string) { replace(t, file, "plan: startup", "plan: nosuch") }, "is no plan of Pusher's"},
		{"for an unknown key", func(t *testing.T, file, _ string) {
			replace(t, file, "last_good: true", "last_good: true\nlisten_on: x")
		}, "unknown key"},
		{"for a reference that never resolved", func(t *testing.T, file, _ string) { replace(t, file, "prod/pusher#secret", "prod/other") }, "cannot be had"},
		{"when the file does not ask for it", func(t *testing.T, file, _ string) { replace(t, file, "last_good: true", "last_good: false") }, "cannot be had"},
		{"when others could write it", func(t *testing.T, _, cache string) {
			if err := os.Chmod(cache, 0o640); err != nil {
				t.Fatal(err)
			}
		}, "cannot be had"},
		{"when it is a link", func(t *testing.T, _, cache string) {
			if err := errors.Join(os.Rename(cache, cache+".x"), os.Symlink(cache+".x", cache)); err != nil {
				t.Fatal(err)
			}
		}, "cannot be had"},
		{"when it is broken", func(t *testing.T, _, cache string) { write(t, cache, `{"version":1,`) }, "cannot be had"},
		{"when it is of another version", func(t *testing.T, _, cache string) { replace(t, cache, `"version":1`, `"version":2`) }, "cannot be had"},
	} {
		t.Run(k.name, func(t *testing.T) {
			file, _ := put(t, sourced)
			w := newWorld()
			got, err := w.loader().LoadOrLastGood(ctx, file)
			if err != nil || got.Keep(time.Unix(1, 0)) != nil {
				t.Fatal(err)
			}
			w.down = true
			if _, err := w.loader().LoadOrLastGood(ctx, file); err != nil {
				t.Fatalf("untouched: %v", err)
			}
			k.do(t, file, got.LastGood)
			if _, err := w.loader().LoadOrLastGood(ctx, file); err == nil || !strings.Contains(err.Error(), k.want) {
				t.Errorf("got %v, want %q", err, k.want)
			}
		})
	}
}

func replace(t *testing.T, file, old, new string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), old) {
		t.Fatalf("%q is not in %s (%v)", old, file, err)
	}
	write(t, file, strings.Replace(string(data), old, new, 1))
}

// Ten secrets of a service that does not answer cost one wait, not ten.
func TestUnreachableSourceIsAskedOnce(t *testing.T) {
	text := strings.Replace(sourced, `"${CRON}"`, `["${aws-sm:a}", "${aws-sm:b}", "${aws-sm:c}"]`, 1)
	file, _ := put(t, text)
	w := newWorld()
	w.down = true
	_, err := w.loader().Load(context.Background(), file)
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 4 {
		t.Fatalf("got %v", err)
	}
	if w.asked != 1 {
		t.Errorf("asked %d times", w.asked)
	}
}

func TestASecretIsAskedForOnceALoad(t *testing.T) {
	file, _ := put(t, strings.Replace(sourced, `"${CRON}"`, `"${aws-sm:prod/pusher#secret}"`, 1))
	w := newWorld()
	if _, err := w.loader().Load(context.Background(), file); err != nil || w.asked != 1 {
		t.Errorf("%v, asked %d times", err, w.asked)
	}
}

func TestFoldForms(t *testing.T) {
	for _, k := range []struct {
		text string
		want Fold
	}{
		{"", DefaultFold()},
		{"fold: true", DefaultFold()},
		{"fold: false", Fold{Window: 3 * time.Millisecond}},
		{"fold: { window: 2ms, batch: 5 }", Fold{true, 2 * time.Millisecond, 5}},
		{"fold: { enabled: false }", Fold{Window: 3 * time.Millisecond}},
	} {
		c := mustParse(t, "accounts:\n  - name: a\n    plan: startup\n    apps:\n      - id: 1\n        key: k\n        secret: s\n        cluster: eu\n        "+k.text+"\n")
		if got := c.Accounts[0].Apps[0].Fold; got != k.want {
			t.Errorf("%q: %+v, want %+v", k.text, got, k.want)
		}
	}
}
