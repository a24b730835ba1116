// Package store is the only room that knows Redis: connections, keys, scripts, and the embedded store that
// speaks the same scripts without a server.
//
// Every operation is one script, so it happens whole or not at all, and takes the time from its caller; the
// server's clock decides nothing. All keys of an account share a hash tag (keys.go). Stored data carries a
// format version and the oldest reader that may touch it, so that releases can run side by side.
//
// The scripts live in lua/. The replicas' view, what they ask and report, is Beat and its kin in ledger.go.
package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// readerVersion is the stored-data format that this release reads and writes. A store whose `min` is higher
// was written by a newer release that says older ones would harm it.
const readerVersion = 1

// HealQuiet is for how long no lease is given after a loss of data was found, even when every replica that was known
// has spoken: one may have joined that the finder had not heard of. It covers clocks that differ by two seconds. The
// figure stands in lua/beat.lua.
const HealQuiet = 3 * time.Second

// keepDays is for how long a day's counts are kept.
const keepDays = 8

// Errors that callers tell apart with errors.Is.
var (
	// ErrLost: the store does not know what it once confirmed; Heal tells it.
	ErrLost = errors.New("the store lost data")
	// ErrNewer: the stored data belongs to a newer release.
	ErrNewer = errors.New("the store's data was written by a newer release of pushguard; upgrade this one")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// Options are the store's settings beyond its URL.
type Options struct {
	Dir     string        // embedded: directory of the journal, made with mode 0700; empty: memory only, forgotten at exit
	Log     *slog.Logger  // nil: slog.Default()
	Timeout time.Duration // for one operation, connecting included; 0: 1 s, embedded 5 s
	// Patient: a server that does not answer, or not as it should, is logged and tried again by every operation.
	// A URL that cannot be read and an embedded store that cannot be opened are errors all the same.
	Patient bool
}

// Store is the shared state of all replicas. Safe for concurrent use.
type Store struct {
	kind    string
	rdb     redis.UniversalClient
	emb     *embedded // nil unless embedded
	timeout time.Duration
	log     *slog.Logger

	reloaded     atomic.Int64 // Unix ns: when a cluster was last asked for its slots because of an error
	callersClock bool         // see CallersClock
}

// Kind is "embedded", "redis", "sentinel" or "cluster".
func (s *Store) Kind() string { return s.kind }

// Durable says that what is stored outlives this process.
func (s *Store) Durable() bool { return s.emb == nil || s.emb.j != nil }

// Exclusive says that no other process can use this store.
func (s *Store) Exclusive() bool { return s.emb != nil }

// CallersClock has the callers' clocks count in Rates also where the server has one of its own, for virtual time, and
// lets several replicas share an embedded store. Call it before the store is used.
func (s *Store) CallersClock() { s.callersClock = true }

// Ping proves that the store answers; the error says what to do.
func (s *Store) Ping(ctx context.Context) error {
	if s.emb != nil {
		return s.emb.failed()
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.failed(s.rdb.Ping(ctx).Err())
}

// Close ends the connections; the embedded store also seals its journal and unlocks its directory.
func (s *Store) Close() error {
	err := s.rdb.Close()
	if s.emb != nil {
		err = errors.Join(err, s.emb.close())
	}
	return err
}

//go:embed lua/common.lua
var luaCommon string

func script(body string) *redis.Script { return redis.NewScript(luaCommon + body) }

// run executes one mutating script; with the embedded store it returns after the effect is on disk.
// Results are arrays whose first element is a word: OK, LOST or NEWER.
func (s *Store) run(ctx context.Context, sc *redis.Script, keys []string, args ...any) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if s.emb != nil {
		if err := s.emb.begin(); err != nil {
			return nil, err
		}
	}
	res, err := sc.Run(ctx, s.rdb, keys, args...).StringSlice()
	if s.emb != nil {
		if derr := s.emb.commit(ctx); derr != nil {
			return nil, derr
		}
	}
	if err != nil {
		return nil, s.failed(err)
	}
	switch {
	case len(res) == 0:
		return nil, errors.New("the store answered nothing")
	case res[0] == "LOST":
		return nil, fmt.Errorf("%w: %s", ErrLost, strings.Join(res[1:], " "))
	case res[0] == "NEWER":
		return nil, ErrNewer
	case res[0] != "OK":
		return nil, fmt.Errorf("the store answered %q", res[0])
	}
	return res[1:], nil
}
