package store

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// One heartbeat on the embedded store, journal included, as a replica sends it four times a second; beside it lies what
// accounts leave there in keepDays. cpu-µs/op is the processor time of the whole process, for that is what requests on the
// same processor wait for; waiting for the disk is not in it. The ballast makes the collector as rare as in a guard.
func BenchmarkBeat(b *testing.B) {
	for _, c := range []struct{ accounts, pots, replicas int }{{1, 1, 1}, {20, 1, 1}, {1, 21, 1}, {1, 1, 8}} {
		b.Run(fmt.Sprintf("accounts=%d/pots=%d/replicas=%d", c.accounts, c.pots, c.replicas), func(b *testing.B) {
			s := openDir(b, b.TempDir())
			beat := func(id string, seq int64) *Beat {
				r := &Beat{Account: "care", ID: id, Day: 20000, Now: noon, Seq: seq, TTL: 10 * time.Second, Plan: 1 << 40, PlanName: "test", Join: seq == 1}
				for p := range c.pots {
					r.Pots = append(r.Pots, PotReport{Acked: seq - 1, Spent: 10 * seq, Idle: 5, Want: Counts{0, 10, 0}})
					if p > 0 {
						r.Pots[p].Name, r.Pots[p].PPM = fmt.Sprint("caller-", p), 40_000
					}
				}
				return r
			}
			for i := range c.accounts {
				other := beat("replica-0", 1)
				other.Account = fmt.Sprint("other-", i)
				for other.Day = 20000 - keepDays; other.Day < 20000; other.Day++ {
					if _, err := s.Beat(ctx, other); err != nil {
						b.Fatal(err)
					}
				}
			}
			for i := range c.replicas {
				if _, err := s.Beat(ctx, beat(fmt.Sprint("replica-", i), 1)); err != nil {
					b.Fatal(err)
				}
			}
			seq, ballast, before := int64(1), make([]byte, 64<<20), processorTime(b)
			for b.Loop() {
				seq++
				if _, err := s.Beat(ctx, beat("replica-0", seq)); err != nil {
					b.Fatal(err)
				}
			}
			runtime.KeepAlive(ballast)
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
