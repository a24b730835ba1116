package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// startSoketi runs a real Channels server, with real WebSockets. soketi is
// AGPL-3.0: a process of its own in tests, never shipped.
func startSoketi(t testing.TB) (addr string) {
	t.Helper()
	dir := t.TempDir()
	modules, err := filepath.Abs(filepath.Join("node", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	runtimes, _ := filepath.Glob(filepath.Join(modules, "node-linux-*", "bin", "node"))
	if len(runtimes) == 0 {
		t.Fatal("soketi's prebuilt binary wants Node.js 16, which is not among the npm packages; run .ci/deps")
	}
	_, addr = onFreePort(t, func(port int) *child {
		config, err := json.Marshal(map[string]any{
			"port": port, "debug": false, "metrics.enabled": false,
			"appManager.array.apps": []map[string]any{{"id": appID, "key": appKey, "secret": appSecret, "enableUserAuthentication": true}},
		})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "soketi.json")
		if err := os.WriteFile(file, config, 0o600); err != nil {
			t.Fatal(err)
		}
		c := start(t, "soketi", []string{"SOKETI_HOST=127.0.0.1"}, runtimes[0],
			filepath.Join(modules, "@soketi", "soketi", "bin", "server.js"), "start", "--config="+file)
		t.Cleanup(c.kill) // it takes seconds over SIGTERM, and has nothing to lose
		return c
	}, func(addr string) bool {
		resp, err := http.Get("http://" + addr + "/ready")
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return addr
}

// subscriber is one pusher-js client.
type subscriber struct {
	w        *worker
	name     string
	socketID string
}

func subscribe(t testing.TB, w *worker, addr, name, user string, channels ...string) subscriber {
	t.Helper()
	s := subscriber{w: w, name: name}
	var got struct {
		SocketID string `json:"socket_id"`
	}
	w.do(t, "connect", order{"client": name, "addr": addr, "app": appID, "key": appKey, "secret": appSecret, "master": masterKey, "user": user}, &got)
	s.socketID = got.SocketID
	for _, ch := range channels {
		w.do(t, "subscribe", order{"client": name, "channel": ch}, nil)
	}
	return s
}

// events are the names of what came on a channel, in order.
func (s subscriber) events(channel string) (names []string) {
	for _, d := range s.w.of(s.name, channel) {
		names = append(names, d.Event)
	}
	return names
}

// hears waits until exactly these events came, in this order. Whatever came
// before a marker published last on the same channel is known to be all.
func (s subscriber) hears(t testing.TB, channel string, want ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%s has %d events on %s", s.name, len(want), channel), func() bool { return len(s.events(channel)) >= len(want) })
	if got := s.events(channel); !slices.Equal(got, want) {
		t.Errorf("%s heard on %s\n%q, want\n%q", s.name, channel, got, want)
	}
}

// What the real SDKs publish through pushguard reaches real clients of a real
// server: all of it, once, in order, unchanged.
func TestDelivery(t *testing.T) {
	addr := startSoketi(t)
	g := serve(t, "guard", t.TempDir(), oneApp(addr))
	w, err := hire("subscriber.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.dismiss)

	const private, presence, encrypted = "private-room", "presence-room", "private-encrypted-room"
	anna := subscribe(t, w, addr, "anna", "user-anna", "public", private, presence, encrypted)
	ben := subscribe(t, w, addr, "ben", "user-ben", "public", private, presence)

	for _, kit := range sdks {
		t.Run(kit.name, func(t *testing.T) {
			app := kit.new(t, callerPair(g.data))
			must := func(p publication) {
				t.Helper()
				if got := app.do(t, p); got.Err != "" {
					t.Fatalf("%s: %s", p.op, got.Err)
				}
			}
			room := func(s string) string { return s + "-" + kit.name }
			for _, s := range []subscriber{anna, ben} {
				for _, ch := range []string{"public", private, "cache"} {
					w.do(t, "subscribe", order{"client": s.name, "channel": room(ch)}, nil)
				}
			}

			t.Run("order", func(t *testing.T) {
				var want []string
				for i := range 50 {
					name := fmt.Sprintf("n%d", i)
					want = append(want, name)
					must(publication{op: "trigger", channels: []string{room("public")}, event: name, data: "x"})
				}
				for i := range 5 {
					var batch []publication
					for j := range 10 {
						name := fmt.Sprintf("b%d.%d", i, j)
						want = append(want, name)
						batch = append(batch, publication{channels: []string{room("public")}, event: name, data: "x"})
					}
					must(publication{op: "batch", batch: batch})
				}
				anna.hears(t, room("public"), want...)
				ben.hears(t, room("public"), want...)
			})
			t.Run("several channels, and not to its author", func(t *testing.T) {
				must(publication{op: "trigger", channels: []string{room(private), room("cache")}, event: "from-anna", data: "x", socketID: anna.socketID})
				must(publication{op: "trigger", channels: []string{room(private), room("cache")}, event: "end", data: "x"})
				for _, ch := range []string{private, "cache"} {
					ben.hears(t, room(ch), "from-anna", "end")
					anna.hears(t, room(ch), "end")
				}
			})
			t.Run("encrypted", func(t *testing.T) {
				before := len(w.of("anna", encrypted))
				must(publication{op: "trigger", channels: []string{encrypted}, event: "hidden", data: `{"html":"<b>&</b> 馬"}`})
				until(t, "anna decrypts", func() bool { return len(w.of("anna", encrypted)) > before })
				got := w.of("anna", encrypted)[before]
				// The Node SDK encrypts JSON of the string it is given, the Go
				// SDK the string; pusher-js parses once.
				var v any = got.Data
				var text string
				if json.Unmarshal(got.Data, &text) == nil {
					v = text
				}
				if s := fmt.Sprintf("%s", v); got.Event != "hidden" || s != `{"html":"<b>&</b> 馬"}` {
					t.Errorf("anna decrypted %s %s", got.Event, s)
				}
			})
			t.Run("payloads", func(t *testing.T) {
				before := len(w.of("ben", presence))
				var names []string
				for name, data := range awkward {
					if data == "" {
						continue // soketi takes none without data; Pusher does
					}
					names = append(names, name)
					must(publication{op: "trigger", channels: []string{presence}, event: name, data: data})
				}
				until(t, fmt.Sprintf("ben has the payloads %q", names), func() bool { return len(w.of("ben", presence)) >= before+len(names) })
				for i, d := range w.of("ben", presence)[before:] {
					want := json.RawMessage(awkward[names[i]])
					if !json.Valid(want) {
						want, _ = json.Marshal(awkward[names[i]])
					}
					if d.Event != names[i] || canonical(t, string(d.Data)) != canonical(t, string(want)) {
						t.Errorf("%s arrived as %s %s", names[i], d.Event, d.Data)
					}
				}
			})
			t.Run("to a user", func(t *testing.T) {
				must(publication{op: "user", user: "user-ben", event: "hello-" + kit.name, data: "x"})
				until(t, "ben is greeted", func() bool { return slices.Contains(ben.events("user"), "hello-"+kit.name) })
				if slices.Contains(anna.events("user"), "hello-"+kit.name) {
					t.Error("anna heard what was sent to ben")
				}
			})
		})
	}
	t.Run("order from both at once", func(t *testing.T) {
		var all sync.WaitGroup
		want := map[string][]string{}
		for _, kit := range sdks {
			ch := "both-" + kit.name
			w.do(t, "subscribe", order{"client": "anna", "channel": ch}, nil)
			for i := range 40 {
				want[ch] = append(want[ch], fmt.Sprintf("n%d", i))
			}
			app := kit.new(t, ownPair(g.data))
			all.Go(func() {
				for _, name := range want[ch] {
					if got := app.do(t, publication{op: "trigger", channels: []string{ch}, event: name, data: "x"}); got.Err != "" {
						t.Errorf("%s %s: %s", ch, name, got.Err)
					}
				}
			})
		}
		all.Wait()
		for ch, names := range want {
			anna.hears(t, ch, names...)
		}
	})
	t.Run("terminated", func(t *testing.T) {
		gone := subscribe(t, w, addr, "carl", "user-carl", "public")
		if got := newNodeSDK(t, callerPair(g.data)).do(t, publication{op: "terminate", user: "user-carl"}); got.Err != "" {
			t.Fatal(got.Err)
		}
		w.do(t, "gone", order{"client": gone.name}, nil)
	})
}
