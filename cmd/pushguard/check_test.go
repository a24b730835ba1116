package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/pusher/sim"
	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

func TestCheckOnline(t *testing.T) {
	redis := redistest.Start(t)
	ahead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"channels":{}}`)
	}))
	t.Cleanup(ahead.Close)
	right := httptest.NewServer(sim.New(sim.Config{MessagesPerDay: 1 << 40, Apps: []sim.App{{ID: "1", Key: "k", Secret: "good-secret"}}}))
	t.Cleanup(right.Close)
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, k := range []struct {
		name, store, listen, secret, upstream string
		flags                                 []string
		code                                  int
		want                                  []string
	}{
		{"all is well", redis.URL(), "127.0.0.1:0", "good-secret", right.URL, nil, exitDone, []string{"ok    config", "ok    secrets: the one reference is resolved", "ok    subscribers: each channel of app 1 counts as one subscriber until counts are learned", "webhooks to /webhooks/1", "ok    store: redis://", "gives and takes back a lease", "ok    Pusher: app 1", "ok    clock: 0s", "ok    ports: the data port", "ok    limits"}},
		{"no store", "redis://127.0.0.1:1", "127.0.0.1:0", "good-secret", right.URL, nil, exitFailed, []string{"FAIL  store", "ok    Pusher"}},
		{"a wrong secret", redis.URL(), "127.0.0.1:0", "wrong-secret", right.URL, nil, exitFailed, []string{"ok    store", "FAIL  Pusher"}},
		{"a wrong clock", redis.URL(), "127.0.0.1:0", "good-secret", ahead.URL, nil, exitFailed, []string{"FAIL  clock", "run an NTP client"}},
		{"a port that is held", redis.URL(), held.Addr().String(), "good-secret", right.URL, nil, exitFailed, []string{"FAIL  ports", "--replacing"}},
		{"a port of the one to be replaced", redis.URL(), held.Addr().String(), "good-secret", right.URL, []string{"--replacing"}, exitDone, []string{"is held, as it is by the one to be replaced"}},
	} {
		t.Run(k.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.yaml")
			text := fmt.Sprintf("listen: %q\nadmin: { listen: \"127.0.0.1:0\" }\nstore: %q\nmax_connections: 100\naccounts:\n  - { name: a, plan: startup, apps: [ { id: 1, key: k, secret: \"${S}\", upstream: %q } ] }\n", k.listen, k.store, k.upstream)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			getenv := func(name string) string { return map[string]string{"S": k.secret}[name] }
			code := run(context.Background(), append([]string{"check", "--config", file, "--online"}, k.flags...), getenv, &out, &errs)
			if code != k.code {
				t.Errorf("exit code %d: %s%s", code, &out, &errs)
			}
			for _, w := range k.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in\n%s", w, &out)
				}
			}
			if strings.Contains(out.String()+errs.String(), k.secret) || strings.Contains(out.String(), "auth_signature") {
				t.Errorf("a secret shows:\n%s%s", &out, &errs)
			}
		})
	}
}

// A guard is running on a data_dir, and a second one is prepared for it: the preflight knows what the start would say.
func TestCheckOnlineOfADataDirInUse(t *testing.T) {
	dir := t.TempDir()
	right := httptest.NewServer(sim.New(sim.Config{MessagesPerDay: 1 << 40, Apps: []sim.App{{ID: "1", Key: "k", Secret: "good-secret"}}}))
	t.Cleanup(right.Close)
	file := filepath.Join(t.TempDir(), "c.yaml")
	text := fmt.Sprintf("listen: \"127.0.0.1:0\"\nadmin: { listen: \"127.0.0.1:0\" }\ndata_dir: %q\nmax_connections: 100\naccounts:\n  - { name: a, plan: startup, apps: [ { id: 1, key: k, secret: good-secret, upstream: %q } ] }\n", dir, right.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(code int, want string, flags ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(context.Background(), append([]string{"check", "--config", file, "--online"}, flags...), func(string) string { return "" }, &out, &errs); got != code || !strings.Contains(out.String(), want) {
			t.Errorf("exit code %d, want %d and %q in\n%s%s", got, code, want, &out, &errs)
		}
	}
	check(exitDone, "which can be written to") // never used yet
	running, err := store.Open(context.Background(), "embedded", store.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	check(exitFailed, "FAIL  store: data_dir "+dir+" is in use by a running pushguard")
	check(exitDone, "held by the one to be replaced", "--replacing")
	if err := running.Close(); err != nil {
		t.Fatal(err)
	}
	check(exitDone, "which can be written to") // and the checks before let the lock go
}

// What stands in the way of a start is told with what to do about it, and no cause is guessed at.
func TestAStartSaysWhatIsInItsWay(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct{ name, listen, data, want, never string }{
		{"a port in use", held.Addr().String(), "a", "address already in use; another process holds it; see listen in the config, and --listen", ""},
		{"an address of another machine", "192.0.2.1:8080", "b", "this machine has no such address", "another process"},
		{"a file where the directory should be", "127.0.0.1:0", "file", "is a file; set data_dir to a directory", ""},
	} {
		t.Run(k.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.yaml")
			text := fmt.Sprintf("listen: %q\nadmin: { listen: \"127.0.0.1:0\" }\ndata_dir: %q\naccounts:\n  - { name: a, plan: startup, apps: [ { id: 1, key: k, secret: s, upstream: \"http://127.0.0.1:1\" } ] }\n", k.listen, filepath.Join(dir, k.data))
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			var out, errs bytes.Buffer
			if code := run(ctx, []string{"serve", "--config", file}, func(string) string { return "" }, &out, &errs); code != exitFailed || !strings.Contains(errs.String(), k.want) || k.never != "" && strings.Contains(errs.String(), k.never) {
				t.Errorf("exit code %d, and no %q in\n%s", code, k.want, &errs)
			}
		})
	}
}

// What check lets pass, serve takes; what serve would not start with, check says.
func TestCheckIsWhatServeWillDo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a-file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	base := "accounts: [ { name: a, plan: startup, apps: [ { id: 1, key: k, secret: s, upstream: http://127.0.0.1:9 } ] } ]\n"
	for _, c := range []struct{ name, more, want string }{
		{"all well", "data_dir: " + filepath.Join(dir, "x", "y"), ""},
		{"a data_dir below a file", "data_dir: " + filepath.Join(file, "x"), "is a file"},
		{"an alert in the open", "data_dir: " + dir + "\nalerts: [ { slack: http://hooks.example/x } ]", "without TLS"},
		{"ports that collide", "data_dir: " + dir + "\nadmin: { listen: \"127.0.0.1:8080\" }", "the port that the data port listens on"},
		{"certificates that are not there", "data_dir: " + dir + "\ntls: { cert: /nowhere.crt, key: /nowhere.key }", "nowhere"},
	} {
		path := filepath.Join(dir, "pushguard.yaml")
		if err := os.WriteFile(path, []byte(base+c.more+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, "check", "--config", path)
		if (code == 0) != (c.want == "") || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: check: %d %s%s", c.name, code, out, errs)
		}
		code, out, _ = command(t, "check", "--config", path, "--json")
		var got struct {
			OK       bool
			Problems []struct{ Line int }
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.OK != (c.want == "") || (code == 0) != got.OK {
			t.Errorf("%s: check --json: %d %v %s", c.name, code, err, out)
		}
		if c.want != "" {
			if code, _, errs := command(t, "serve", "--config", path, "--listen", "127.0.0.1:0"); code == 0 || !strings.Contains(errs, c.want) && c.name != "ports that collide" {
				t.Errorf("%s: serve: %d %s", c.name, code, errs)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("check made the data_dir")
	}
}
