package quota

import (
	"context"
	"errors"
	"github.com/pushguard/pushguard/quota/forecast"
	"time"
)

// The profiles of the week that are kept: of the whole account, and of what must not be refused for the sake of bulk, and
// of normal publishes.
const (
	profileBlob     = "profile"
	aboveBulkBlob   = "profile.above-bulk"
	aboveNormalBlob = "profile.above-normal"
)

// protected are forecasts of parts of the day's messages, from the tally.
type protected struct{ aboveBulk, aboveNormal *forecast.Model }

// observe takes the day's tally of all replicas. What passes nobody's judgement is needed before everything else.
func (p *protected) observe(now time.Time, t Tally) {
	unjudged := t[Browser] + t[Unseen]
	p.aboveNormal.Observe(now, t[SpentCritical]+unjudged)
	p.aboveBulk.Observe(now, t[SpentCritical]+t[SpentNormal]+unjudged)
}

// needsKnown is how many of the week's hours must be known before a forecast decides who is refused: each hour of the
// day, and a little for those that were only half seen.
const needsKnown = 22

// Needs are the messages that the rest of the day will still need, in nine days of ten, for critical and normal publishes
// and for what passes nobody's judgement (aboveBulk), and for the latter and critical ones alone; false while too little
// of the account's week is known.
func (l *Ledger) Needs(now time.Time) (aboveBulk, aboveNormal int64, known bool) {
	if l.protected.aboveBulk.Known() < needsKnown {
		return 0, 0, false
	}
	const none = 1 << 60 // no plan is asked for
	return l.protected.aboveBulk.At(now, 0, none).High, l.protected.aboveNormal.At(now, 0, none).High, true
}

// Forecast extrapolates the account's day from the profile of its week, as learned by all replicas' heartbeats and kept
// in the store.
func (l *Ledger) Forecast(now time.Time) forecast.Forecast {
	used, plan := l.Used(now)
	return l.forecaster.At(now, used, plan)
}

// ForecastOf is Forecast for another count or plan, to show what a change of them would do.
func (l *Ledger) ForecastOf(now time.Time, used, plan int64) forecast.Forecast {
	return l.forecaster.At(now, used, plan)
}

// models are the forecasts with the names of their profiles in the store.
func (l *Ledger) models() map[string]*forecast.Model {
	return map[string]*forecast.Model{profileBlob: l.forecaster, aboveBulkBlob: l.protected.aboveBulk, aboveNormalBlob: l.protected.aboveNormal}
}

// readProfile reads what earlier processes learned, once. Until it was read none is written, or an empty one would take
// its place.
func (l *Ledger) readProfile(ctx context.Context) {
	if l.profiled {
		return
	}
	var err error
	for name, model := range l.models() {
		data, e := l.st.GetBlob(ctx, l.cfg.Load().Account, name)
		if e == nil && data != nil {
			e = model.Load(data)
		}
		err = errors.Join(err, e)
	}
	err = errors.Join(err, l.Hear(ctx))
	l.profiled = err == nil || l.view.Load().up
	if err != nil && l.profiled {
		l.log.Warn("what was learned of the account's week is not known; forecasts begin anew", "err", err)
	}
}

// keepProfile stores the profile when an hour was learned. Every replica sees the whole account, so any one's will do.
func (l *Ledger) keepProfile(ctx context.Context) {
	if !l.view.Load().up {
		return
	}
	if l.readProfile(ctx); !l.profiled {
		return
	}
	for name, model := range l.models() {
		if data := model.Save(); data != nil {
			if err := l.st.PutBlob(ctx, l.cfg.Load().Account, name, data); err != nil {
				model.Unsaved()
			}
		}
	}
}

// Keep stores a small value of the account under a name, for Kept on any replica; the last writer wins.
func (l *Ledger) Keep(ctx context.Context, name string, value []byte) error {
	return l.st.PutBlob(ctx, l.cfg.Load().Account, name, value)
}

// Kept is what Keep stored; nil: nothing.
func (l *Ledger) Kept(ctx context.Context, name string) ([]byte, error) {
	return l.st.GetBlob(ctx, l.cfg.Load().Account, name)
}
