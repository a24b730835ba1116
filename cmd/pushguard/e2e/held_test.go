package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// What one replica holds for minutes goes out when the lever is moved on another, and once.
func TestWhatIsHeldGoesOutOnOrder(t *testing.T) {
	s := startSim(t)
	config := fmt.Sprintf(`
store: "redis://:%s@%s/0"
accounts:
  - name: care
    plan: growth
    apps:
      - { id: %q, key: %s, secret: %s, upstream: "http://%s" }
    rules:
      - { match: { event: state }, conflate: 30m }
`, redisSecret, startRedis(t), appID, appKey, appSecret, s.addr)
	a, b := serve(t, "replica-a", t.TempDir(), config), serve(t, "replica-b", t.TempDir(), config)
	for _, room := range []string{"x", "y"} {
		for n, want := range []string{"sent", "conflated", "conflated"} {
			if got := mustPost(t, a.data, fmt.Sprintf(`{"name":"state","channel":%q,"data":"%s%d"}`, room, room, n)); got.outcome() != want {
				t.Fatalf("%s %d: %d %s, want %s", room, n, got.status, got.outcome(), want)
			}
		}
	}
	held := func(g *guard, state string) float64 {
		return g.metric(t, fmt.Sprintf(`pushguard_held{account="care",state=%q}`, state))
	}
	until(t, "both replicas know what is held", func() bool { return held(a, "waiting") == 2 && held(b, "waiting") == 2 })
	if n := held(b, "overdue"); n != 0 {
		t.Errorf("%v are overdue", n)
	}
	if out, _, _ := command(t, "status", "--admin", "http://"+b.admin); !strings.Contains(out, "2 publishes wait to be sent") {
		t.Errorf("status does not tell of them:\n%s", out)
	}
	order := []string{"held", "release", "--reason", "Redis is replaced", "--admin", "http://" + b.admin, "--token", adminToken}
	if out, errs, code := command(t, append(order, "--dry-run")...); code != 0 || !strings.Contains(out, "Sends now the 2 publishes") || len(s.events(t, 0)) != 2 {
		t.Errorf("a dry run leaves with %d, says %q %q, and %d arrived", code, out, errs, len(s.events(t, 0)))
	}
	if out, errs, code := command(t, order...); code != 0 || !strings.Contains(out, "held release: account care") {
		t.Errorf("held release leaves with %d: %q %q", code, out, errs)
	}
	until(t, "both arrive and nothing is held", func() bool {
		return len(s.events(t, 0)) == 4 && held(a, "waiting")+held(a, "sending")+held(b, "waiting")+held(b, "sending") == 0
	})
	for _, e := range s.events(t, 0)[2:] {
		if e.Data != "x2" && e.Data != "y2" {
			t.Errorf("%s arrived, want the newest of each room", e.Data)
		}
	}
	if _, trail := a.get(t, "/api/v1/audit"); !strings.Contains(trail, `"held release"`) || !strings.Contains(trail, "2 publishes due at once") {
		t.Errorf("the audit trail: %s", trail)
	}
	if out, _, _ := command(t, append(order, "--dry-run")...); !strings.Contains(out, "no publish is held") {
		t.Errorf("with nothing held a dry run says %q", out)
	}
}
