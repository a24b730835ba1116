package proxy

import (
	"time"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
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
	if a == nil || !a.signed(h, body) {
		p.stats.refused(fasthttp.StatusUnauthorized)
		refuse(r, fasthttp.StatusUnauthorized, "invalid_request",
			"this webhook is not signed with the key and secret of an app that pushguard knows; check the app id in the webhook's URL.")
		return
	}
	sent, events, err := pusher.ParseWebhook(body)
	if err != nil {
		p.stats.refused(fasthttp.StatusBadRequest)
		refuse(r, fasthttp.StatusBadRequest, "invalid_request", "the webhook cannot be read: "+err.Error())
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
			a.Fanout.Learn(now, ev.Channel, ev.SubscriptionCount, fanout.FromWebhook)
		case "channel_vacated":
			a.Fanout.Learn(now, ev.Channel, 0, fanout.FromWebhook)
		case "channel_occupied":
			a.Fanout.Learn(now, ev.Channel, max(1, a.Fanout.Estimate(ev.Channel)), fanout.FromWebhook)
		}
	}
	if a.Webhooks != nil {
		err := a.Webhooks.pass(h, body)
		if failed := err != nil; a.Webhooks.failed.Swap(failed) != failed {
			if failed {
				p.log.Warn("webhooks cannot be passed on to the app; Pusher is told so, and sends them again", "app", a.ID, "err", err)
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
