package proxy

import (
	"time"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota/fanout"
)

// How old the word may be that a channel is empty. Pusher's webhooks tell of
// each change, but one can be lost; a poll or an answer is true when it is
// given, and no longer.
const (
	vacantByWebhook = 10 * time.Minute
	vacantByPoll    = time.Minute
)

// vacant reports whether it is known that nobody would get a publish. What is
// not known is not empty: a channel that no webhook and no poll spoke of lately,
// one that keeps its last event for later subscribers (cache-), a user's own,
// and a publish whose caller asks how many there are.
func (a *App) vacant(ev *pusher.Publish, channels []string, now time.Time) bool {
	if ev == nil || ev.HasInfo || ev.ToUser {
		return false
	}
	for i, ch := range channels {
		if pusher.IsCache(ev.Channels[i]) {
			return false
		}
		e, known := a.Fanout.KnownEmpty(ch)
		trusted := vacantByPoll
		if e.Source == fanout.FromWebhook {
			trusted = vacantByWebhook
		}
		if !known || now.Sub(e.AsOf) > trusted {
			return false
		}
	}
	return len(channels) > 0
}
