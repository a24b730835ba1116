package pusher

import "strconv"

// Publish is one event on its way to one or more channels. Its slices borrow
// from the request's body and query and from the Decoder, until the Decoder's
// next use.
type Publish struct {
	// Name, SocketID, Data and Info are decoded strings. Bytes that are not
	// valid UTF-8 are kept. SocketID and Info are nil when not given.
	Name, SocketID, Data, Info []byte
	Channels                   [][]byte
	// Raw is the event's JSON object exactly as it stands in the body; nil if
	// any of it came from the query string.
	Raw []byte
	// Extra are the members of the event that are not known here, each with a comma
	// before it, in the bytes in which they came. Whoever writes the event anew
	// writes them too.
	Extra []byte
	// Params are the parameters of the query that are not known here. They go with
	// the request that they came with, and with no other: Alone is set.
	Params []byte

	HasInfo   bool // the answer must carry attributes of the channels
	Encrypted bool // the channel is end-to-end encrypted; it is the only one
	ToUser    bool // at least one channel is a #server-to-user-
	// Alone: it cannot be written anew as it was meant, because it goes to an endpoint, or has parameters, that are not known.
	// Nothing may be sent in its place.
	Alone bool
	// Lossy: a string in it has half a surrogate pair, which only Raw shows.
	Lossy bool
}

// Decoder reads publishes. The zero value is ready; it keeps its memory from one
// use to the next, and must not be used by two goroutines at once.
type Decoder struct {
	scan     scan
	events   []Publish
	channels [][]byte // of all events
	scratch  []byte   // unescaped strings; never regrown while something points into it
	extra    []byte   // members that are not known, of all events
	envelope []byte   // likewise, of the object around a batch
	limits   Limits
	lim      Limits // limits, filled in
	ready    bool
}

// field is a bit set of the members of an event that were seen.
type field uint8

const (
	fieldName field = 1 << iota
	fieldData
	fieldChannel
	fieldChannels
	fieldSocketID
	fieldInfo
)

func (d *Decoder) reset(body []byte, lim *Limits) *Error {
	var l Limits
	if lim != nil {
		l = *lim
	}
	if !d.ready || l != d.limits {
		d.limits, d.lim, d.ready = l, l.full(), true
	}
	clear(d.events)
	clear(d.channels)
	d.events, d.channels, d.scratch = d.events[:0], d.channels[:0], d.scratch[:0]
	d.extra, d.envelope = d.extra[:0], d.envelope[:0]
	d.scan = scan{b: body}
	if len(body) > d.lim.Body {
		return d.lim.TooLarge()
	}
	return nil
}

// room makes sure that no string of the body can move the scratch memory.
func (d *Decoder) room() {
	if need := len(d.scan.b) + 8; cap(d.scratch) < need {
		d.scratch = make([]byte, 0, max(1024, need))
	}
}

// Events reads the body of POST /apps/ID/events: exactly one publish. Parameters
// may stand in the query string as well (name, data, channel, channels[],
// socket_id, info), each in one of the two places; q may be nil.
func (d *Decoder) Events(body []byte, q *Query, lim *Limits) ([]Publish, *Error) {
	if e := d.reset(body, lim); e != nil {
		return nil, e
	}
	d.room()
	d.events = append(d.events, Publish{})
	p := &d.events[0]
	var seen field
	if len(body) > 0 {
		var e *Error
		if seen, e = d.object(p, 0, -1); e != nil {
			return nil, e
		}
		if !d.scan.end() {
			return nil, d.scan.refusal()
		}
	}
	seen, e := d.query(p, q, seen)
	if e != nil {
		return nil, e
	}
	if e := d.check(p, seen, -1); e != nil {
		return nil, e
	}
	return d.events, nil
}

// Batch reads the body of POST /apps/ID/batch_events: one to Limits.Batch
// publishes, each to one channel.
func (d *Decoder) Batch(body []byte, lim *Limits) ([]Publish, *Error) {
	if e := d.reset(body, lim); e != nil {
		return nil, e
	}
	d.room()
	s := &d.scan
	if !s.expect('{', `an object {"batch":[...]} is expected`) {
		return nil, s.refusal()
	}
	found := false
	for first := true; ; first = false {
		more, ok := s.next('}', first)
		if !ok {
			return nil, s.refusal()
		}
		if !more {
			break
		}
		s.space()
		from := s.i
		key, ok := s.key(&d.scratch)
		if !ok {
			return nil, s.refusal()
		}
		if string(key) != "batch" {
			if !s.skip(1) {
				return nil, s.refusal()
			}
			d.envelope = append(append(d.envelope, ','), s.b[from:s.i]...)
			continue
		}
		if found {
			return nil, badRequest(`The body has the key "batch" twice, again before byte `, strconv.Itoa(s.i), ".")
		}
		found = true
		if e := d.batch(); e != nil {
			return nil, e
		}
	}
	if !s.end() {
		return nil, s.refusal()
	}
	if len(d.events) == 0 {
		return nil, badRequest("The batch is empty: send {\"batch\":[...]} with 1 to ", strconv.Itoa(d.lim.Batch), " events.")
	}
	return d.events, nil
}

func (d *Decoder) batch() *Error {
	s := &d.scan
	if s.space() != '[' {
		return badRequest(`"batch" must be an array of events, at byte `, strconv.Itoa(s.i), ".")
	}
	s.i++
	for first := true; ; first = false {
		more, ok := s.next(']', first)
		if !ok {
			return s.refusal()
		}
		if !more {
			return nil
		}
		index := len(d.events)
		if index == d.lim.Batch {
			return badRequest("The batch has more than ", strconv.Itoa(d.lim.Batch), " events. Send the rest in another call.")
		}
		d.events = append(d.events, Publish{})
		p := &d.events[index]
		seen, e := d.object(p, 2, index)
		if e != nil {
			return e
		}
		if e := d.check(p, seen, index); e != nil {
			return e
		}
	}
}

// Envelope are the members beside "batch" of the body that Batch read last, each
// with a comma before it.
func (d *Decoder) Envelope() []byte { return d.envelope }

// ChannelEvent reads the deprecated POST /apps/ID/channels/CHANNEL/events, where
// the body is the data, and name, socket_id and info stand in the query string.
// channel is unescaped.
func (d *Decoder) ChannelEvent(channel, body []byte, q *Query, lim *Limits) ([]Publish, *Error) {
	if e := d.reset(body, lim); e != nil {
		return nil, e
	}
	d.channels = append(d.channels, channel)
	d.events = append(d.events, Publish{Data: body, Channels: d.channels[0:1:1]})
	p := &d.events[0]
	seen, e := d.query(p, q, fieldData|fieldChannel)
	if e != nil {
		return nil, e
	}
	if e := d.check(p, seen, -1); e != nil {
		return nil, e
	}
	return d.events, nil
}

// where names an event of a batch in a sentence.
func where(index int) string {
	if index < 0 {
		return ""
	}
	return "batch[" + strconv.Itoa(index) + "]: "
}

// object reads one event's object. What it means is judged by check.
func (d *Decoder) object(p *Publish, depth, index int) (seen field, e *Error) {
	s := &d.scan
	if c := s.space(); c != '{' {
		if s.i < len(s.b) {
			s.fail(s.i, "an object with name, channels and data is expected")
		}
		s.skip(depth)
		s.fail(s.i, "it ends too early")
		return 0, s.refusal()
	}
	from := s.i
	extra := len(d.extra)
	s.i++
	for first := true; ; first = false {
		more, ok := s.next('}', first)
		if !ok {
			return 0, s.refusal()
		}
		if !more {
			p.Raw = s.b[from:s.i:s.i]
			p.Extra = d.extra[extra:len(d.extra):len(d.extra)]
			return seen, nil
		}
		s.space()
		member := s.i
		key, ok := s.key(&d.scratch)
		if !ok {
			return 0, s.refusal()
		}
		var f field
		var dst *[]byte
		switch string(key) {
		case "name":
			f, dst = fieldName, &p.Name
		case "data":
			f, dst = fieldData, &p.Data
		case "socket_id":
			f, dst = fieldSocketID, &p.SocketID
		case "info":
			f, dst = fieldInfo, &p.Info
		case "channel":
			f = fieldChannel
		case "channels":
			f = fieldChannels
		default:
			if !s.skip(depth + 1) {
				return 0, s.refusal()
			}
			d.extra = append(append(d.extra, ','), s.b[member:s.i]...)
			continue
		}
		c := s.space()
		at := s.i
		s.lossy = false
		if c == 'n' && f&(fieldName|fieldData) == 0 { // null is as good as nothing
			if !s.literal("null") {
				return 0, s.refusal()
			}
			continue
		}
		if seen&f != 0 {
			return 0, badRequest(where(index), "the key ", quote(key, 20), " is given twice, again at byte ", strconv.Itoa(at), ".")
		}
		seen |= f
		if f == fieldChannels {
			if e := d.channelList(p, depth, index); e != nil {
				return 0, e
			}
			continue
		}
		if c != '"' {
			return 0, d.notString(f, depth, at, index)
		}
		val, ok := s.str(&d.scratch)
		if !ok {
			return 0, s.refusal()
		}
		p.Lossy = p.Lossy || s.lossy
		if f == fieldChannel {
			from := len(d.channels)
			d.channels = append(d.channels, val)
			if p.Channels == nil {
				p.Channels = d.channels[from : from+1 : from+1]
			}
			continue
		}
		*dst = val
	}
}

// notString refuses a member whose value at byte at is no string: first for its
// syntax, then for its type.
func (d *Decoder) notString(f field, depth, at, index int) *Error {
	if !d.scan.skip(depth + 1) {
		return d.scan.refusal()
	}
	if f == fieldData {
		return badRequest(where(index), `"data" must be a string, at byte `, strconv.Itoa(at),
			": encode the object as JSON first, and send the result as a string.")
	}
	return badRequest(where(index), `"`, f.String(), `" must be a string, at byte `, strconv.Itoa(at), ".")
}

func (f field) String() string {
	switch f {
	case fieldName:
		return "name"
	case fieldData:
		return "data"
	case fieldChannel:
		return "channel"
	case fieldChannels:
		return "channels"
	case fieldSocketID:
		return "socket_id"
	}
	return "info"
}

func (d *Decoder) channelList(p *Publish, depth, index int) *Error {
	s := &d.scan
	if s.space() != '[' {
		at := s.i
		if !s.skip(depth + 1) {
			return s.refusal()
		}
		return badRequest(where(index), `"channels" must be an array of strings, at byte `, strconv.Itoa(at), ".")
	}
	s.i++
	from := len(d.channels)
	for first := true; ; first = false {
		more, ok := s.next(']', first)
		if !ok {
			return s.refusal()
		}
		if !more {
			n := len(d.channels)
			p.Channels = d.channels[from:n:n]
			return nil
		}
		if s.space() != '"' {
			at := s.i
			if !s.skip(depth + 2) {
				return s.refusal()
			}
			return badRequest(where(index), `"channels" must be an array of strings, at byte `, strconv.Itoa(at), ".")
		}
		name, ok := s.str(&d.scratch)
		if !ok {
			return s.refusal()
		}
		if len(d.channels)-from == d.lim.Channels {
			return d.tooManyChannels(index)
		}
		d.channels = append(d.channels, name)
	}
}

func (d *Decoder) tooManyChannels(index int) *Error {
	return badRequest(where(index), "Too many channels: one publish can go to at most ", strconv.Itoa(d.lim.Channels),
		". Split the list over several calls.")
}

// query adds the parameters that stand in the query string.
func (d *Decoder) query(p *Publish, q *Query, seen field) (field, *Error) {
	if q.Len() == 0 {
		return seen, nil
	}
	inBody := seen
	from := len(d.channels)
	params := len(d.extra)
	for i := range q.pairs {
		key, val := q.pairs[i].key, q.pairs[i].value
		var f field
		switch string(key) {
		case "name":
			f, p.Name = fieldName, val
		case "data":
			f, p.Data = fieldData, val
		case "socket_id":
			f, p.SocketID = fieldSocketID, val
		case "info":
			f, p.Info = fieldInfo, val
		case "channel":
			f = fieldChannel
		case "channels[]":
			f = fieldChannels
		default:
			if !hasPrefix(key, "auth_") && string(key) != "body_md5" {
				d.extra = append(append(append(append(d.extra, '&'), key...), '='), val...)
				p.Alone = true
			}
			continue
		}
		if inBody&f != 0 {
			return 0, badRequest("The parameter ", quote(key, 20), " is given in the query string and in the body. Send it once, in the body.")
		}
		seen |= f
		p.Raw = nil
		if f&(fieldChannel|fieldChannels) != 0 {
			if len(d.channels)-from == d.lim.Channels {
				return 0, d.tooManyChannels(-1)
			}
			d.channels = append(d.channels, val)
		}
	}
	if n := len(d.channels); n > from {
		p.Channels = d.channels[from:n:n]
	}
	p.Params = d.extra[params:len(d.extra):len(d.extra)]
	return seen, nil
}

// check judges what an event says, as Pusher does.
func (d *Decoder) check(p *Publish, seen field, index int) *Error {
	switch {
	case seen&fieldName == 0 || len(p.Name) == 0:
		return badRequest(where(index), `Missing required parameter: name. Give the event a name, such as "order.created".`)
	case len(p.Name) > d.lim.EventName:
		return badRequest(where(index), "the event name ", quote(p.Name, 60), " has ", strconv.Itoa(len(p.Name)),
			" bytes; at most ", strconv.Itoa(d.lim.EventName), " are allowed.")
	case seen&fieldData == 0:
		return badRequest(where(index), `Missing required parameter: data. Send a string; "{}" if there is nothing to say.`)
	case len(p.Data) > d.lim.DataBytes:
		return dataTooLarge(where(index), len(p.Data), d.lim.DataBytes)
	case seen&fieldChannel != 0 && seen&fieldChannels != 0:
		return badRequest(where(index), `Both "channel" and "channels" are given. Send one of them.`)
	case index >= 0 && seen&fieldChannels != 0:
		return badRequest(where(index), `an event of a batch goes to one channel: send "channel", not "channels".`)
	case len(p.Channels) == 0:
		return badRequest(where(index), "Missing required parameter: ", map[bool]string{true: "channel", false: "channels"}[index >= 0],
			". Say where the event goes.")
	}
	for _, name := range p.Channels {
		toUser, e := checkTarget(index, name, d.lim.ChannelName)
		if e != nil {
			return e
		}
		p.ToUser = p.ToUser || toUser
		p.Encrypted = p.Encrypted || IsEncrypted(name)
	}
	if p.Encrypted && len(p.Channels) > 1 {
		return badRequest("An end-to-end encrypted channel cannot be published to together with others: its payload can be read with the key of that one channel only. Publish to each of them by itself.")
	}
	if seen&fieldSocketID != 0 {
		if e := checkSocketID(index, p.SocketID); e != nil {
			return e
		}
	}
	p.HasInfo = seen&fieldInfo != 0
	if len(p.Info) > 0 {
		return checkInfo(index, p.Info, p.Channels)
	}
	return nil
}
