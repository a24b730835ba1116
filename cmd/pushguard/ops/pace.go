package ops

import (
	"context"
	"sync"
	"time"
)

// pace knows how fast each account spends: what all replicas together used,
// looked at once a second over the last minute.
type pace struct {
	mu      sync.Mutex
	samples map[string][]usage
}

type usage struct {
	at   time.Time
	day  string
	used int64
}

const paceWindow = time.Minute

// Run keeps the pace until ctx ends.
func (s *Server) Run(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		s.sample()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (s *Server) sample() {
	now := s.cfg.Now()
	s.pace.mu.Lock()
	defer s.pace.mu.Unlock()
	if s.pace.samples == nil {
		s.pace.samples = map[string][]usage{}
	}
	for _, a := range s.cfg.Accounts() {
		snap := a.Ledger.Snapshot(now)
		list := s.pace.samples[a.Name]
		for len(list) > 0 && (now.Sub(list[0].at) > paceWindow || list[0].day != snap.Day.String() || list[0].used > snap.Used) {
			list = list[1:]
		}
		s.pace.samples[a.Name] = append(list, usage{now, snap.Day.String(), snap.Used})
	}
}

// perSecond is messages a second over the last minute, or over as much of it as
// is known; 0 until two seconds are.
func (p *pace) perSecond(account string) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.samples[account]
	if len(list) < 2 {
		return 0
	}
	first, last := list[0], list[len(list)-1]
	secs := last.at.Sub(first.at).Seconds()
	if secs < 1 {
		return 0
	}
	return float64(last.used-first.used) / secs
}
