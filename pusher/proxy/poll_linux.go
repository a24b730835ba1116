package proxy

import (
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller tells pollables that their sockets are ready: one epoll descriptor and
// one goroutine for the whole process, beside the runtime's own.
//
// The runtime's poller makes a goroutine try to read before it waits, so each
// request costs a read that finds nothing, on both sides; and it enters and
// leaves the scheduler around every call. Here a socket is read once, when it
// has something, by a call that cannot block. The descriptor is itself watched
// by the runtime's poller, so no thread sits in a wait of its own.
type poller struct {
	fd    int
	file  *os.File // fd, as the runtime's poller has it
	raw   syscall.RawConn
	found int
	ready [128]unix.EpollEvent
	table [1 << 10]atomic.Pointer[pollPage]
	grow  sync.Mutex
	out   outbox

	turns  atomic.Uint64 // how often it has looked
	asleep atomic.Bool   // it waits for something to come
	lanes  atomic.Pointer[[]*lane]
}

// pollable is who wants to know. wake runs on the poller's goroutine and must
// not block. It may come late: for a socket that has nothing any more, or that
// has taken the number of one that was closed.
type pollable interface{ wake(flags uint32) }

type pollPage [1 << 10]atomic.Pointer[pollable]

const (
	pollReadable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	// looksMost is how often a look is repeated that found all it could.
	looksMost = 64
	pollBoth  = pollReadable | unix.EPOLLOUT
	// pollEnded: the peer will send no more, or the socket is broken.
	pollEnded = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// thePoller is made at first use and lives as long as the process. It is nil
// where the kernel gives none.
var thePoller = sync.OnceValue(func() *poller {
	p, err := newPoller()
	if err != nil {
		return nil
	}
	go p.run()
	return p
})

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // which tells os to have it watched
		_ = unix.Close(fd)
		return nil, err
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *poller) run() {
	wait := func(uintptr) bool {
		p.found = p.look()
		return p.found > 0
	}
	for turn := 0; ; turn++ {
		if turn%1024 == 0 {
			p.out.processors(runtime.GOMAXPROCS(0)) // which can change
		}
		if p.found = p.look(); p.found == 0 && !p.pressed() {
			p.out.flush(false)
			p.asleep.Store(true)
			p.resume()
			if p.raw.Read(wait) != nil {
				return
			}
			p.asleep.Store(false)
			p.out.flush(true)
		}
		p.turns.Add(1)
		p.wake()
		for n := 1; p.found == len(p.ready) && n < looksMost; n++ { // there may be more
			p.found = p.look()
			p.wake()
		}
		p.resume()
		// Those that were woken run before the next look, which then finds more
		// at once; what they have to say goes out together.
		runtime.Gosched()
		p.out.flush(true)
	}
}

// change replaces the list of those to resume.
func (p *poller) change(f func([]*lane) []*lane) {
	p.grow.Lock()
	defer p.grow.Unlock()
	var all []*lane
	if old := p.lanes.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = f(all)
	p.lanes.Store(&all)
}

// pressed says whether lanes have so much to do that the poller must not sleep: the
// runtime's would wake it only when nobody has anything to do, or after 10 ms.
func (p *poller) pressed() bool {
	if all := p.lanes.Load(); all != nil {
		for _, l := range *all {
			if l.pressed() {
				return true
			}
		}
	}
	return false
}

// resume lets lanes go on that wait for this look.
func (p *poller) resume() {
	if all := p.lanes.Load(); all != nil {
		for _, l := range *all {
			l.resume()
		}
	}
}

// wake tells those that were found ready.
func (p *poller) wake() {
	for i := range p.found {
		e := &p.ready[i]
		if w := p.slot(int(e.Fd)); w != nil {
			if q := w.Load(); q != nil {
				(*q).wake(e.Events)
			}
		}
	}
}

// look asks what is ready, without waiting.
func (p *poller) look() int {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.ready[0])), uintptr(len(p.ready)), 0, 0, 0)
		switch e {
		case 0:
			return int(n)
		case unix.EINTR:
			continue
		}
		return 0
	}
}

func (p *poller) slot(fd int) *atomic.Pointer[pollable] {
	if fd < 0 || fd>>10 >= len(p.table) {
		return nil
	}
	if page := p.table[fd>>10].Load(); page != nil {
		return &page[fd&(1<<10-1)]
	}
	return nil
}

// add watches fd for w until forget or close. Each change is told once.
func (p *poller) add(fd int, flags uint32, w pollable) error {
	s := p.slot(fd)
	if s == nil {
		if fd < 0 || fd>>10 >= len(p.table) {
			return unix.EMFILE
		}
		p.grow.Lock()
		if p.table[fd>>10].Load() == nil {
			p.table[fd>>10].Store(new(pollPage))
		}
		p.grow.Unlock()
		s = p.slot(fd)
	}
	s.Store(&w)
	err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: flags, Fd: int32(fd)})
	if err != nil {
		s.Store(nil)
	}
	return err
}

// forget ends the watching of fd, which stays open.
func (p *poller) forget(fd int) {
	p.slot(fd).Store(nil)
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

// close ends the watching of fd, and closes it.
func (p *poller) close(fd int) {
	p.slot(fd).Store(nil)
	_ = unix.Close(fd) // the kernel ends the watching with the last descriptor
}

// errAgain: nothing to read yet, or no room to write.
const errAgain = unix.EAGAIN

// recv reads what there is from a socket that does not block.
func recv(fd int, b []byte) (int, error) {
	for {
		n, e := sysRecv(fd, b)
		switch {
		case e == unix.EINTR:
		case e != 0:
			return 0, e
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// send writes what fits; with an error, nothing was taken.
func send(fd int, b []byte) (int, error) {
	for {
		n, e := sysSend(fd, b)
		switch e {
		case 0:
			return n, nil
		case unix.EINTR:
			continue
		}
		return 0, e
	}
}

// detach takes the descriptor from a connection of package net, which is closed.
func detach(c *net.TCPConn) (fd int, err error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup error
	if err := raw.Control(func(from uintptr) { fd, dup = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, dup
}

// attach makes a connection of package net of a descriptor, which is consumed.
func attach(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}
