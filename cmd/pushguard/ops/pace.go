package ops

import (
	"context"
	"slices"
	"time"

	"github.com/pushguard/pushguard/quota"
)

const paceWindow = time.Minute

// Run looks at the guard once a second, for history, forecast and the stream of
// events, until ctx ends.
func (s *Server) Run(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		s.Sample(s.cfg.Now())
		s.stream.send(s.frame)
		select {
		case <-ctx.Done():
			s.stream.end()
			return
		case <-t.C:
		}
	}
}

// Sample writes the second that ends at now into the history of every account.
// Run does it; tests call it with times of their own.
func (s *Server) Sample(now time.Time) {
	incidents := s.listIncidents()
	for _, a := range s.cfg.Accounts() {
		b := s.book(a.Name)
		b.sample(now, a)
		b.noticeIncidents(now, a.Name, incidents)
	}
}

func (s *Server) book(account string) *book {
	s.booksMu.Lock()
	defer s.booksMu.Unlock()
	b := s.books[account]
	if b == nil {
		b = newBook()
		s.books[account] = b
	}
	return b
}

// pace is how fast an account spends, in messages a second of all replicas
// together: over the last minute, and the band in which most of the minutes of
// the last hour lay.
type pace struct{ now, low, high float64 }

// pace measures. It is zero until two seconds are known, and knows nothing of
// what was before the day began or before the count was set by hand.
func (b *book) pace(now time.Time) pace {
	b.mu.Lock()
	defer b.mu.Unlock()
	minute := b.spending(b.fine.since(now.Add(-paceWindow - time.Second).Unix()))
	out := pace{now: perSecond(minute)}
	hour := b.spending(b.coarse.since(now.Add(-time.Hour).Unix()))
	var rates []float64
	if len(hour) > 5 {
		rates = stepRates(hour, 1)
	} else {
		rates = stepRates(b.spending(b.fine.since(now.Add(-finePoints*fineStep).Unix())), 10)
	}
	out.low, out.high = out.now, out.now
	if len(rates) >= 3 {
		slices.Sort(rates)
		out.low = min(out.low, rates[len(rates)/10])
		out.high = max(out.high, rates[len(rates)-1-len(rates)/10])
	}
	return out
}

// forgetPace is for a count that was set by hand: the step it makes is no rate.
func (b *book) forgetPace(now func() time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touched = now()
}

// spending cuts off what is not comparable with the newest point: another day,
// or a count that was set by hand.
func (b *book) spending(points []point) []point {
	for i := len(points) - 1; i > 0; i-- {
		if points[i-1].used > points[i].used || !b.touched.IsZero() && points[i-1].at <= b.touched.Unix() {
			return points[i:]
		}
	}
	return points
}

func perSecond(points []point) float64 {
	if len(points) < 2 {
		return 0
	}
	first, last := points[0], points[len(points)-1]
	if last.at <= first.at {
		return 0
	}
	return float64(last.used-first.used) / float64(last.at-first.at)
}

func stepRates(points []point, every int) (rates []float64) {
	for i := every; i < len(points); i += every {
		rates = append(rates, perSecond(points[i-every:i+1]))
	}
	return rates
}

// usual is what a caller asks for a second on a usual minute of the last hour:
// the median minute but the newest two, or, while less than five minutes are
// known, of ten seconds but the newest three. ok is false while too little is
// known. It is worked out every ten seconds. b.mu is held.
func (b *book) usual(now time.Time, caller int) (rate float64, ok bool) {
	if now.Sub(b.usualAt) >= 10*time.Second || now.Before(b.usualAt) {
		b.usualAt, b.usuals = now, b.usuals[:0]
		points, width := b.coarse.since(now.Add(-time.Hour).Unix()), 1
		secs := 60.0
		if len(points) >= 5 {
			points = points[:len(points)-2]
		} else {
			points, width, secs = b.fine.since(now.Add(-5*time.Minute).Unix()), 10, 10
			points = points[:max(len(points)-30, 0)]
		}
		for i := range b.names {
			b.usuals = append(b.usuals, median(points, width, i)/secs)
		}
	}
	if caller >= len(b.usuals) || b.usuals[caller] < 0 {
		return 0, false
	}
	return b.usuals[caller], true
}

// median is the median of what a caller asked for in width points; below 0 when
// there are not three of them.
func median(points []point, width, caller int) float64 {
	var sums []int64
	for i := 0; i+width <= len(points); i += width {
		var n int64
		for _, p := range points[i : i+width] {
			if caller < len(p.callers) {
				n += p.callers[caller].asked
			}
		}
		sums = append(sums, n)
	}
	if len(sums) < 3 {
		return -1e9
	}
	slices.Sort(sums)
	return float64(sums[len(sums)/2])
}

// recent is what each caller asked for and was refused in the last n seconds,
// by the book's index. b.mu is held.
func (b *book) recent(now time.Time, n int64) []pair {
	out := make([]pair, len(b.names))
	for _, p := range b.fine.since(now.Unix() - n) {
		for i, c := range p.callers {
			out[i].asked += c.asked
			out[i].held += c.held
		}
	}
	return out
}

// expect is the one forecast (quota/forecast), beside the rate of the last minute.
func expect(now time.Time, a Account, snap quota.Snapshot, p pace) ForecastStatus {
	f := a.Ledger.ForecastOf(now, snap.Used, snap.Plan.MessagesPerDay)
	out := ForecastStatus{
		Basis: "profile", ProfileHours: f.Hours, UsedAtReset: f.UsedAtReset, Low: f.Low, High: f.High,
		PerSecond: p.now, LowPerSecond: p.low, HighPerSecond: p.high,
	}
	if f.Hours == 0 {
		out.Basis = "straight_line"
	}
	if !f.ExhaustedAt.IsZero() {
		t := f.ExhaustedAt.UTC().Truncate(time.Second)
		out.ExhaustedAt = &t
	}
	return out
}
