package watch

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"

	"github.com/pushguard/pushguard/limiter/detect"
)

// saved is the form of Save, as gzipped JSON. Its version rises when an older
// release could not read it any more.
type saved struct {
	Version   int           `json:"version"`
	Incidents []Incident    `json:"incidents"`
	Current   string        `json:"current,omitempty"` // id of the open one
	Number    int           `json:"number,omitempty"`  // the detector's, of the same
	Released  bool          `json:"released,omitempty"`
	Forced    bool          `json:"forced,omitempty"`
	Detector  *detect.State `json:"detector"`
}

const (
	savedVersion = 1
	maxSaved     = 256 << 20 // of what Load unpacks
)

// Save is what is to survive a restart: the incidents and what
// the detector learned, as an opaque blob. It is nil only if that cannot be
// written, which is a defect.
func (w *Watch) Save() []byte {
	state := w.det.State()
	s := saved{Version: savedVersion, Detector: &state}
	w.mu.Lock()
	w.refusals()
	for _, in := range w.incidents {
		s.Incidents = append(s.Incidents, in.copy())
	}
	if w.current != nil {
		s.Current, s.Number, s.Released, s.Forced = w.current.ID, w.current.number, w.released, w.forced
	}
	w.mu.Unlock()
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is valid
	if json.NewEncoder(z).Encode(s) != nil || z.Close() != nil {
		return nil
	}
	return b.Bytes()
}

// Load takes what Save gave, before the first Tick, or nothing of it and an
// error. An incident that was open stays open: its culprits are held on until
// they are calm.
func (w *Watch) Load(blob []byte) error {
	var s saved
	z, err := gzip.NewReader(bytes.NewReader(blob))
	if err == nil {
		err = json.NewDecoder(io.LimitReader(z, maxSaved)).Decode(&s)
	}
	switch {
	case err != nil:
		return fmt.Errorf("what was saved of the usual rates cannot be read: %w", err)
	case s.Version != savedVersion:
		return fmt.Errorf("what was saved of the usual rates is of version %d; this release reads %d", s.Version, savedVersion)
	case s.Detector != nil && !w.det.Restore(s.Detector):
		return fmt.Errorf("what the detector learned is of version %d, which this release does not read", s.Detector.Version)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.incidents = nil
	_, alive := w.det.Incident()
	for i := range s.Incidents {
		in := &s.Incidents[i]
		in.number = -1
		w.incidents = append(w.incidents, in)
		switch {
		case in.State != Open:
		case in.ID == s.Current && alive:
			in.number = s.Number
			w.current, w.released, w.forced = in, s.Released, s.Forced
			if in.Action == Contained {
				w.stakes.held, w.stakes.kind, w.stakes.why = true, planAtStake, in.Why // until it is judged anew
			}
		default:
			in.State, in.ResolvedAt = Resolved, in.DetectedAt
			if n := len(in.Timeline); n > 0 {
				in.ResolvedAt = in.Timeline[n-1].At
			}
			if in.Action == Contained {
				in.Action = Released
			}
			in.note(in.ResolvedAt, "resolved", "pushguard was restarted; what goes on is a new incident")
		}
	}
	w.publish()
	if w.current != nil && w.released {
		w.det.Release(w.current.number)
	}
	return nil
}
