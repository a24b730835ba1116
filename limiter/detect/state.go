package detect

import "time"

// State is what a Detector has learned, for keeping over a restart. It is
// plain data, so any encoding will do.
type State struct {
	// Version is of the format; Restore refuses others.
	Version int
	At      time.Time
	NextID  int
	Total   SeriesState
	// Callers come before their Series.
	Callers, Series []SeriesState
	Episodes        []EpisodeState
	// Open is the incident that was open, if any.
	Open *Incident
}

// SeriesState is the learned part of one caller, or of one combination.
type SeriesState struct {
	Caller, Event, Channel string
	Level                  float64
	Levels                 []float32
	// Local is the rate of the last hours, which stands in until they are seen anew.
	Local      float64
	Learned    int32
	Active     int64
	Dispersion [scales]float32
	Tops       [scales][topDays]float32
	// Publishes, Messages and Squares are of the price.
	Publishes, Messages, Squares float64
	// Days are the hours of the last days, over the level, and Weekdays which of them were
	// one of Monday to Friday; of callers only. Today is the last of them.
	Days     [][]float32
	Weekdays []bool
	// Weekday and Weekend are the shape as version 1 had it.
	Weekday, Weekend []float32
}

// Version 1 is read: it had one level, and one shape for weekdays and one for weekends.
const stateVersion = 2

// State copies what was learned.
func (d *Detector) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := State{Version: stateVersion, At: time.Unix(d.now, 0).UTC(), NextID: d.next, Total: d.total.state()}
	for _, s := range d.rates.all() {
		x := s.state()
		x.Caller, x.Event, x.Channel = s.caller, s.event, s.channel
		if s.whole == nil {
			st.Callers = append(st.Callers, x)
		} else {
			x.Days, x.Weekdays = nil, nil
			x.Publishes, x.Messages, x.Squares = s.price.publishes, s.price.messages, s.price.squares
			st.Series = append(st.Series, x)
		}
	}
	for _, e := range d.episodes {
		st.Episodes = append(st.Episodes, EpisodeState{e.caller, e.event, e.channel, e.Start, e.Length, e.Rate, e.Daily, e.Hourly})
	}
	if d.open != nil {
		in := d.open.Incident
		in.Culprits = append([]Culprit(nil), in.Culprits...)
		st.Open = &in
	}
	return st
}

// EpisodeState is one rise that is remembered, see episode.
type EpisodeState struct {
	Caller, Event, Channel string
	Start, Length          int64
	Rate                   float64
	Daily, Hourly          int
}

func (w *watch) state() SeriesState {
	x := SeriesState{Level: w.level, Levels: append([]float32(nil), w.levels[:]...), Local: max(w.localOf, w.base), Learned: w.learned, Active: w.active}
	for k := range w.window {
		x.Dispersion[k], x.Tops[k] = w.window[k].dispersion, w.window[k].tops
	}
	if w.shape != nil {
		for i := range w.shape.ring {
			at := (w.shape.next + 1 + i) % shapeDays // the oldest first
			x.Days = append(x.Days, append([]float32(nil), w.shape.ring[at][:]...))
			x.Weekdays = append(x.Weekdays, w.shape.week[at])
		}
	}
	return x
}

func (w *watch) restore(x *SeriesState) {
	w.init()
	w.level, w.learned, w.active = x.Level, x.Learned, x.Active
	w.born = x.Active - int64(x.Learned)*parts*partSeconds[learnScale]
	w.adopted, w.adoptedUntil = x.Local, x.Active+parts*partSeconds[scales-1]
	copy(w.levels[:], x.Levels)
	if len(x.Levels) == 0 {
		w.levels[0] = float32(x.Level)
	}
	for k := range w.window {
		win := &w.window[k]
		if x.Dispersion[k] >= 1 {
			win.dispersion, win.samples = x.Dispersion[k], 64
		}
		win.tops = x.Tops[k]
		win.torn = parts // it teaches nothing until it is full again
	}
	if x.Days == nil && x.Weekday == nil {
		return
	}
	w.shape = &shape{}
	if x.Days == nil { // version 1
		for k, v := range [][]float32{x.Weekday, x.Weekend} {
			if len(v) == 24 && v[0] > 0 {
				copy(w.shape.ring[k][:], v)
				w.shape.week[k], w.shape.next = k == 0, 2
			}
		}
		w.shape.settle()
		return
	}
	for i, day := range x.Days {
		if i < shapeDays && i < len(x.Weekdays) {
			copy(w.shape.ring[i][:], day)
			w.shape.week[i] = x.Weekdays[i]
		}
	}
	w.shape.next = shapeDays - 1
	w.shape.settle()
}

// Restore takes up a State, before the first Observe and Tick. It reports
// false, and takes nothing up, for a version it does not know. An incident
// that was open is open again: its culprits stay held until they are calm.
func (d *Detector) Restore(st *State) bool {
	if st.Version != stateVersion && st.Version != 1 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = st.NextID
	d.total.restore(&st.Total)
	if d.total.shape == nil {
		d.total.shape = &shape{}
	}
	for i := range st.Callers {
		x := &st.Callers[i]
		s := d.rates.find(&Key{Caller: x.Caller, Event: Any, Channel: Any})
		if s.shape == nil && s.whole == nil {
			s.restore(x)
			d.callers = append(d.callers, s)
		} else if s.whole != nil && s.whole.shape == nil {
			s.whole.restore(x)
			d.callers = append(d.callers, s.whole)
		}
	}
	for i := range st.Series {
		x := &st.Series[i]
		s := d.rates.find(&Key{Caller: x.Caller, Event: x.Event, Channel: x.Channel})
		if s.whole != nil && s.whole.shape != nil && s.shape == nil {
			s.restore(x)
			s.shape = s.whole.shape
			s.price.publishes, s.price.messages, s.price.squares = x.Publishes, x.Messages, x.Squares
		}
	}
	for _, e := range st.Episodes {
		if len(d.episodes) < maxEpisodes {
			d.episodes = append(d.episodes, episode{e.Caller, e.Event, e.Channel, e.Start, e.Length, e.Rate, e.Daily, e.Hourly})
		}
	}
	if st.Open != nil {
		d.now = st.At.Unix()
		in := *st.Open
		d.open = &incident{Incident: in, measured: d.now, seen: in.Factor, slack: d.config.Slack, scale: learnScale, reviewed: d.now}
		d.mark(d.rates.all())
		d.now = 0
	}
	return true
}
