package proxy

import (
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/wire"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
)

var (
	headerWebhookKey       = []byte("X-Pusher-Key")
	headerWebhookSignature = []byte("X-Pusher-Signature")
	headerContentType      = []byte("Content-Type")
)

// webhook takes Pusher's own calls. They teach how many subscribers a channel
// has; Pusher sends each at least once, and a count that comes twice is the
// same count. With App.Webhooks they are passed on, and Pusher is told that they
// arrived only when they arrived there too.
//
// https://pusher.com/docs/channels/server_api/webhooks/
func (p *Proxy) webhook(ctx *fasthttp.RequestCtx, j *job, id string) {
	r := &j.response
	if !ctx.IsPost() {
		refuse(r, fasthttp.StatusMethodNotAllowed, "method_not_allowed", "Pusher sends webhooks with POST.")
		return
	}
	a := p.table.Load().apps[id]
	h := &ctx.Request.Header
	body := ctx.Request.Body()
	if a == nil {
		p.stats.refused(fasthttp.StatusNotFound)
		refuse(r, fasthttp.StatusNotFound, "invalid_request", "no app of this guard has the id in the webhook's URL, which is /webhooks/ and the app's id as in the config.")
		return
	}
	if !a.signed(h, body) {
		p.stats.refused(fasthttp.StatusUnauthorized)
		refuse(r, fasthttp.StatusUnauthorized, "invalid_request",
			"this webhook is not signed with this app's key and secret; check the app id in the webhook's URL, and the app's key and secret in pushguard's configuration.")
		return
	}
	// It is signed: what of it can be read teaches, what cannot is counted, and all of it goes on as it came.
	sent, events, unread, err := pusher.ParseWebhook(body)
	if unread > 0 {
		p.stats.webhooksUnread.Add(int64(unread))
		if !a.webhookOdd.Swap(true) {
			p.log.Warn("a webhook holds events that cannot be read; they are passed on and teach nothing", "app", a.ID, "events", unread, "err", err)
		}
	}
	// Pusher repeats calls for minutes, so news is as old as the call says.
	now := p.now()
	if at := time.UnixMilli(sent); sent > 0 && at.Before(now) {
		now = at
	}
	repeated := a.hooks.repeated(body)
	if !repeated {
		for i := range events {
			a.hear(&events[i], now)
		}
	}
	a.bookWebhook(p.now(), events, repeated)
	if a.Webhooks != nil {
		err := a.Webhooks.pass(h, body)
		if failed := err != nil; a.Webhooks.failed.Swap(failed) != failed {
			if failed {
				p.log.Warn("webhooks cannot be forwarded to the app's endpoint; Pusher is answered 502 and sends them again", "app", a.ID, "err", err)
			} else {
				p.log.Info("webhooks are passed on to the app again", "app", a.ID)
			}
		}
		if err != nil {
			p.stats.webhooksLost.Add(1)
			refuse(r, fasthttp.StatusBadGateway, "webhook_not_passed_on", "the app's own endpoint did not take this webhook: "+err.Error()+". Please send it again.")
			return
		}
		p.stats.webhooksPassed.Add(1)
	}
	p.stats.webhooks.Add(1)
	*r = wire.Response{Status: fasthttp.StatusOK, ContentType: contentJSON, Body: emptyObject, Last: r.Last}
}

// maxWebhookChannel bounds the names that webhooks teach: more than any server allows.
const maxWebhookChannel = 1024

// signed reports whether Pusher signed a webhook: with the app's secret, or with one that is being replaced.
func (a *App) signed(h *fasthttp.RequestHeader, body []byte) bool {
	key, signature := h.PeekBytes(headerWebhookKey), h.PeekBytes(headerWebhookSignature)
	if pusher.VerifyWebhook(a.Upstream.key, key, signature, body) {
		return true
	}
	for _, c := range a.Keys {
		if c.Own && pusher.VerifyWebhook(c.Key, key, signature, body) {
			return true
		}
	}
	return false
}

// hear learns from one event of a webhook who subscribes.
func (a *App) hear(ev *pusher.WebhookEvent, now time.Time) {
	if ev.Channel == "" || len(ev.Channel) > maxWebhookChannel || ev.Name == "subscription_count" && !ev.Counted {
		return
	}
	switch ev.Name {
	case "subscription_count":
		a.Fanout.Learn(now, ev.Channel, ev.SubscriptionCount, fanout.FromWebhook)
	case "channel_vacated":
		a.Fanout.Learn(now, ev.Channel, 0, fanout.FromWebhook)
	case "channel_occupied":
		a.Fanout.LearnTaken(now, ev.Channel, fanout.FromWebhook) // by one, and who knows by how many a minute later
	case "member_added", "member_removed":
		// Members and connections are not the same, so anything that counts is believed sooner.
		n, source, _ := a.Fanout.Explain(ev.Channel)
		switch {
		case source == fanout.FromDefault || source == fanout.FromSimilar:
			if ev.Name == "member_added" {
				a.Fanout.LearnAtLeast(now, ev.Channel, 1, fanout.FromPoll)
			}
		case ev.Name == "member_added":
			a.Fanout.Learn(now, ev.Channel, n+1, fanout.FromPoll)
		case n > 1:
			a.Fanout.Learn(now, ev.Channel, n-1, fanout.FromPoll)
		}
	}
}

// bookWebhook books what Pusher billed for the call, and for what browsers did that it tells of. Pusher repeats a call that
// got no answer: then the call counts again, and what it tells of does not.
func (a *App) bookWebhook(now time.Time, events []pusher.WebhookEvent, repeated bool) {
	n := a.Billing.Webhook(len(events))
	for i := range events {
		if ev := &events[i]; !repeated {
			subscribers := ev.SubscriptionCount
			if ev.Name != "subscription_count" {
				subscribers = a.Fanout.Estimate(ev.Channel)
			}
			n += a.Billing.Beside(ev.Name, subscribers)
		}
	}
	a.Ledger.Settle(now, quota.Hold{}, n)
	a.Ledger.Count(quota.Browser, n)
}

// hooks remembers the newest webhook calls by a hash of their bodies.
type hooks struct {
	mu   sync.Mutex
	seen [256]uint64
	next int
}

func (h *hooks) repeated(body []byte) bool {
	sum := xxhash.Sum64(body) | 1
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.seen[:], sum) {
		return true
	}
	h.seen[h.next%len(h.seen)] = sum
	h.next++
	return false
}
