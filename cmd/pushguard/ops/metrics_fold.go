package ops

import "github.com/prometheus/client_golang/prometheus"

// What folding, conflation and deduplication among replicas did.
var (
	descFolded    = desc("folded_publishes_total", "Events that went to Pusher through the folder, alone or with others.", "app")
	descFoldCalls = desc("fold_calls_total", "Calls to Pusher that carried them.", "app")
	descSplits    = desc("fold_splits_total", "Folded calls that Pusher refused and that were sent again in halves.", "app")
	descHeld      = desc("held_total", "Publishes that were answered and kept in the store, by what became of them.", "what")
	descHeldNow   = desc("held", "Publishes that are held now on all replicas: waiting; overdue, those of the waiting whose time has come; sending.", "account", "state")
	descTwins     = desc("dedupe_shared_total", "Publishes of rules with scope cluster, by what the other replicas knew of them; alone: this replica decided without them.", "account", "answer")
	descTwinTrips = desc("dedupe_shared_trips_total", "Round trips to the store for them.", "account")
	descWebhooks  = desc("webhooks_total", "Pusher's webhooks: taken, passed_on to the app's own endpoint, or not_passed_on, which Pusher sends again.", "what")
	descTwinsUp   = desc("dedupe_shared_up", "1 while the replicas share what they deduplicate, 0 while each decides alone because the store does not answer in time.", "account")
)

func describeFolded(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descFolded, descFoldCalls, descSplits, descHeld, descHeldNow, descTwins, descTwinTrips, descTwinsUp, descWebhooks} {
		ch <- d
	}
}

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
	h := s.cfg.Stats.Held()
	for _, x := range []struct {
		what string
		n    int64
	}{{"held", h.Held}, {"replaced", h.Replaced}, {"sent", h.Sent}, {"sent_again", h.Again}, {"expired", h.Expired}, {"dropped", h.Dropped}, {"unknown", h.Unknown}, {"not_held", h.NotHeld}, {"refresh_sent", h.Refreshes}} {
		counter(descHeld, x.n, x.what)
	}
}
