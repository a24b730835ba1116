package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// Recorder writes publishes down for a later replay, one JSON object a line, in
// the form of Record. Payloads are never in it, only digests; the digest should
// be keyed, so that it cannot be tried out.
//
// Note takes one lock that all publishes share, formats into memory and
// returns; it allocates nothing once its buffers have grown, and never waits
// for the disk. When the disk falls behind by the buffer's size, publishes are
// dropped, and said so: counted (Dropped), logged every ten seconds, and noted
// in the trace at the place of the gap.
type Recorder struct {
	out io.WriteCloser
	log *slog.Logger
	max int

	mu      sync.Mutex // of what follows
	wake    *sync.Cond
	buf     []byte
	spare   []byte
	gap     int64 // dropped since the last line written
	dropped int64
	written int64
	closed  bool
	err     error
	said    time.Time

	done chan struct{}
}

// DefaultBuffer is the memory of a Recorder, twice: one part fills while the
// other is written.
const DefaultBuffer = 4 << 20

// NewRecorder writes to out, which it closes at its end. buffer is in bytes; 0
// is DefaultBuffer. A nil log is slog.Default().
func NewRecorder(out io.WriteCloser, buffer int, log *slog.Logger) *Recorder {
	if buffer <= 0 {
		buffer = DefaultBuffer
	}
	if log == nil {
		log = slog.Default()
	}
	r := &Recorder{out: out, log: log, max: buffer, done: make(chan struct{})}
	r.wake = sync.NewCond(&r.mu)
	go r.write()
	return r
}

// Note writes one publish down. cost is its price in messages; outcome is the
// word of limiter.Outcome. Nothing of the arguments is kept.
func (r *Recorder) Note(now time.Time, app, caller, event string, channels []string, digest [2]uint64, size int, cost int64, outcome string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if len(r.buf) >= r.max || r.err != nil {
		r.gap++
		r.dropped++
		if now.Sub(r.said) >= 10*time.Second {
			r.said = now
			r.log.Warn("the trace has gaps: the disk does not keep up, or failed", "dropped", r.dropped, "err", r.err)
		}
		return
	}
	b := r.buf
	if r.gap > 0 {
		b = append(b, `{"dropped":`...)
		b = strconv.AppendInt(b, r.gap, 10)
		b = append(b, "}\n"...)
		r.gap = 0
	}
	b = append(b, `{"at":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","app":`...)
	b = appendString(b, app)
	b = append(b, `,"caller":`...)
	b = appendString(b, caller)
	b = append(b, `,"event":`...)
	b = appendString(b, event)
	if len(channels) == 1 {
		b = append(b, `,"channel":`...)
		b = appendString(b, channels[0])
	} else {
		b = append(b, `,"channels":[`...)
		for i, c := range channels {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, c)
		}
		b = append(b, ']')
	}
	b = append(b, `,"payload":"`...)
	b = appendHex(b, digest[0])
	b = appendHex(b, digest[1])
	b = append(b, `","size":`...)
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, `,"cost":`...)
	b = strconv.AppendInt(b, cost, 10)
	b = append(b, `,"outcome":`...)
	b = appendString(b, outcome)
	r.buf = append(b, "}\n"...)
	r.written++
	r.wake.Signal()
}

func appendHex(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// appendString writes s as JSON. What is not UTF-8 becomes U+FFFD, as with
// encoding/json.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < ' ':
			b = append(b, `\u00`...)
			b = append(b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			v, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, v)
			i += n
		}
	}
	return append(b, '"')
}

// write brings to out what Note has filled, until Close.
func (r *Recorder) write() {
	defer close(r.done)
	r.mu.Lock()
	for {
		for len(r.buf) == 0 && !r.closed {
			r.wake.Wait()
		}
		if len(r.buf) == 0 {
			r.mu.Unlock()
			return
		}
		full := r.buf
		r.buf = r.spare[:0]
		r.mu.Unlock()
		_, err := r.out.Write(full)
		r.mu.Lock()
		r.spare = full[:0]
		if err != nil && r.err == nil {
			r.err = err
			r.log.Error("the trace cannot be written; recording ends here", "err", err)
		}
	}
}

// Written and Dropped are how many publishes were noted, and how many not.
func (r *Recorder) Written() int64 { return r.count(&r.written) }

// Dropped is how many publishes are missing in the trace.
func (r *Recorder) Dropped() int64 { return r.count(&r.dropped) }

func (r *Recorder) count(n *int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *n
}

// Close writes what is left and closes the file. The error says if the trace is
// not whole.
func (r *Recorder) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	if r.gap > 0 {
		line, _ := json.Marshal(map[string]int64{"dropped": r.gap})
		r.buf = append(append(r.buf, line...), '\n')
		r.gap = 0
	}
	r.closed = true
	r.wake.Signal()
	r.mu.Unlock()
	<-r.done
	err := r.out.Close()
	switch {
	case r.err != nil:
		return fmt.Errorf("the trace: %w", r.err)
	case err != nil:
		return fmt.Errorf("the trace: %w", err)
	case r.dropped > 0:
		return fmt.Errorf("the trace has gaps: %d of %d publishes are not in it", r.dropped, r.dropped+r.written)
	}
	return nil
}
