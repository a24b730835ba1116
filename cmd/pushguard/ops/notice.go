package ops

import (
	"fmt"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// notice compares the account with what it was a second ago and writes down
// what changed. b.mu is held.
func (b *book) notice(now time.Time, a Account, snap quota.Snapshot, state limiter.BreakerState) {
	is := standing{level: state.State, since: state.Since, plan: snap.Plan.MessagesPerDay, storeUp: snap.StoreUp, upstream: map[string]string{}}
	if snap.Brake != nil {
		is.brake = snap.Brake.Allow + "\x00" + snap.Brake.Reason
	}
	for _, app := range a.Apps {
		is.upstream[app.ID], _ = app.Upstream.State()
	}
	was := b.was
	b.was = is
	if !b.seen {
		b.event(now, "start", "note", "this replica began to watch the account")
		if is.level == limiter.Closed && snap.Brake == nil {
			return
		}
		was = standing{plan: is.plan, storeUp: true, upstream: is.upstream}
	}
	if is.level != was.level {
		b.event(state.Since, "breaker", levelSeverity(is.level, was.level), fmt.Sprintf("quota: %s → %s: %s", words.Quota(was.level.String()), words.Quota(is.level.String()), state.Reason))
	}
	if is.brake != was.brake {
		if snap.Brake == nil {
			b.event(now, "brake", "good", "the brake was lifted")
		} else {
			b.event(now, "brake", "bad", fmt.Sprintf("brake pulled by %s, passing %s: %s", orUnknown(snap.Brake.By), snap.Brake.Allow, snap.Brake.Reason))
		}
	}
	if is.plan != was.plan {
		b.event(now, "plan", "note", fmt.Sprintf("plan set from %s to %s messages a day", words.Count(was.plan), words.Count(is.plan)))
	}
	if is.storeUp != was.storeUp {
		if is.storeUp {
			b.event(now, "store", "good", "the store answers again")
		} else {
			b.event(now, "store", "bad", "the store does not answer: "+snap.StoreErr)
		}
	}
	for id, state := range is.upstream {
		if old, known := was.upstream[id]; known && old != state {
			b.event(now, "upstream", map[bool]string{true: "good", false: "bad"}[state == "closed"],
				fmt.Sprintf("app %s: upstream breaker %s → %s", id, old, state))
		}
	}
}

// noticeIncidents writes down what became of incidents since it last looked. At
// its first look old ones are old.
func (b *book) noticeIncidents(now time.Time, account string, list []Incident) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.told == nil
	told := make(map[string]string, len(list))
	for _, in := range list {
		if in.Account != account {
			continue
		}
		is := in.State + " " + in.Action
		told[in.ID] = is
		if is == b.told[in.ID] || first && in.State != IncidentOpen {
			continue
		}
		_, known := b.told[in.ID]
		switch {
		case in.State != IncidentOpen:
			b.event(now, "incident", "good", "incident over: "+in.Headline())
			continue
		case !known:
			at := in.DetectedAt
			if first { // it began before this process: events stay in the order in which they were seen
				at = now
			}
			b.event(at, "incident", "warn", "runaway: "+in.who())
		}
		switch in.Action {
		case ActionContained:
			b.event(now, "incident", "note", in.who()+" is contained: held to its allowance")
		case ActionReleased:
			b.event(now, "incident", "note", in.who()+" is released")
		}
	}
	b.told = told
}

// event keeps the newest maxEvents.
func (b *book) event(at time.Time, kind, severity, text string) {
	b.events = append(b.events, Event{At: at.UTC(), Kind: kind, Severity: severity, Text: text})
	if len(b.events) > maxEvents {
		b.events = append(b.events[:0], b.events[len(b.events)-maxEvents:]...)
	}
}

func levelSeverity(to, from limiter.Level) string {
	switch {
	case to == limiter.Closed:
		return "good"
	case to == limiter.Open:
		return "bad"
	case to < from:
		return "note"
	}
	return "warn"
}

func orUnknown(s string) string {
	if s == "" {
		return "somebody"
	}
	return s
}
