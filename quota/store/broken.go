package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A key of another type, or a value that no release writes, comes from a person or another program. It would fail every
// operation of its account with a word of Lua. So what is broken is named, put aside under the key's name and ":broken",
// and the account's epoch is taken away: then every replica tells what it knows, as after any loss of data.

// brokenKept is for how long what was put aside is kept.
const brokenKept = 8 * 24 * time.Hour

var entryForm = regexp.MustCompile(`^-?\d+(\.\d+)?( -?\d+(\.\d+)?){9}$`)

var numbers = map[string]bool{"min": true, "cg": true, "plan": true, "sv": true, "lost": true, "rt": true, "rs": true, "adj": true, "av": true,
	"hat": true, "hc": true, "hcg": true, "t": true, "cv": true, "from": true, "waste": true}

var numberForm = regexp.MustCompile(`^-?\d+(\.\d+)?$`)

// lookBroken says that an error may come from what is stored.
func lookBroken(err error) bool {
	if err == nil || errors.Is(err, ErrLost) || errors.Is(err, ErrNewer) {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "WRONGTYPE") || strings.Contains(text, "user_script") || strings.Contains(text, "where a number belongs") ||
		strings.Contains(text, "attempt to")
}

// mend looks through the ledger's keys, first of which is the account's state, and puts aside what is broken. The error says
// what that was.
func (s *Store) mend(ctx context.Context, keys []string, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var found []string
	for i, key := range keys {
		kind, err := s.rdb.Type(ctx, key).Result()
		if err != nil || kind == "none" {
			continue
		}
		if kind != "hash" {
			if err := s.asideScript(ctx, key, ""); err != nil {
				return errors.Join(why, err)
			}
			found = append(found, fmt.Sprintf("%s is a %s and no hash", key, kind))
			continue
		}
		fields, err := s.rdb.HGetAll(ctx, key).Result()
		if err != nil {
			continue
		}
		for f, v := range fields {
			entries := i > 0 && (i-1)%3 > 0 // live and gone
			switch {
			case entries && entryForm.MatchString(v):
				continue
			case !entries && (!numbers[f] || v == "" || numberForm.MatchString(v)) && (f != "plan" || v != "0"):
				continue
			}
			if err := s.asideScript(ctx, key, f); err != nil {
				return errors.Join(why, err)
			}
			found = append(found, fmt.Sprintf("field %q of %s holds %.60q", f, key, v))
		}
	}
	if len(found) == 0 {
		return why
	}
	s.log.Error("the store holds what pushguard did not write; it was put aside under the key's name and :broken, and the count is told anew by the replicas",
		"found", strings.Join(found, "; "), "err", why)
	if _, err := s.run(ctx, forgetScript, keys[:1]); err != nil {
		return errors.Join(why, err)
	}
	return fmt.Errorf("%w: broken values were put aside: %s", why, strings.Join(found, "; "))
}

var forgetScript = script(`redis.call('HDEL', KEYS[1], 'epoch')
return {'OK'}`)

var aside = script(`if ARGV[1] == '' then
  redis.call('RENAME', KEYS[1], KEYS[2])
else
  redis.pcall('HSET', KEYS[2], ARGV[1], redis.call('HGET', KEYS[1], ARGV[1]))
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.pcall('EXPIRE', KEYS[2], ARGV[2])
return {'OK'}`)

func (s *Store) asideScript(ctx context.Context, key, field string) error {
	to := key + ":broken"
	if field != "" {
		to += "-fields"
	}
	_, err := s.run(ctx, aside, []string{key, to}, field, int(brokenKept/time.Second))
	return err
}
