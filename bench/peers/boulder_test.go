package peers

import (
	"net/netip"
	"testing"
	"time"

	"github.com/jmhodges/clock"
	"github.com/letsencrypt/boulder/config"
	"github.com/letsencrypt/boulder/ratelimits"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

// boulder is Let's Encrypt's limiter, by one of its limits that asks a single bucket. Its transactions, which bear the
// key, are made beforehand: pushguard's channel names are, too.
func boulder(b *testing.B, source ratelimits.Source) goroutine {
	limits := ratelimits.LimitConfigs{
		ratelimits.LimitOverrideRequestsPerIPAddress.String(): {Burst: plenty, Count: plenty, Period: config.Duration{Duration: time.Second}},
	}
	builder, err := ratelimits.NewTransactionBuilder(limits, nil, prometheus.NewRegistry(), nil)
	if err != nil {
		b.Fatal(err)
	}
	l, err := ratelimits.NewLimiter(clock.New(), source, prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	txns := make([]ratelimits.Transaction, len(names()))
	for i := range txns {
		txns[i], err = builder.LimitOverrideRequestsPerIPAddressTransaction(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		if err != nil {
			b.Fatal(err)
		}
	}
	return func() decide {
		return func(key int) bool {
			d, err := l.Spend(ctx, txns[key])
			return err == nil && d.Result(time.Now()) == nil
		}
	}
}

func boulderMemory(b *testing.B) goroutine { return boulder(b, ratelimits.NewInmemSource()) }

func boulderRedis(b *testing.B, s *redistest.Server) goroutine {
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": s.Addr()}, PoolSize: 64})
	b.Cleanup(func() { ring.Close() })
	return boulder(b, ratelimits.NewRedisSource(ring, clock.New(), prometheus.NewRegistry()))
}
