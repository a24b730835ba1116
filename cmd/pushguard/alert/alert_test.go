package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
)

var noon = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// other is the other side of a webhook: it answers what it is told to.
type other struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(w http.ResponseWriter)
	bodies []string
	keys   []string
}

func newOther(t *testing.T) *other {
	o := &other{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		o.mu.Lock()
		o.bodies = append(o.bodies, string(b))
		o.keys = append(o.keys, r.Header.Get("Idempotency-Key"))
		answer := o.answer
		o.mu.Unlock()
		if answer != nil {
			answer(w)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *other) answers(f func(w http.ResponseWriter)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = f
}

func (o *other) got() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.bodies...)
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// rig is a sender with an explicit clock: nothing runs but what a test calls.
type rig struct {
	*Sender
	t   *testing.T
	now time.Time
	log *bytes.Buffer
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	log := &bytes.Buffer{}
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{s, t, noon, log}
}

func (r *rig) accepts(alerts ...Alert) {
	for _, a := range alerts {
		r.accept(r.now, a)
	}
}

// until lets the first target be served from now on for d, as Run does it.
func (r *rig) until(d time.Duration) {
	for end := r.now.Add(d); ; {
		next := r.deliver(r.t.Context(), r.now, 0)
		if next.IsZero() || next.After(end) {
			r.now = end
			return
		}
		r.now = next
	}
}

func opened(id string) Alert {
	return Alert{ID: id, Phase: "opened", At: noon, Account: "care", Severity: Error, Title: "care: api sends 10 times its usual rate", Text: "Culprit: api."}
}

func resolved(id string) Alert {
	a := opened(id)
	a.Phase = "resolved"
	return a
}

func TestToldOnce(t *testing.T) {
	o := newOther(t)
	r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL}}})
	r.accepts(opened("1"), opened("1"), resolved("1"), opened("1"), resolved("1"), opened("2"))
	r.until(time.Minute)
	if got := o.got(); len(got) != 3 {
		t.Fatalf("told %d times: %v", len(got), got)
	}
	if s := r.Stats(); s.Sent != 3 || s.Duplicates != 3 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	var first struct {
		Version           int
		Source, ID, Phase string
	}
	if err := json.Unmarshal([]byte(o.got()[0]), &first); err != nil || first.Version != 1 || first.ID != "1" || first.Phase != "opened" {
		t.Errorf("%v: %s", err, o.got()[0])
	}
	if o.keys[0] != "1/opened" {
		t.Errorf("Idempotency-Key %q", o.keys[0])
	}
}

func TestRetriesWithLongerAndLongerPauses(t *testing.T) {
	o := newOther(t)
	o.answers(status(500))
	r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL}}, PerMinute: 1e6})
	r.accepts(opened("1"), resolved("1"))
	tries := []int{}
	for range 6 {
		r.until(10 * time.Second)
		tries = append(tries, len(o.got()))
	}
	// 1, 2, 4, 8 … s, each cut by up to half: 4 to 6 tries in the first 10 s, and
	// no more than 9 in a minute.
	if tries[0] < 4 || tries[0] > 6 || tries[5] > 9 {
		t.Errorf("tries by 10 s: %v", tries)
	}
	for _, b := range o.got() {
		if strings.Contains(b, "resolved") {
			t.Fatal("the end was told before the beginning")
		}
	}
	o.answers(nil)
	r.until(time.Hour)
	got := o.got()
	if !strings.Contains(got[len(got)-2], "opened") || !strings.Contains(got[len(got)-1], "resolved") {
		t.Errorf("the last two: %v", got[len(got)-2:])
	}
	if s := r.Stats(); s.Sent != 2 || s.Waiting != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestGivesUpAfterADay(t *testing.T) {
	o := newOther(t)
	o.answers(status(503))
	r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL}}, PerMinute: 1e6})
	r.accepts(opened("1"))
	r.until(25 * time.Hour)
	if s := r.Stats(); s.Failed != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	if n := len(o.got()); n < 280 || n > 620 {
		t.Errorf("%d tries in a day at up to 5 min", n)
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	o := newOther(t)
	o.answers(func(w http.ResponseWriter) { w.Header().Set("Retry-After", "120"); w.WriteHeader(429) })
	r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL}}})
	r.accepts(opened("1"))
	r.until(119 * time.Second)
	if n := len(o.got()); n != 1 {
		t.Errorf("%d tries within the two minutes that the other side asked for", n)
	}
	o.answers(nil)
	r.until(5 * time.Second)
	if s := r.Stats(); s.Sent != 1 {
		t.Errorf("%+v", s)
	}
}

func TestRefusalsAndRedirectsAreFinal(t *testing.T) {
	elsewhere := newOther(t)
	for _, code := range []int{400, 401, 403, 404, 410, 301, 302, 307, 308} {
		o := newOther(t)
		o.answers(func(w http.ResponseWriter) { w.Header().Set("Location", elsewhere.URL); w.WriteHeader(code) })
		r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL}}})
		r.accepts(opened("1"))
		r.until(time.Hour)
		if s := r.Stats(); len(o.got()) != 1 || s.Failed != 1 || s.Waiting != 0 {
			t.Errorf("%d: %d tries, %+v", code, len(o.got()), s)
		}
	}
	if n := len(elsewhere.got()); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestRateLimitLetsWait(t *testing.T) {
	o := newOther(t)
	r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL}}, PerMinute: 6, Burst: 3})
	for i := range 10 {
		r.accepts(opened(fmt.Sprint(i)))
	}
	r.until(time.Second)
	if n := len(o.got()); n != 3 {
		t.Errorf("%d at once, the burst is 3", n)
	}
	r.until(60 * time.Second)
	if n := len(o.got()); n != 9 {
		t.Errorf("%d after a minute, want 3 and one each 10 s", n)
	}
	r.until(time.Minute)
	if n := len(o.got()); n != 10 {
		t.Errorf("%d in the end", n)
	}
}

func TestNothingIsLostOverARestart(t *testing.T) {
	o := newOther(t)
	dir := t.TempDir()
	cfg := Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: o.URL + "/hidden"}}, Outbox: NewFile(dir)}
	o.answers(status(500))
	r := newRig(t, cfg)
	r.accepts(opened("1"), opened("2"))
	r.until(5 * time.Second)
	before := len(o.got())

	// The process is killed: nothing is said to the first sender any more.
	o.answers(nil)
	again := newRig(t, cfg)
	again.now = r.now
	again.accepts(opened("1")) // the detector opens it anew
	again.until(time.Minute)
	if n := len(o.got()) - before; n != 2 {
		t.Errorf("after the restart told %d times, want the two that waited, each once", n)
	}
	third := newRig(t, cfg)
	third.accepts(opened("1"), opened("2"))
	third.until(time.Minute)
	if s := third.Stats(); s.Sent != 0 || s.Duplicates != 2 {
		t.Errorf("what was told is told again after a restart: %+v", s)
	}

	data, err := os.ReadFile(filepath.Join(dir, "alerts.json"))
	if err != nil || bytes.Contains(data, []byte("hidden")) {
		t.Errorf("the outbox: %v, %s", err, data)
	}
	if info, _ := os.Stat(filepath.Join(dir, "alerts.json")); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".alerts-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A target that is gone is given up, with a line in the log.
	renamed := cfg
	renamed.Targets = []Target{{Name: "other", Kind: Webhook, URL: o.URL}}
	o.answers(status(500))
	r = newRig(t, cfg)
	r.accepts(opened("3"))
	last := newRig(t, renamed)
	if s := last.Stats(); s.Waiting != 0 || s.Failed != 1 || !strings.Contains(last.log.String(), "given up") {
		t.Errorf("%+v\n%s", s, last.log)
	}
}

func TestBrokenOutboxIsAnError(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":9}`, "null x"} {
		f := NewFile(t.TempDir())
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Outbox: f}); err == nil {
			t.Errorf("%q was read as an outbox", text)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	gone := dead.URL
	dead.Close()
	o := newOther(t)
	o.answers(status(403))
	const secret = "T0P5ECRET"
	for _, target := range []Target{
		{Name: "a", Kind: Webhook, URL: gone + "/" + secret},
		{Name: "b", Kind: Slack, URL: o.URL + "/" + secret},
		{Name: "c", Kind: PagerDuty, URL: o.URL, RoutingKey: secret},
		{Name: "d", Kind: Webhook, URL: "http://" + secret + ".invalid/"},
		{Name: "e", Kind: Webhook, URL: strings.Replace(o.URL, "http", "https", 1) + "/" + secret},
	} {
		r := newRig(t, Config{Targets: []Target{target}})
		r.accepts(opened("1"))
		r.until(3 * time.Second)
		if r.log.Len() == 0 {
			t.Errorf("%s: nothing was said", target)
		}
		if text := r.log.String() + fmt.Sprintf("%v %+v %#v %s", target, target, target, target); strings.Contains(text, secret) {
			t.Errorf("%s shows its secret:\n%s", target, text)
		}
	}
	for _, target := range []Target{
		{Name: "a", Kind: Webhook, URL: "ftp://host/" + secret},
		{Name: "b", Kind: Webhook, URL: secret},
		{Name: "c", Kind: Slack, URL: "http://hooks.example.com/" + secret},
		{Name: "d", Kind: "mail", URL: "https://host/" + secret},
		{Name: "e", Kind: PagerDuty},
		{Name: "", Kind: Webhook, URL: "https://host/" + secret},
		{Name: "f", Kind: Webhook, URL: "https://host/%zz" + secret},
	} {
		_, err := New(Config{Targets: []Target{target}})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", target.Name, err)
		}
	}
}

func TestSendNeverBlocks(t *testing.T) {
	r := newRig(t, Config{Targets: []Target{{Name: "w", Kind: Webhook, URL: "http://127.0.0.1:1/"}}})
	took := 0
	for i := range maxIntake + 50 { // nobody reads
		if r.Send(opened(fmt.Sprint(i))) {
			took++
		}
	}
	if s := r.Stats(); took != maxIntake || s.Dropped != 50 || !strings.Contains(r.log.String(), "dropped") {
		t.Errorf("took %d, %+v", took, s)
	}
	for i := range maxWaiting + 30 {
		r.accepts(opened(fmt.Sprint("x", i)))
	}
	if s := r.Stats(); s.Dropped != 50+30 || s.Waiting != maxWaiting+maxIntake {
		t.Errorf("%+v", s)
	}
}

// Run tells for real; one target hangs and does not hold the other.
func TestRun(t *testing.T) {
	release := make(chan struct{})
	hangs, works := newOther(t), newOther(t)
	hangs.answers(func(http.ResponseWriter) { <-release })
	told := make(chan struct{}, 10)
	works.answers(func(http.ResponseWriter) { told <- struct{}{} })
	r := newRig(t, Config{Targets: []Target{{Name: "hangs", Kind: Webhook, URL: hangs.URL}, {Name: "works", Kind: Webhook, URL: works.URL}}, Outbox: NewFile(t.TempDir())})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	r.Send(opened("1"))
	r.Send(opened("2"))
	for range 2 {
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatal("not told while another target hangs")
		}
	}
	for deadline := time.Now().Add(10 * time.Second); r.Stats().Sent < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.Stats())
		}
	}
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
	close(release)
	r.Send(opened("3"))
	left, err := r.cfg.Outbox.Load()
	if err != nil || len(left.Waiting) != 2 {
		t.Errorf("%d wait for the next process, want the two of the target that hangs (%v)", len(left.Waiting), err)
	}
}

func change(phase detect.Phase, action watch.Action) watch.Change {
	return watch.Change{Phase: phase, At: noon, Incident: watch.Incident{
		ID: "20260310t034005z-care", Account: "care", StartedAt: noon.Add(-time.Minute), DetectedAt: noon, ResolvedAt: noon.Add(time.Hour),
		Factor: 12, Rate: 240, Usual: 20, Excess: 14500, Refused: 3000, Action: action,
		Culprits: []watch.Culprit{{Caller: "care-jobs", Event: "refresh<!channel>@here`", Channel: "private-user-*", Share: 0.98}},
		Forecast: watch.Forecast{ExhaustedAt: noon.Add(3 * time.Hour), UsedAtReset: 9_000_000},
	}}
}

// Whoever is woken at night must read who it is, until when, and what to type.
func TestWords(t *testing.T) {
	for action, command := range map[watch.Action]string{
		watch.Contained: "pushguard incidents 20260310t034005z-care --release",
		watch.Suggested: "pushguard incidents 20260310t034005z-care --contain",
		watch.None:      "pushguard brake on --account care",
	} {
		a := OfIncident(change(detect.Opened, action), "http://127.0.0.1:8081/")
		for _, target := range []Target{{Kind: Slack}, {Kind: PagerDuty, RoutingKey: "key"}, {Kind: Webhook}} {
			body, err := target.body(&a)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"care-jobs", "private-user-*", "15:00 UTC", command, "12 times", "98 %", "240 publishes/s, usually 20.0", "http://127.0.0.1:8081/#/incidents/20260310t034005z-care?account=care"} {
				if !strings.Contains(string(body), want) {
					t.Errorf("%s, %s lacks %q: %s", target.Kind, action, want, body)
				}
			}
		}
	}
	waits := change(detect.Opened, watch.None)
	waits.Incident.Waiting = true // contain: auto, and it may be a burst
	if a := OfIncident(waits, ""); !strings.Contains(a.Command, "--contain") || strings.Contains(a.Text, "off") {
		t.Errorf("of what is contained if it lasts: %q, %q", a.Text, a.Command)
	}
	a := OfIncident(change(detect.Opened, watch.Contained), "")
	if text := slackText(&a); strings.Contains(text, "<!channel>") || strings.Contains(text, "@here") {
		t.Errorf("a caller's event name can call everybody: %s", text)
	}
	if text := slackText(&a); !strings.Contains(text, RunbookIncident) {
		t.Errorf("without admin.url there is no link at all: %s", text)
	}
	// Whatever happens to an incident, three alerts tell it.
	told := map[string]bool{}
	for _, phase := range []detect.Phase{detect.Opened, detect.Updated, detect.Resolved} {
		for _, action := range []watch.Action{watch.None, watch.Suggested, watch.Contained, watch.Released} {
			for _, event := range []string{"one", "other"} {
				c := change(phase, action)
				c.Incident.Culprits[0].Event = event
				a := OfIncident(c, "")
				told[a.key()] = true
			}
		}
	}
	if len(told) != 3 {
		t.Errorf("an incident is told %d times: %v", len(told), told)
	}
}

func TestPagerDutyActions(t *testing.T) {
	for phase, want := range map[detect.Phase]string{detect.Opened: "trigger", detect.Updated: "trigger", detect.Resolved: "resolve"} {
		a := OfIncident(change(phase, watch.Contained), "")
		e := pagerDutyEvent("key", &a)
		if e.EventAction != want || e.DedupKey != "pushguard-20260310t034005z-care" || e.RoutingKey != "key" {
			t.Errorf("%s: %+v", phase, e)
		}
	}
	for _, c := range []struct {
		from, to limiter.Level
		action   string
		severity Severity
	}{
		{limiter.Closed, limiter.ShedBulk, "trigger", Warning},
		{limiter.ShedNormal, limiter.OnlyCritical, "trigger", Critical},
		{limiter.OnlyCritical, limiter.Open, "trigger", Critical},
		{limiter.ShedBulk, limiter.Closed, "resolve", Info},
	} {
		a := OfBreaker("care", limiter.Transition{From: c.from, To: c.to, At: noon, Reason: "80 % of the plan used"}, "")
		e := pagerDutyEvent("key", &a)
		if e.EventAction != c.action || e.Payload.Severity != c.severity || e.DedupKey != "pushguard-breaker-care-20260310" {
			t.Errorf("%s → %s: %+v %+v", c.from, c.to, e, e.Payload)
		}
	}
}

func FuzzOutbox(f *testing.F) {
	f.Add([]byte(`{"version":1,"waiting":[{"target":"w","alert":{"id":"1","phase":"opened"},"tries":3}],"seen":{"1/opened":"2026-03-10T12:00:00Z"}}`))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode("f", data)
		if err != nil {
			return
		}
		for i := range s.Waiting {
			for _, k := range []Kind{Slack, PagerDuty, Webhook} {
				target := Target{Kind: k}
				if _, err := target.body(&s.Waiting[i].Alert); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
