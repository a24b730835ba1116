package ops

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/trial"
)

// Somebody asks what a rule would have done with the last minute, and gets
// numbers, or the reason why not with its place.
func TestARuleIsTriedOverTheAPI(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	s.minute(srv, noon, func(now time.Time) {
		s.publish(now, "care", "refresher", "notification.count", "private-team-1", 10)
		s.publish(now, "care", "alarms", "alarm.raised", "private-ward-1", 1)
	})
	s.at(noon.Add(62 * time.Second))
	got := into[trial.Answer](t, ask(t, srv, "POST", "/api/v1/rules/try", strings.NewReader(
		`{"account":"care","rule":"match: { event: \"notification.*\" }\nrate: 1/s per channel\nburst: 1"}`)))
	if got.Publishes.Count != 61*11 || got.Matched.Count != 610 || got.Refused.Count < 540 || got.Refused.Count > 555 || got.Before["sent"] != 61*11 || got.After["throttled"] != got.Refused.Count {
		t.Errorf("%+v", got)
	}
	if a := into[trial.Answer](t, ask(t, srv, "POST", "/api/v1/rules/try", strings.NewReader(
		`{"account":"care","rule":"match: { event: \"alarm.*\" }\nrate: 1/h","instead_of":"alarms"}`))); a.Matched.Count != 61 || a.Refused.Count != 60 {
		t.Errorf("instead of alarms: %+v", a)
	}
	if a := into[trial.Answer](t, ask(t, srv, "POST", "/api/v1/rules/try", strings.NewReader(
		`{"account":"care","rule":"match: { event: \"alarm.*\" }\nrate: 1/h","last":true}`))); a.Matched.Count != 0 {
		t.Errorf("last, behind alarms: %+v", a)
	}
	for _, m := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"account":"care","rule":"rate: 1/s per chanel"}`, 400, `rule:1:7: rate`},
		{`{"account":"care","rule":"rate: 1/s","before":"nobody"}`, 404, "has no rule nobody"},
		{`{"account":"care","rule":"rate: 1/s","before":"alarms","last":true}`, 400, "one of before"},
		{`{"account":"care","app":"9","rule":"rate: 1/s"}`, 404, "has no app 9"},
		{`{"account":"none","rule":"rate: 1/s"}`, 404, "there is no account"},
		{`{"account":"care","rul":"rate: 1/s"}`, 400, "unknown field"},
		{`{"account":"shop","rule":"rate: 1/s"}`, 409, "nothing was published"},
	} {
		w := ask(t, srv, "POST", "/api/v1/rules/try", strings.NewReader(m.body))
		if w.Code != m.status || !strings.Contains(w.Body.String(), m.want) {
			t.Errorf("%s: %d %s, want %d %s", m.body, w.Code, w.Body, m.status, m.want)
		}
	}
	srv.trying.Lock()
	if w := ask(t, srv, "POST", "/api/v1/rules/try", strings.NewReader(`{"account":"care","rule":"rate: 1/s"}`)); w.Code != http.StatusTooManyRequests {
		t.Errorf("a second trial at once: %d", w.Code)
	}
	srv.trying.Unlock()
	// A page of another site cannot keep the guard busy.
	if w := ask(t, srv, "POST", "/api/v1/rules/try", strings.NewReader(`{}`), header("Sec-Fetch-Site", "cross-site")); w.Code != http.StatusForbidden {
		t.Errorf("from another site: %d", w.Code)
	}
}
