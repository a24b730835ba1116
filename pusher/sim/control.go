package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// Fail is a way to fail every request.
type Fail string

const (
	FailNone       Fail = ""
	FailError      Fail = "500"       // 500, no effect
	FailErrorAfter Fail = "500_after" // 500, although the request took effect
	FailHang       Fail = "hang"      // no effect and no answer, until the mode changes: then it is served
	FailHangAfter  Fail = "hang_after"
	FailDrop       Fail = "drop" // the connection is closed without an answer
	FailDropAfter  Fail = "drop_after"
	FailDisabled   Fail = "disabled" // 403 as for an app that was switched off
)

func (f Fail) known() bool {
	switch f {
	case FailNone, FailError, FailErrorAfter, FailHang, FailHangAfter, FailDrop, FailDropAfter, FailDisabled:
		return true
	}
	return false
}

// Control changes a running server, as the body of POST /sim/v1/control or by
// Apply. What is nil stays as it is.
type Control struct {
	MessagesPerDay *int64    `json:"messages_per_day,omitempty"`
	Used           *int64    `json:"used,omitempty"`    // messages of today
	Latency        *string   `json:"latency,omitempty"` // "20ms"
	Fail           *Fail     `json:"fail,omitempty"`    // "" or "none" ends it
	FailEvery      *int      `json:"fail_every,omitempty"`
	Subscribers    *int64    `json:"subscribers,omitempty"`
	SubscribersOf  []Pattern `json:"subscribers_of,omitempty"` // replaces all patterns
	// Reset forgets the record and the counts, but not the account's day.
	Reset bool `json:"reset,omitempty"`
	// Webhook is sent, signed, to the configured URL.
	Webhook []pusher.WebhookEvent `json:"webhook,omitempty"`
	// App is whose key signs the webhook; "" is the first.
	App string `json:"app,omitempty"`
}

// Apply makes all the changes, or none and says why. Webhooks are sent last.
func (s *Server) Apply(ctx context.Context, c Control) error {
	var latency time.Duration
	if c.Latency != nil {
		d, err := time.ParseDuration(*c.Latency)
		if err != nil || d < 0 {
			return fmt.Errorf("latency %q is no duration such as 20ms", *c.Latency)
		}
		latency = d
	}
	if c.Fail != nil {
		if *c.Fail == "none" {
			none := FailNone
			c.Fail = &none
		}
		if !c.Fail.known() {
			return fmt.Errorf("fail %q is not one of none, 500, 500_after, hang, hang_after, drop, drop_after, disabled", *c.Fail)
		}
	}
	if len(c.Webhook) > 0 {
		if err := s.webhookReady(c.App); err != nil {
			return err
		}
	}
	now := s.now()
	s.mu.Lock()
	b := &s.behavior
	if c.Latency != nil {
		b.latency = latency
	}
	if c.Fail != nil && *c.Fail != b.fail {
		b.fail = *c.Fail
		close(b.changed)
		b.changed = make(chan struct{})
	}
	if c.FailEvery != nil {
		b.failEvery = int64(*c.FailEvery)
	}
	if c.Subscribers != nil {
		b.subscribers = *c.Subscribers
	}
	if c.SubscribersOf != nil {
		b.patterns = append([]Pattern(nil), c.SubscribersOf...)
	}
	a := &s.account
	if c.MessagesPerDay != nil {
		a.plan = *c.MessagesPerDay
	}
	if c.Used != nil {
		a.roll(now)
		a.used = *c.Used
	}
	if c.Reset {
		a.requests, a.events, a.deliveries, a.messages, a.refused = 0, 0, 0, 0, 0
		clear(a.byEndpoint)
		clear(a.byStatus)
		clear(s.channels)
		s.record = record{max: s.record.max, maxBytes: s.record.maxBytes}
	}
	s.mu.Unlock()
	if len(c.Webhook) > 0 {
		return s.SendWebhook(ctx, c.App, c.Webhook)
	}
	return nil
}

// SetPlan changes the account's messages per day, 0 for no limit.
func (s *Server) SetPlan(messagesPerDay int64) { s.set(Control{MessagesPerDay: &messagesPerDay}) }

// SetUsed sets what is used up of today's plan.
func (s *Server) SetUsed(messages int64) { s.set(Control{Used: &messages}) }

// SetLatency changes the time between a request's effect and its answer.
func (s *Server) SetLatency(d time.Duration) {
	text := d.String()
	s.set(Control{Latency: &text})
}

// SetFail changes how requests fail. It panics on a mode that does not exist.
func (s *Server) SetFail(f Fail) { s.set(Control{Fail: &f}) }

// SetFailEvery makes every n-th request fail with a 500; 0 none.
func (s *Server) SetFailEvery(n int) { s.set(Control{FailEvery: &n}) }

// Reset forgets the record and the counts, but not what is used up of the plan.
func (s *Server) Reset() { s.set(Control{Reset: true}) }

func (s *Server) set(c Control) {
	if err := s.Apply(context.Background(), c); err != nil {
		panic("sim: " + err.Error())
	}
}

func (s *Server) serveControl(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /sim/v1/stats":
		reply(w, s.Stats())
	case "GET /sim/v1/events":
		limit, after := -1, int64(0)
		if text := r.URL.Query().Get("limit"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				http.Error(w, "limit must be a number of events, 0 or more.", http.StatusBadRequest)
				return
			}
			limit = n
		}
		if text := r.URL.Query().Get("after"); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				http.Error(w, "after must be the seq of an event.", http.StatusBadRequest)
				return
			}
			after = n
		}
		reply(w, s.EventsAfter(after, limit))
	case "POST /sim/v1/control":
		var c Control
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			http.Error(w, "The body is no control: "+err.Error()+".", http.StatusBadRequest)
			return
		}
		if err := s.Apply(r.Context(), c); err != nil {
			http.Error(w, err.Error()+".", http.StatusBadRequest)
			return
		}
		reply(w, s.Stats())
	default:
		http.Error(w, "There are GET /sim/v1/stats, GET /sim/v1/events?limit=N and POST /sim/v1/control.", http.StatusNotFound)
	}
}

func reply(w http.ResponseWriter, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header()["Content-Type"] = jsonType
	w.Write(b.Bytes())
}

// webhookReady reports why no webhook can be sent for an app.
func (s *Server) webhookReady(app string) error {
	if s.webhook == "" {
		return errors.New("no webhook URL is configured")
	}
	if _, err := s.webhookKey(app); err != nil {
		return err
	}
	return nil
}

func (s *Server) webhookKey(app string) (*pusher.Key, error) {
	for _, a := range s.apps {
		if app == "" || a.ID == app {
			return s.keys[identity{a.ID, a.Key}], nil
		}
	}
	return nil, fmt.Errorf("there is no app %q", app)
}

// webhookTimeout is how long Pusher waits for an answer to a webhook.
const webhookTimeout = 4 * time.Second

// SendWebhook posts events to the configured URL once, signed with the app's key
// ("" is the first app) as Pusher signs. Anything but a 2xx is an error.
func (s *Server) SendWebhook(ctx context.Context, app string, events []pusher.WebhookEvent) error {
	if err := s.webhookReady(app); err != nil {
		return err
	}
	key, err := s.webhookKey(app)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"time_ms": s.now().UnixMilli(), "events": events})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Pusher-Key", key.Name())
	req.Header.Set("X-Pusher-Signature", pusher.SignWebhook(key, body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook was answered %s", resp.Status)
	}
	return nil
}
