package detect

// episode is a rise of a series that was noticed: what comes a second time at about
// the same time of the day, or of the hour, is known from then on. Jobs, imports and
// reports do, of whatever length.
type episode struct {
	caller, event, channel string
	Start                  int64 // the last one
	Length                 int64 // seconds, the longest
	Rate                   float64
	Daily, Hourly          int // how often it came at the same time of the day, of the hour
}

const (
	maxEpisodes    = 256
	episodeSlip    = 20 * 60 // seconds that a job may come early or late
	hourlySlip     = 3 * 60
	hourlyLongest  = 20 * 60
	episodeForgets = 15 * secondsDay
	// dueSlack is how much more than last time it may be.
	dueSlack = 1.25
)

// apart is how far two times are apart in a cycle.
func apart(a, b, cycle int64) int64 {
	n := ((a-b)%cycle + cycle) % cycle
	return min(n, cycle-n)
}

// remember keeps an episode of a series that began then and reached that rate.
func (d *Detector) remember(s *series, start, end int64, rate float64) {
	length := max(end-start, 60)
	old := -1
	for i := range d.episodes {
		e := &d.episodes[i]
		if old < 0 || e.Start < d.episodes[old].Start {
			old = i
		}
		if e.caller != s.caller || e.event != s.event || e.channel != s.channel || start-e.Start < 30*60 {
			continue
		}
		daily := apart(start, e.Start, secondsDay) <= episodeSlip
		hourly := apart(start, e.Start, secondsHour) <= hourlySlip && length <= hourlyLongest && start-e.Start < 12*secondsHour
		if !daily && !hourly {
			continue
		}
		if daily {
			e.Daily++
		}
		if hourly {
			e.Hourly++
		}
		e.Start, e.Length, e.Rate = start, max(e.Length, length), max(rate, e.Rate*0.8)
		return
	}
	e := episode{caller: s.caller, event: s.event, channel: s.channel, Start: start, Length: length, Rate: rate}
	if len(d.episodes) < maxEpisodes {
		d.episodes = append(d.episodes, e)
	} else {
		d.episodes[old] = e
	}
}

// is reports whether the episode may be going on at that second.
func (e *episode) is(now int64) bool {
	if now-e.Start > episodeForgets || now < e.Start {
		return false
	}
	in := func(cycle, slip int64) bool {
		since := ((now-e.Start+slip)%cycle + cycle) % cycle
		return since <= 2*slip+e.Length*5/4
	}
	return e.Daily >= 1 && in(secondsDay, episodeSlip) || e.Hourly >= 1 && in(secondsHour, hourlySlip)
}

// turnEpisodes works out every ten seconds which episodes are due.
func (d *Detector) turnEpisodes(list []*series) {
	if len(d.episodes) == 0 || d.now-d.dueAt < 10 {
		return
	}
	d.dueAt = d.now
	for _, s := range list {
		s.due = 0
	}
	for i := range d.episodes {
		e := &d.episodes[i]
		if !e.is(d.now) {
			continue
		}
		s := d.rates.find(&Key{Caller: e.caller, Event: e.event, Channel: e.channel})
		if s.shape == nil {
			continue // it has not been seen since the start
		}
		s.due = max(s.due, e.Rate)
		if s.whole != nil {
			s.whole.due += e.Rate
		}
	}
	for _, s := range list {
		if s.whole == nil && s.due > 0 {
			s.due += d.rate(&s.watch) / dueSlack // beside what else the caller sends
		}
	}
}
