package proxy

import (
	"bytes"
	"time"

	"github.com/valyala/fastjson"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// The call of a group, and each one's own answer out of it.

// fly makes one call of a group and gives each of it its answer. A group that
// Pusher refuses as malformed is sent again in halves, until the one at fault is
// alone with its refusal: it must not fail its neighbours.
func (f *folder) fly(group []*waiter, kind sharing, now time.Time) {
	leader := group[0]
	for _, w := range group[1:] { // all have their answers in time
		if due := &leader.j.due; w.j.due.until.Before(due.until) {
			due.until = w.j.due.until
		}
	}
	f.sent.Add(1)
	if len(group) == 1 {
		leader.got = f.call(leader.j, leader.out, now)
		return
	}
	j := leader.j
	out := outgoing{method: "POST", library: leader.out.library}
	b := j.body[:0]
	if kind == sharesTrigger {
		out.path = f.app.eventsPath
		merged := *leader.publish
		j.merged = j.merged[:0]
		for _, w := range group {
			j.merged = append(j.merged, w.publish.Channels[0])
		}
		merged.Channels = j.merged
		b = pusher.AppendEvent(b, &merged)
	} else {
		out.path = f.app.batchPath
		b = append(b, `{"batch":[`...)
		for i, w := range group {
			if i > 0 {
				b = append(b, ',')
			}
			b = pusher.AppendBatchEvent(b, w.publish)
		}
		b = append(b, `]}`...)
	}
	j.body = b
	out.body = b
	if j.trace != nil {
		linkGroup(group)
	}
	if kind == sharesBatch && f.noBatch.Load() {
		f.flyAlone(group, now)
		return
	}
	got := f.call(j, out, now)
	if kind == sharesBatch && got.fate == limiter.Refused && isMissing(got.status) {
		f.splits.Add(1)
		f.flyAlone(group, now)
		if leader.got.fate == limiter.Delivered && !f.noBatch.Swap(true) { // the app is there, the endpoint is not
			f.app.Upstream.lacks("batch_events")
		}
		return
	}
	if got.fate == limiter.Refused && divisible(got.status) {
		f.splits.Add(1)
		half := len(group) / 2
		f.fly(group[:half], kind, now)
		f.fly(group[half:], kind, now)
		return
	}
	f.share(group, kind, got)
}

// flyAlone sends each of a group by itself.
func (f *folder) flyAlone(group []*waiter, now time.Time) {
	for i := range group {
		f.fly(group[i:i+1], bearsCall, now)
	}
}

// isMissing reports whether a status says that there is no such endpoint.
func isMissing(status int) bool { return status == 404 || status == 405 || status == 501 }

// divisible tells refusals that one event of several can cause from those that
// would meet each of them.
func divisible(status int) bool {
	return status >= 400 && status < 500 && status != 401 && status != 403 && status != 429
}

var emptyObject = []byte("{}")

// share gives every publish of a group its own answer out of the call's.
func (f *folder) share(group []*waiter, kind sharing, got answer) {
	own := got
	if got.fate == limiter.Delivered {
		own.body, own.contentType, own.encoding = emptyObject, nil, nil
	} else { // the leader's memory, which the others outlive
		own.body, own.contentType, own.encoding = bytes.Clone(got.body), bytes.Clone(got.contentType), bytes.Clone(got.encoding)
	}
	for i, w := range group {
		w.got = own
		if i > 0 {
			w.got.share = kind
		}
	}
	if got.fate != limiter.Delivered {
		return
	}
	asked := false
	for _, w := range group {
		asked = asked || w.publish.HasInfo
	}
	if !asked {
		return
	}
	parser := infoParsers.Get()
	defer infoParsers.Put(parser)
	doc, err := parser.ParseBytes(got.body)
	if err != nil {
		doc = nil
	}
	list := doc.GetArray("batch")
	for i, w := range group {
		if !w.publish.HasInfo {
			continue
		}
		var info *fastjson.Value
		switch {
		case doc == nil:
		case kind == sharesTrigger:
			info = doc.Get("channels", string(w.publish.Channels[0]))
		case i < len(list):
			info = list[i]
		}
		b := append([]byte(`{"channels":{`), pusher.AppendString(nil, w.publish.Channels[0])...)
		b = append(b, ':')
		if info != nil {
			b = info.MarshalTo(b)
		} else {
			b = append(b, emptyObject...)
		}
		w.got.body = append(b, '}', '}')
	}
}
