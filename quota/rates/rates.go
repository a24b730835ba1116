package rates

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"
)

// LongWindow is what a bucket may need to fill without being kept in the store from its first token on.
const LongWindow = 10 * time.Second

// TTL is after how long a replica that is silent is taken for dead.
const TTL = 6 * time.Second

// ID names a bucket: the same on every replica and after a restart.
type ID string

// IDOf is the name of the bucket of rate for name.
func IDOf(rate, name string) ID {
	var room [256]byte
	b := append(append(append(room[:0], rate...), 0), name...)
	sum := sha256.Sum256(b)
	return ID(base64.RawURLEncoding.EncodeToString(sum[:9]))
}

// RateID is a short name of a rate, made of all that makes it that one.
func RateID(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// Report is what a replica says about one bucket.
type Report struct {
	ID        string
	Rate      string // of the rate alone: RateID
	Name      string // the event, channel or caller that the bucket is for
	PerSecond float64
	Burst     int64
	Fill      time.Duration // until it is full again when nobody uses it
	Managed   bool          // the store knows of this replica's share
	Lost      bool          // the store lost its data lately
	Claim     bool          // only the ID counts: a bucket that the store knows and this replica does not
	Before    float64       // tokens before this report gives any back
	Held      float64       // and after
	Spent     int64         // since the bucket is managed
	Current   float64       // the rate that the replica takes at now
	Cap       int64         // the most tokens that it holds now
	Demand    float64       // tokens a second that were asked for, lately
	Need      float64       // and since the last report
	Refused   bool          // some of them were refused
}

// Grant is the answer to a Report.
type Grant struct {
	None      bool          // of a claim: the store does not know the bucket either
	Tokens    int64         // more than Held
	PerSecond float64       // the rate from now on
	Burst     int64         // and the most tokens held
	Starving  bool          // another replica refuses for want of tokens
	Contended bool          // there is not enough for all
	Wait      time.Duration // until the whole bucket has a token that nobody holds
	Whole     float64       // tokens of all replicas together
	Part      float64       // this replica's part of the demand
}

// Exchange is all that a replica says at once.
type Exchange struct {
	Replica string // unique to this process
	Name    string
	Now     time.Time
	Seq     int64
	Version int64
	News    int64
	Leave   bool
	Reports []Report
}

// Answer is what it hears.
type Answer struct {
	State     string // known, joined, fresh, stale, gone
	Replicas  int
	Rank      int
	Version   int64
	Acked     bool
	News      int64
	Missed    bool
	Forgotten int64
	Told      []string
	Grants    []Grant
}

// Store carries out exchanges, each whole or not at all.
type Store interface {
	Rates(ctx context.Context, x *Exchange) (*Answer, error)
	RateIDs(ctx context.Context, most int) ([]string, error)
	Exclusive() bool
}

// Source holds buckets. All methods but Queued are called by one goroutine.
type Source interface {
	// Resplit has the buckets that nobody spoke of follow s.
	Resplit(s Split)
	// Known names buckets that the store knows and this replica has no share of, with the tokens reserved here.
	Known(held map[ID]int64)
	// Collect appends at most most reports of buckets that have news for the store. Their order is that of Granted.
	Collect(now time.Time, most int, out []Report) []Report
	// Granted answers the reports of the last Collect; nil: the exchange failed, and they are due again.
	Granted(now time.Time, grants []Grant)
	// Told has a bucket give back what another starves for; forgotten: it is full, and nobody keeps it any more. Without
	// names news were missed: every share is reported. It says whether the rate is one of its own.
	Told(now time.Time, rate, name string, forgotten bool) (known bool)
	// Away is told when the store is lost and when it is back.
	Away(now time.Time, away bool)
	// Forget drops every share: this replica was taken for dead, and others have them.
	Forget(now time.Time)
	// Lost is told when the store lost its data.
	Lost(now time.Time)
	// Kick sets what is called when a report should not wait for the next turn.
	Kick(f func())
}

// Split is the part of a bucket that a replica holds when nobody spoke of it. The zero value is the whole.
type Split struct {
	Replicas int  // 0 or 1: this one alone
	Rank     int  // its place among them, from 0
	None     bool // nothing yet: the others do not know of this replica
	Shared   bool // others may join: buckets with a long window are kept in the store
}

// Of is the part of a bucket that has this hash.
func (s Split) Of(perSecond float64, burst int, hash uint64) (float64, int) {
	switch {
	case s.None:
		return 0, 0
	case s.Replicas <= 1:
		return perSecond, burst
	case burst <= s.Replicas:
		return perSecond / float64(s.Replicas), 1
	}
	part, rest := burst/s.Replicas, burst%s.Replicas
	if (s.Rank+int(hash%uint64(s.Replicas)))%s.Replicas < rest {
		part++
	}
	return perSecond / float64(s.Replicas), part
}

// Alone reports whether no other replica holds a part.
func (s Split) Alone() bool { return s.Replicas <= 1 && !s.None }
