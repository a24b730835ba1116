package store

import (
	"context"
	_ "embed"
)

// learnedKept is how many messages about learned subscriber counts are kept for replicas that join.
const learnedKept = 64

//go:embed lua/learned.lua
var luaLearned string

var learnedScript = script(luaLearned)

// ShareLearned passes msg (nil: none) on to the other replicas, and returns what they told since the message number
// after, oldest first, with the number of the newest. Start with 0. One's own messages come back as well.
func (s *Store) ShareLearned(ctx context.Context, account, topic string, after int64, msg []byte) (newest int64, msgs [][]byte, err error) {
	list, count := learnedKeys(account, topic)
	res, err := s.run(ctx, learnedScript, []string{list, count}, after, msg, learnedKept, keepSeconds)
	if err != nil {
		return after, nil, err
	}
	r := &reader{in: res}
	newest = r.num()
	for _, m := range r.in {
		msgs = append(msgs, []byte(m))
	}
	return newest, msgs, r.err
}
