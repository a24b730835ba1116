package watch

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// peers is what a Watch knows of those of the other replicas. Each counts what
// all see, so each opens the incident by itself, at about the same second; what
// it lets a culprit pass is its part of the whole. What a person orders of one
// holds for all, and one of them tells people.
type peers struct {
	heard   map[string]peer
	orders  []Order  // not yet passed on
	waiting []Change // not yet told
	own     string   // the id of the incident that is told here
	other   string   // of the one that another replica tells
}

type peer struct {
	at   time.Time
	open bool
}

// Order is what a person ordered about the open incident, as it goes to the
// other replicas: contain, release or accepted.
type Order struct {
	Kind string    `json:"kind"`
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// shared is one message between replicas, as JSON. A reader takes no other
// version.
type shared struct {
	Version int            `json:"v"`
	From    string         `json:"from"`
	At      time.Time      `json:"at"`
	Open    bool           `json:"open,omitempty"` // an incident is open and was told
	Counts  []detect.Delta `json:"counts,omitempty"`
	Orders  []Order        `json:"orders,omitempty"`
	// Payloads are the heaviest of the last minute; nil of a release that does
	// not tell them.
	Payloads []detect.PayloadCount `json:"payloads"`
}

const (
	sharedVersion = 1
	// maxCounts bounds a message; what is beyond waits for the next one.
	maxCounts  = 500
	maxShared  = 1 << 20 // bytes that Hear reads
	maxPeers   = 256
	maxWaiting = 64
	// staleAfter is when what a replica said is no longer news, and when it is
	// taken for gone. Clocks may differ by as much.
	staleAfter = 10 * time.Second
	// tellAfter is how long a replica that is not the first by name waits
	// before it tells people of an incident that no other has told of.
	tellAfter = 4 * time.Second
)

// wait keeps changes until Tell takes them.
func (p *peers) wait(list []Change) {
	p.waiting = append(p.waiting, list...)
	if n := len(p.waiting) - maxWaiting; n > 0 {
		p.waiting = slices.Delete(p.waiting, 0, n) // nobody asks
	}
}

func (p *peers) order(o Order) {
	if len(p.orders) < 16 {
		p.orders = append(p.orders, o)
	}
}

// Share is what the other replicas' Hear is to be given, about once a second:
// what was counted and ordered here since the last time.
func (w *Watch) Share(now time.Time, self string) []byte {
	counts, payloads := w.det.Export(maxCounts), w.det.ExportPayloads()
	w.mu.Lock()
	m := shared{sharedVersion, self, now.UTC(), w.current != nil && w.peers.own == w.current.ID, counts, w.peers.orders, payloads}
	w.peers.orders = nil
	w.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil {
		return nil // no value of these types can fail
	}
	return b
}

// Hear takes what another replica's Share gave. Its own, and what is stale, is
// left out; of an error nothing is taken.
func (w *Watch) Hear(now time.Time, self string, msg []byte) error {
	if len(msg) > maxShared {
		return fmt.Errorf("a message of %d bytes; the most is %d", len(msg), maxShared)
	}
	var head struct {
		Version int `json:"v"`
	}
	var m shared
	err := json.Unmarshal(msg, &head)
	if err == nil && head.Version != sharedVersion {
		return nil // of a later release
	}
	if err == nil {
		err = json.Unmarshal(msg, &m)
	}
	if err != nil {
		return fmt.Errorf("a message that cannot be read: %w", err)
	}
	if m.From == self || now.Sub(m.At).Abs() > staleAfter {
		return nil
	}
	for i := range m.Counts {
		m.Counts[i].Count = max(0, m.Counts[i].Count)
	}
	w.det.Import(m.Counts)
	if m.Payloads != nil {
		w.det.ImportPayloads(m.From, m.Payloads)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.peers.heard == nil {
		w.peers.heard = map[string]peer{}
	}
	if _, known := w.peers.heard[m.From]; known || len(w.peers.heard) < maxPeers {
		w.peers.heard[m.From] = peer{now, m.Open}
	}
	for _, o := range m.Orders {
		in := w.current
		if in == nil {
			break
		}
		switch o.Kind {
		case "contain":
			w.contain(in)
		case "release":
			w.release(in)
		case "accepted":
			w.accept(in)
		default:
			continue // of a later release
		}
		in.note(o.At, o.Kind, o.Text)
		if o.Kind == "accepted" {
			w.end(now)
		}
		w.publish()
	}
	return nil
}

// Tell gives the changes that people are to be told of by this replica. The
// first of them by name tells at once; the others only if none has.
func (w *Watch) Tell(now time.Time, self string) (out []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &w.peers
	first, told := true, false
	for name, o := range p.heard {
		if now.Sub(o.at) > staleAfter {
			delete(p.heard, name)
			continue
		}
		first = first && self < name
		told = told || o.open
	}
	waiting := p.waiting[:0]
	for _, c := range p.waiting {
		id := c.Incident.ID
		switch {
		case p.own == id:
			out = append(out, c)
		case told, p.other == id && c.Phase == detect.Resolved && len(p.heard) > 0:
			p.other = id // another tells
		case first, now.Sub(c.At) >= tellAfter:
			p.own = id
			out = append(out, c)
		default:
			waiting = append(waiting, c)
		}
	}
	p.waiting = waiting
	return out
}
