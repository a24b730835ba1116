package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/quota/fanout"
)

// memory prints what a million channels cost one app of one replica: counts
// learned by webhook, and a poll's list of occupied channels with the one before.
func memory(out io.Writer) error {
	const channels, most = 1_000_000, 40 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	at := time.Now()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	name := func(n uint64) string { return "private-user-" + strconv.FormatUint(n, 36) }

	f := fanout.New(1, nil)
	before := heap()
	seed := rng.Uint64()
	for i := range uint64(channels) {
		f.Learn(at, name(seed+i*0x9e3779b97f4a7c15), 2+int64(i%50), fanout.FromWebhook)
	}
	f.Fresh() // told to the other replicas each second
	learned := heap() - before
	kept := f.Learned()

	var during int64
	poll := func(when time.Time) {
		list := &fanout.ChannelList{}
		for i := range uint64(channels) {
			list.Add(name(seed + i*0x9e3779b97f4a7c15))
		}
		during = heap()
		f.LearnOccupied(when, list)
		runtime.KeepAlive(list)
	}
	began := heap()
	poll(at.Add(time.Minute))
	poll(at.Add(2 * time.Minute))
	polled := heap() - began
	n, _ := f.Occupied()
	runtime.KeepAlive(f)

	busyBefore := heap()
	busy := &fanout.TopChannels{}
	for i := range uint64(channels) {
		busy.Note(at, []string{name(i)}, 2)
	}
	busyHeap := heap() - busyBefore
	runtime.KeepAlive(busy)

	fmt.Fprintf(out, "%d channels of one app, on one replica\n", channels)
	fmt.Fprintf(out, "  learned counts: %.1f MB for %d of them, %.0f bytes each; never more than %d channels, %.0f MB\n",
		mb(learned), kept, float64(learned)/float64(kept), fanout.MaxLearned, mb(fanout.MaxLearned*16))
	fmt.Fprintf(out, "  a poll's list and the one before: %.1f MB for %d channels; while a list comes in %.1f MB more\n", mb(polled), n, mb(max(during-began, 0)))
	fmt.Fprintf(out, "  busy channels, for samples: %.2f MB, however many there are\n", mb(busyHeap))
	if learned+polled > most {
		return fmt.Errorf("%.1f MB for a million channels, at most %.0f wanted", mb(learned+polled), mb(most))
	}
	if kept < channels*98/100 {
		return fmt.Errorf("only %d of a million channels are remembered", kept)
	}
	return nil
}

func mb(bytes int64) float64 { return float64(bytes) / (1 << 20) }
