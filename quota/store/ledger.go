package store

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Classes is the number of token classes: one a priority, lowest first.
const Classes = 3

// Counts is one number a class.
type Counts [Classes]int64

// Sum adds the classes up.
func (c Counts) Sum() int64 { return c[0] + c[1] + c[2] }

// PotReport is what a replica says about one pot in a Beat. The plan itself is a pot (Name ""), and so is
// each caller's share. All counts are totals since the replica opened the pot, so that a report that is lost,
// repeated or late does no harm.
type PotReport struct {
	Name  string
	PPM   int64 // the pot's limit in millionths of the plan; 0: the plan itself, with its floors
	Acked int64 // number of the last report that the store confirmed; 0: none
	Ret   int64 // tokens handed back
	Spent int64 // messages sent
	Over  int64 // messages sent beyond the leases
	Idle  int64 // tokens held unused at this moment
	Want  Counts
	// ClosedTaken, ClosedSpent and ClosedVersion are those of the last PotState that was heard.
	ClosedTaken, ClosedSpent, ClosedVersion int64

	Need Counts // what the most expensive waiting publish of each class needs: granted whole or not at all
}

// Beat is one heartbeat of a replica: it reports, hands back, renews, and reclaims what dead ones left.
type Beat struct {
	Account  string
	ID       string // unique to this process and day
	Day      int32
	Now      time.Time
	Seq      int64         // grows with every Beat of this ID
	Epoch    string        // as last heard; empty: first contact
	Join     bool          // the config's plan counts if it is news
	Leave    bool          // close the entry
	Bury     bool          // close the entry of a process that is dead, as the store has it; the report says only what was confirmed
	TTL      time.Duration // others that are silent for longer are closed; negative: all others
	Plan     int64         // by config
	PlanName string
	Floors   Counts // millionths of the plan kept for the class and those above it
	Pots     []PotReport
}

// Entry is another replica's line in a pot, kept as the store wrote it.
type Entry struct{ ID, Packed string }

// PotState is the store's answer for one pot.
type PotState struct {
	Granted Counts // ever granted to this replica
	Taken   int64  // by all replicas: granted or sent, minus handed back
	Spent   int64  // by all replicas
	Idle    int64  // held unused by other replicas, as of their last beats
	Limit   int64  // how far Taken may go today, lent parts of other shares included
	Hungry  bool   // another replica refuses publishes for want of tokens
	Wasted  int64  // held unspent today by replicas that were taken for dead, and still are

	ClosedTaken, ClosedSpent int64 // the part of replicas that are gone
	// Closed are those of them that were gone lately (128 at most): all that were last heard at ClosedFrom (Unix ms; 0: not
	// known) or later. ClosedVersion tells one such list from the next. Only with ClosedNews: the part or the list differs
	// from what the Beat said was heard last.
	Closed                    []Entry
	ClosedFrom, ClosedVersion int64
	ClosedNews                bool
	Adjust, AdjustVersion     int64
	Others                    []Entry
}

// State is what holds for the whole account.
type State struct {
	Version  int64
	Plan     int64
	PlanName string
	Config   string // the plan by config that Plan was last set from

	ExhaustedDay string // empty: not exhausted
	ExhaustedAt  string // ms
	ExhaustedWhy string
	Brake        string // JSON of the caller's choice; empty: none
	Burn         string // the quota breaker's burn-rate state, likewise
}

// Pulse is the answer to a Beat.
type Pulse struct {
	Epoch    string
	RunID    string // empty where the server does not tell
	Fresh    bool   // the store was empty, or was emptied, and this beat began it
	Withheld bool   // no lease is given until every replica has spoken after a loss of data
	Replicas int
	Pots     []PotState
	State    State
}

//go:embed lua/beat.lua
var luaBeat string

//go:embed lua/heal.lua
var luaHeal string

var (
	beatScript = script(luaBeat)
	healScript = script(luaHeal)
)

const keepSeconds = keepDays * 24 * 3600

func newEpoch() string { return rand.Text()[:12] }

func ledgerKeys(account string, day int32, pots []string) []string {
	keys := make([]string, 1, 1+3*len(pots))
	keys[0] = stateKey(account)
	for _, p := range pots {
		d, r, g := potKeys(account, day, p)
		keys = append(keys, d, r, g)
	}
	return keys
}

// Beat carries one heartbeat: one round trip. ErrLost asks for Heal.
func (s *Store) Beat(ctx context.Context, b *Beat) (*Pulse, error) {
	names := make([]string, len(b.Pots))
	for i := range b.Pots {
		names[i] = b.Pots[i].Name
	}
	mode := ""
	if b.Bury {
		mode = "bury"
	} else if b.Leave {
		mode = "leave"
	} else if b.Join {
		mode = "join"
	}
	args := make([]any, 0, 15+15*len(b.Pots))
	proposed := newEpoch()
	args = append(args, b.Now.UnixMilli(), b.ID, b.Seq, b.Epoch, proposed, mode, b.TTL.Milliseconds(),
		b.Plan, b.PlanName, b.Floors[1], b.Floors[2], readerVersion, keepSeconds, elapsed(b.Day, b.Now), s.runs())
	for i := range b.Pots {
		p := &b.Pots[i]
		args = append(args, p.PPM, p.Acked, p.Ret, p.Spent, p.Over, p.Idle,
			p.Want[0], p.Want[1], p.Want[2], p.Need[0], p.Need[1], p.Need[2], p.ClosedTaken, p.ClosedSpent, p.ClosedVersion)
	}
	keys := ledgerKeys(b.Account, b.Day, names)
	res, err := s.run(ctx, beatScript, keys, args...)
	if lookBroken(err) {
		err = s.mend(ctx, keys, err)
	}
	if err != nil {
		return nil, err
	}
	p, err := parsePulse(res, len(b.Pots))
	if err == nil {
		p.Fresh = p.Epoch == proposed
	}
	return p, err
}

// runs is 1 where the server can tell one run of it from the next. The embedded store has no runs: its journal is replayed.
func (s *Store) runs() int {
	if s.emb != nil {
		return 0
	}
	return 1
}

// elapsed is the part of the day that is over at now, in millionths.
func elapsed(day int32, now time.Time) int64 {
	const seconds = 24 * 3600
	return min(max(now.Unix()-int64(day)*seconds, 0), seconds) * 1_000_000 / seconds
}

// reader takes an answer apart; the first fault sticks.
type reader struct {
	in  []string
	err error
}

func (r *reader) str() string {
	if len(r.in) == 0 {
		if r.err == nil {
			r.err = errors.New("the store's answer is too short")
		}
		return ""
	}
	v := r.in[0]
	r.in = r.in[1:]
	return v
}

func (r *reader) num() int64 {
	s := r.str()
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		r.err = fmt.Errorf("the store answered %q where a number belongs", s)
	}
	return n
}

func parsePulse(res []string, pots int) (*Pulse, error) {
	r := &reader{in: res}
	p := &Pulse{Epoch: r.str(), RunID: r.str(), Withheld: r.str() == "1", Replicas: int(r.num()), Pots: make([]PotState, pots)}
	for i := range p.Pots {
		q := &p.Pots[i]
		for c := range q.Granted {
			q.Granted[c] = r.num()
		}
		q.Taken, q.Spent, q.Idle, q.Hungry = r.num(), r.num(), r.num(), r.str() == "1"
		q.Limit, q.Wasted = r.num(), r.num()
		q.ClosedTaken, q.ClosedSpent, q.Adjust, q.AdjustVersion = r.num(), r.num(), r.num(), r.num()
		n := r.num()
		for range n {
			if r.err != nil {
				break
			}
			q.Others = append(q.Others, Entry{r.str(), r.str()})
		}
	}
	st := &p.State
	st.Version, st.Plan, st.PlanName, st.Config = r.num(), r.num(), r.str(), r.str()
	st.ExhaustedDay, st.ExhaustedAt, st.ExhaustedWhy, st.Brake = r.str(), r.str(), r.str(), r.str()
	st.Burn = r.str()
	for i := range p.Pots {
		n := r.num()
		if n < 0 {
			continue
		}
		p.Pots[i].ClosedNews, p.Pots[i].ClosedVersion, p.Pots[i].ClosedFrom = true, r.num(), r.num()
		for range n {
			if r.err != nil {
				break
			}
			p.Pots[i].Closed = append(p.Pots[i].Closed, Entry{r.str(), r.str()})
		}
	}
	return p, r.err
}

// Knowledge is what a replica remembers of one pot, to fill a store that forgot.
type Knowledge struct {
	Report  PotReport // its own totals
	Granted Counts
	Last    PotState // as last heard
}

// Heal tells a store that lost data what this replica knows, and returns the epoch that now holds. Everything
// merges: the newest report of each replica, the higher of totals that only grow, the newer of what has a version.
func (s *Store) Heal(ctx context.Context, b *Beat, st State, known []Knowledge) (epoch string, err error) {
	names := make([]string, len(known))
	args := []any{b.Now.UnixMilli(), b.ID, b.Epoch, newEpoch(), readerVersion, keepSeconds,
		st.Version, st.Plan, st.PlanName, st.Config, st.ExhaustedDay, st.ExhaustedAt, st.ExhaustedWhy, st.Brake}
	for i := range known {
		k := &known[i]
		names[i] = k.Report.Name
		own := fmt.Sprint(k.Report.Acked, 0, b.Now.UnixMilli(), k.Granted[0], k.Granted[1], k.Granted[2],
			k.Report.Ret, k.Report.Spent, k.Report.Over, k.Report.Idle)
		from := k.Last.ClosedFrom
		if k.Report.Acked == 0 {
			from = 1 // it has heard nothing, and so there is nothing that it could not name
		}
		args = append(args, k.Last.ClosedTaken, k.Last.ClosedSpent, k.Last.Adjust, k.Last.AdjustVersion,
			from, k.Last.ClosedVersion, 1+len(k.Last.Others), b.ID, own)
		for _, o := range k.Last.Others {
			args = append(args, o.ID, o.Packed)
		}
		args = append(args, len(k.Last.Closed))
		for _, o := range k.Last.Closed {
			args = append(args, o.ID, o.Packed)
		}
	}
	res, err := s.run(ctx, healScript, ledgerKeys(b.Account, b.Day, names), args...)
	if err != nil {
		return "", err
	}
	r := &reader{in: res}
	epoch = r.str()
	return epoch, r.err
}

// AuditEntry is one line of the trail: who did what and why.
type AuditEntry struct {
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Why    string    `json:"why,omitempty"`
	Before string    `json:"before,omitempty"`
	After  string    `json:"after,omitempty"`
}

func (e *AuditEntry) line() string {
	if e == nil {
		return ""
	}
	b, err := json.Marshal(e)
	if err != nil { // a time beyond the year 9999
		return ""
	}
	return string(b)
}
