package sim

import (
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// Event is one event as it arrived.
type Event struct {
	Seq      int64     // 1, 2, 3 … since the beginning or the last reset
	Request  int64     // the number of the request that brought it; events of a batch share it
	At       time.Time // arrival, UTC
	App, Key string    // the app's id, and the auth key that signed
	Endpoint string    // events, batch_events or channel_events
	Name     string
	Channels []string
	Data     string // the decoded string, byte for byte
	SocketID string
	Info     string
	BodyMD5  string // of the request's body, as the request said and the server checked
	// Deliveries is the number of subscribers that would have got it.
	Deliveries int64
}

// eventJSON is Event as /sim/v1/events shows it.
type eventJSON struct {
	Seq        int64    `json:"seq"`
	Request    int64    `json:"request"`
	At         string   `json:"at"`
	App        string   `json:"app"`
	Key        string   `json:"key"`
	Endpoint   string   `json:"endpoint"`
	Name       string   `json:"name"`
	Channels   []string `json:"channels"`
	Channel    string   `json:"channel,omitempty"` // if there is only one
	Data       string   `json:"data"`
	DataBase64 string   `json:"data_base64,omitempty"` // if data is not valid UTF-8
	SocketID   string   `json:"socket_id,omitempty"`
	Info       string   `json:"info,omitempty"`
	BodyMD5    string   `json:"body_md5,omitempty"`
	Deliveries int64    `json:"deliveries"`
}

// MarshalJSON gives the form of /sim/v1/events. Data that is not valid UTF-8
// stands in data_base64 byte for byte, and in data with replacement characters.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{e.Seq, e.Request, e.At.Format(time.RFC3339Nano), e.App, e.Key, e.Endpoint, e.Name, e.Channels, "",
		e.Data, "", e.SocketID, e.Info, e.BodyMD5, e.Deliveries}
	if len(e.Channels) == 1 {
		j.Channel = e.Channels[0]
	}
	if !utf8.ValidString(e.Data) {
		j.DataBase64 = base64.StdEncoding.EncodeToString([]byte(e.Data))
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Event) UnmarshalJSON(b []byte) error {
	var j eventJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, j.At)
	if err != nil {
		return err
	}
	if j.DataBase64 != "" {
		raw, err := base64.StdEncoding.DecodeString(j.DataBase64)
		if err != nil {
			return err
		}
		j.Data = string(raw)
	}
	*e = Event{j.Seq, j.Request, at, j.App, j.Key, j.Endpoint, j.Name, j.Channels, j.Data, j.SocketID, j.Info, j.BodyMD5, j.Deliveries}
	return nil
}

// record keeps the newest events, at most max of them with at most maxBytes of
// data. Its owner holds Server.mu.
type record struct {
	max       int
	maxBytes  int64
	ring      []Event // grows to max, then goes round
	first, n  int
	bytes     int64
	last      int64 // the newest Seq
	forgotten int64
}

func (r *record) len() int { return r.n }

func (r *record) add(e Event) {
	r.last++
	e.Seq = r.last
	size := int64(len(e.Data))
	if r.max < 0 || r.maxBytes < 0 || size > r.maxBytes {
		r.forgotten++
		return
	}
	for r.n == r.max || r.n > 0 && r.bytes+size > r.maxBytes {
		r.drop()
	}
	r.bytes += size
	if r.n == len(r.ring) && r.n < r.max {
		if r.first != 0 { // straighten before growing
			r.ring = append(append(make([]Event, 0, 2*r.n), r.ring[r.first:]...), r.ring[:r.first]...)
			r.first = 0
		}
		r.ring = append(r.ring, e)
		r.n++
		return
	}
	r.ring[(r.first+r.n)%len(r.ring)] = e
	r.n++
}

func (r *record) drop() {
	e := &r.ring[r.first]
	r.bytes -= int64(len(e.Data))
	*e = Event{}
	r.first = (r.first + 1) % len(r.ring)
	r.n--
	r.forgotten++
}

// newest returns the newest limit events after a Seq, oldest first; limit < 0 is
// all of them.
func (r *record) newest(limit int, after int64) []Event {
	from := 0
	if oldest := r.last - int64(r.n) + 1; after >= oldest {
		from = int(min(after-oldest+1, int64(r.n)))
	}
	if limit >= 0 {
		from = max(from, r.n-limit)
	}
	out := make([]Event, 0, r.n-from)
	for i := from; i < r.n; i++ {
		out = append(out, r.ring[(r.first+i)%len(r.ring)])
	}
	return out
}

// Events returns the newest limit events that arrived, oldest first; a negative
// limit is all that are kept.
func (s *Server) Events(limit int) []Event { return s.EventsAfter(0, limit) }

// EventsAfter is Events without those up to a Seq that was seen before.
func (s *Server) EventsAfter(seq int64, limit int) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.newest(limit, seq)
}
