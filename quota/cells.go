package quota

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/pushguard/pushguard/quota/store"
)

// cells are the counts of a pot that the next process of this replica needs to know exactly what was taken: they lie in
// memory that survives a kill (store.Page), where there is some.
//
// Tokens leave lease, standby and arming before anything is sent for them, so at any moment
// granted + over − returned − lease − standby − arming is at least what went out. Changes between two of these are made
// in the order that errs to that side.
type cells struct {
	lease, standby    [Priorities]counter
	arming            [Priorities]counter      // standby that may not be spent yet, see arm
	granted, returned [Priorities]atomic.Int64 // as in pot
	over              atomic.Int64             // spent beyond the leases
	acked, seq        atomic.Int64             // the last report confirmed, the last one begun
	name              atomic.Uint64            // hash of the pot's name
	_                 [1024 - 9*64 - 6*8 - 4*8]byte
}

func (c *cells) armingSum() (n int64) {
	for i := range c.arming {
		n += c.arming[i].Load()
	}
	return n
}

// unspent is what was left of the grants.
func (c *cells) unspent() (n int64) {
	for i := range c.lease {
		n += c.lease[i].Load() + c.standby[i].Load()
	}
	return n + c.armingSum()
}

// used is what was taken to be sent.
func (c *cells) used() (n int64) {
	for i := range c.granted {
		n += c.granted[i].Load() - c.returned[i].Load()
	}
	return n + c.over.Load() - c.unspent()
}

const (
	cellSize   = int(unsafe.Sizeof(cells{}))
	pageHeader = 4096
	pageMagic  = "PGCELLS1"
	sparePots  = 8 // callers' shares that a reload may add; beyond that they have no page
)

// A page holds the cells of one day's book. Its header: magic, then boot id and the book's id, each with its length.
type page struct {
	*store.Page
	pots int // in use
}

func pageName(day Day) string { return strconv.Itoa(int(day)) }

func nameHash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64() | 1
}

// newPage makes the book's page on the record; nil: there is none, and what a kill leaves counts as spent.
func (l *Ledger) newPage(b *book) *page {
	boot := store.Boot()
	if l.record == nil || boot == "" {
		return nil
	}
	p, err := l.record.Page(pageName(b.day), pageHeader+cellSize*(1+len(b.shares)+sparePots))
	if err != nil {
		if !l.pageFailed {
			l.log.Warn("no count that survives a kill: after one, what this replica held counts as spent", "err", err)
		}
		l.pageFailed = true
		return nil
	}
	h := append([]byte(nil), pageMagic...)
	for _, s := range []string{boot, b.id} {
		h = binary.AppendUvarint(h, uint64(len(s)))
		h = append(h, s...)
	}
	if len(h) > pageHeader {
		p.Remove()
		return nil
	}
	copy(p.Mem, h)
	return &page{Page: p}
}

// remove ends a page whose book was closed.
func (p *page) remove() {
	if p != nil {
		p.Remove()
	}
}

// cells is the next free place, memory that does not survive where there is none.
func (p *page) cells(name string) *cells {
	if p == nil || pageHeader+(p.pots+1)*cellSize > len(p.Mem) {
		return new(cells)
	}
	c := p.at(p.pots)
	c.name.Store(nameHash(name))
	p.pots++
	return c
}

func (p *page) at(i int) *cells {
	return (*cells)(unsafe.Pointer(&p.Mem[pageHeader+i*cellSize]))
}

// readPage is the page that a process of this run of the machine left for the book id; nil: it is none, or of another.
func readPage(sp *store.Page, id string) *page {
	if sp == nil || len(sp.Mem) < pageHeader+cellSize || string(sp.Mem[:len(pageMagic)]) != pageMagic {
		return nil
	}
	h := sp.Mem[len(pageMagic):pageHeader]
	for _, want := range []string{store.Boot(), id} {
		n, w := binary.Uvarint(h)
		if w <= 0 || n == 0 || n > uint64(len(h)-w) || string(h[w:w+int(n)]) != want {
			return nil
		}
		h = h[w+int(n):]
	}
	p := &page{Page: sp}
	for p.pots < (len(sp.Mem)-pageHeader)/cellSize && p.at(p.pots).name.Load() != 0 {
		p.pots++
	}
	return p
}

// find is the cells of a pot.
func (p *page) find(name string) *cells {
	for i := range p.pots {
		if c := p.at(i); c.name.Load() == nameHash(name) {
			return c
		}
	}
	return nil
}
