package store

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
)

// AuditKept is how many lines of an account's audit trail are kept; older ones are forgotten.
const AuditKept = 10_000

//go:embed lua/state.lua
var luaState string

var stateScript = script(luaState)

// At addresses an account's state in an operation: the epoch last heard guards against writing to a store
// that lost its data (ErrLost: beat first).
type At struct {
	Account string
	Epoch   string
	Day     int32
}

func (s *Store) state(ctx context.Context, at At, audit *AuditEntry, op string, args ...any) error {
	day, live, _ := potKeys(at.Account, at.Day, "")
	keys := []string{stateKey(at.Account), auditKey(at.Account), day, live}
	_, err := s.run(ctx, stateScript, keys, append([]any{op, at.Epoch, readerVersion, audit.line(), AuditKept}, args...)...)
	return err
}

// SetPlan changes the plan for all replicas, until the config's plan changes.
func (s *Store) SetPlan(ctx context.Context, at At, messagesPerDay int64, name string, audit *AuditEntry) error {
	return s.state(ctx, at, audit, "plan", messagesPerDay, name)
}

// SetUsage makes used the day's count: what replicas reported so far is corrected by the difference.
func (s *Store) SetUsage(ctx context.Context, at At, used int64, audit *AuditEntry) error {
	return s.state(ctx, at, audit, "usage", used)
}

// SetBrake stores the brake, empty for none.
func (s *Store) SetBrake(ctx context.Context, at At, brake string, audit *AuditEntry) error {
	return s.state(ctx, at, audit, "brake", brake)
}

// SwapBrake stores the brake if the one stored is still old, and says whether it did.
func (s *Store) SwapBrake(ctx context.Context, at At, old, brake string, audit *AuditEntry) (bool, error) {
	day, live, _ := potKeys(at.Account, at.Day, "")
	keys := []string{stateKey(at.Account), auditKey(at.Account), day, live}
	res, err := s.run(ctx, stateScript, keys, "brake", at.Epoch, readerVersion, audit.line(), AuditKept, brake, old)
	return err == nil && len(res) < 2, err
}

// SetBurn stores the breaker's burn-rate state, if seq is higher than that of the one stored.
func (s *Store) SetBurn(ctx context.Context, at At, seq int64, burn string, audit *AuditEntry) error {
	return s.state(ctx, at, audit, "burn", seq, burn)
}

// SetExhausted notes that Pusher refused the account's publishes on at.Day.
func (s *Store) SetExhausted(ctx context.Context, at At, now time.Time, why string, audit *AuditEntry) error {
	return s.state(ctx, at, audit, "exhaust", at.Day, now.UnixMilli(), why)
}

// ClearExhausted ends SetExhausted.
func (s *Store) ClearExhausted(ctx context.Context, at At, audit *AuditEntry) error {
	return s.state(ctx, at, audit, "reopen")
}

var auditScript = script(`local failed = audit(KEYS[1], ARGV[1], num(ARGV[2]))
if failed then return redis.error_reply(failed) end
return {'OK'}`)

// AuditAppend adds a line to the account's trail.
func (s *Store) AuditAppend(ctx context.Context, account string, e AuditEntry) error {
	_, err := s.run(ctx, auditScript, []string{auditKey(account)}, e.line(), AuditKept)
	return err
}

// Audit returns the newest lines of the account's trail, newest first.
func (s *Store) Audit(ctx context.Context, account string, limit int) ([]AuditEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	lines, err := s.rdb.LRange(ctx, auditKey(account), 0, int64(limit)-1).Result()
	if err != nil {
		return nil, s.failed(err)
	}
	out := make([]AuditEntry, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal([]byte(line), &out[i]); err != nil {
			return nil, fmt.Errorf("line %d of the audit trail of %s: %w", i, account, err)
		}
	}
	return out, nil
}
