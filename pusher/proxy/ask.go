package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// maxAsked bounds the answer to one question: two million channels with long names.
const maxAsked = 512 << 20

// ErrNotAsked is for a question that never reached Pusher, and cost nothing.
var ErrNotAsked = errors.New("not asked")

// AskError is Pusher's refusal of a question.
type AskError struct {
	Status int
	Text   string // its first line
}

func (e *AskError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("Pusher answered %d", e.Status)
	}
	return fmt.Sprintf("Pusher answered %d: %s", e.Status, e.Text)
}

// Ask sends a question of the guard's own, GET path?query, and gives the answer to read as it arrives. It has
// connections of its own, so that an answer of megabytes stands in no publish's way, and does not ask while the
// upstream's breaker is open. Its errors hold no URL, which would be signed.
func (u *Upstream) Ask(ctx context.Context, now time.Time, path, query string, read func(io.Reader) error) error {
	if u.sink != nil {
		return fmt.Errorf("%w: nothing is sent to Pusher here", ErrNotAsked)
	}
	var q pusher.Query
	if err := q.Parse([]byte(query)); err != nil {
		return fmt.Errorf("%w: %w", ErrNotAsked, err)
	}
	if !u.off && !u.asks.TryAcquirePermit() {
		return fmt.Errorf("%w: the circuit breaker to Pusher is open", ErrNotAsked)
	}
	target := u.key.AppendSigned([]byte(path+"?"), http.MethodGet, []byte(path), &q, nil, now)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.Host()+string(target), nil)
	if err != nil {
		u.asks.RecordSuccess()
		return fmt.Errorf("%w: the path is none", ErrNotAsked)
	}
	began := time.Now()
	resp, err := u.asking().Do(req)
	if u.seconds != nil {
		u.seconds.Observe(time.Since(began).Seconds())
	}
	if err != nil {
		u.asks.RecordFailure()
		u.codes[0].Add(1)
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("%w: Pusher cannot be reached (%s)", ErrNotAsked, connectFailure(err))
		}
		return fmt.Errorf("no answer from Pusher: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 0 && resp.StatusCode < len(u.codes) {
		u.codes[resp.StatusCode].Add(1)
	}
	if resp.StatusCode >= 500 {
		u.asks.RecordFailure()
	} else {
		u.asks.RecordSuccess()
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return &AskError{resp.StatusCode, string(firstLine(text))}
	}
	return read(io.LimitReader(resp.Body, maxAsked))
}

// asking is the client of questions, made with the first.
func (u *Upstream) asking() *http.Client {
	u.askOnce.Do(func() {
		u.askClient = u.httpClient(4)
	})
	return u.askClient
}
