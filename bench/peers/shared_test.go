package peers

import (
	"testing"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	ulule "github.com/ulule/limiter/v3"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

// BenchmarkShared is one decision on a state that replicas share through redis-server, without persistence, on loopback;
// gubernator's daemons hold theirs in memory.
func BenchmarkShared(b *testing.B) {
	rows := []struct {
		name string
		make func(*testing.B, *redistest.Server) goroutine
	}{
		{"pushguard-Admit+Done", func(b *testing.B, s *redistest.Server) goroutine { return newWorld(b, s.URL()).admit(true) }},
		{"pushguard-Reserve+Settle", func(b *testing.B, s *redistest.Server) goroutine { return reserve(b, s.URL()) }},
		{"incrby-expire", incrby},
		{"redis_rate", redisRate},
		{"throttled", throttledRedis},
		{"ulule", ululeRedis},
		{"boulder", boulderRedis},
	}
	for _, r := range rows {
		for _, k := range keyed {
			b.Run(r.name+"/"+k.name, func(b *testing.B) { measure(b, k.keys, r.make(b, redistest.Start(b)), 1, 64) })
		}
	}
	for _, k := range keyed {
		b.Run("gubernator/"+k.name, func(b *testing.B) { measure(b, k.keys, gubernatorGRPC(b), 1, 64) })
		b.Run("gubernator-in-process/"+k.name, func(b *testing.B) { measure(b, k.keys, gubernatorInProcess(b, 1), 1, 64) })
	}
	// Which keys a daemon of two owns depends on the ports: with a single key the row would be one or the other by chance.
	b.Run("gubernator-in-process-of-2/100k", func(b *testing.B) { measure(b, 100_000, gubernatorInProcess(b, 2), 1, 64) })
	// The ledger when there is no Redis: the store in the process, its journal synced to disk.
	b.Run("pushguard-Reserve+Settle-embedded/1key", func(b *testing.B) { measure(b, 1, reserve(b, "embedded"), 1, 64) })
}

func client(b *testing.B, s *redistest.Server) *redis.Client {
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr(), PoolSize: 64})
	b.Cleanup(func() { rdb.Close() })
	if err := rdb.Ping(ctx).Err(); err != nil {
		b.Fatal(err)
	}
	return rdb
}

// incrby is a counter that ends with its window, in one round trip: the least that can be asked.
func incrby(b *testing.B, s *redistest.Server) goroutine {
	rdb := client(b, s)
	return func() decide {
		return func(key int) bool {
			p := rdb.Pipeline()
			n := p.IncrBy(ctx, names()[key], 1)
			p.Expire(ctx, names()[key], time.Minute)
			_, err := p.Exec(ctx)
			return err == nil && n.Val() > 0
		}
	}
}

func redisRate(b *testing.B, s *redistest.Server) goroutine {
	l := redis_rate.NewLimiter(client(b, s))
	limit := redis_rate.Limit{Rate: plenty, Burst: plenty, Period: time.Second}
	return func() decide {
		return func(key int) bool {
			r, err := l.Allow(ctx, names()[key], limit)
			return err == nil && r.Allowed == 1
		}
	}
}

func throttledRedis(b *testing.B, s *redistest.Server) goroutine {
	st, err := goredisstore.NewCtx(client(b, s), "")
	if err != nil {
		b.Fatal(err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(st, throttledQuota)
	if err != nil {
		b.Fatal(err)
	}
	return func() decide {
		return func(key int) bool {
			limited, _, err := l.RateLimitCtx(ctx, names()[key], 1)
			return !limited && err == nil
		}
	}
}

func ululeRedis(b *testing.B, s *redistest.Server) goroutine {
	st, err := ululeredis.NewStore(client(b, s))
	if err != nil {
		b.Fatal(err)
	}
	l := ulule.New(st, ulule.Rate{Period: time.Minute, Limit: plenty * 60})
	return func() decide {
		return func(key int) bool {
			c, err := l.Get(ctx, names()[key])
			return err == nil && !c.Reached
		}
	}
}
