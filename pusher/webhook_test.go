package pusher

import (
	"reflect"
	"testing"
)

func TestWebhook(t *testing.T) {
	k := NewKey("key", "secret")
	body := []byte(`{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"c"},` +
		`{"name":"client_event","channel":"private-c","event":"client-e","data":"d","socket_id":"1.2","user_id":"u"},` +
		`{"name":"subscription_count","channel":"c","subscription_count":7},{"name":"new_kind","more":{}}]}`)
	sig := []byte(SignWebhook(k, body))
	// By another implementation: printf '%s' "$body" | openssl dgst -sha256 -hmac secret
	if got := SignWebhook(k, []byte("{}")); got != "77325902caca812dc259733aacd046b73817372c777b8d95b402647474516e13" {
		t.Error(got)
	}
	flip := func(b []byte, i int) []byte { c := append([]byte(nil), b...); c[i] ^= 1; return c }
	for _, c := range []struct {
		name           string
		key, sig, body []byte
		want           bool
	}{
		{"as sent", []byte("key"), sig, body, true},
		{"other key", []byte("kex"), sig, body, false},
		{"no key", nil, sig, body, false},
		{"other signature", []byte("key"), flip(sig, 5), body, false},
		{"no signature", []byte("key"), nil, body, false},
		{"other body", []byte("key"), sig, flip(body, 20), false},
	} {
		if VerifyWebhook(k, c.key, c.sig, c.body) != c.want {
			t.Error(c.name)
		}
	}
	ms, events, unread, err := ParseWebhook(body)
	want := []WebhookEvent{
		{Name: "channel_occupied", Channel: "c"},
		{Name: "client_event", Channel: "private-c", Event: "client-e", Data: "d", SocketID: "1.2", UserID: "u"},
		{Name: "subscription_count", Channel: "c", SubscriptionCount: 7, Counted: true},
		{Name: "new_kind"},
	}
	if err != nil || unread != 0 || ms != 1327078148132 || !reflect.DeepEqual(events, want) {
		t.Errorf("%v %d %+v", err, ms, events)
	}
	if _, _, _, err := ParseWebhook([]byte(`{"events":7}`)); err == nil {
		t.Error("a webhook without events was read")
	}
}

// Compatible servers send other types than Pusher: one odd field costs neither the rest of its event nor the other events.
func TestWebhooksOfCompatibleServers(t *testing.T) {
	for _, c := range []struct {
		body   string
		ms     int64
		unread int
		want   []WebhookEvent
	}{
		{`{"time_ms":"1327078148132","events":[{"name":"client_event","channel":"c","data":{"a":1},"user_id":7}]}`, 1327078148132, 0, []WebhookEvent{{Name: "client_event", Channel: "c", Data: `{"a":1}`, UserID: "7"}}},
		{`{"events":[{"name":"subscription_count","channel":"c","subscription_count":"12"}]}`, 0, 0, []WebhookEvent{{Name: "subscription_count", Channel: "c", SubscriptionCount: 12, Counted: true}}},
		{`{"time_ms":1327078148132.5,"events":[{"name":"subscription_count","channel":"c","subscription_count":1e300},{"name":"subscription_count","channel":"d","subscription_count":-4},{"name":"subscription_count","channel":"e"}]}`, 1327078148132, 0,
			[]WebhookEvent{{Name: "subscription_count", Channel: "c", SubscriptionCount: MaxSubscribers, Counted: true}, {Name: "subscription_count", Channel: "d"}, {Name: "subscription_count", Channel: "e"}}},
		{`{"events":["x",null,7,{"channel":"c"},{"name":{"a":1}},{"name":"channel_occupied","channel":["c"],"x":1},{"name":"channel_vacated","channel":"c","socket_id":null}]}`, 0, 5, []WebhookEvent{{Name: "channel_occupied"}, {Name: "channel_vacated", Channel: "c"}}},
		{`{"time_ms":{},"events":null}`, 0, 0, nil}, {`{}`, 0, 0, nil},
	} {
		ms, events, unread, err := ParseWebhook([]byte(c.body))
		if err != nil || ms != c.ms || unread != c.unread || !reflect.DeepEqual(events, c.want) {
			t.Errorf("%s: %d %+v, %d unread, %v", c.body, ms, events, unread, err)
		}
	}
}
