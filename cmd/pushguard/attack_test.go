package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
)

// attackConfig is an account whose healthy callers use 45 % of its plan; the last
// %s is what the attacker sends. Who sends is a key, so an attacker who imitates
// another's event, channels and payloads, or sends any header, is still himself.
const attackConfig = `
accounts:
  - name: clinic
    plan: { messages_per_day: 50000 }
    apps:
      - { id: "1", key: k, secret: s, cluster: eu, subscribers: { default: 1 } }
    rules:
      - match: { event: "alarm.*" }
        priority: critical
      - match: { event: "notification.*" }
        priority: bulk
        rate: 5/s per channel
contain: %s

replay:
  from: 2026-03-10T00:00Z
  until: %s
  warmup: 30h
  seed: 1
  traffic:
    - { caller: alarms, event: alarm.raised,         channel: "presence-ward-{1..90}",  rate: 0.015/s, shape: &day [day-night] }
    - { caller: chat,   event: chat.message,         channel: "presence-room-{1..80}",  rate: 0.04/s, shape: *day }
    - { caller: lab,    event: result.ready,         channel: "private-user-{1..400}",  rate: 0.025/s, shape: *day }
    - { caller: web,    event: notification.refresh, channel: "private-user-{1..400}",  rate: 0.05/s, shape: *day }
%s`

// attacks are those of somebody who has read docs/internals/detection.md. Each asks for
// several times the plan.
var attacks = []struct {
	name, until, traffic string
	modes                []string // contain
}{
	{"a flood", "2026-03-10T09:00Z", evil("evil", "order.spam", "private-user-{1..400}", "8/s", "constant"), both},
	{"a hundred small callers", "2026-03-10T09:00Z", crowd(100), both},
	{"a slow ramp, doubling in half a day", "2026-03-12T06:00Z", evil("evil", "order.spam", "private-user-{1..400}", "0.08/s", "{ double: { every: 12h, max: 60 } }"), both},
	{"pulses of five seconds in twenty", "2026-03-10T09:00Z", evil("evil", "order.spam", "private-user-{1..400}", "0.5/s", "{ bursts: { every: 20s, for: 5s, factor: 60 } }"), both},
	{"200,000 channel names", "2026-03-10T09:00Z", evil("evil", "order.spam", "private-x-{1..200000}", "8/s", "constant"), off},
	{"passing for web", "2026-03-10T09:00Z", evil("evil", "notification.refresh", "private-user-{1..400}", "8/s", "constant"), auto},
	{"alarms, which are critical", "2026-03-10T09:00Z", evil("evil", "alarm.raised", "presence-ward-{1..90}", "8/s", "constant"), both},
}

var off, auto, both = []string{"off"}, []string{"auto"}, []string{"off", "auto"}

func evil(caller, event, channel, rate, shape string) string {
	return fmt.Sprintf("    - { caller: %s, event: %s, channel: %q, rate: %s, shape: %s, from: 2026-03-10T06:00Z, incident: true }\n", caller, event, channel, rate, shape)
}

// crowd is of callers that each stay below a hundredth of the account's rate as
// long as they can: they double in half an hour.
func crowd(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(evil(fmt.Sprintf("evil-%d", i), fmt.Sprintf("spam.%d", i), "private-user-{1..400}", "0.003/s", "{ double: { every: 30m, max: 60 } }"))
	}
	return b.String()
}

// The breaker keeps the plan whatever the detector sees, and is tried with the
// detector's hands tied, too: with contain: off nobody is held.
// go test -run AttackersCannotPassThePlan -v ./cmd/pushguard prints the table of docs/internals/detection.md.
func TestAttackersCannotPassThePlan(t *testing.T) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "attack\tcontain\tasked for, of the plan\tthe fullest day\tfirst shed\tby\tattacker's, of the plan\thealthy delivered\tnamed")
	bin := buildPushguard(t)
	for _, a := range attacks {
		for _, contain := range a.modes {
			file := filepath.Join(t.TempDir(), "attack.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil, attackConfig, contain, a.until, a.traffic), 0o600); err != nil {
				t.Fatal(err)
			}
			r := replayWith(t, bin, file)
			with := r.Sides[1]
			most := 0.0
			for _, d := range with.Days {
				most = max(most, float64(d.Billed)/float64(d.Plan))
			}
			if with.UsedUpAt != nil || most > 1 {
				t.Errorf("%s, contain %s: Pusher refused at %v, the fullest day is %.3f of the plan", a.name, contain, with.UsedUpAt, most)
			}
			last := with.Days[len(with.Days)-1]
			if with.LedgerUsed == nil || *with.LedgerUsed != last.Billed {
				t.Errorf("%s, contain %s: the ledger counts %v on the last day, Pusher billed %d", a.name, contain, with.LedgerUsed, last.Billed)
			}
			shed, by := "never", ""
			for _, tr := range with.Transitions {
				if tr.To != "closed" && !tr.At.Before(r.From) {
					shed, by = tr.At.Format("02 15:04:05"), "threshold"
					if strings.HasPrefix(tr.Reason, "the plan burns") {
						by = "burn rate"
					}
					break
				}
			}
			if contain == "off" && (shed == "never" || by != "burn rate" && !strings.HasPrefix(a.name, "a slow ramp")) {
				t.Errorf("%s hid from the breaker: shed at %s by %q", a.name, shed, by)
			}
			named := "nobody"
			if len(with.Incidents) > 0 {
				named = with.Incidents[0].DetectedAt.Format("02 15:04:05")
			}
			asked := float64(2*with.Culprit.Offered) / 50_000
			fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f %%\t%s\t%s\t%.0f %%\t%.1f %%\t%s\n", a.name, contain, asked, 100*most, shed, by, 100*float64(with.Culprit.Billed)/50_000, 100*with.HealthyDelivered, named)
		}
	}
	_ = w.Flush()
	t.Log("\n" + table.String())
}
