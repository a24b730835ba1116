package detect

import (
	"sync"
	"sync/atomic"
)

// payloads counts how often the same payload is sent, in bounded memory: a
// Space-Saving summary (Metwally, Agrawal and El Abbadi, ICDT 2005) cut into
// buckets of ways entries, so that a count costs one bucket's scan and one
// striped lock. In a full bucket the smallest entry makes room for the new
// one and its count becomes the new one's error: for every entry
// count-error ≤ truth ≤ count, and what is not listed was sent no more often
// than its bucket's smallest.
//
// Two generations are kept, this window's and the last one's, so that old
// payloads are forgotten without a scan on the hot path.
type payloads struct {
	locks [256]sync.Mutex
	now   []bucket
	last  []bucket
	used  atomic.Uint32 // generations with something in them
}

const ways = 8

type bucket [ways]heavy

// heavy is a payload of one series, with its count and by how much the count
// may be too high.
type heavy struct {
	digest       uint64
	series       int32
	count, error uint32
}

func newPayloads(entries int) *payloads {
	n := 256
	for n*ways < entries {
		n *= 2
	}
	return &payloads{now: make([]bucket, n), last: make([]bucket, n)}
}

func (p *payloads) add(series int32, digest uint64, n uint32) {
	// Series are mixed in: one payload of two callers is two entries.
	h := (digest ^ uint64(series)*0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	h ^= h >> 32
	if p.used.Load() < 2 {
		p.used.Store(2)
	}
	lock := &p.locks[h&255]
	lock.Lock()
	b := &p.now[h&uint64(len(p.now)-1)]
	least := 0
	for i := range b {
		e := &b[i]
		if e.digest == digest && e.series == series && e.count > 0 {
			e.count += n
			lock.Unlock()
			return
		}
		if e.count < b[least].count {
			least = i
		}
	}
	e := &b[least]
	*e = heavy{digest, series, e.count + n, e.count}
	lock.Unlock()
}

// turn begins a new generation.
func (p *payloads) turn() {
	if p.used.Load() == 0 {
		return
	}
	for i := range p.locks {
		p.locks[i].Lock()
	}
	p.now, p.last = p.last, p.now
	clear(p.now)
	p.used.Add(^uint32(0))
	for i := range p.locks {
		p.locks[i].Unlock()
	}
}

// list gives the payloads counted at least floor times over both generations,
// the last one weighed with part.
func (p *payloads) list(floor uint32, part float64) []heavy {
	if p.used.Load() == 0 {
		return nil
	}
	var out []heavy
	for i := range p.now {
		lock := &p.locks[i&255]
		lock.Lock()
		now, last := p.now[i], p.last[i]
		lock.Unlock()
		for _, e := range last {
			e.count, e.error = uint32(float64(e.count)*part), uint32(float64(e.error)*part)
			if e.count == 0 {
				continue
			}
			found := false
			for j := range now {
				if now[j].digest == e.digest && now[j].series == e.series && now[j].count > 0 {
					now[j].count += e.count
					now[j].error += e.error
					found = true
				}
			}
			if !found && e.count >= floor {
				out = append(out, e)
			}
		}
		for _, e := range now {
			if e.count >= floor && e.count > 0 {
				out = append(out, e)
			}
		}
	}
	return out
}
