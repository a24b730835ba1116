package proxy

import (
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// The headers in which an answer says what became of a publish. SDKs do not show them; logs, curl
// and the load generator do.
const (
	headerOutcome = "Pushguard-Outcome"
	headerReason  = "Pushguard-Reason"
	headerWould   = "Pushguard-Would"
	headerRetry   = "Retry-After"
)

// serverName is what answers call the server that made them.
const serverName = "pushguard"

// response is the answer to a request as a value. What it is made of is borrowed: it
// is written, by fasthttp or by the express lane, before the job lets go of it.
type response struct {
	status      int
	contentType []byte
	outcome     string // of a publish, one word or one an event; empty: not said
	reason      string // empty: not said
	would       string // what enforcement would have done; empty: not said
	retryAfter  int64  // seconds; 0: not said
	encoding    []byte // of body; empty: plain
	body        []byte
	last        bool // the connection ends with it
}

// again says when a repeat makes sense, rounded up to a second.
func (r *response) again(after time.Duration) {
	if after > 0 {
		r.retryAfter = int64((after + time.Second - 1) / time.Second)
	}
}

// The headers in their canonical form, which saves fasthttp from bringing them
// into it.
var (
	headerOutcomeBytes = []byte(headerOutcome)
	headerReasonBytes  = []byte(headerReason)
	headerWouldBytes   = []byte(headerWould)
	headerRetryBytes   = []byte(headerRetry)
)

// onto has fasthttp answer.
func (r *response) onto(resp *fasthttp.Response) {
	resp.SetStatusCode(r.status)
	h := &resp.Header
	h.SetContentTypeBytes(r.contentType)
	if len(r.encoding) > 0 {
		h.SetContentEncodingBytes(r.encoding)
	}
	for _, field := range [...]struct {
		name  []byte
		value string
	}{{headerOutcomeBytes, r.outcome}, {headerReasonBytes, r.reason}, {headerWouldBytes, r.would}} {
		if field.value != "" {
			h.SetCanonical(field.name, unsafe.Slice(unsafe.StringData(field.value), len(field.value)))
		}
	}
	if r.retryAfter > 0 {
		var b [20]byte
		h.SetCanonical(headerRetryBytes, strconv.AppendInt(b[:0], r.retryAfter, 10))
	}
	if r.last {
		resp.SetConnectionClose()
	}
	resp.SetBody(r.body)
}

// statusLines begin the answers that append can write: those that have a body.
var statusLines = func() (t [600]string) {
	for status := 200; status < len(t); status++ {
		if status != fasthttp.StatusNoContent && status != fasthttp.StatusNotModified {
			t[status] = "HTTP/1.1 " + strconv.Itoa(status) + " " + fasthttp.StatusMessage(status) + "\r\nServer: " + serverName + "\r\nDate: "
		}
	}
	return t
}()

// writable reports whether append can write the answer, which it cannot where
// HTTP makes an exception for its status.
func (r *response) writable() bool {
	return r.status > 0 && r.status < len(statusLines) && statusLines[r.status] != ""
}

// append writes the answer as fasthttp would, with a body.
func (r *response) append(b []byte, date string) []byte {
	b = append(append(b, statusLines[r.status]...), date...)
	if len(r.contentType) > 0 {
		b = append(append(b, "\r\nContent-Type: "...), r.contentType...)
	}
	if len(r.encoding) > 0 {
		b = append(append(b, "\r\nContent-Encoding: "...), r.encoding...)
	}
	b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(r.body)), 10)
	if r.outcome != "" {
		b = append(append(b, "\r\n"+headerOutcome+": "...), r.outcome...)
	}
	if r.reason != "" {
		b = append(append(b, "\r\n"+headerReason+": "...), r.reason...)
	}
	if r.would != "" {
		b = append(append(b, "\r\n"+headerWould+": "...), r.would...)
	}
	if r.retryAfter > 0 {
		b = strconv.AppendInt(append(b, "\r\n"+headerRetry+": "...), r.retryAfter, 10)
	}
	if r.last {
		b = append(b, "\r\nConnection: close"...)
	}
	return append(append(b, "\r\n\r\n"...), r.body...)
}

// date is the time of day as answers bear it, in whole seconds. It has to be set
// before it is read.
type date struct{ text atomic.Pointer[string] }

func (d *date) set(now time.Time) {
	text := string(fasthttp.AppendHTTPDate(nil, now))
	d.text.Store(&text)
}

func (d *date) get() string { return *d.text.Load() }
