package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

// Three guards on one Redis, each with another policy, and Redis dies: each says in every place what it does, does
// that, and is itself again when Redis is back. Then the levers, over a restart.
func TestWhatGuardsSayWhenTheStoreIsLost(t *testing.T) {
	up := startSim(t, "--messages-per-day", "100000000", "--subscribers", "1")
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	config := func(policy string) string {
		return strings.Replace(oneApp(up.addr), "plan: growth", "plan: { messages_per_day: 1000000 }", 1) +
			fmt.Sprintf("store: %s\nstandby: 0s\non_store_loss: %s\n", redis.URL(), policy)
	}
	policies := []string{"lease", "open", "closed"}
	guards, dirs := map[string]*guard{}, map[string]string{}
	for _, p := range policies {
		dirs[p] = t.TempDir()
		guards[p] = serve(t, p, dirs[p], config(p))
	}
	n := 0
	publish := func(g *guard) (int, string) {
		t.Helper()
		n++
		body := fmt.Sprintf(`{"name":"e","channel":"c","data":"%d"}`, n)
		resp, err := http.Post("http://"+g.data+signedAs(appKey, appSecret, body, time.Now()), "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		why := resp.Header.Get("Pushguard-Reason")
		if why == "store_lost" && (!strings.Contains(string(said), "pushguard's store is out of reach") || strings.Contains(string(said), "Pusher failed")) {
			t.Errorf("a caller is refused because the store is lost, and told: %s", said)
		}
		return resp.StatusCode, why
	}
	for _, p := range policies {
		if code, why := publish(guards[p]); code != http.StatusOK {
			t.Fatal(p, code, why)
		}
	}
	redis.Kill()
	for _, p := range policies {
		until(t, p+" notices", func() bool {
			_, m := guards[p].get(t, "/metrics")
			return strings.Contains(m, "pushguard_store_up 0\n")
		})
	}
	sees := func(p, ready string, code int, metric, cli string) {
		t.Helper()
		until(t, p+" says so everywhere", func() bool {
			status, body := guards[p].get(t, "/readyz")
			_, m := guards[p].get(t, "/metrics")
			return status == code && strings.Contains(body, ready) && strings.Contains(m, metric)
		})
		out, _, _ := command(t, "status", "--admin", guards[p].admin)
		if !strings.Contains(out, "store    LOST since ") || !strings.Contains(out, cli) {
			t.Errorf("%s: the status says\n%s", p, out)
		}
	}
	if code, why := publish(guards["closed"]); code != http.StatusServiceUnavailable || why != "store_lost" {
		t.Errorf("closed: %d %s", code, why)
	}
	sees("closed", "on_store_loss is closed: nothing passes", http.StatusServiceUnavailable, "pushguard_store_up 0", "on_store_loss: closed: nothing passes")

	sent := 0
	for code, why := 200, ""; code == http.StatusOK; sent++ {
		if code, why = publish(guards["lease"]); code != http.StatusOK && (code != http.StatusServiceUnavailable || why != "store_lost") || sent > 5000 {
			t.Fatalf("lease: after %d: %d %s", sent, code, why)
		}
	}
	if sent < 2 {
		t.Errorf("lease: only %d went out of the lease", sent)
	}
	sees("lease", "lease and standby are spent", http.StatusServiceUnavailable, `pushguard_lease{account="care"} `, "on_store_loss: lease: ")

	for range 200 { // far more than its lease
		if code, why := publish(guards["open"]); code != http.StatusOK {
			t.Fatalf("open: %d %s", code, why)
		}
	}
	sees("open", "STORE LOST since ", http.StatusOK, `pushguard_borrowed{account="care"} `, " borrowed beyond them")

	// The brake is for the worst day: the guard that is asked obeys, and says that it is alone.
	_, said, code := command(t, "brake", "on", "--reason", "all at once", "--admin", guards["open"].admin, "--token", adminToken)
	if code != 1 || !strings.Contains(said, "done, but not everywhere: this replica obeys at once, the others when the store is back") {
		t.Errorf("brake on without a store: %d %s", code, said)
	}
	if code, why := publish(guards["open"]); code != http.StatusForbidden || why != "brake_pulled" {
		t.Errorf("braked, alone: %d %s", code, why)
	}

	redis.Restart()
	for _, p := range policies {
		until(t, p+" is braked as well", func() bool {
			code, why := publish(guards[p])
			return code == http.StatusForbidden && why == "brake_pulled"
		})
	}
	if out, said, code := command(t, "brake", "off", "--admin", guards["lease"].admin, "--token", adminToken); code != 0 {
		t.Fatalf("brake off: %d %s %s", code, out, said)
	}
	for _, p := range policies {
		until(t, p+" is free again", func() bool { code, _ := publish(guards[p]); return code == http.StatusOK })
	}
	for _, p := range policies {
		until(t, p+" is itself again", func() bool {
			status, _ := guards[p].get(t, "/readyz")
			return status == http.StatusOK && guards[p].account(t, "care").Used == up.stats(t).Messages
		})
		if code, why := publish(guards[p]); code != http.StatusOK {
			t.Errorf("%s, Redis is back: %d %s", p, code, why)
		}
		if out, _, _ := command(t, "status", "--admin", guards[p].admin); strings.Contains(out, "LOST") {
			t.Errorf("%s: the status still says\n%s", p, out)
		}
	}

	order := func(g *guard, path, body string, all func(accountStatus) bool) {
		t.Helper()
		g.order(t, "PUT", "/api/v1/accounts/care/"+path, body)
		for _, p := range policies {
			until(t, p+" knows of "+path, func() bool { return all(guards[p].account(t, "care")) })
		}
	}
	order(guards["lease"], "plan", `{"messages_per_day":2000000}`, func(a accountStatus) bool { return a.Plan.MessagesPerDay == 2_000_000 })
	order(guards["open"], "usage", `{"used":777777,"reason":"test"}`, func(a accountStatus) bool { return a.Used == 777_777 })
	for _, p := range policies {
		guards[p].end()
	}
	for _, p := range policies {
		guards[p] = serve(t, p, dirs[p], config(p))
		if a := guards[p].account(t, "care"); a.Plan.MessagesPerDay != 2_000_000 || a.Used != 777_777 {
			t.Errorf("%s, started again: %+v", p, a)
		}
	}
}
