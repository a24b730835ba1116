package ops

import "github.com/prometheus/client_golang/prometheus"

// What folding, conflation and deduplication among replicas did.
var (
	descFolded     = desc("folded_publishes_total", "Events that went through folding, alone or with others.", "app")
	descFoldCalls  = desc("fold_calls_total", "Calls to Pusher that carried folded events.", "app")
	descSplits     = desc("fold_splits_total", "Folded calls that Pusher refused and that were sent again in halves.", "app")
	descHeld       = desc("held_total", "Publishes that were answered and put into the delayed queue, by fate.", "what")
	descHeldNow    = desc("held", "Publishes in the delayed queue of all replicas, by state: waiting, overdue (those of the waiting that are due), sending.", "account", "state")
	descTwins      = desc("dedupe_shared_total", "Publishes of rules with scope cluster, by the answer of the other replicas; alone: decided without them.", "account", "answer")
	descTwinTrips  = desc("dedupe_shared_trips_total", "Round trips to the store for dedupe claims.", "account")
	descWebhooks   = desc("webhooks_total", "Webhooks from Pusher: taken; passed_on to the app's endpoint; not_passed_on, which Pusher sends again.", "what")
	descTwinsUp    = desc("dedupe_shared_up", "1 while replicas share dedupe claims; 0 while each decides alone because the store times out.", "account")
	descWebhookOdd = desc("webhook_events_unreadable_total", "Events of signed webhooks that could not be read; they are passed on and teach nothing.")
)

func (s *Server) collectFolded(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, int64, ...string)) {
	for _, a := range s.cfg.Accounts() {
		for _, app := range a.Apps {
			if app.Fold != nil {
				f := app.FoldStats()
				counter(descFolded, f.Publishes, app.ID)
				counter(descFoldCalls, f.Calls, app.ID)
				counter(descSplits, f.Splits, app.ID)
			}
		}
		if a.Shelf != nil {
			held := a.Shelf.Held()
			gauge(descHeldNow, float64(held.Waiting), a.Name, "waiting")
			gauge(descHeldNow, float64(held.Overdue), a.Name, "overdue")
			gauge(descHeldNow, float64(held.Sending), a.Name, "sending")
		}
		if a.Twins == nil {
			continue
		}
		t := a.Twins.Stats()
		for _, x := range []struct {
			answer string
			n      int64
		}{{"new", t.Claimed}, {"delivered", t.Delivered}, {"under_way", t.Elsewhere}, {"alone", t.Alone}} {
			counter(descTwins, x.n, a.Name, x.answer)
		}
		counter(descTwinTrips, t.Trips, a.Name)
		gauge(descTwinsUp, truth(t.Up), a.Name)
	}
	taken, passed, lost := s.cfg.Stats.Webhooks()
	counter(descWebhooks, taken, "taken")
	counter(descWebhooks, passed, "passed_on")
	counter(descWebhooks, lost, "not_passed_on")
	counter(descWebhookOdd, s.cfg.Stats.WebhooksUnread())
	h := s.cfg.Stats.Held()
	for _, x := range []struct {
		what string
		n    int64
	}{{"held", h.Held}, {"replaced", h.Replaced}, {"sent", h.Sent}, {"sent_again", h.Again}, {"expired", h.Expired}, {"dropped", h.Dropped}, {"unknown", h.Unknown}, {"not_held", h.NotHeld}, {"no_room", h.NoRoom}, {"refresh_sent", h.Refreshes}} {
		counter(descHeld, x.n, x.what)
	}
}
