package watch

import (
	"time"

	"github.com/pushguard/pushguard/quota"
)

// trend keeps the last minutes of what was used, for a straight line into the
// future: an incident is about the next hours, not about the hour of the week.
type trend struct {
	points [11]point // one a minute, a ring by minute
	plan   int64
}

type point struct {
	at   time.Time
	used int64
}

func (t *trend) add(now time.Time, used, plan int64) {
	p := &t.points[now.Unix()/60%int64(len(t.points))]
	if p.at.Unix()/60 != now.Unix()/60 {
		*p = point{now, used}
	}
	t.plan = plan
}

// pastKnown is how much of the past a forecast needs.
const pastKnown = 50 * time.Second

func (t *trend) forecast(now time.Time) Forecast {
	day := quota.DayOf(now)
	var first, last point
	for _, p := range t.points {
		if p.at.IsZero() || quota.DayOf(p.at) != day || now.Sub(p.at) > 11*time.Minute {
			continue
		}
		if first.at.IsZero() || p.at.Before(first.at) {
			first = p
		}
		if p.at.After(last.at) {
			last = p
		}
	}
	span := last.at.Sub(first.at)
	if span < pastKnown || last.used < first.used {
		return Forecast{}
	}
	perSecond := float64(last.used-first.used) / span.Seconds()
	f := Forecast{UsedAtReset: last.used + int64(perSecond*day.End().Sub(last.at).Seconds())}
	if t.plan > 0 && f.UsedAtReset > t.plan && perSecond > 0 {
		left := max(float64(t.plan-last.used)/perSecond, 0)
		f.ExhaustedAt = last.at.Add(time.Duration(left * float64(time.Second))).Truncate(time.Second).UTC()
	}
	return f
}
