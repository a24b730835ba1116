package pusher

// Billing says how Pusher counts where its documentation leaves a doubt. The
// zero value takes the dearer reading each time, so that a ledger kept by it can
// only be ahead of Pusher's.
//
// What is documented stands in Cost and has no switch, see
// https://docs.bird.com/pusher/channels (How is my message count calculated) and
// https://pusher.com/docs/channels/library_auth_reference/rest-api/.
type Billing struct {
	// BatchPerCall: a call to batch_events counts one, however many events it
	// holds. Otherwise every event of it counts one.
	BatchPerCall bool
	// MultiChannelPerChannel: a publish to several channels counts one for each
	// channel. Otherwise it counts one, as a call to the API; this is the one
	// switch whose zero value follows the documentation, which is plain here.
	MultiChannelPerChannel bool
	// InfoFree: asking for info adds nothing. Otherwise each event that asks
	// counts one more, as documented.
	InfoFree bool
	// FailedFree: a call that Pusher answered 4xx counts nothing. Otherwise it
	// counts one.
	FailedFree bool

	// What browsers cause, and webhooks tell of. WebhookPerCall: a webhook call counts one, however many events it holds.
	// Otherwise every event of it counts one.
	WebhookPerCall bool
	// SubscriptionCountFree, PresenceFree, ClientEventFree: the messages to subscribers that tell of a subscription, of a
	// member, or of a client's event count nothing. Otherwise each delivery counts one, and a client's event itself too.
	SubscriptionCountFree, PresenceFree, ClientEventFree bool
}

// Webhook is what Pusher counts for a webhook call that holds events.
func (b Billing) Webhook(events int) int64 {
	if b.WebhookPerCall {
		return 1
	}
	return int64(max(events, 1))
}

// Beside is what Pusher counted, beside the webhook call, for what an event of it tells of: subscribers are those of its
// channel, or the number that it tells.
func (b Billing) Beside(name string, subscribers int64) int64 {
	subscribers = max(subscribers, 0)
	switch name {
	case "subscription_count": // goes to every subscriber
		if !b.SubscriptionCountFree {
			return subscribers
		}
	case "member_added": // goes to the others
		if !b.PresenceFree {
			return max(subscribers-1, 0)
		}
	case "member_removed": // goes to who is left
		if !b.PresenceFree {
			return subscribers
		}
	case "client_event": // came in, and goes to the others
		if !b.ClientEventFree {
			return max(subscribers, 1)
		}
	}
	return 0
}

// Shape is what matters of one call to Pusher for its price.
type Shape struct {
	Events     int   // events in the call; 0 for a call that publishes nothing
	Channels   int   // channels over all events, at least Events
	Info       int   // events that ask for info
	Deliveries int64 // messages to subscribers over all events and channels, estimated or known
	OwnCall    bool  // a call that publishes nothing: a query, terminate_connections, an unknown endpoint
	Failed     bool  // Pusher answered 4xx, so nothing was delivered
}

// Cost is the number of messages that Pusher counts for a call. It is the one
// place that knows: the call itself, one for each delivery, and one more for
// each event that asks for info.
func (b Billing) Cost(s Shape) int64 {
	if s.Failed {
		if b.FailedFree {
			return 0
		}
		return 1
	}
	if s.OwnCall || s.Events <= 0 {
		return 1
	}
	calls := int64(1)
	switch {
	case b.MultiChannelPerChannel && b.BatchPerCall:
		// The surplus channels of each event count, the surplus events do not.
		calls = int64(1 + max(0, s.Channels-s.Events))
	case b.MultiChannelPerChannel:
		calls = int64(max(s.Channels, s.Events))
	case !b.BatchPerCall:
		calls = int64(s.Events)
	}
	cost := calls + max(0, s.Deliveries)
	if !b.InfoFree {
		cost += int64(max(0, s.Info))
	}
	return cost
}
