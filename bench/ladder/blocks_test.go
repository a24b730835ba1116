package ladder

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// blockLen is how many operations are timed at a stretch: long enough that reading the clock does
// not count, short enough that most stretches are not interrupted by anything else on the machine.
const blockLen = 128

// step is one timed part of a block; what it returns is its name and its operations.
type step struct {
	name string
	op   func(worker, i int)
}

// blocks runs b.N operations on GOMAXPROCS workers, in blocks: prepare fills one, untimed, then
// each step goes over the whole block. It reports the median block of each step, per operation and
// worker, and the lower decile, which a machine that does other things too disturbs less. ns/op is
// of no use here: it has the preparation in it, and what else the machine does.
func blocks(b *testing.B, prepare func(worker int), steps ...step) {
	workers := runtime.GOMAXPROCS(0)
	rounds := max(1, b.N/(blockLen*workers))
	spans := make([][]float64, len(steps))
	var mu sync.Mutex
	var done sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range workers {
		done.Go(func() {
			mine := make([][]float64, len(steps))
			for s := range mine {
				mine[s] = make([]float64, 0, rounds)
			}
			for range rounds {
				prepare(w)
				for s := range steps {
					began := time.Now()
					for i := range blockLen {
						steps[s].op(w, i)
					}
					mine[s] = append(mine[s], float64(time.Since(began))/blockLen)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for s := range mine {
				spans[s] = append(spans[s], mine[s]...)
			}
		})
	}
	done.Wait()
	b.StopTimer()
	for s := range steps {
		slices.Sort(spans[s])
		b.ReportMetric(spans[s][len(spans[s])/2], steps[s].name)
		b.ReportMetric(spans[s][len(spans[s])/10], steps[s].name+"-p10")
	}
	b.ReportMetric(0, "ns/op")
}
