package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Record is one line of a trace: one publish as it was offered.
type Record struct {
	At       time.Time `json:"at"`
	App      string    `json:"app,omitempty"` // empty: the only one
	Caller   string    `json:"caller"`
	Event    string    `json:"event"`
	Channel  string    `json:"channel,omitempty"`
	Channels []string  `json:"channels,omitempty"` // instead of channel, when there are several
	Payload  string    `json:"payload,omitempty"`  // 128 bits of a keyed hash, in hexadecimal
	Size     int       `json:"size"`
	Cost     int64     `json:"cost"` // messages, as it was priced then
	Outcome  string    `json:"outcome,omitempty"`
	// Dropped, alone on a line, is how many publishes before it could not be
	// written down in time.
	Dropped int64 `json:"dropped,omitempty"`
}

// trace reads a file of Records, which must be in the order of time.
type trace struct {
	file *os.File
	scan *bufio.Scanner
	name string
	app  string // publishes of others are passed over
	line int
	next *publish // read ahead
	last time.Time
}

const maxLine = 1 << 20

func openTrace(path, app string) (*trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	t := &trace{file: f, scan: bufio.NewScanner(f), name: path, app: app}
	t.scan.Buffer(make([]byte, 64<<10), maxLine)
	return t, nil
}

func (t *trace) close() { t.file.Close() }

// first is when the trace begins.
func (t *trace) first() (time.Time, error) {
	p, err := t.peek()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return time.Time{}, fmt.Errorf("%s: the trace is empty", t.name)
		}
		return time.Time{}, err
	}
	return p.at, nil
}

func (t *trace) peek() (*publish, error) {
	for t.next == nil {
		if !t.scan.Scan() {
			if err := t.scan.Err(); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", t.name, t.line+1, err)
			}
			return nil, io.EOF
		}
		t.line++
		if len(t.scan.Bytes()) == 0 {
			continue
		}
		p, err := parseRecord(t.scan.Bytes(), t.app)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", t.name, t.line, err)
		}
		if p == nil {
			continue
		}
		if p.at.Before(t.last) {
			p.at = t.last // publishes of several cores are noted a moment out of order
		}
		t.last = p.at
		t.next = p
	}
	return t.next, nil
}

// parseRecord reads one line; nil is a line that holds no publish of the app.
func parseRecord(line []byte, app string) (*publish, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	if r.Dropped > 0 || (r.App != "" && r.App != app) {
		return nil, nil
	}
	if r.Channel != "" {
		r.Channels = []string{r.Channel}
	}
	switch {
	case r.At.IsZero():
		return nil, errors.New("there is no at")
	case r.Event == "" || len(r.Channels) == 0:
		return nil, errors.New("there is no event or no channel")
	case r.Cost < 0 || r.Cost > 1<<40 || r.Size < 0:
		return nil, errors.New("cost or size is out of range")
	}
	p := &publish{at: r.At.UTC(), caller: r.Caller, event: r.Event, channels: r.Channels, size: r.Size, cost: r.Cost}
	if r.Payload != "" {
		if len(r.Payload) != 32 {
			return nil, errors.New("payload is no 128 bits in hexadecimal")
		}
		for i := range p.digest {
			v, err := strconv.ParseUint(r.Payload[16*i:16*i+16], 16, 64)
			if err != nil {
				return nil, errors.New("payload is no 128 bits in hexadecimal")
			}
			p.digest[i] = v
		}
	}
	return p, nil
}

// maxPause is how long a trace may be silent: more is a mistake in its times.
const maxPause = 7 * 24 * time.Hour

// replayTrace drives the worlds by the trace's times, and returns its end.
func (e *engine) replayTrace(ctx context.Context, tr *trace, start, from time.Time) (time.Time, error) {
	e.truth.from = from
	t := start
	for {
		p, err := tr.peek()
		if errors.Is(err, io.EOF) {
			return t, ctx.Err()
		}
		if err != nil {
			return t, err
		}
		if p.at.Sub(t) > maxPause {
			return t, fmt.Errorf("%s:%d: nothing for %v before it: are the times right?", tr.name, tr.line, p.at.Sub(t))
		}
		counted := !t.Before(from)
		if err := e.open(ctx, t, counted); err != nil {
			return t, err
		}
		failing := e.failing(t)
		for end := t.Add(time.Second); err == nil && p.at.Before(end); {
			if p.cost == 0 {
				p.cost = 1
			}
			if err := e.each(ctx, p, failing > 0 && float64(mix(p.digest[1])>>11)/(1<<53) < failing, counted); err != nil {
				return t, err
			}
			tr.next = nil
			p, err = tr.peek()
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return t, err
		}
		t = t.Add(time.Second)
		if err := e.close(ctx, t, counted); err != nil {
			return t, err
		}
	}
}

// firstApp is the app of a trace's first publish; empty where the trace is of a
// time when traces did not say.
func firstApp(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	scan.Buffer(make([]byte, 64<<10), maxLine)
	for line := 1; scan.Scan(); line++ {
		var r Record
		if len(scan.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			return "", fmt.Errorf("%s:%d: %w", path, line, err)
		}
		if r.Dropped == 0 {
			return r.App, nil
		}
	}
	return "", scan.Err()
}
