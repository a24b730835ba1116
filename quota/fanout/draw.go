package fanout

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// Draw keeps channels of publishes drawn at random, each publish with the same chance, for questions that are to stand
// for all publishes. Note allocates nothing and waits for nobody: it skips a publish rather than wait. 13 kB. The zero
// value is ready. Safe for concurrent use; Take is for one goroutine.
type Draw struct {
	oneIn atomic.Uint32 // 0: all
	mu    sync.Mutex
	seen  int
	names [drawn]drawnName
}

const drawn = 64

type drawnName struct {
	length uint8
	name   [busyName]byte
}

// Note tells of a publish to channels.
func (d *Draw) Note(channels []string) {
	if n := d.oneIn.Load(); len(channels) == 0 || n > 1 && rand.Uint32()%n != 0 {
		return
	}
	c := channels[0]
	if len(channels) > 1 {
		c = channels[rand.IntN(len(channels))]
	}
	if len(c) == 0 || len(c) > busyName || c[0] == '#' || !d.mu.TryLock() {
		return
	}
	at := d.seen
	d.seen++
	if at >= drawn {
		at = rand.IntN(d.seen)
	}
	if at < drawn {
		d.names[at].length = uint8(copy(d.names[at].name[:], c))
	}
	d.mu.Unlock()
}

// Take returns what was drawn since the last Take, in random order.
func (d *Draw) Take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, min(d.seen, drawn))
	for i := range d.names[:min(d.seen, drawn)] {
		out = append(out, string(d.names[i].name[:d.names[i].length]))
	}
	// Enough to fill the draw about four times, at this rate: what is skipped costs the publishers nothing.
	d.oneIn.Store(uint32(max(int(max(d.oneIn.Load(), 1))*d.seen/(4*drawn), 1)))
	d.seen = 0
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
