package wire

import (
	"io"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// The headers in which an answer says what became of a publish. SDKs do not show them; logs, curl
// and the load generator do.
const (
	HeaderOutcome = "Pushguard-Outcome"
	HeaderReason  = "Pushguard-Reason"
	headerWould   = "Pushguard-Would"
	HeaderRetry   = "Retry-After"
)

// ServerName is the value of the Server header.
const ServerName = "pushguard"

// Response is the answer to a request. Its fields borrow from their maker: it must be written
// before they are used again.
type Response struct {
	Status      int
	ContentType []byte
	Outcome     string // of a publish, one word or one an event; empty: not said
	Reason      string // empty: not said
	Would       string // what enforcement would have done; empty: not said
	RetryAfter  int64  // seconds; 0: not said
	Encoding    []byte // of Body; empty: plain
	Body        []byte
	Last        bool // the connection ends with it
	// Stream is a body that is still arriving, in place of Body. Whoever writes it closes it. Size is
	// its length, -1 if that is not known. Append cannot write it.
	Stream io.ReadCloser
	Size   int
}

// RetryIn sets Retry-After, rounded up to a second.
func (r *Response) RetryIn(after time.Duration) {
	if after > 0 {
		r.RetryAfter = int64((after + time.Second - 1) / time.Second)
	}
}

// The headers in their canonical form, which saves fasthttp from bringing them
// into it.
var (
	headerOutcomeBytes = []byte(HeaderOutcome)
	headerReasonBytes  = []byte(HeaderReason)
	headerWouldBytes   = []byte(headerWould)
	headerRetryBytes   = []byte(HeaderRetry)
)

// CopyTo sets the answer on a response of fasthttp.
func (r *Response) CopyTo(resp *fasthttp.Response) {
	resp.SetStatusCode(r.Status)
	h := &resp.Header
	h.SetContentTypeBytes(r.ContentType)
	if len(r.Encoding) > 0 {
		h.SetContentEncodingBytes(r.Encoding)
	}
	for _, field := range [...]struct {
		name  []byte
		value string
	}{{headerOutcomeBytes, r.Outcome}, {headerReasonBytes, r.Reason}, {headerWouldBytes, r.Would}} {
		if field.value != "" {
			h.SetCanonical(field.name, unsafe.Slice(unsafe.StringData(field.value), len(field.value)))
		}
	}
	if r.RetryAfter > 0 {
		var b [20]byte
		h.SetCanonical(headerRetryBytes, strconv.AppendInt(b[:0], r.RetryAfter, 10))
	}
	if r.Last {
		resp.SetConnectionClose()
	}
	if r.Stream != nil {
		resp.SetBodyStream(r.Stream, r.Size)
		return
	}
	resp.SetBody(r.Body)
}

// statusLines begin the answers that Append can write: those that have a body.
var statusLines = func() (t [600]string) {
	for status := 200; status < len(t); status++ {
		if status != fasthttp.StatusNoContent && status != fasthttp.StatusNotModified {
			t[status] = "HTTP/1.1 " + strconv.Itoa(status) + " " + fasthttp.StatusMessage(status) + "\r\nServer: " + ServerName + "\r\nDate: "
		}
	}
	return t
}()

// Writable reports whether Append can write the answer. It cannot where HTTP allows no body.
func (r *Response) Writable() bool {
	return r.Status > 0 && r.Status < len(statusLines) && statusLines[r.Status] != ""
}

// Append appends the answer to b in the bytes that fasthttp would write, date in its Date header.
func (r *Response) Append(b []byte, date string) []byte {
	b = append(append(b, statusLines[r.Status]...), date...)
	if len(r.ContentType) > 0 {
		b = append(append(b, "\r\nContent-Type: "...), r.ContentType...)
	}
	if len(r.Encoding) > 0 {
		b = append(append(b, "\r\nContent-Encoding: "...), r.Encoding...)
	}
	b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(r.Body)), 10)
	if r.Outcome != "" {
		b = append(append(b, "\r\n"+HeaderOutcome+": "...), r.Outcome...)
	}
	if r.Reason != "" {
		b = append(append(b, "\r\n"+HeaderReason+": "...), r.Reason...)
	}
	if r.Would != "" {
		b = append(append(b, "\r\n"+headerWould+": "...), r.Would...)
	}
	if r.RetryAfter > 0 {
		b = strconv.AppendInt(append(b, "\r\n"+HeaderRetry+": "...), r.RetryAfter, 10)
	}
	if r.Last {
		b = append(b, "\r\nConnection: close"...)
	}
	return append(append(b, "\r\n\r\n"...), r.Body...)
}

// Date is the value of the Date header, which is formatted once a tick and not once an answer. It
// must be set before it is read. It is safe for concurrent use.
type Date struct{ text atomic.Pointer[string] }

// Set formats now.
func (d *Date) Set(now time.Time) {
	text := string(fasthttp.AppendHTTPDate(nil, now))
	d.text.Store(&text)
}

// Get returns the text that was set last.
func (d *Date) Get() string { return *d.text.Load() }
