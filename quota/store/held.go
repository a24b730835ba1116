package store

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strconv"
	"time"
)

//go:embed lua/held.lua
var luaHeld string

var heldScript = script(luaHeld)

// Held is a publish that was answered and is not sent yet.
type Held struct {
	ID   string // what a newer one replaces it by; without a line break
	Due  time.Time
	Body []byte
}

// HeldAs says what became of a Held.
type HeldAs byte

// What Hold answers for each item.
const (
	NoRoom   HeldAs = '0' // the account holds as many as it may; nothing is kept
	Kept     HeldAs = '1'
	Replaced HeldAs = '2' // an older one of the same id is forgotten; its due time stays
)

// Claimed is a held publish that this caller alone may send until the claim ends.
type Claimed struct {
	Token string
	ID    string
	Body  []byte
	// Again: another replica claimed it before and never said what became of it.
	Again bool
}

// Hold keeps items, at most most of an account, and returns when they survive a crash as well as anything in this
// store does.
func (s *Store) Hold(ctx context.Context, account string, most int, items []Held) ([]HeldAs, error) {
	args := make([]any, 0, 2+3*len(items))
	args = append(args, "hold", most)
	for _, h := range items {
		args = append(args, h.ID, h.Due.UnixMilli(), h.Body)
	}
	res, err := s.run(ctx, heldScript, heldKeys(account), args...)
	if err != nil {
		return nil, err
	}
	if len(res) != len(items) {
		return nil, fmt.Errorf("the store answered for %d held publishes of %d", len(res), len(items))
	}
	out := make([]HeldAs, len(res))
	for i, r := range res {
		out[i] = HeldAs(r[0])
	}
	return out, nil
}

// SwapHeld puts each item in the place of one that waits under its id, and reports where there was one; the due time
// stays. Where none waits nothing is kept.
func (s *Store) SwapHeld(ctx context.Context, account string, items []Held) ([]bool, error) {
	args := make([]any, 0, 1+3*len(items))
	args = append(args, "swap")
	for _, h := range items {
		args = append(args, h.ID, h.Due.UnixMilli(), h.Body)
	}
	res, err := s.run(ctx, heldScript, heldKeys(account), args...)
	if err != nil {
		return nil, err
	}
	if len(res) != len(items) {
		return nil, fmt.Errorf("the store answered for %d held publishes of %d", len(res), len(items))
	}
	out := make([]bool, len(res))
	for i, r := range res {
		out[i] = r == "1"
	}
	return out, nil
}

// PaceHeld keeps items so that of one id at most one is claimed in every, counted from the last claim, and returns when
// each is due: at now, or later. Items of equal ids must have equal everys.
func (s *Store) PaceHeld(ctx context.Context, account string, now time.Time, most int, every []time.Duration, items []Held) ([]HeldAs, []time.Time, error) {
	args := make([]any, 0, 3+2*len(items))
	args = append(args, "pace", most, now.UnixMilli())
	for i, h := range items {
		args = append(args, h.ID+"~"+strconv.FormatInt(every[i].Milliseconds(), 10), h.Body)
	}
	res, err := s.run(ctx, heldScript, heldKeys(account), args...)
	if err != nil {
		return nil, nil, err
	}
	if len(res) != len(items) {
		return nil, nil, fmt.Errorf("the store answered for %d held publishes of %d", len(res), len(items))
	}
	as, due := make([]HeldAs, len(res)), make([]time.Time, len(res))
	for i, r := range res {
		if as[i] = HeldAs(r[0]); as[i] == NoRoom {
			continue
		}
		ms, err := strconv.ParseInt(r[1:], 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("the store answered %q for a held publish", r)
		}
		due[i] = time.UnixMilli(ms)
	}
	return as, due, nil
}

// HeldCount is how many publishes of an account are held: waiting, those of them whose time has come, and those that
// a replica has claimed to send.
type HeldCount struct{ Waiting, Overdue, Sending int64 }

// InheritHeld gives back at once what processes claimed that had the same place as this one and are dead: their tokens
// begin with place and not with mine. It returns how many those were.
func (s *Store) InheritHeld(ctx context.Context, account, place, mine string) (int, error) {
	res, err := s.run(ctx, heldScript, heldKeys(account), "inherit", place, mine)
	if err != nil {
		return 0, err
	}
	if len(res) != 1 {
		return 0, fmt.Errorf("the store answered %d parts for inherited publishes", len(res))
	}
	return strconv.Atoi(res[0])
}

// ClaimHeld takes up to limit publishes that are due at now. Whoever claims settles or returns each before until;
// what is not settled by then can be claimed again. Its tokens begin with mine. The count is of the moment before.
func (s *Store) ClaimHeld(ctx context.Context, account, mine string, now, until time.Time, limit int) ([]Claimed, HeldCount, error) {
	var count HeldCount
	res, err := s.run(ctx, heldScript, heldKeys(account), "claim", now.UnixMilli(), until.UnixMilli(), limit, mine+rand.Text()[:16]+".")
	if err != nil {
		return nil, count, err
	}
	if len(res) < 3 || len(res)%3 != 0 {
		return nil, count, fmt.Errorf("the store answered %d parts for claimed publishes", len(res))
	}
	for i, n := range []*int64{&count.Waiting, &count.Overdue, &count.Sending} {
		if *n, err = strconv.ParseInt(res[i], 10, 64); err != nil {
			return nil, count, fmt.Errorf("the store answered %q for a number of held publishes", res[i])
		}
	}
	res = res[3:]
	out := make([]Claimed, 0, len(res)/3)
	for i := 0; i < len(res); i += 3 {
		id, body, _ := bytes.Cut([]byte(res[i+2]), []byte("\n"))
		out = append(out, Claimed{Token: res[i], Again: res[i+1] == "1", ID: string(id), Body: body})
	}
	return out, count, nil
}

// hastenAtOnce bounds how long one call of HastenHeld's keeps the store from others.
const hastenAtOnce = 2000

// HastenHeld makes due at now what is held for later, but for what PaceHeld holds, and returns how many that were.
// After an error some may be.
func (s *Store) HastenHeld(ctx context.Context, account string, now time.Time) (n int64, err error) {
	var past int64
	for {
		res, err := s.run(ctx, heldScript, heldKeys(account), "hasten", now.UnixMilli(), past, hastenAtOnce)
		if err != nil {
			return n, err
		}
		if len(res) != 2 {
			return n, fmt.Errorf("the store answered %d parts for hastened publishes", len(res))
		}
		hastened, err := strconv.ParseInt(res[0], 10, 64)
		if err != nil {
			return n, fmt.Errorf("the store answered %q for a number of held publishes", res[0])
		}
		passed, err := strconv.ParseInt(res[1], 10, 64)
		if err != nil {
			return n, fmt.Errorf("the store answered %q for a number of held publishes", res[1])
		}
		n, past = n+hastened, past+passed
		if hastened+passed < hastenAtOnce {
			return n, nil
		}
	}
}

// SettleHeld forgets claimed publishes: they were sent, or never will be.
func (s *Store) SettleHeld(ctx context.Context, account string, tokens []string) error {
	args := []any{"settle"}
	for _, t := range tokens {
		args = append(args, t)
	}
	_, err := s.run(ctx, heldScript, heldKeys(account), args...)
	return err
}

// ReturnHeld gives claimed publishes back, due at due, unless a newer one was held meanwhile.
func (s *Store) ReturnHeld(ctx context.Context, account string, due time.Time, tokens []string) error {
	args := []any{"return", due.UnixMilli()}
	for _, t := range tokens {
		args = append(args, t)
	}
	_, err := s.run(ctx, heldScript, heldKeys(account), args...)
	return err
}

// CountHeld counts what waits and what is claimed.
func (s *Store) CountHeld(ctx context.Context, account string) (waiting, claimed int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	keys := heldKeys(account)
	if waiting, err = s.rdb.ZCard(ctx, keys[0]).Result(); err != nil {
		return 0, 0, s.failed(err)
	}
	if claimed, err = s.rdb.ZCard(ctx, keys[2]).Result(); err != nil {
		return 0, 0, s.failed(err)
	}
	return waiting, claimed, nil
}
