package pusher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// WebhookEvent is one event of a webhook call, see
// https://pusher.com/docs/channels/server_api/webhooks/. Which fields are set
// depends on Name.
type WebhookEvent struct {
	Name              string `json:"name"` // channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss, subscription_count
	Channel           string `json:"channel"`
	UserID            string `json:"user_id,omitempty"`
	Event             string `json:"event,omitempty"`
	Data              string `json:"data,omitempty"`
	SocketID          string `json:"socket_id,omitempty"`
	SubscriptionCount int64  `json:"subscription_count,omitempty"`
	// Counted: SubscriptionCount was given, and is a number.
	Counted bool `json:"-"`
}

// MaxSubscribers is the most that a count is believed: what is beyond is a mistake
// of whoever counted, and would spend a plan at once.
const MaxSubscribers = 10_000_000

// UnmarshalJSON reads what can be read. Compatible servers send numbers and objects
// where Pusher sends strings: they are taken as the text that they are. Only what is
// no object at all, or has no name, is an error.
func (e *WebhookEvent) UnmarshalJSON(b []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return errors.New("an event is no object")
	}
	*e = WebhookEvent{}
	for name, to := range map[string]*string{"name": &e.Name, "channel": &e.Channel, "user_id": &e.UserID, "event": &e.Event, "data": &e.Data, "socket_id": &e.SocketID} {
		raw := fields[name]
		if string(raw) == "null" || json.Unmarshal(raw, to) == nil {
			continue
		}
		if *to = string(raw); name == "name" || name == "channel" {
			*to = "" // no name in a text that is none
		}
	}
	if raw, ok := fields["subscription_count"]; ok {
		text := string(raw)
		if quoted := ""; json.Unmarshal(raw, &quoted) == nil {
			text = quoted
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 {
			e.SubscriptionCount, e.Counted = int64(min(n, MaxSubscribers)), true
		}
	}
	if e.Name == "" {
		return errors.New("an event has no name")
	}
	return nil
}

// VerifyWebhook reports whether a webhook call was made by Pusher for the app of
// k: keyHeader is X-Pusher-Key and signature X-Pusher-Signature, the hexadecimal
// HMAC-SHA256 of the body's bytes. It compares in constant time.
//
// The signature has no time in it and calls are made at least once, so the same
// call can be valid any number of times.
func VerifyWebhook(k *Key, keyHeader, signature, body []byte) bool {
	if !bytes.Equal(keyHeader, k.name) {
		return false
	}
	m := k.macs.Get().(*mac)
	defer k.macs.Put(m)
	m.sign(body)
	return subtleEqual(m.hex[:], signature)
}

// SignWebhook is the X-Pusher-Signature of a body.
func SignWebhook(k *Key, body []byte) string {
	m := k.macs.Get().(*mac)
	defer k.macs.Put(m)
	m.sign(body)
	return string(m.hex[:])
}

// ParseWebhook reads the body of a webhook call: when it was made, in
// milliseconds since 1970, 0 if it does not say, and its events in order. Unknown
// names are kept. Each event is read by itself: unread is how many could not be,
// and the error is for a body in which no events can be found at all.
func ParseWebhook(body []byte) (timeMS int64, events []WebhookEvent, unread int, err error) {
	var call struct {
		TimeMS json.RawMessage   `json:"time_ms"`
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(body, &call); err != nil {
		return 0, nil, 1, fmt.Errorf("the webhook's body is not as Pusher sends it: %w", err)
	}
	if ms, err := strconv.ParseFloat(strings.Trim(string(call.TimeMS), `"`), 64); err == nil && ms > 0 && ms < 1e15 {
		timeMS = int64(ms)
	}
	for _, raw := range call.Events {
		var e WebhookEvent
		if e.UnmarshalJSON(raw) != nil {
			unread++
			continue
		}
		events = append(events, e)
	}
	return timeMS, events, unread, nil
}
