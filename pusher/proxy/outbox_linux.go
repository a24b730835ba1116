package proxy

import "sync"

// outbox keeps what is to be written while the poller is awake, until all that
// it woke has been done; then it is written in one go. A peer that sleeps is
// woken by the first of many answers and meets the others awake, and the
// processor goes through the kernel's path once warm, not cold once a request.
//
// While the poller sleeps nothing is kept: who has something to write, writes.
// With several processors a call to Pusher is not kept either: its request would
// park before it has done all it can, and a processor would look for other work.
type outbox struct {
	mu    sync.Mutex
	open  bool // the poller will write what is put here
	alone bool // there is one processor
	batch *parcels
	spare []*parcels
}

// parcel is bytes and who writes them: the socket's owner.
type parcel struct {
	to transmitter
	b  []byte
}

// transmitter writes to its socket. transmit runs on any goroutine, once for
// each put, and must not block.
type transmitter interface{ transmit(b []byte) }

type parcels struct {
	list []parcel
	room []byte // of fixed size: where bytes are kept whose owner does not wait
}

const (
	// parcelsMost is how many wait at most. Who brings the last writes all: with
	// several processors the poller's goroutine must not write alone.
	parcelsMost = 64
	parcelsRoom = 16 << 10
)

// put has b written by to. The bytes are copied if keep is false: the caller
// does not wait until they are written.
func (o *outbox) put(to transmitter, b []byte, keep bool) {
	o.mu.Lock()
	p := o.batch
	if !o.open || keep && !o.alone || !keep && len(p.room)+len(b) > cap(p.room) {
		o.mu.Unlock()
		to.transmit(b)
		return
	}
	if !keep {
		at := len(p.room)
		p.room = append(p.room, b...)
		b = p.room[at:]
	}
	p.list = append(p.list, parcel{to, b})
	full := len(p.list) == parcelsMost
	if full {
		o.batch = o.fresh()
	}
	o.mu.Unlock()
	if full {
		o.write(p)
	}
}

// processors says how many there are.
func (o *outbox) processors(n int) {
	o.mu.Lock()
	o.alone = n == 1
	o.mu.Unlock()
}

// fresh is an empty batch. mu is held.
func (o *outbox) fresh() *parcels {
	if n := len(o.spare); n > 0 {
		p := o.spare[n-1]
		o.spare = o.spare[:n-1]
		return p
	}
	return &parcels{list: make([]parcel, 0, parcelsMost), room: make([]byte, 0, parcelsRoom)}
}

// write empties a batch that was taken out.
func (o *outbox) write(p *parcels) {
	for i := range p.list {
		p.list[i].to.transmit(p.list[i].b)
	}
	clear(p.list)
	p.list, p.room = p.list[:0], p.room[:0]
	o.mu.Lock()
	o.spare = append(o.spare, p)
	o.mu.Unlock()
}

// flush writes what there is, and from then on keeps more or not.
func (o *outbox) flush(open bool) {
	for {
		o.mu.Lock()
		if o.batch == nil {
			o.batch = o.fresh()
		}
		o.open = open
		p := o.batch
		if len(p.list) == 0 {
			o.mu.Unlock()
			return
		}
		o.batch = o.fresh()
		o.mu.Unlock()
		o.write(p)
	}
}
