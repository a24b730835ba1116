package pusher

import "testing"

func TestCost(t *testing.T) {
	byDoc := Billing{}
	for _, c := range []struct {
		name string
		b    Billing
		s    Shape
		want int64
	}{
		// https://docs.bird.com/pusher/channels: one publish to fifty subscribers is 51 messages.
		{"the documented example", byDoc, Shape{Events: 1, Channels: 1, Deliveries: 50}, 51},
		{"nobody listens", byDoc, Shape{Events: 1, Channels: 1}, 1},
		{"info", byDoc, Shape{Events: 1, Channels: 1, Info: 1}, 2},
		{"info free", Billing{InfoFree: true}, Shape{Events: 1, Channels: 1, Info: 1}, 1},
		{"three channels", byDoc, Shape{Events: 1, Channels: 3, Deliveries: 6}, 7},
		{"three channels, by channel", Billing{MultiChannelPerChannel: true}, Shape{Events: 1, Channels: 3, Deliveries: 6}, 9},
		{"three channels, by channel and call", Billing{MultiChannelPerChannel: true, BatchPerCall: true}, Shape{Events: 1, Channels: 3, Deliveries: 6}, 9},
		{"batch of ten", byDoc, Shape{Events: 10, Channels: 10, Deliveries: 20, Info: 2}, 32},
		{"batch of ten, by call", Billing{BatchPerCall: true}, Shape{Events: 10, Channels: 10, Deliveries: 20, Info: 2}, 23},
		{"batch of ten, by channel", Billing{MultiChannelPerChannel: true}, Shape{Events: 10, Channels: 10, Deliveries: 20, Info: 2}, 32},
		{"batch of ten, by channel and call", Billing{MultiChannelPerChannel: true, BatchPerCall: true}, Shape{Events: 10, Channels: 10, Deliveries: 20}, 21},
		{"a read", byDoc, Shape{OwnCall: true}, 1},
		{"nothing said", byDoc, Shape{}, 1},
		{"refused", byDoc, Shape{Events: 10, Channels: 10, Deliveries: 20, Info: 2, Failed: true}, 1},
		{"refused, free", Billing{FailedFree: true}, Shape{Events: 10, Failed: true}, 0},
		{"a negative estimate", byDoc, Shape{Events: 1, Channels: 1, Deliveries: -5, Info: -5}, 1},
	} {
		if got := c.b.Cost(c.s); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestQuotaWords(t *testing.T) {
	for _, c := range []struct {
		status          int
		body            string
		quota, disabled bool
	}{
		{403, QuotaText, true, false},
		{403, "You are over your Message Quota\n", true, false},
		{403, "Forbidden: app disabled", false, true},
		{403, "Forbidden: app disabled or over message quota", true, false}, // in doubt for the quota
		{403, "", false, false},
		{401, QuotaText, false, false},
		{200, "app disabled", false, false},
	} {
		if q, d := IsQuotaExceeded(c.status, []byte(c.body)), IsAppDisabled(c.status, []byte(c.body)); q != c.quota || d != c.disabled {
			t.Errorf("%d %q: quota %v, disabled %v", c.status, c.body, q, d)
		}
	}
}
