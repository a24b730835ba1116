package sim

import (
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// maxChannels bounds the memory of channels seen; further ones are answered by
// configuration alone.
const maxChannels = 10_000

// cacheTTL is how long a cache channel keeps its last event.
const cacheTTL = 30 * time.Minute

// maxPresence is the most members that a presence channel has.
const maxPresence = 100

// channel is a channel that was published to.
type channel struct {
	cached   string // the data of the last event of a cache channel
	cachedAt time.Time
}

// subscribers is the configured number of subscribers. Its caller holds s.mu.
func (s *Server) subscribers(name string) int64 {
	for i := range s.behavior.patterns {
		if p := &s.behavior.patterns[i]; match(p.Pattern, name) {
			return p.N
		}
	}
	return s.behavior.subscribers
}

// match matches a glob: `*` any run of characters, `?` any one byte.
func match(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// perform does what an authentic request asks, and leaves the answer in wk.out.
// A refusal has had no effect.
func (s *Server) perform(wk *worker, t target, number int64, now time.Time) *pusher.Error {
	wk.out = wk.out[:0]
	subject := []byte(t.subject)
	switch t.endpoint {
	case endpointEvents:
		events, e := wk.decoder.Events(wk.body, &wk.query, &s.limits)
		if e == nil {
			e = s.publish(wk, t.endpoint, t.app, number, events, now)
		}
		return e
	case endpointBatch:
		events, e := wk.decoder.Batch(wk.body, &s.limits)
		if e == nil {
			e = s.publish(wk, t.endpoint, t.app, number, events, now)
		}
		return e
	case endpointChannelEvents:
		events, e := wk.decoder.ChannelEvent(subject, wk.body, &wk.query, &s.limits)
		if e == nil {
			e = s.publish(wk, t.endpoint, t.app, number, events, now)
		}
		return e
	case endpointTerminate:
		return s.read(wk, now, func() { wk.out = append(wk.out, "{}"...) })
	case endpointChannels:
		if e := pusher.CheckChannels(&wk.query); e != nil {
			return e
		}
		return s.read(wk, now, func() { s.listChannels(wk) })
	case endpointChannel:
		if e := pusher.CheckChannel(subject, &wk.query, &s.limits); e != nil {
			return e
		}
		return s.read(wk, now, func() { s.showChannel(wk, t.subject, now) })
	default: // endpointUsers
		if e := pusher.CheckUsers(subject, &s.limits); e != nil {
			return e
		}
		return s.read(wk, now, func() { s.listUsers(wk, t.subject) })
	}
}

func (s *Server) overQuota() *pusher.Error {
	s.account.refused++
	return &pusher.Error{Status: http.StatusForbidden, Text: s.quotaText}
}

// read bills a call that publishes nothing, and answers it.
func (s *Server) read(wk *worker, now time.Time, answer func()) *pusher.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.account.charge(now, s.billing.Cost(pusher.Shape{OwnCall: true})) {
		return s.overQuota()
	}
	answer()
	return nil
}

// chargeFailed bills a call that was refused for what it says, not for want of
// messages, if there are messages left for it.
func (s *Server) chargeFailed(e *pusher.Error, now time.Time) {
	if e.Status == http.StatusForbidden {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account.charge(now, s.billing.Cost(pusher.Shape{Failed: true}))
}

// publish bills, records and answers events, all of them or none.
func (s *Server) publish(wk *worker, endpoint, app string, number int64, events []pusher.Publish, now time.Time) *pusher.Error {
	md5, _ := wk.query.Get("body_md5")
	key, _ := wk.query.Get("auth_key")
	shape := pusher.Shape{Events: len(events)}
	arrived := make([]Event, len(events))
	info := false

	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		p := &events[i]
		shape.Channels += len(p.Channels)
		if p.HasInfo {
			shape.Info++
			info = true
		}
		names := make([]string, len(p.Channels))
		deliveries := int64(0)
		for j, name := range p.Channels {
			names[j] = string(name)
			deliveries += max(0, s.subscribers(names[j]))
		}
		if len(p.SocketID) > 0 && deliveries > 0 {
			deliveries-- // the excluded connection, taken to be subscribed
		}
		shape.Deliveries += deliveries
		arrived[i] = Event{
			Request: number, At: now.UTC(), App: app, Key: string(key), Endpoint: endpoint,
			Name: string(p.Name), Channels: names, Data: string(p.Data),
			SocketID: string(p.SocketID), Info: string(p.Info), BodyMD5: string(md5), Deliveries: deliveries,
		}
	}
	if !s.account.charge(now, s.billing.Cost(shape)) {
		return s.overQuota()
	}
	s.account.events += int64(len(events))
	s.account.deliveries += shape.Deliveries
	for i := range arrived {
		s.record.add(arrived[i])
		for j, name := range events[i].Channels {
			s.remember(arrived[i].Channels[j], pusher.IsCache(name), arrived[i].Data, now)
		}
	}
	s.answerPublish(wk, endpoint, arrived, info)
	return nil
}

// remember keeps that a channel exists, and its last event if it is a cache
// channel.
func (s *Server) remember(name string, cache bool, data string, now time.Time) {
	ch := s.channels[name]
	if ch == nil {
		if len(s.channels) >= maxChannels || strings.HasPrefix(name, "#") {
			return
		}
		ch = new(channel)
		s.channels[name] = ch
	}
	if cache {
		ch.cached, ch.cachedAt = data, now
	}
}

// answerPublish writes {} or, if info was asked for, the attributes: by unique
// channel for one event, by index for a batch.
func (s *Server) answerPublish(wk *worker, endpoint string, events []Event, info bool) {
	out := wk.out
	switch {
	case !info:
		out = append(out, "{}"...)
	case endpoint == endpointBatch:
		out = append(out, `{"batch":[`...)
		for i := range events {
			if i > 0 {
				out = append(out, ',')
			}
			out = s.appendInfo(out, events[i].Channels[0], events[i].Info)
		}
		out = append(out, "]}"...)
	default:
		out = append(out, `{"channels":{`...)
		e := &events[0]
		n := 0
		for i, name := range e.Channels {
			if contains(e.Channels[:i], name) {
				continue
			}
			if n > 0 {
				out = append(out, ',')
			}
			n++
			out = append(pusher.AppendString(out, []byte(name)), ':')
			out = s.appendInfo(out, name, e.Info)
		}
		out = append(out, "}}"...)
	}
	wk.out = out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// appendInfo writes the attributes that were asked for and that this kind of
// channel has.
func (s *Server) appendInfo(out []byte, name, info string) []byte {
	out = append(out, '{')
	n := max(0, s.subscribers(name))
	sep := ""
	for attr := range strings.SplitSeq(info, ",") {
		count := n
		switch attr {
		case "user_count":
			if !pusher.IsPresence([]byte(name)) {
				continue
			}
			count = min(n, maxPresence)
		case "subscription_count":
			if s.noCounts {
				continue
			}
		default:
			continue
		}
		out = append(append(append(out, sep...), '"'), attr...)
		out = strconv.AppendInt(append(out, `":`...), count, 10)
		sep = ","
	}
	return append(out, '}')
}

// listChannels answers with the occupied channels: those that were published to
// or are configured by their full name, and have a subscriber.
func (s *Server) listChannels(wk *worker) {
	prefix, _ := wk.query.Get("filter_by_prefix")
	info, _ := wk.query.Get("info")
	names := make([]string, 0, len(s.channels))
	for name := range s.channels {
		names = append(names, name)
	}
	for _, p := range s.behavior.patterns {
		if s.channels[p.Pattern] == nil && !strings.ContainsAny(p.Pattern, "*?#") {
			names = append(names, p.Pattern)
		}
	}
	sort.Strings(names)
	out := append(wk.out, `{"channels":{`...)
	sep := ""
	for _, name := range names {
		if !strings.HasPrefix(name, string(prefix)) || s.subscribers(name) <= 0 {
			continue
		}
		out = pusher.AppendString(append(out, sep...), []byte(name))
		out = s.appendInfo(append(out, ':'), name, string(info))
		sep = ","
	}
	wk.out = append(out, "}}"...)
}

func (s *Server) showChannel(wk *worker, name string, now time.Time) {
	info, _ := wk.query.Get("info")
	out := append(wk.out, `{"occupied":`...)
	out = strconv.AppendBool(out, s.subscribers(name) > 0)
	if attrs := s.appendInfo(nil, name, string(info)); len(attrs) > 2 {
		out = append(append(out, ','), attrs[1:len(attrs)-1]...)
	}
	if contains(strings.Split(string(info), ","), "cache") {
		out = append(out, `,"cache":`...)
		if ch := s.channels[name]; ch != nil && !ch.cachedAt.IsZero() && now.Sub(ch.cachedAt) < cacheTTL {
			out = pusher.AppendString(append(out, `{"data":`...), []byte(ch.cached))
			out = strconv.AppendInt(append(out, `,"ttl":`...), int64((cacheTTL-now.Sub(ch.cachedAt)+time.Second-1)/time.Second), 10)
			out = append(out, '}')
		} else {
			out = append(out, "null"...)
		}
	}
	wk.out = append(out, '}')
}

// listUsers invents the members of a presence channel: "1", "2", …
func (s *Server) listUsers(wk *worker, name string) {
	out := append(wk.out, `{"users":[`...)
	for i := int64(1); i <= min(s.subscribers(name), maxPresence); i++ {
		if i > 1 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(append(out, `{"id":"`...), i, 10)
		out = append(out, `"}`...)
	}
	wk.out = append(out, "]}"...)
}
