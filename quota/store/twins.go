package store

import (
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"
)

//go:embed lua/twins.lua
var luaTwins string

var twinsScript = script(luaTwins)

// TwinID is what makes two publishes the same, for all replicas.
type TwinID [16]byte

// TwinOp is one thing that a replica asks or tells about a publish.
type TwinOp struct {
	Do    TwinDo
	ID    TwinID
	Token uint64 // of the claim
	At    time.Time
	// Window is for how long a delivered publish is remembered; Hold for how long
	// a claim stands of which nobody says how it ended.
	Window, Hold time.Duration
}

// TwinDo says what a TwinOp is.
type TwinDo byte

// What can be asked and told.
const (
	TwinClaim     TwinDo = 'c' // may I send it?
	TwinDelivered TwinDo = 's' // it was delivered
	TwinFailed    TwinDo = 'f' // it was not, or nobody knows
	TwinLook      TwinDo = 'l' // what became of it?
)

// TwinIs is the store's answer.
type TwinIs byte

// What a publish can be.
const (
	TwinUnknown  TwinIs = '-' // nobody sends it; also the answer to what is told
	TwinClaimed  TwinIs = 'c' // the asker may send it
	TwinUnderWay TwinIs = 'p' // another claim stands
	TwinSent     TwinIs = 'd' // it was delivered inside the window
	TwinNoRoom   TwinIs = '0' // the account remembers as many as it may
)

// TwinAnswer is the answer to one TwinOp; Until, of what was sent, is when that is forgotten.
type TwinAnswer struct {
	Is    TwinIs
	Until time.Time
}

// twinsKept is after how long a record that nobody writes to goes, in seconds; it is longer than any window.
const twinsKept = 25 * 60 * 60

// Twins carries out ops in their order, in one round trip. An account remembers at most most publishes.
func (s *Store) Twins(ctx context.Context, account string, now time.Time, most int, ops []TwinOp) ([]TwinAnswer, error) {
	args := make([]any, 0, 3+6*len(ops))
	args = append(args, now.UnixMilli(), most, twinsKept)
	for i := range ops {
		o := &ops[i]
		args = append(args, string(rune(o.Do)), base64.RawURLEncoding.EncodeToString(o.ID[:]), strconv.FormatUint(o.Token, 36),
			o.At.UnixMilli(), o.Window.Milliseconds(), o.Hold.Milliseconds())
	}
	res, err := s.run(ctx, twinsScript, twinKeys(account), args...)
	if err != nil {
		return nil, err
	}
	if len(res) != len(ops) {
		return nil, fmt.Errorf("the store answered %d of %d questions about publishes", len(res), len(ops))
	}
	out := make([]TwinAnswer, len(res))
	for i, r := range res {
		if r == "" {
			return nil, fmt.Errorf("the store answered a question about a publish with nothing")
		}
		out[i].Is = TwinIs(r[0])
		if out[i].Is == TwinSent {
			ms, err := strconv.ParseInt(r[1:], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the store answered a question about a publish with %q", r)
			}
			out[i].Until = time.UnixMilli(ms)
		}
	}
	return out, nil
}
