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
	// Open is the incident that was open, if any.
	Open *Incident
}

// SeriesState is the learned part of one caller, or of one combination.
type SeriesState struct {
	Caller, Event, Channel string
	Level, Total           float64
	Learned                int32
	Active                 int64
	Scatter, Peak, Bursts  [scales]float32
	// Weekday, Weekend and Week are the shape by hour, of callers only; Days
	// is how many days of each kind were seen.
	Weekday, Weekend, Week []float32
	Recent                 []float32
	Days                   [2]int32
	// Hour is the profile of the hour by ten seconds, learned in Hours; it is
	// in force if Periodic.
	Hour     []float32
	Hours    int32
	Periodic bool
}

const stateVersion = 1

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
			x.Weekday, x.Weekend, x.Week, x.Recent = nil, nil, nil, nil
			if h := s.habit; h != nil && h.hours > 0 {
				x.Hour, x.Hours, x.Periodic = append([]float32(nil), h.part[:]...), h.hours, h.used
			}
			st.Series = append(st.Series, x)
		}
	}
	if d.open != nil {
		in := d.open.Incident
		in.Culprits = append([]Culprit(nil), in.Culprits...)
		st.Open = &in
	}
	return st
}

func (w *watch) state() SeriesState {
	x := SeriesState{Level: w.level, Total: w.total, Learned: w.learned, Active: w.active}
	for k := range w.window {
		x.Scatter[k], x.Peak[k], x.Bursts[k] = w.window[k].scatter, w.window[k].peak, w.window[k].burst
	}
	if w.shape != nil {
		x.Weekday, x.Weekend = append([]float32(nil), w.shape.kind[0][:]...), append([]float32(nil), w.shape.kind[1][:]...)
		x.Recent = append([]float32(nil), w.shape.recent[:]...)
		x.Week, x.Days = append([]float32(nil), w.shape.week[:]...), w.shape.days
	}
	return x
}

func (w *watch) restore(x *SeriesState) {
	w.init()
	w.level, w.total, w.learned, w.active = x.Level, x.Total, x.Learned, x.Active
	for k := range w.window {
		w.window[k].scatter, w.window[k].peak, w.window[k].burst = x.Scatter[k], x.Peak[k], x.Bursts[k]
		w.window[k].torn = parts // it teaches nothing until it is full again
	}
	if x.Week != nil {
		w.shape = &shape{days: x.Days}
		copy(w.shape.recent[:], x.Recent)
		copy(w.shape.kind[0][:], x.Weekday)
		copy(w.shape.kind[1][:], x.Weekend)
		copy(w.shape.week[:], x.Week)
	}
}

// Restore takes up a State, before the first Observe and Tick. It reports
// false, and takes nothing up, for a version it does not know. An incident
// that was open is open again: its culprits stay held until they are calm.
func (d *Detector) Restore(st *State) bool {
	if st.Version != stateVersion {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = st.NextID
	d.total.restore(&st.Total)
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
			if len(x.Hour) == habitBins && len(d.watched) < maxHabits {
				s.habit = &habit{hours: x.Hours, used: x.Periodic, young: true}
				copy(s.habit.part[:], x.Hour)
				d.watched = append(d.watched, s)
				if x.Periodic {
					d.habits, s.whole.jobs = append(d.habits, s), append(s.whole.jobs, s)
				}
			}
		}
	}
	if st.Open != nil {
		d.now = st.At.Unix()
		in := *st.Open
		d.open = &incident{Incident: in, measured: d.now, seen: in.Factor, slack: d.config.Slack, scale: learnScale, reviewed: d.now}
		d.mark(d.rates.all(), false)
		d.now = 0
	}
	return true
}
