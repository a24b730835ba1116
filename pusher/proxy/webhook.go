package proxy

import (
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota"
)

var (
	headerWebhookKey       = []byte("X-Pusher-Key")
	headerWebhookSignature = []byte("X-Pusher-Signature")
)

// webhook takes Pusher's own calls. They teach how many subscribers a channel
// has; Pusher sends each at least once, and a count that comes twice is the
// same count.
//
// https://pusher.com/docs/channels/server_api/webhooks/
func (p *Proxy) webhook(ctx *fasthttp.RequestCtx, id string) {
	if !ctx.IsPost() {
		refuse(ctx, fasthttp.StatusMethodNotAllowed, "method_not_allowed", "Pusher sends webhooks with POST.")
		return
	}
	a := p.table.Load().apps[id]
	h := &ctx.Request.Header
	body := ctx.Request.Body()
	if a == nil || !pusher.VerifyWebhook(a.Upstream.key, h.PeekBytes(headerWebhookKey), h.PeekBytes(headerWebhookSignature), body) {
		p.stats.refused(fasthttp.StatusUnauthorized)
		refuse(ctx, fasthttp.StatusUnauthorized, "invalid_request",
			"this webhook is not signed with the key and secret of an app that pushguard knows; check the app id in the webhook's URL.")
		return
	}
	sent, events, err := pusher.ParseWebhook(body)
	if err != nil {
		p.stats.refused(fasthttp.StatusBadRequest)
		refuse(ctx, fasthttp.StatusBadRequest, "invalid_request", "the webhook cannot be read: "+err.Error())
		return
	}
	// Pusher repeats calls for minutes, so news is as old as the call says.
	now := p.now()
	if at := time.UnixMilli(sent); sent > 0 && at.Before(now) {
		now = at
	}
	for i := range events {
		ev := &events[i]
		switch ev.Name {
		case "subscription_count":
			a.Fanout.Learn(now, ev.Channel, ev.SubscriptionCount, quota.FromWebhook)
		case "channel_vacated":
			a.Fanout.Learn(now, ev.Channel, 0, quota.FromWebhook)
		case "channel_occupied":
			a.Fanout.Learn(now, ev.Channel, max(1, a.Fanout.Estimate(ev.Channel)), quota.FromWebhook)
		}
	}
	p.stats.webhooks.Add(int64(len(events)))
	ctx.Response.Header.SetContentTypeBytes(contentJSON)
	ctx.Response.SetBodyString("{}")
}
