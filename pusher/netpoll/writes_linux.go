package netpoll

import "sync"

// WriteBatch delays writes while the poller is awake until all that it woke has been done; then they
// are made one after the other. A sleeping peer is woken by the first of many answers and finds the
// others already there, and the kernel's path stays in the processor's cache.
//
// While the poller sleeps nothing is delayed: Put writes at once. With several processors a call to
// Pusher is not delayed either: its request would park before it has done all it can, and a
// processor would look for other work.
//
// All fields are guarded by mu.
type WriteBatch struct {
	mu    sync.Mutex
	open  bool // the poller will write what is put here
	alone bool // there is one processor
	batch *writes
	spare []*writes
}

// write is bytes and the owner of the socket, who writes them.
type write struct {
	to Transmitter
	b  []byte
}

// Transmitter writes to its socket. Transmit runs on any goroutine, once for
// each put, and must not block.
type Transmitter interface{ Transmit(b []byte) }

type writes struct {
	list []write
	room []byte // of fixed size: where bytes are kept whose owner does not wait
}

const (
	// parcelsMost is how many wait at most. Who brings the last writes all: with
	// several processors the poller's goroutine must not write alone.
	writesMost = 64
	writesRoom = 16 << 10
)

// Put has b written by to. The bytes are copied if keep is false: the caller
// does not wait until they are written.
func (o *WriteBatch) Put(to Transmitter, b []byte, keep bool) {
	o.mu.Lock()
	p := o.batch
	if !o.open || keep && !o.alone || !keep && len(p.room)+len(b) > cap(p.room) {
		o.mu.Unlock()
		to.Transmit(b)
		return
	}
	if !keep {
		at := len(p.room)
		p.room = append(p.room, b...)
		b = p.room[at:]
	}
	p.list = append(p.list, write{to, b})
	full := len(p.list) == writesMost
	if full {
		o.batch = o.empty()
	}
	o.mu.Unlock()
	if full {
		o.write(p)
	}
}

// Processors sets how many processors the program has.
func (o *WriteBatch) Processors(n int) {
	o.mu.Lock()
	o.alone = n == 1
	o.mu.Unlock()
}

// empty is an empty batch. mu is held.
func (o *WriteBatch) empty() *writes {
	if n := len(o.spare); n > 0 {
		p := o.spare[n-1]
		o.spare = o.spare[:n-1]
		return p
	}
	return &writes{list: make([]write, 0, writesMost), room: make([]byte, 0, writesRoom)}
}

// write empties a batch that was taken out.
func (o *WriteBatch) write(p *writes) {
	for i := range p.list {
		p.list[i].to.Transmit(p.list[i].b)
	}
	clear(p.list)
	p.list, p.room = p.list[:0], p.room[:0]
	o.mu.Lock()
	o.spare = append(o.spare, p)
	o.mu.Unlock()
}

// Flush makes the delayed writes; open says whether later ones are delayed.
func (o *WriteBatch) Flush(open bool) {
	for {
		o.mu.Lock()
		if o.batch == nil {
			o.batch = o.empty()
		}
		o.open = open
		p := o.batch
		if len(p.list) == 0 {
			o.mu.Unlock()
			return
		}
		o.batch = o.empty()
		o.mu.Unlock()
		o.write(p)
	}
}
