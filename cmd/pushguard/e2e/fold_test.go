package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Many publishes at the same moment share calls to Pusher. Each arrives as it
// would have alone, each caller gets its own answer, and the ledger says what
// was billed.
func TestFoldedEffects(t *testing.T) {
	const senders, each = 40, 20
	s := startSim(t, "--latency", "10ms", "--subscribers", "3", "--subscribers-of", "presence-*=2")
	g := serve(t, "guard", t.TempDir(), fmt.Sprintf(`
accounts:
  - name: care
    plan: growth
    apps:
      - { id: %q, key: %s, secret: %s, upstream: "http://%s", subscribers: { default: 3, "presence-*": 2 } }
`, appID, appKey, appSecret, s.addr))

	// The raw bytes of data in the bodies, so that escapes stay as written.
	payloads := []string{
		`x`, `{\"html\":\"<b>&amp;</b>\"}`, `{\"a\":\"\\u0000\\u001f\\/\"}`, `\u003c\u0041\/`, "Žluťoučký 馬 🐴 \u2028", "\xff\xfe \xc0", ``, `\ud83d\udc34`,
	}
	var mu sync.Mutex
	var bodies []string
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for j := range each {
				data, name := payloads[(i+j)%len(payloads)], "same"
				if i%2 == 0 {
					name = fmt.Sprintf("own-%d", i)
				}
				channel := fmt.Sprintf("room-%d", i)
				extra, answered := "", "{}"
				switch (i + j) % 5 {
				case 1:
					extra = `,"socket_id":"12.34"`
				case 2:
					extra, answered = `,"info":"subscription_count"`, fmt.Sprintf(`{"channels":{"%s":{"subscription_count":3}}}`, channel)
				case 3:
					channel = "private-encrypted-" + channel
				}
				body := fmt.Sprintf(`{"name":"%s","channel":"%s","data":"%s"%s}`, name, channel, data, extra)
				a, err := post(g.data, body)
				switch {
				case err != nil:
					t.Error(scrub(err.Error()))
				case a.status != http.StatusOK || strings.TrimSpace(a.body) != answered:
					t.Errorf("%s was answered %d %s, want %s", body, a.status, a.body, answered)
				}
				mu.Lock()
				bodies = append(bodies, body)
				mu.Unlock()
			}
		})
	}
	all.Wait()

	// The same, each alone and without a guard.
	alone := startSim(t, "--subscribers", "3", "--subscribers-of", "presence-*=2")
	for _, body := range bodies {
		if a := mustPost(t, alone.addr, body); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", body, a.status, a.body)
		}
	}
	want, got := effects(alone.events(t, 0)), effects(s.events(t, 0))
	for _, e := range s.events(t, 0) {
		if len(e.Channels) > 1 && slices.ContainsFunc(e.Channels, func(ch string) bool { return strings.HasPrefix(ch, "private-encrypted-") }) {
			t.Errorf("an encrypted channel shares a publish: %q", e.Channels)
		}
	}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%q was published %d times and arrived %d times", k, n, got[k])
		}
	}
	for k := range got {
		if want[k] == 0 {
			t.Errorf("%q arrived and was not published", k)
		}
	}
	st, straight := s.stats(t), alone.stats(t)
	t.Logf("%d publishes in %d calls, billed %d; alone billed %d", len(bodies), st.Requests, st.Messages, straight.Messages)
	if st.Requests >= straight.Requests/2 {
		t.Errorf("%d publishes of %d senders took %d calls: nothing was folded, so nothing was tested", len(bodies), senders, st.Requests)
	}
	if st.Messages > straight.Messages {
		t.Errorf("folding made it dearer: %d messages, alone %d", st.Messages, straight.Messages)
	}
	// Never less than was billed; more only by what folding saved.
	if used := g.account(t, "care").Used; used < st.Messages || used > straight.Messages {
		t.Errorf("the ledger counted %d messages, the simulator billed %d, and %d alone", used, st.Messages, straight.Messages)
	}
}

// effects counts what reached each channel, without the call that brought it.
func effects(events []simEvent) map[string]int {
	m := map[string]int{}
	for _, e := range events {
		for _, ch := range e.Channels {
			m[fmt.Sprintf("%s|%s|%s|%s|%s|%s", e.Name, ch, e.Data, e.DataBase64, e.SocketID, e.Info)]++
		}
	}
	return m
}

// A socket that is left out is left out once of a publish to several channels,
// however many publishes were folded into it: what each would have saved alone
// is not saved, and the ledger must not believe so.
func TestFoldedExclusion(t *testing.T) {
	const senders = 8
	s := startSim(t, "--latency", "50ms", "--subscribers", "3")
	g := serve(t, "guard", t.TempDir(), fmt.Sprintf(`
accounts:
  - name: care
    plan: growth
    apps:
      - { id: %q, key: %s, secret: %s, upstream: "http://%s", subscribers: { default: 3 }, fold: { window: 200ms } }
`, appID, appKey, appSecret, s.addr))
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for range 5 {
				if a, err := post(g.data, fmt.Sprintf(`{"name":"n","channel":"room-%d","data":"x","socket_id":"12.34"}`, i)); err != nil || a.status != http.StatusOK {
					t.Errorf("answered %d %s (%v)", a.status, a.body, err)
				}
			}
		})
	}
	all.Wait()
	st, used := s.stats(t), g.account(t, "care").Used
	t.Logf("%d publishes in %d calls; billed %d, counted %d", 5*senders, st.Requests, st.Messages, used)
	if st.Requests >= 5*senders {
		t.Error("nothing was folded, so nothing was tested")
	}
	if used < st.Messages {
		t.Errorf("the ledger counted %d messages, the simulator billed %d", used, st.Messages)
	}
}
