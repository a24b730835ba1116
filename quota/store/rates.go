package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/rates.lua
var luaRates string

var ratesScript = script(luaRates)

// RateReport is what a replica says about one bucket; see quota/rates, whose types these are in another name, because
// this room imports nothing of the project.
type RateReport struct {
	ID        string // of rate and key, the same on every replica
	Rate      string // of the rate alone
	Name      string // the event, channel or caller that the bucket is for
	PerSecond float64
	Burst     int64
	Fill      time.Duration
	Managed   bool // the store knows of this replica's share
	Lost      bool // the store lost its data lately
	Claim     bool // only the ID counts: the share of a bucket that the store knows and this replica does not
	Before    float64
	Held      float64
	Spent     int64
	Current   float64
	Cap       int64
	Demand    float64
	Need      float64
	Refused   bool
}

// RateGrant is the answer to one RateReport.
type RateGrant struct {
	None      bool // of a claim: the store does not know it either
	Tokens    int64
	PerSecond float64
	Burst     int64
	Starving  bool
	Contended bool
	Wait      time.Duration
	Whole     float64
	Part      float64
}

// RateExchange is one exchange of an account's rate shares.
type RateExchange struct {
	Account string
	Replica string // unique to this process
	Name    string
	Now     time.Time // used only where the server's clock does not count
	Seq     int64
	Version int64
	News    int64
	TTL     time.Duration
	Most    int
	Leave   bool
	Reports []RateReport
}

// RateAnswer is what the replica hears.
type RateAnswer struct {
	State     string // known, joined, fresh (the store had forgotten everybody), stale, gone
	Replicas  int
	Rank      int
	Version   int64
	Acked     bool
	News      int64
	Missed    bool
	Forgotten int64
	Told      []string // "h id rate name": give back what is not needed; "r id rate name": it is full again and forgotten
	Grants    []RateGrant
}

// RatesMost is how many buckets of an account are kept in the store: about 40 MB there.
const RatesMost = 1 << 17

// rateKeep is for how long an account's shares are kept that nobody asks for, in seconds.
const rateKeep = 3 * 24 * 60 * 60

// Rates carries out one exchange. In a Redis the server's clock counts, unless CallersClock says otherwise.
func (s *Store) Rates(ctx context.Context, x *RateExchange) (*RateAnswer, error) {
	now := ""
	if s.emb != nil || s.callersClock {
		now = strconv.FormatInt(x.Now.UnixMilli(), 10)
	}
	ttl := x.TTL.Milliseconds()
	if s.emb != nil && !s.callersClock {
		ttl = -1000
	}
	mode := ""
	if x.Leave {
		mode = "leave"
	}
	args := make([]any, 0, 10+15*len(x.Reports))
	args = append(args, now, x.Replica, x.Seq, x.Version, x.News, ttl, x.Most, mode, rateKeep, x.Name)
	for i := range x.Reports {
		r := &x.Reports[i]
		flags := ""
		if r.Managed {
			flags += "m"
		}
		if r.Lost {
			flags += "l"
		}
		if r.Claim {
			flags += "c"
		}
		refused := 0
		if r.Refused {
			refused = 1
		}
		args = append(args, r.ID, r.Rate+" "+r.Name, number(r.PerSecond), r.Burst, r.Fill.Milliseconds(), flags, number(r.Before), number(r.Held),
			r.Spent, number(r.Current), number(r.Demand), refused, r.Cap, number(r.Need), 0)
	}
	res, err := s.run(ctx, ratesScript, rateKeys(x.Account), args...)
	if err != nil {
		return nil, err
	}
	if len(res) == 1 {
		return &RateAnswer{State: res[0]}, nil
	}
	r := &reader{in: res}
	a := &RateAnswer{State: r.str()}
	r.num() // the time that counted
	a.Replicas, a.Rank, a.Version, a.Acked, a.News, a.Missed, a.Forgotten = int(r.num()), int(r.num()), r.num(), r.num() == 1, r.num(), r.num() == 1, r.num()
	for range r.num() {
		if r.err != nil {
			break
		}
		a.Told = append(a.Told, r.str())
	}
	a.Grants = make([]RateGrant, len(x.Reports))
	for i := range a.Grants {
		if err := a.Grants[i].read(r.str()); err != nil && r.err == nil {
			r.err = err
		}
	}
	return a, r.err
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 12, 64) }

func (g *RateGrant) read(s string) error {
	if s == "-" {
		g.None = true
		return nil
	}
	f := strings.Fields(s)
	if len(f) != 8 {
		return fmt.Errorf("the store answered %q where a share belongs", s)
	}
	var v [8]float64
	for i := range f {
		x, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return fmt.Errorf("the store answered %q where a share belongs", s)
		}
		v[i] = x
	}
	*g = RateGrant{Tokens: int64(v[0]), PerSecond: v[1], Burst: int64(v[2]), Starving: v[3] == 1, Contended: v[4] == 1,
		Wait: time.Duration(v[5]) * time.Millisecond, Whole: v[6], Part: v[7]}
	return nil
}

// RateIDs lists the buckets that the store knows, those that are full again last first; at most most of them.
func (s *Store) RateIDs(ctx context.Context, account string, most int) ([]string, error) {
	const chunk = 5000
	var ids []string
	for from := 0; from < most; from += chunk {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		part, err := s.rdb.ZRevRange(ctx, rateKeys(account)[1], int64(from), int64(min(from+chunk, most)-1)).Result()
		cancel()
		if err != nil {
			return nil, explain(err)
		}
		if ids = append(ids, part...); len(part) < chunk {
			break
		}
	}
	return ids, nil
}

// RateUser is a replica's part of a bucket.
type RateUser struct {
	Replica   string
	PerSecond float64
	Held      float64
	Demand    float64
}

// RateRecord is one bucket as the store has it.
type RateRecord struct {
	Rate, Name string
	PerSecond  float64
	Burst      int64
	Pool       float64
	At         time.Time
	Users      []RateUser
}

// RateRecords looks buckets up by ID; those that are not known are left out.
func (s *Store) RateRecords(ctx context.Context, account string, ids []string) (map[string]RateRecord, error) {
	out := map[string]RateRecord{}
	if len(ids) == 0 {
		return out, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	keys := rateKeys(account)
	var recs *redis.SliceCmd
	var live *redis.MapStringStringCmd
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		recs, live = p.HMGet(ctx, keys[0], ids...), p.HGetAll(ctx, keys[2])
		return nil
	})
	if err != nil {
		return nil, explain(err)
	}
	names := map[string]string{}
	for _, line := range live.Val() {
		head, name, _ := strings.Cut(line, "|")
		number, _, _ := strings.Cut(head, " ")
		names[number] = name
	}
	for i, v := range recs.Val() {
		text, ok := v.(string)
		if !ok {
			continue
		}
		r, err := parseRateRecord(text, names)
		if err != nil {
			return nil, err
		}
		out[ids[i]] = r
	}
	return out, nil
}

func parseRateRecord(text string, names map[string]string) (r RateRecord, err error) {
	head, tail, _ := strings.Cut(text, "|")
	r.Rate, r.Name, _ = strings.Cut(tail, " ")
	f := strings.Fields(head)
	if len(f) < 10 || (len(f)-10)%9 != 0 {
		return r, errors.New("a record of a rate cannot be read: " + text)
	}
	v := make([]float64, len(f))
	for i := range f {
		if v[i], err = strconv.ParseFloat(f[i], 64); err != nil {
			return r, fmt.Errorf("a record of a rate cannot be read: %q", text)
		}
	}
	r.PerSecond, r.Burst, r.Pool, r.At = v[1], int64(v[2]), v[3], time.UnixMilli(int64(v[4]))
	for i := 10; i < len(v); i += 9 {
		name, ok := names[f[i]]
		if !ok {
			continue
		}
		r.Users = append(r.Users, RateUser{Replica: name, PerSecond: v[i+1], Held: v[i+2], Demand: v[i+6]})
	}
	return r, nil
}
