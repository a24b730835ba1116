package quota

import (
	"context"
	"testing"
)

// The hot path: a steady caller, one reserve and its settle. Run takes care of the lease as in production.
func BenchmarkReserveSettle(b *testing.B) {
	l := join(b, embedded(b), noon, "a", plan(1<<49))
	fill(b, l)
	b.ReportAllocs()
	for b.Loop() {
		h, d := l.Reserve(ctx, noon, nil, Normal, 1)
		if d != Granted {
			b.Fatal(d)
		}
		l.Settle(noon, h, 1)
	}
}

func BenchmarkReserveSettleParallel(b *testing.B) {
	l := join(b, embedded(b), noon, "a", plan(1<<49))
	fill(b, l)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h, d := l.Reserve(ctx, noon, nil, Normal, 1)
			if d != Granted {
				b.Error(d)
				return
			}
			l.Settle(noon, h, 1)
		}
	})
}

func BenchmarkReserveSettleShare(b *testing.B) {
	cfg := plan(1 << 49)
	cfg.Shares = map[string]float64{"api": 0.5}
	l := join(b, embedded(b), noon, "a", cfg)
	fill(b, l)
	s := l.Share("api")
	l.cur.Load().shares["api"].lease[Bulk].Add(1 << 40)
	b.ReportAllocs()
	for b.Loop() {
		h, d := l.Reserve(ctx, noon, s, Normal, 1)
		if d != Granted {
			b.Fatal(d)
		}
		l.Settle(noon, h, 1)
	}
}

// fill gives the replica a lease that outlasts the benchmark.
func fill(b *testing.B, l *Ledger) {
	p := l.cur.Load().plan
	p.lease[Bulk].Add(1 << 40)
	p.low.Store(0)
	if h, d := l.Reserve(context.Background(), noon, nil, Bulk, 1); d != Granted {
		b.Fatal(h, d)
	}
}
