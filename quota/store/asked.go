package store

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/asked.lua
var luaAsked string

var askedScript = script(luaAsked)

const (
	askedKept    = 3 * 24 * 60 * 60 // seconds
	occupiedKept = 60 * 60          // seconds; a list that old says nothing any more
)

// Asking is what an app's replicas asked Pusher by themselves: at most Most messages a day, over all of them.
type Asking struct {
	Account, App string
	Now          time.Time
	Day          int32
	Cost, Most   int64
}

// PayAsk counts Cost messages, unless the day's bound does not allow it. spent is the day's count after it.
func (s *Store) PayAsk(ctx context.Context, a Asking) (ok bool, spent int64, err error) {
	key, _ := askedKeys(a.Account, a.App)
	res, err := s.run(ctx, askedScript, []string{key}, "pay", a.Now.UnixMilli(), askedKept, a.Day, a.Cost, a.Most)
	if err != nil {
		return false, 0, err
	}
	r := &reader{in: res}
	ok, spent = r.num() == 1, r.num()
	return ok, spent, r.err
}

// ClaimPoll makes the caller the one that polls, and pays for it, if a poll is due every so often, nobody is at it and
// the day's bound allows it. A claim that is not followed by PutPoll ends after claim. last is when the last list was
// asked for; zero: there is none.
func (s *Store) ClaimPoll(ctx context.Context, a Asking, every, claim time.Duration, replica string) (mine bool, spent int64, last time.Time, err error) {
	key, _ := askedKeys(a.Account, a.App)
	res, err := s.run(ctx, askedScript, []string{key}, "poll", a.Now.UnixMilli(), askedKept, a.Day, a.Cost, a.Most,
		every.Milliseconds(), claim.Milliseconds(), replica)
	if err != nil {
		return false, 0, last, err
	}
	r := &reader{in: res}
	mine, spent = r.num() == 1, r.num()
	if ms := r.num(); ms > 0 {
		last = time.UnixMilli(ms)
	}
	return mine, spent, last, r.err
}

// PutPoll keeps the list that was asked for at asked, if it is newer than the one that is there.
func (s *Store) PutPoll(ctx context.Context, account, app string, now, asked time.Time, list []byte) error {
	key, occupied := askedKeys(account, app)
	_, err := s.run(ctx, askedScript, []string{key, occupied}, "done", now.UnixMilli(), askedKept, asked.UnixMilli(), list, occupiedKept)
	return err
}

// LastPoll is what PutPoll kept, nil if nothing.
func (s *Store) LastPoll(ctx context.Context, account, app string) ([]byte, error) {
	_, occupied := askedKeys(account, app)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	b, err := s.rdb.Get(ctx, occupied).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return b, s.failed(err)
}
