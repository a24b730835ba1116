package ops

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of the stream of events. A page that does not take a frame for
// slowFrames seconds is dropped: it comes back by itself, and the others and the
// guard never wait for it. A stream ends by itself after streamLife, so that
// whoever lost the right to look does not look for ever.
const (
	defaultMaxStreams = 128
	slowFrames        = 3
	streamLife        = time.Hour
	streamCallers     = 50
	streamIdle        = 8
	streamEvents      = 8
)

// Frame is one event of GET /api/v1/events, sent every second. It carries the
// busiest callers only; /api/v1/status has all of them.
type Frame struct {
	Now       time.Time          `json:"now"`
	Started   time.Time          `json:"started"` // of this process: a page whose history is older asks anew
	Assets    string             `json:"assets"`  // changes when the page itself does
	Status    Status             `json:"status"`
	Ready     Readiness          `json:"ready"`
	ReloadOK  bool               `json:"reload_ok"`
	Detector  bool               `json:"detector"`
	Incidents []Incident         `json:"incidents"` // open ones
	Ticks     map[string]Tick    `json:"ticks"`     // by account: the newest second
	Events    map[string][]Event `json:"events"`    // by account: the newest few
}

// Tick is the newest second of an account's history.
type Tick struct {
	T      int64            `json:"t"`
	Used   int64            `json:"used"`
	Plan   int64            `json:"plan"`
	Level  int              `json:"level"`
	Groups map[string]int64 `json:"groups"`
}

func (s *Server) frame() []byte {
	now := s.cfg.Now()
	f := Frame{
		Now: now.UTC(), Started: s.cfg.Started.UTC(), Assets: s.assets.version, Status: s.Status(), Ready: s.readiness(),
		ReloadOK: s.cfg.ReloadOK == nil || s.cfg.ReloadOK(), Detector: s.cfg.Incidents != nil,
		Incidents: []Incident{}, Ticks: map[string]Tick{}, Events: map[string][]Event{},
	}
	for _, in := range s.listIncidents() {
		if in.State == IncidentOpen {
			in.Samples, in.Timeline = []Sample{}, []Event{} // the incident's own page asks for them
			f.Incidents = append(f.Incidents, in)
		}
	}
	for i := range f.Status.Accounts {
		a := &f.Status.Accounts[i]
		slices.SortFunc(a.Callers, func(x, y CallerStatus) int {
			return cmp.Or(cmp.Compare(y.Rate1m, x.Rate1m), cmp.Compare(y.MessagesToday, x.MessagesToday), cmp.Compare(x.Name, y.Name))
		})
		// The idle have nothing new: of them only so many as the overview shows.
		for n := min(len(a.Callers), streamCallers); ; n-- {
			if n <= streamIdle || a.Callers[n-1].Rate1m > 0 || a.Callers[n-1].Held1m > 0 {
				a.Callers = a.Callers[:n]
				break
			}
		}
		for j := range a.Callers {
			c := &a.Callers[j]
			maps.DeleteFunc(c.Outcomes, func(_ string, n int64) bool { return n == 0 })
		}
		f.Ticks[a.Name], f.Events[a.Name] = s.book(a.Name).tick()
	}
	b, err := json.Marshal(f)
	if err != nil { // a rate that is no number, which would be a defect
		s.cfg.Log.Error("the dashboard's frame cannot be written", "err", err)
		return nil
	}
	return append(append([]byte("event: state\ndata: "), b...), '\n', '\n')
}

func (b *book) tick() (Tick, []Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := Tick{Groups: map[string]int64{}}
	if b.seen {
		p := b.fine.points[(b.fine.next+len(b.fine.points)-1)%len(b.fine.points)]
		t.T, t.Used, t.Plan, t.Level = p.at, p.used, p.plan, int(p.level)
		for g, name := range groupNames {
			t.Groups[name] = p.groups[g]
		}
	}
	return t, slices.Clone(b.events[max(len(b.events)-streamEvents, 0):])
}

// stream hands each frame to all open pages.
type stream struct {
	most  int
	mu    sync.Mutex
	pages map[*page]struct{}
	ended bool
}

// page is one open stream. gone is closed when it was too slow, or the guard
// ends.
type page struct {
	frames chan []byte
	gone   chan struct{}
}

func (st *stream) join() *page {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended || len(st.pages) >= st.most {
		return nil
	}
	p := &page{frames: make(chan []byte, slowFrames), gone: make(chan struct{})}
	if st.pages == nil {
		st.pages = map[*page]struct{}{}
	}
	st.pages[p] = struct{}{}
	return p
}

func (st *stream) leave(p *page) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.pages, p)
}

func (st *stream) open() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.pages)
}

// send makes a frame, if anybody looks, and hands it out without waiting.
func (st *stream) send(frame func() []byte) {
	if st.open() == 0 {
		return
	}
	b := frame()
	if b == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for p := range st.pages {
		select {
		case p.frames <- b:
		default:
			delete(st.pages, p)
			close(p.gone)
		}
	}
}

// end closes all streams; no new one is let in.
func (st *stream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	for p := range st.pages {
		delete(st.pages, p)
		close(p.gone)
	}
}

// events serves one page until it goes, is too slow, or streamLife is over.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	p := s.stream.join()
	if p == nil {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, "so many dashboards are open that no more are served, or this replica is leaving; close one, or ask /api/v1/status")
		return
	}
	defer s.stream.leave(p)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold frames back
	rc := http.NewResponseController(w)
	write := func(b []byte) bool {
		// Not every writer can do deadlines; those of net/http can.
		_ = rc.SetWriteDeadline(time.Now().Add(slowFrames * time.Second))
		if _, err := w.Write(b); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	first := append([]byte("retry: 1000\n\n"), bytes.Clone(s.frame())...)
	if !write(first) {
		return
	}
	life := time.NewTimer(streamLife)
	defer life.Stop()
	for {
		select {
		case b := <-p.frames:
			if !write(b) {
				return
			}
		case <-p.gone:
			return
		case <-life.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}
