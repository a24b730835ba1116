package quota

import (
	"strconv"
	"strings"
	"testing"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// Somebody else wrote into the account's keys: what is broken is put aside, the count is what it was, and a lever's answer
// is true.
func TestBrokenKeysAreMended(t *testing.T) {
	for name, harm := range map[string]string{
		"state of another type":  "redis.call('DEL', S) redis.call('SET', S, 'x')",
		"plan of another type":   "redis.call('DEL', P) redis.call('LPUSH', P, 'x')",
		"live of another type":   "redis.call('DEL', P .. ':live') redis.call('SET', P .. ':live', 'x')",
		"a garbage entry":        "redis.call('HSET', P .. ':live', 'somebody', 'garbage')",
		"a plan that is a word":  "redis.call('HSET', S, 'plan', 'abc')",
		"a total that is a word": "redis.call('HSET', P, 'rt', 'abc') redis.call('HSET', P .. ':gone', 'z', '1 2')",
		"audit of another type":  "redis.call('DEL', A) redis.call('SET', A, 'x')",
	} {
		t.Run(name, func(t *testing.T) {
			srv := redistest.Start(t)
			st := open(t, srv.URL(), store.Options{})
			a, b := join(t, st, noon, "a", plan(100_000)), join(t, st, noon, "b", plan(100_000))
			spend(a, noon, nil, Normal, 50)
			spend(b, noon, nil, Normal, 70)
			beat(t, noon, a, b, a, b)
			day := DayOf(noon)
			lua := "local S, A, P = 'pg:{care}:state', 'pg:{care}:audit', 'pg:{care}:" + strconv.Itoa(int(day)) + ":plan' " + harm + " return 'done'"
			if got := srv.Do(`EVAL "` + lua + `" 0`); got != "done" {
				t.Fatal(got)
			}
			now := noon
			for range 4 {
				for _, l := range []*Ledger{a, b} {
					if err := l.Beat(ctx, now); err != nil {
						t.Log(err)
					}
				}
			}
			beat(t, now, a, b)
			if used, p := a.Used(now); used < 120 || used > 130 && !strings.Contains(name, "total") || p != 100_000 {
				t.Errorf("used %d of %d", used, p)
			}
			if err := a.SetBrake(ctx, now, &Brake{Allow: "critical", By: "ann"}); err != nil {
				t.Errorf("the brake: %v", err)
			}
			if a.CurrentBrake(now) == nil {
				t.Error("the brake did not move")
			}
		})
	}
}
