package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/pushguard/pushguard/limiter"
)

var noon = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)

// at moves the stage's clock.
func (s *stage) at(now time.Time) time.Time {
	s.clock.Store(&now)
	return now
}

// minute lets a minute pass, second by second, with the same publishes in each.
func (s *stage) minute(srv *Server, from time.Time, each func(now time.Time)) time.Time {
	s.t.Helper()
	for i := range 61 {
		now := s.at(from.Add(time.Duration(i) * time.Second))
		each(now)
		for _, a := range s.accounts {
			if err := a.Ledger.Beat(s.t.Context(), now); err != nil {
				s.t.Fatal(err)
			}
		}
		srv.Sample(now)
	}
	return s.now()
}

func into[T any](t testing.TB, w *httptest.ResponseRecorder) (out T) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return out
}

func TestStatusKeepsItsShape(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.minute(srv, noon, func(now time.Time) { s.publish(now, "care", "care-api", "x", "private-ward-1", 2) })
	got := into[map[string]any](t, ask(t, srv, "GET", "/api/v1/status", nil))
	for _, path := range []string{
		"version", "replica", "uptime_s", "store.kind", "store.state", "accounts.0.name", "accounts.0.plan.name", "accounts.0.plan.messages_per_day",
		"accounts.0.day", "accounts.0.used", "accounts.0.leased", "accounts.0.remaining", "accounts.0.forecast.exhausted_at", "accounts.0.forecast.used_at_reset",
		"accounts.0.breaker.state", "accounts.0.breaker.reason", "accounts.0.breaker.since", "accounts.0.brake", "accounts.0.callers.0.name",
		"accounts.0.callers.0.rate_1m", "accounts.0.callers.0.messages_today", "accounts.0.callers.0.outcomes.sent", "accounts.0.callers.0.outcomes.deduplicated",
		"accounts.0.apps.0.id", "accounts.0.apps.0.upstream.state", "accounts.0.apps.0.upstream.error_rate",
	} {
		var at any = got
		for _, step := range strings.Split(path, ".") {
			switch v := at.(type) {
			case map[string]any:
				child, known := v[step]
				if !known {
					t.Errorf("status has no %s", path)
				}
				at = child
			case []any:
				at = v[0]
			}
		}
	}
	st := into[Status](t, ask(t, srv, "GET", "/api/v1/status", nil))
	care := st.Accounts[0]
	if care.Used != 2*2*61 || care.Callers[2].Rate10s != 2 || care.Forecast.PerSecond != 4 {
		t.Errorf("used %d, rate %v, forecast %v: want 244, 2 and 4 a second", care.Used, care.Callers[2].Rate10s, care.Forecast)
	}
}

// A count that is set by hand is no rate, and neither is the fall at midnight.
func TestPaceKnowsJumps(t *testing.T) {
	second := func(b *book, at time.Time, used int64) { b.fine.add(point{at: at.Unix(), used: used, plan: 1}) }
	b := newBook()
	for i := range 30 {
		second(b, noon.Add(time.Duration(i)*time.Second), int64(100+2*i))
	}
	now := noon.Add(29 * time.Second)
	if p := b.pace(now); p.now != 2 {
		t.Fatalf("pace %v, want 2", p)
	}
	b.forgetPace(func() time.Time { return now })
	for i := 30; i < 40; i++ {
		second(b, noon.Add(time.Duration(i)*time.Second), int64(500_000+3*i))
	}
	if p := b.pace(noon.Add(39 * time.Second)); p.now != 3 {
		t.Errorf("after the count was set: pace %v, want 3", p)
	}
	for i := 40; i < 50; i++ {
		second(b, noon.Add(time.Duration(i)*time.Second), int64(5*i))
	}
	if p := b.pace(noon.Add(49 * time.Second)); p.now != 5 {
		t.Errorf("after midnight: pace %v, want 5", p)
	}
}

func TestHistoryMergesAndIsBounded(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	now := noon
	for range 12 {
		now = s.minute(srv, now, func(now time.Time) {
			s.publish(now, "care", "care-api", "x", "private-ward-1", 1)
			s.publish(now, "care", "refresher", "notification.refresh", "private-user-1", 30)
		}).Add(time.Second)
	}
	get := func(query string) History {
		return into[History](t, ask(t, srv, "GET", "/api/v1/history?account=care&"+query, nil))
	}
	fine := get("window=10m")
	if len(fine.T) != 600 || fine.StepS != 1 || fine.Callers != nil {
		t.Errorf("ten minutes are %d steps of %d s", len(fine.T), fine.StepS)
	}
	merged := get("window=10m&points=60&callers=1")
	if n := len(merged.T); merged.StepS != 10 || n < 60 || n > 61 {
		t.Errorf("merged: %d steps of %d s", n, merged.StepS)
	}
	sum := func(h History) (n int64) {
		for _, list := range h.Groups {
			for _, v := range list {
				n += v
			}
		}
		return n
	}
	if sum(fine) != sum(merged) || sum(fine) != 600*31 {
		t.Errorf("%d publishes by the second, %d merged, want %d", sum(fine), sum(merged), 600*31)
	}
	for _, c := range merged.Callers {
		if c.Name == "refresher" && (c.Asked[30] != 300 || c.Held[30] < 90) {
			t.Errorf("refresher asked %d, held %d in ten seconds, want 300 and about 100", c.Asked[30], c.Held[30])
		}
	}
	if hour := get("window=1h"); hour.StepS != 60 || len(hour.T) < 12 || len(hour.T) > 14 {
		t.Errorf("an hour: %d steps of %d s", len(hour.T), hour.StepS)
	}
	for _, bad := range []string{"window=nonsense", "window=25h", "window=0s", "points=0", "points=x"} {
		if w := ask(t, srv, "GET", "/api/v1/history?account=care&"+bad, nil); w.Code != 400 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	// A thousand callers by name are not a thousand lines.
	for i := range 1000 {
		s.publish(now, "care", fmt.Sprintf("guest-%d", i), "x", "c", 1)
	}
	srv.Sample(s.at(now.Add(time.Second)))
	if got := get("window=10m&points=60&callers=1"); len(got.Callers) != maxBookCallers {
		t.Errorf("%d callers in the history, want %d", len(got.Callers), maxBookCallers)
	}
}

func TestPrioritiesAndRulesOfTheLastMinute(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.minute(srv, noon, func(now time.Time) {
		s.publish(now, "care", "alarms", "alarm.raised", "private-ward-1", 1)
		s.publish(now, "care", "notifier", "status.changed", "private-team-1", 4)
		s.publish(now, "care", "refresher", "notification.refresh", "private-user-1", 25)
	})
	got := map[string]PriorityStatus{}
	for _, p := range into[Status](t, ask(t, srv, "GET", "/api/v1/status", nil)).Accounts[0].Priorities {
		got[p.Priority] = p
	}
	if got["critical"].Publishes != 60 || got["normal"].Publishes != 240 || got["bulk"].Publishes != 1500 {
		t.Errorf("publishes of the last minute: %v; the observing rule must not count twice", got)
	}
	if got["critical"].Refused != 0 || got["bulk"].Refused < 250 || got["bulk"].Refused > 300 {
		t.Errorf("refused in the last minute: %v", got)
	}
	for _, r := range into[[]RuleStatus](t, ask(t, srv, "GET", "/api/v1/rules?account=care", nil)) {
		switch r.Name {
		case "try-slower":
			if r.Mode != "observe" || r.Would["throttled"] < 100 || len(r.Outcomes) != 0 {
				t.Errorf("the observing rule: %+v", r)
			}
		case "refresh":
			if r.Asked1m != 1500 || r.Held1m < 250 || r.Rates[0] != "20/s per caller" || r.Dedupe != "2s in this replica" {
				t.Errorf("the refresh rule: %+v", r)
			}
		}
	}
}

func TestDryRunTellsAndMovesNothing(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.minute(srv, noon, func(now time.Time) {
		s.publish(now, "care", "alarms", "alarm.raised", "private-ward-1", 1)
		s.publish(now, "care", "care-api", "record.changed", "private-ward-1", 4)
	})
	before := into[Status](t, ask(t, srv, "GET", "/api/v1/status", nil)).Accounts[0]
	call := func(method, lever, body string) Effect {
		t.Helper()
		return into[Effect](t, ask(t, srv, method, "/api/v1/accounts/care/"+lever+"?dry_run=1", strings.NewReader(body), withToken))
	}
	if e := call("POST", "brake", `{"allow":"critical","for":"30m"}`); *e.RefusedPerMinute != 240 || e.Until == nil || !e.Until.Equal(s.now().Add(30*time.Minute)) {
		t.Errorf("brake, critical: %+v", e)
	}
	if e := call("POST", "brake", `{"allow":"none"}`); *e.RefusedPerMinute != 300 || e.Callers[0] != (CallerEffect{"care-api", 240}) {
		t.Errorf("brake, none: %+v", e)
	}
	if e := call("PUT", "plan", `{"messages_per_day":600}`); e.Breaker.To != "open" || *e.RefusedPerMinute != 300 {
		t.Errorf("a plan that is used up already: %+v %+v", e, e.Breaker)
	}
	if e := call("PUT", "plan", `{"messages_per_day":4000000}`); e.Breaker.To != "closed" || *e.RefusedPerMinute != 0 {
		t.Errorf("a bigger plan: %+v %+v", e, e.Breaker)
	}
	if e := call("PUT", "usage", `{"used":960000}`); e.Breaker.To != "shed_normal" || *e.RefusedPerMinute != 240 || e.Forecast.ExhaustedAt == nil {
		t.Errorf("a higher count: %+v %+v", e, e.Breaker)
	}
	after := into[Status](t, ask(t, srv, "GET", "/api/v1/status", nil)).Accounts[0]
	if after.Brake != nil || after.Plan != before.Plan || after.Used != before.Used {
		t.Errorf("a dry run moved something: %+v, was %+v", after, before)
	}
	if list := into[[]AuditEntry](t, ask(t, srv, "GET", "/api/v1/audit", nil)); len(list) != 0 {
		t.Errorf("a dry run is in the audit trail: %v", list)
	}
}

func TestLeversMoveAndAreWrittenDown(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	srv.Sample(noon)
	now := s.at(noon.Add(time.Second))
	move := func(method, lever, body string) AccountStatus {
		t.Helper()
		return into[AccountStatus](t, ask(t, srv, method, "/api/v1/accounts/care/"+lever, strings.NewReader(body), withToken))
	}
	if st := move("POST", "brake", `{"allow":"critical","reason":"storm","for":"1h","by":"anna"}`); st.Brake == nil || st.Brake.Until == nil || !st.Brake.Until.Equal(now.Add(time.Hour)) {
		t.Errorf("brake: %+v", st.Brake)
	}
	if sent := s.publish(now, "care", "care-api", "x", "c", 1) + 10*s.publish(now, "care", "alarms", "alarm.x", "c", 1); sent != 10 {
		t.Errorf("with the brake on, %d went out; want the alarm alone", sent)
	}
	// A brake that refuses says what lifting it does, and that the rest is not known.
	s.minute(srv, now, func(now time.Time) { s.publish(now, "care", "care-api", "x", "c", 2) })
	e := into[Effect](t, ask(t, srv, "DELETE", "/api/v1/accounts/care/brake?dry_run=1", nil, withToken))
	if e.RefusedPerMinute != nil || !strings.Contains(e.Summary, "120") || e.Priorities[1].Refused != nil {
		t.Errorf("lifting the brake: %+v", e)
	}
	if st := move("DELETE", "brake?by=ben&reason=over", ""); st.Brake != nil {
		t.Errorf("the brake is still on: %+v", st.Brake)
	}
	if st := move("PUT", "plan", `{"messages_per_day":2000000,"reason":"raised","by":"anna"}`); st.Plan.MessagesPerDay != 2_000_000 {
		t.Errorf("plan: %+v", st.Plan)
	}
	if st := move("PUT", "usage", `{"used":1700000}`); st.Used != 1_700_000 {
		t.Errorf("usage: %d", st.Used)
	}
	srv.Sample(s.at(s.now().Add(time.Second)))
	if st := into[Status](t, ask(t, srv, "GET", "/api/v1/status", nil)).Accounts[0]; st.Breaker.State != "shed_bulk" {
		t.Errorf("breaker %s with nobody publishing, want it shown truthfully all the same", st.Breaker.State)
	}
	var told []string
	for _, e := range into[[]AuditEntry](t, ask(t, srv, "GET", "/api/v1/audit?account=care", nil)) {
		told = append(told, e.Who+": "+e.What+": "+e.Why)
	}
	want := "admin token from 127.0.0.1:50000: usage set: |anna: plan set: raised|ben: brake off: over|anna: brake on: storm"
	if strings.Join(told, "|") != want {
		t.Errorf("audit:\n%s\nwant\n%s", strings.Join(told, "|"), want)
	}
	var texts []string
	for _, e := range srv.book("care").history(s.now(), "care", time.Minute, 0, false).Events {
		texts = append(texts, e.Kind)
	}
	// The last three came in one second.
	if got := strings.Join(texts, " "); got != "start brake breaker brake plan" {
		t.Errorf("events: %s", got)
	}
	for _, c := range []struct{ method, lever, body, says string }{
		{"POST", "brake", `{"allow":"all","reason":"x"}`, "allow must be"},
		{"POST", "brake", `{"allow":"none"}`, "reason is missing"},
		{"POST", "brake", `{"allow":"none","reason":"x","for":"-1h"}`, "for must be"},
		{"POST", "brake", `{"allow":"none","reasn":"x"}`, "reasn"},
		{"PUT", "plan", `{"messages_per_day":0}`, "above zero"},
		{"PUT", "usage", `{}`, "used must be given"},
		{"PUT", "usage", `{"used":-1}`, "used must be given"},
	} {
		w := ask(t, srv, c.method, "/api/v1/accounts/care/"+c.lever, strings.NewReader(c.body), withToken)
		if w.Code != 400 || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d %s, want 400 and %q", c.lever, c.body, w.Code, w.Body, c.says)
		}
	}
	if w := ask(t, srv, "PUT", "/api/v1/accounts/nobody/plan", strings.NewReader(`{"messages_per_day":1}`), withToken); w.Code != 404 || !strings.Contains(w.Body.String(), "care, shop") {
		t.Errorf("an account that is not there: %d %s", w.Code, w.Body)
	}
}

// A list that is empty is [] in JSON: programs iterate over it.
func TestEmptyListsAreLists(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server(func(c *Config) {
		c.Top = func(string, string, time.Duration, int) ([]TopRow, error) { return nil, nil }
	})
	for _, path := range []string{"/api/v1/incidents", "/api/v1/incidents?account=care", "/api/v1/top?by=event", "/api/v1/audit"} {
		if body := strings.TrimSpace(ask(t, srv, "GET", path, nil).Body.String()); body != "[]" {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestIncidents(t *testing.T) {
	s := newStage(t, noon)
	s.detector.incidents = []Incident{resolved(noon), storm(noon)}
	srv := s.server()
	list := into[[]Incident](t, ask(t, srv, "GET", "/api/v1/incidents", nil))
	if len(list) != 2 || list[0].State != IncidentOpen {
		t.Fatalf("incidents: %+v", list)
	}
	id := list[0].ID
	post := func(action, body string) *httptest.ResponseRecorder {
		return ask(t, srv, "POST", "/api/v1/incidents/"+id+"/"+action, strings.NewReader(body), withToken)
	}
	if e := into[Effect](t, ask(t, srv, "POST", "/api/v1/incidents/"+id+"/contain?dry_run=1", strings.NewReader(`{}`), withToken)); *e.RefusedPerMinute != 5580 {
		t.Errorf("contain would refuse %d a minute, want (100 − 7) × 60", *e.RefusedPerMinute)
	}
	if w := post("contain", `{}`); w.Code != 400 {
		t.Errorf("contain without a reason: %d", w.Code)
	}
	if in := into[Incident](t, post("contain", `{"reason":"enough","by":"anna"}`)); in.Action != ActionContained {
		t.Errorf("contained: %+v", in)
	}
	into[Incident](t, post("ack", `{"by":"ben"}`))
	if got := strings.Join(s.detector.acts, "|"); got != "contain "+id+" by anna|ack "+id+" by ben" {
		t.Errorf("the detector was told %s", got)
	}
	if list := into[[]AuditEntry](t, ask(t, srv, "GET", "/api/v1/audit?account=care", nil)); len(list) != 2 || list[1].What != "incident contain" || list[1].Why != "enough" || list[1].After != id {
		t.Errorf("audit: %+v", list)
	}
	if w := post("accept", `{}`); w.Code != 400 {
		t.Errorf("accept without a reason: %d", w.Code)
	}
	into[Incident](t, post("accept", `{"reason":"a new customer","by":"anna"}`))
	if got := s.detector.acts[len(s.detector.acts)-1]; got != "accept "+id+" by anna" {
		t.Errorf("the detector was told %s", got)
	}
	over := ask(t, srv, "POST", "/api/v1/incidents/"+list[1].ID+"/accept", strings.NewReader(`{"reason":"x"}`), withToken)
	if over.Code != 409 || !strings.Contains(over.Body.String(), "is over") {
		t.Errorf("accepting what is over: %d %s", over.Code, over.Body)
	}
	draft := ask(t, srv, "GET", "/api/v1/incidents/"+id+"?format=markdown", nil)
	for _, want := range []string{"# Incident care", "6 s after it began", "| refresher | notification.refresh | private-user-\\* |", "93 %", "## Timeline (UTC)", "contain by anna", "## Why it began"} {
		if !strings.Contains(draft.Body.String(), want) {
			t.Errorf("the draft has no %q:\n%s", want, draft.Body)
		}
	}
	if w := ask(t, srv, "GET", "/api/v1/incidents/none", nil); w.Code != 404 {
		t.Errorf("an incident that is not there: %d", w.Code)
	}
	if m := ask(t, srv, "GET", "/metrics", nil).Body.String(); !strings.Contains(m, `pushguard_incident_open{account="care"} 1`) {
		t.Error("the metric does not know the open incident")
	}
}

// What callers choose must not become markup of a page that people trust.
func TestDraftEscapesNames(t *testing.T) {
	in := storm(noon)
	in.Culprits = []Culprit{{Caller: "a|b", Event: "<script>x</script>", Channel: "c\nd"}}
	in.Timeline = []Event{{At: noon, Text: "<img src=x>"}}
	got := in.Markdown(noon)
	for _, bad := range []string{"<script", "<img", "c\nd", "| a|b |"} {
		if strings.Contains(got, bad) {
			t.Errorf("the draft has %q:\n%s", bad, got)
		}
	}
}

func TestWithoutADetector(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server(func(c *Config) { c.Incidents, c.IncidentAction, c.Top = nil, nil, nil })
	s.minute(srv, noon, func(now time.Time) {
		s.publish(now, "care", "care-api", "x", "c", 3)
		s.publish(now, "shop", "stock", "x", "c", 1)
	})
	if list := into[[]Incident](t, ask(t, srv, "GET", "/api/v1/incidents", nil)); list == nil || len(list) != 0 {
		t.Errorf("incidents: %v", list)
	}
	if rows := into[[]TopRow](t, ask(t, srv, "GET", "/api/v1/top?by=caller&window=1m", nil)); len(rows) != 2 || rows[0] != (TopRow{"care-api", 180, 0, 1}) {
		t.Errorf("top callers: %v", rows)
	}
	for _, by := range []string{"event", "channel", "payload"} {
		if body := strings.TrimSpace(ask(t, srv, "GET", "/api/v1/top?by="+by, nil).Body.String()); body != "[]" {
			t.Errorf("top by %s: %s", by, body)
		}
	}
	if w := ask(t, srv, "GET", "/api/v1/top?by=colour", nil); w.Code != 400 {
		t.Errorf("by colour: %d", w.Code)
	}
	if w := ask(t, srv, "POST", "/api/v1/incidents/x/contain", strings.NewReader(`{}`), withToken); w.Code != 404 {
		t.Errorf("contain without a detector: %d", w.Code)
	}
}

func TestSavings(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.minute(srv, noon, func(now time.Time) { s.publish(now, "care", "refresher", "notification.refresh", "private-user-1", 30) })
	got := into[Savings](t, ask(t, srv, "GET", "/api/v1/savings?account=care", nil))
	var withheld SavingsRow
	for _, r := range got.Rows {
		if r.Name == "throttled" {
			withheld = r
		}
	}
	if withheld.Kind != "withheld" || withheld.Publishes+got.Sent != 61*30 || withheld.Messages != 2*withheld.Publishes {
		t.Errorf("throttled: %+v of %d sent; each is worth two messages", withheld, got.Sent)
	}
	if got.PlanUSD == nil || *got.PlanUSD != 49 || *got.PerMillionUSD < 1.63 || *got.PerMillionUSD > 1.64 {
		t.Errorf("price: %v %v, want 49 a month, 49/30 a million", got.PlanUSD, got.PerMillionUSD)
	}
	// The next day begins with nothing.
	midnight := time.Date(2026, 5, 12, 0, 0, 30, 0, time.UTC)
	s.at(midnight)
	if err := s.accounts[0].Ledger.Beat(context.Background(), midnight); err != nil {
		t.Fatal(err)
	}
	srv.Sample(midnight)
	if got := into[Savings](t, ask(t, srv, "GET", "/api/v1/savings?account=care", nil)); got.Sent != 0 || got.Messages != 0 || got.Day != "2026-05-12" {
		t.Errorf("after midnight: %+v", got)
	}
}

// Of a window of three the newest goes out after all: one was saved.
func TestWhatGoesOutLaterIsNotSaved(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	srv.Sample(noon)
	now := s.at(noon.Add(time.Second))
	if sent := s.publish(now, "shop", "stock", "stock.level", "c", 3); sent != 1 {
		t.Fatalf("%d of a burst went out", sent)
	}
	judge := s.accounts[1].Apps[0].Limiter
	saved := func(want int64) {
		t.Helper()
		for _, r := range into[Savings](t, ask(t, srv, "GET", "/api/v1/savings?account=shop", nil)).Rows {
			if r.Name == "conflated" && (r.Publishes != want || r.Messages != 2*want) {
				t.Errorf("%+v, want %d publishes", r, want)
			}
		}
	}
	saved(2)
	for i, fate := range []limiter.Fate{limiter.NotSent, limiter.Delivered} {
		c := limiter.Claim{Caller: judge.Caller("stock"), Event: "stock.level", Channels: []string{"c"}, Cost: 2, Late: true, HeldAt: now}
		v := judge.Admit(t.Context(), now.Add(time.Second), &c)
		judge.Done(now.Add(time.Second), &c, &v, fate, 2)
		saved(int64(2 - i))
	}
}

func TestMetricsAreClean(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.minute(srv, noon, func(now time.Time) { s.publish(now, "care", "notifier", "status.changed", "c", 3) })
	w := ask(t, srv, "GET", "/metrics", nil)
	problems, err := promlint.New(w.Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	text := ask(t, srv, "GET", "/metrics", nil).Body.String()
	for _, name := range []string{
		"pushguard_publishes_total{", "pushguard_observed_total{", "pushguard_messages_used{", "pushguard_messages_limit{", "pushguard_messages_forecast{",
		"pushguard_breaker_state{", "pushguard_decision_seconds", "pushguard_store_up", "pushguard_incident_open{", "pushguard_config_last_reload_successful",
		"pushguard_build_info{", "pushguard_brake_on{",
	} {
		if !strings.Contains(text, name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
}

func TestReadiness(t *testing.T) {
	s := newStage(t, noon)
	broken := fmt.Errorf("the lease is spent")
	srv := s.server(func(c *Config) {
		c.Checks = append(c.Checks, Check{Name: "lease_shop", Run: func() (string, error) { return "", broken }})
	})
	w := ask(t, srv, "GET", "/readyz", nil, from("10.1.2.3:99"))
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"lease_shop"`) || !strings.Contains(w.Body.String(), "the lease is spent") {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
	broken = nil
	if w := ask(t, srv, "GET", "/readyz", nil); w.Code != 200 {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
}

func TestLevelWordsAreThoseOfTheContract(t *testing.T) {
	var words []string
	for l := limiter.Closed; l <= limiter.HalfOpen; l++ {
		words = append(words, l.String())
	}
	if got := strings.Join(words, " "); got != "closed shed_bulk shed_normal critical_only open half_open" {
		t.Error(got)
	}
}

// What became of an incident stands among the account's events, each step once.
func TestIncidentsAreAmongTheEvents(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.detector.incidents = []Incident{resolved(noon)} // of last night
	now := s.minute(srv, noon, func(time.Time) {})
	in := storm(now)
	s.detector.incidents = append(s.detector.incidents, in)
	now = s.minute(srv, now, func(time.Time) {})
	s.detector.incidents[1].Action = ActionContained
	now = s.minute(srv, now, func(time.Time) {})
	s.detector.incidents[1].State = IncidentResolved
	s.minute(srv, now, func(time.Time) {})
	got := into[History](t, ask(t, srv, "GET", "/api/v1/history?account=care", nil))
	var texts []string
	for _, e := range got.Events {
		if e.Kind == "incident" {
			texts = append(texts, e.Text)
		}
	}
	who := "refresher · notification.refresh · private-user-*"
	want := "runaway: " + who + "|" + who + " is contained: held to its allowance|incident over: " + who + " at up to 14 times its usual rate"
	if strings.Join(texts, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(texts, "|"), want)
	}
}

// A look that comes late can fall into the same second as the next one; nothing of that second is forgotten.
func TestTwoLooksInOneSecond(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	srv.Sample(s.at(noon))
	for i, at := range []time.Duration{1900 * time.Millisecond, 2010 * time.Millisecond, 2990 * time.Millisecond, 3100 * time.Millisecond} {
		s.publish(s.at(noon.Add(at)), "care", "care-api", "x", fmt.Sprint("c", i), 10)
		srv.Sample(s.at(noon.Add(at)))
	}
	var n int64
	for _, p := range srv.Status().Accounts[0].Priorities {
		n += p.Publishes
	}
	if n != 40 {
		t.Errorf("40 publishes within the last minute are shown as %d", n)
	}
}
