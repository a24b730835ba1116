package pusher

import (
	"bytes"
	"encoding/json"
	"fmt"
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
// milliseconds since 1970, and its events in order. Unknown names are kept.
func ParseWebhook(body []byte) (timeMS int64, events []WebhookEvent, err error) {
	var call struct {
		TimeMS int64          `json:"time_ms"`
		Events []WebhookEvent `json:"events"`
	}
	if err := json.Unmarshal(body, &call); err != nil {
		return 0, nil, fmt.Errorf("the webhook's body is not as Pusher sends it: %w", err)
	}
	return call.TimeMS, call.Events, nil
}
