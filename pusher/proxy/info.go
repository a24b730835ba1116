package proxy

import (
	"time"

	"github.com/valyala/fastjson"

	"github.com/pushguard/pushguard/quota/fanout"
)

var infoParsers fastjson.ParserPool

// readInfo learns subscriber counts from the answer to a publish that asked for
// info: {"channels":{name:{"subscription_count":n}}} for one event,
// {"batch":[{…},…]} in the order of the call for a batch. What the answer
// tells, the bill is settled by. An answer of another shape teaches nothing,
// and is passed on all the same.
func (p *Proxy) readInfo(j *job, a *App, batch bool, sending int, body []byte, now time.Time) {
	asked := false
	for i := range j.items {
		asked = asked || (j.items[i].state == toSend && j.items[i].publish.HasInfo)
	}
	if !asked {
		return
	}
	parser := infoParsers.Get()
	defer infoParsers.Put(parser)
	doc, err := parser.ParseBytes(body)
	if err != nil {
		return
	}
	if !batch {
		it := &j.items[0]
		known := int64(0)
		for _, ch := range it.claim.Channels {
			n, ok := subscribers(doc.Get("channels", ch))
			if !ok {
				return
			}
			a.Fanout.Learn(now, ch, n, fanout.FromInfo)
			known += n
		}
		it.deliveries, it.counted = known, true
		return
	}
	list := doc.GetArray("batch")
	if len(list) != sending {
		return
	}
	at := 0
	for i := range j.items {
		it := &j.items[i]
		if it.state != toSend {
			continue
		}
		it.info = list[at].MarshalTo(nil)
		if n, ok := subscribers(list[at]); ok && len(it.claim.Channels) == 1 {
			a.Fanout.Learn(now, it.claim.Channels[0], n, fanout.FromInfo)
			it.deliveries, it.counted = n, true
		}
		at++
	}
}

// subscribers reads subscription_count alone: a presence channel's user_count
// counts users, who may each hold several connections.
func subscribers(v *fastjson.Value) (int64, bool) {
	if v == nil {
		return 0, false
	}
	n := v.Get("subscription_count")
	if n == nil {
		return 0, false
	}
	c, err := n.Int64()
	return c, err == nil && c >= 0
}
