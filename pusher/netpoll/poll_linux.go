package netpoll

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

// Poller tells Wakers that their sockets are ready: one epoll descriptor and one goroutine for the
// whole process, beside the runtime's own.
//
// The runtime's poller makes a goroutine try to read before it waits, so each
// request costs a read that finds nothing, on both sides; and it enters and
// leaves the scheduler around every call. Here a socket is read once, when it
// has something, by a call that cannot block. The descriptor is itself watched
// by the runtime's poller, so no thread sits in a wait of its own.
type Poller struct {
	fd     int
	file   *os.File // fd, as the runtime's poller has it
	raw    syscall.RawConn
	found  int
	ready  [128]unix.EpollEvent
	table  [1 << 10]atomic.Pointer[page]
	grow   sync.Mutex
	Writes WriteBatch

	// Turns counts the looks at the sockets; Asleep is set while the poller waits for an event. The
	// poller sets both, others read them.
	Turns  atomic.Uint64
	Asleep atomic.Bool
	loops  atomic.Pointer[[]Loop]
}

// Waker is told of a socket. Wake runs on the poller's goroutine and must
// not block. It may come late: for a socket that has nothing any more, or that
// has taken the number of one that was closed.
type Waker interface{ Wake(flags uint32) }

type page [1 << 10]atomic.Pointer[Waker]

const (
	Readable = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	// looksMost is how often a look is repeated that found all it could.
	looksMost = 64
	Both      = Readable | unix.EPOLLOUT
	// Ended: the peer will send no more, or the socket is broken.
	Ended = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// Default is the poller that runs. It is made at first use and lives as long as the process. It is nil
// where the kernel gives none.
var Default = sync.OnceValue(func() *Poller {
	p, err := New()
	if err != nil {
		return nil
	}
	go p.run()
	return p
})

// New makes a poller that does not run. Tests are what does its work.
func New() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // which tells os to have it watched
		_ = unix.Close(fd)
		return nil, err
	}
	p := &Poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *Poller) run() {
	wait := func(uintptr) bool {
		p.found = p.look()
		return p.found > 0
	}
	for turn := 0; ; turn++ {
		if turn%1024 == 0 {
			p.Writes.Processors(runtime.GOMAXPROCS(0)) // which can change
		}
		if p.found = p.look(); p.found == 0 && !p.pressed() {
			p.Writes.Flush(false)
			p.Asleep.Store(true)
			p.looked()
			if p.raw.Read(wait) != nil {
				return
			}
			p.Asleep.Store(false)
			p.Writes.Flush(true)
		}
		p.Turns.Add(1)
		p.wake()
		for n := 1; p.found == len(p.ready) && n < looksMost; n++ { // there may be more
			p.found = p.look()
			p.wake()
		}
		p.looked()
		// Those that were woken run before the next look, which then finds more
		// at once; what they have to say goes out together.
		runtime.Gosched()
		p.Writes.Flush(true)
	}
}

// Loop is work that takes turns with the poller. Both methods run on the poller's goroutine and must
// not block.
type Loop interface {
	// Pressed reports whether there is so much to do that the poller must not sleep.
	Pressed() bool
	// Looked is called after each look at the sockets, and before a sleep.
	Looked()
}

// Join has l take turns with the poller, until leave.
func (p *Poller) Join(l Loop) {
	p.grow.Lock()
	defer p.grow.Unlock()
	all := append(slices.Clone(p.taking()), l)
	p.loops.Store(&all)
}

// Leave ends what Join began.
func (p *Poller) Leave(l Loop) {
	p.grow.Lock()
	defer p.grow.Unlock()
	all := slices.DeleteFunc(slices.Clone(p.taking()), func(o Loop) bool { return o == l })
	p.loops.Store(&all)
}

// taking lists those who take turns.
func (p *Poller) taking() []Loop {
	if all := p.loops.Load(); all != nil {
		return *all
	}
	return nil
}

// pressed reports whether the poller must not sleep: the runtime's poller would wake it only when
// no goroutine can run, or after 10 ms.
func (p *Poller) pressed() bool {
	for _, l := range p.taking() {
		if l.Pressed() {
			return true
		}
	}
	return false
}

// looked tells the loops that the sockets were looked at.
func (p *Poller) looked() {
	for _, l := range p.taking() {
		l.Looked()
	}
}

// wake tells those that were found ready.
func (p *Poller) wake() {
	for i := range p.found {
		e := &p.ready[i]
		if w := p.slot(int(e.Fd)); w != nil {
			if q := w.Load(); q != nil {
				(*q).Wake(e.Events)
			}
		}
	}
}

// look asks what is ready, without waiting.
func (p *Poller) look() int {
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

func (p *Poller) slot(fd int) *atomic.Pointer[Waker] {
	if fd < 0 || fd>>10 >= len(p.table) {
		return nil
	}
	if page := p.table[fd>>10].Load(); page != nil {
		return &page[fd&(1<<10-1)]
	}
	return nil
}

// Add watches fd for w until Forget or Close. Each change is told once.
func (p *Poller) Add(fd int, flags uint32, w Waker) error {
	s := p.slot(fd)
	if s == nil {
		if fd < 0 || fd>>10 >= len(p.table) {
			return unix.EMFILE
		}
		p.grow.Lock()
		if p.table[fd>>10].Load() == nil {
			p.table[fd>>10].Store(new(page))
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

// Forget ends the watching of fd, which stays open.
func (p *Poller) Forget(fd int) {
	p.slot(fd).Store(nil)
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

// Watched calls f for each Waker that is told of a socket now.
func (p *Poller) Watched(f func(Waker)) {
	for i := range p.table {
		page := p.table[i].Load()
		if page == nil {
			continue
		}
		for k := range page {
			if w := page[k].Load(); w != nil {
				f(*w)
			}
		}
	}
}

// Stop closes a poller that does not run.
func (p *Poller) Stop() { _ = p.file.Close() }

// Close ends the watching of fd, and closes it.
func (p *Poller) Close(fd int) {
	p.slot(fd).Store(nil)
	_ = unix.Close(fd) // the kernel ends the watching with the last descriptor
}

// ErrAgain: nothing to read yet, or no room to write.
const ErrAgain = unix.EAGAIN

// Recv reads what there is from a socket that does not block.
func Recv(fd int, b []byte) (int, error) {
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

// Send writes what fits; with an error, nothing was taken.
func Send(fd int, b []byte) (int, error) {
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

// Detach takes the descriptor from a connection of package net, which is closed.
func Detach(c *net.TCPConn) (fd int, err error) {
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

// Attach makes a connection of package net of a descriptor, which is consumed.
func Attach(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}
