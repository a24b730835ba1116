package ops

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/quota"
)

// BillStatus says how the count of the day's messages comes about, and how much of it is a guess. Counts are of all
// replicas.
type BillStatus struct {
	// GuessedToday and Guessed10m are the parts (0–1) of today's and of the last ten minutes' messages that belong to
	// publishes whose channels' numbers of subscribers are a default.
	GuessedToday float64 `json:"guessed_today"`
	Guessed10m   float64 `json:"guessed_10m"`
	// Note says why, and what to do; absent when nothing is guessed.
	Note string `json:"note,omitempty"`
	// NoCounts are the apps for which Pusher gives no counts of subscribers.
	NoCounts []string `json:"no_counts"`
	// Browser is traffic beside publishes: webhook calls, subscription counts, presence, client events.
	Browser int64 `json:"browser"`
	// Unseen is booked for traffic that never passes here, UnseenPerHour at this hour of the week; ByPusher because Pusher
	// said that the plan is spent. Questions were asked by pushguard itself.
	Unseen        int64   `json:"unseen"`
	UnseenPerHour float64 `json:"unseen_per_hour"`
	ByPusher      int64   `json:"by_pusher"`
	Questions     int64   `json:"questions"`
	// Scale is by how much configured numbers of subscribers are multiplied because Pusher showed them to be too low.
	Scale float64 `json:"scale"`
	// Shortfall is what Pusher's last refusal showed, in words.
	Shortfall string `json:"shortfall,omitempty"`
}

// guessedNote is from which part on people are told why.
const guessedNote = 0.1

// BillOf gathers an account's BillStatus.
func BillOf(now time.Time, a Account) BillStatus {
	t := a.Ledger.Tally(now)
	out := BillStatus{NoCounts: []string{}, Browser: t.Of(quota.Browser), Unseen: t.Of(quota.Unseen), ByPusher: t.Of(quota.ByPusher),
		Questions: t.Of(quota.Questions), UnseenPerHour: a.Ledger.UnseenPerHour(now), Scale: 1}
	out.GuessedToday, out.Guessed10m = a.Ledger.GuessedRatio(now)
	if s := a.Ledger.LastShortfall(); s.Day == quota.DayOf(now) && s.Counted < s.Plan {
		out.Shortfall = s.Words()
	}
	for _, app := range a.Apps {
		out.Scale = max(out.Scale, app.Fanout.Scaled())
	}
	off := false
	if a.Learned != nil {
		for id, l := range a.Learned() {
			off = off || !l.On
			if !l.NoCounts.IsZero() {
				out.NoCounts = append(out.NoCounts, id)
			}
		}
	}
	slices.Sort(out.NoCounts)
	if out.Guessed10m < guessedNote {
		return out
	}
	switch {
	case len(out.NoCounts) > 0:
		out.Note = "Pusher gives no subscriber counts for app " + strings.Join(out.NoCounts, ", ") + ": turn on subscription counting in the app's settings at Pusher. " +
			"It has a price: each subscription and unsubscription then sends an event to every subscriber of the channel (above 100 subscribers every 5 s). " +
			"Or give the numbers yourself (subscribers in the config)"
	case off:
		out.Note = "Nothing is asked of Pusher (learn.sample is false), so channels count as the config says (subscribers)"
	default:
		out.Note = "Numbers of subscribers are being learned"
	}
	return out
}

// Line is the status as one line for people.
func (b BillStatus) Line() string {
	line := fmt.Sprintf("%.0f %% of the last ten minutes' messages are priced by a default (%.0f %% of today's)", 100*b.Guessed10m, 100*b.GuessedToday)
	if b.Note != "" {
		line += ". " + b.Note
	}
	return line
}

var (
	descGuessed   = desc("messages_guessed_ratio", "Part of the messages of the last ten minutes that is priced by a default number of subscribers, 0 to 1.", "account")
	descBrowser   = desc("messages_beside_publishes", "Messages counted today for webhook calls, subscription counts, presence and client events.", "account")
	descUnseen    = desc("messages_unseen", "Messages booked today for traffic that never passes here: by profile, or because Pusher refused.", "account", "cause")
	descNoCounts  = desc("subscriber_counts_available", "1 while Pusher answers with subscriber counts, 0 where subscription counting is off in the app's settings.", "app")
	descForecasts = desc("messages_forecast_band", "Messages used by the reset: one day in ten ends below low, one in ten above high.", "account", "edge")
)

func collectBill(now time.Time, a Account, gauge func(*prometheus.Desc, float64, ...string)) {
	b := BillOf(now, a)
	gauge(descGuessed, b.Guessed10m, a.Name)
	gauge(descBrowser, float64(b.Browser), a.Name)
	gauge(descUnseen, float64(b.Unseen), a.Name, "profile")
	gauge(descUnseen, float64(b.ByPusher), a.Name, "refused")
	f := a.Ledger.Forecast(now)
	gauge(descForecasts, float64(f.Low), a.Name, "low")
	gauge(descForecasts, float64(f.High), a.Name, "high")
	for _, app := range a.Apps {
		gauge(descNoCounts, truth(!slices.Contains(b.NoCounts, app.ID)), app.ID)
	}
}
