package quota

import (
	"context"
	"github.com/pushguard/pushguard/quota/forecast"
	"time"
)

const profileBlob = "profile"

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

// readProfile reads the profile once. Until it was read none is written, or an empty one would take its place.
func (l *Ledger) readProfile(ctx context.Context) {
	if l.profiled {
		return
	}
	data, err := l.st.GetBlob(ctx, l.cfg.Load().Account, profileBlob)
	if err == nil && data != nil {
		err = l.forecaster.Load(data)
	}
	l.profiled = err == nil || l.view.Load().up
	if err != nil && l.profiled {
		l.log.Warn("the profile of the week is not known; forecasts begin anew", "err", err)
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
	data := l.forecaster.Save()
	if data == nil {
		return
	}
	if err := l.st.PutBlob(ctx, l.cfg.Load().Account, profileBlob, data); err != nil {
		l.forecaster.Unsaved()
	}
}
