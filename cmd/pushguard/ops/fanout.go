package ops

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/cmd/pushguard/learn"
	"github.com/pushguard/pushguard/pusher/proxy"
)

// Fanout is the answer of GET /api/v1/apps/{id}/fanout: what is known of how many subscribe, on this replica. Counts
// are shared between replicas each second.
type Fanout struct {
	App string `json:"app"`
	// Learned is how many channels have a count that is not the configured one, or are known to be empty.
	Learned int `json:"learned"`
	// Occupied is how many channels had subscribers when Pusher was last asked, at PolledAt; null: it was not.
	Occupied *int          `json:"occupied"`
	PolledAt *time.Time    `json:"polled_at"`
	Asking   *AskingStatus `json:"asking"`
	// Channel is the one that ?channel= names; absent without.
	Channel *ChannelFanout `json:"channel,omitempty"`
}

// AskingStatus is what pushguard asks Pusher by itself (the config's learn). Budget and Spent are messages of today of
// all replicas, the rest is of this one since it started.
type AskingStatus struct {
	On            bool       `json:"on"`
	Why           string     `json:"why,omitempty"` // nothing is asked now
	Budget        int64      `json:"budget"`
	Spent         int64      `json:"spent"`
	Polls         int64      `json:"polls"`
	PollsFailed   int64      `json:"polls_failed"`
	Samples       int64      `json:"samples"`
	SamplesFailed int64      `json:"samples_failed"`
	LastError     string     `json:"last_error,omitempty"`
	LastErrorAt   *time.Time `json:"last_error_at,omitempty"`
	// Off is by how much estimates turned out wrong, as a part of them, by the source that they came from.
	Off map[string]float64 `json:"off"`
}

// ChannelFanout is how many deliveries a publish to one channel counts as, and why.
type ChannelFanout struct {
	Name        string  `json:"name"`
	Subscribers int64   `json:"subscribers"`
	Source      string  `json:"source"` // default, poll, info, webhook
	AgeS        float64 `json:"age_s"`
	// Empty says that nobody subscribes, known as of when and since when; null: not known.
	Empty *EmptyStatus `json:"empty"`
}

// EmptyStatus is what is known of a channel that nobody subscribes to.
type EmptyStatus struct {
	Since  time.Time `json:"since"`
	AsOf   time.Time `json:"as_of"`
	Source string    `json:"source"`
}

func (s *Server) fanout(r *http.Request) (Fanout, error) {
	id := r.PathValue("id")
	for _, a := range s.cfg.Accounts() {
		for _, app := range a.Apps {
			if app.ID != id {
				continue
			}
			out := Fanout{App: id, Learned: app.Fanout.Learned()}
			if n, at := app.Fanout.Occupied(); !at.IsZero() {
				out.Occupied, out.PolledAt = &n, &at
			}
			if a.Learned != nil {
				out.Asking = askingStatus(a.Learned()[id])
			}
			if name := r.URL.Query().Get("channel"); name != "" {
				out.Channel = channelFanout(s.cfg.Now(), app, name)
			}
			return out, nil
		}
	}
	return Fanout{}, &failure{http.StatusNotFound, "there is no app " + id}
}

func askingStatus(s learn.Status) *AskingStatus {
	out := &AskingStatus{On: s.On, Why: s.Why, Budget: s.Budget, Spent: s.Spent, Polls: s.Polls, PollsFailed: s.PollsFailed,
		Samples: s.Samples, SamplesFailed: s.SamplesFailed, LastError: s.LastError, Off: s.Off}
	if !s.LastErrorAt.IsZero() {
		out.LastErrorAt = &s.LastErrorAt
	}
	return out
}

func channelFanout(now time.Time, app *proxy.App, name string) *ChannelFanout {
	app.Fanout.Tick(now)
	n, source, age := app.Fanout.Explain(name)
	out := &ChannelFanout{Name: name, Subscribers: n, Source: source.String(), AgeS: age.Seconds()}
	if e, ok := app.Fanout.KnownEmpty(name); ok {
		out.Empty = &EmptyStatus{e.Since, e.AsOf, e.Source.String()}
	}
	return out
}

var (
	descAsked       = desc("learn_questions_total", "Subscriber queries that this replica sent to Pusher, by kind (poll, sample) and result (ok, failed).", "app", "kind", "result")
	descAskedSpent  = desc("learn_messages", "Messages that all replicas spent on subscriber queries today (UTC), when this replica last sent one.", "app")
	descAskedBudget = desc("learn_messages_limit", "Messages that all replicas may spend on subscriber queries today (UTC).", "app")
	descLearned     = desc("fanout_learned_channels", "Channels whose subscriber count was learned.", "app")
	descOccupied    = desc("fanout_occupied_channels", "Channels with subscribers at the last poll.", "app")
	descPollAge     = desc("fanout_poll_age_seconds", "Age of the last poll of occupied channels, by any replica.", "app")
)

func (s *Server) collectFanout(now time.Time, gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, int64, ...string)) {
	for _, a := range s.cfg.Accounts() {
		var asked map[string]learn.Status
		if a.Learned != nil {
			asked = a.Learned()
		}
		for _, app := range a.Apps {
			gauge(descLearned, float64(app.Fanout.Learned()), app.ID)
			if n, at := app.Fanout.Occupied(); !at.IsZero() {
				gauge(descOccupied, float64(n), app.ID)
				gauge(descPollAge, now.Sub(at).Seconds(), app.ID)
			}
			l, ok := asked[app.ID]
			if !ok {
				continue
			}
			counter(descAsked, l.Polls-l.PollsFailed, app.ID, "poll", "ok")
			counter(descAsked, l.PollsFailed, app.ID, "poll", "failed")
			counter(descAsked, l.Samples-l.SamplesFailed, app.ID, "sample", "ok")
			counter(descAsked, l.SamplesFailed, app.ID, "sample", "failed")
			gauge(descAskedSpent, float64(l.Spent), app.ID)
			gauge(descAskedBudget, float64(l.Budget), app.ID)
		}
	}
}
