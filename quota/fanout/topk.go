package fanout

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// TopChannels finds the channels to which most is published, by messages: those whose subscriber counts are worth knowing. It
// looks at one publish in eight, and skips one rather than wait for another goroutine; what it reports is scaled up
// again. Each of its sixteen parts keeps 32 channels (Space-Saving: a newcomer takes the place of the smallest, and its
// count), and a minute's counts fade by half, so that it follows what is busy now.
//
// It allocates nothing after its making, 150 kB. Names longer than Pusher allows (200 bytes) are left out. Safe for
// concurrent use.
type TopChannels struct {
	parts [busyParts]busyPart
	faded time.Time // of Top alone
}

const (
	busyParts  = 16
	busyKept   = 32
	busyOneIn  = 8
	busyName   = 200
	busyFading = time.Minute
)

type busyPart struct {
	mu sync.Mutex
	n  int
	of [busyKept]busyChannel
}

type busyChannel struct {
	hash      uint64
	messages  float64 // at most
	publishes float64
	first     int64 // second in which it came in
	length    uint8
	name      [busyName]byte
	_         [7]byte
}

// Note tells of a publish to channels that costs messages in all.
func (b *TopChannels) Note(now time.Time, channels []string, messages int64) {
	if len(channels) == 0 || rand.Uint32()%busyOneIn != 0 {
		return
	}
	each := float64(messages) / float64(len(channels)) * busyOneIn
	for _, c := range channels {
		if len(c) == 0 || len(c) > busyName || c[0] == '#' { // a user's own connections, not a channel
			continue
		}
		h := xxhash.Sum64String(c)
		if p := &b.parts[h>>60]; p.mu.TryLock() {
			p.note(now.Unix(), h, c, each)
			p.mu.Unlock()
		}
	}
}

func (p *busyPart) note(second int64, h uint64, name string, messages float64) {
	least := 0
	for i := range p.of[:p.n] {
		x := &p.of[i]
		if x.hash == h {
			x.messages += messages
			x.publishes += busyOneIn
			return
		}
		if x.messages < p.of[least].messages {
			least = i
		}
	}
	if p.n < busyKept {
		least = p.n
		p.n++
		p.of[least].messages = 0
	}
	x := &p.of[least]
	x.hash, x.publishes, x.first, x.length = h, busyOneIn, second, uint8(len(name))
	x.messages += messages // what the one before had may have been its
	copy(x.name[:], name)
}

// TopChannel is a channel and how much is published to it.
type TopChannel struct {
	Channel   string
	PerSecond float64 // publishes, about: one that was seen a single time may be far off
}

// Top are the n busiest, the busiest first. It is for one goroutine, which calls it every second or so: it is what lets
// the counts fade.
func (b *TopChannels) Top(now time.Time, n int) []TopChannel {
	if b.faded.IsZero() {
		b.faded = now
	}
	fade := now.Sub(b.faded) >= busyFading || now.Before(b.faded)
	if fade {
		b.faded = now
	}
	type found struct {
		TopChannel
		messages float64
	}
	var all []found
	for i := range b.parts {
		p := &b.parts[i]
		p.mu.Lock()
		for j := 0; j < p.n; j++ {
			x := &p.of[j]
			if fade {
				x.messages /= 2
				x.publishes /= 2
				if x.publishes < busyOneIn/4. {
					p.n--
					p.of[j] = p.of[p.n]
					j--
					continue
				}
			}
			// Halved every minute, a steady rate fills up to between one and two minutes' worth.
			span := min(max(now.Unix()-x.first, 1), 90)
			all = append(all, found{TopChannel{string(x.name[:x.length]), x.publishes / float64(span)}, x.messages})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(all, func(x, y found) int {
		return cmp.Or(cmp.Compare(y.messages, x.messages), cmp.Compare(x.Channel, y.Channel))
	})
	out := make([]TopChannel, 0, min(n, len(all)))
	for _, f := range all[:min(n, len(all))] {
		out = append(out, f.TopChannel)
	}
	return out
}
