//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is epoll on one thread.
type poller struct {
	fd     int
	events [128]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd}, err
}

// add watches a descriptor for reading, level-triggered.
func (p *poller) add(fd int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// wait returns what is ready, after d at most; negative d waits for ever. It keeps time to some microseconds, which
// epoll_wait with its milliseconds does not, and so needs Linux 5.11.
func (p *poller) wait(d time.Duration) ([]unix.EpollEvent, error) {
	var ts *unix.Timespec
	if d >= 0 {
		t := unix.NsecToTimespec(int64(d))
		ts = &t
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
			uintptr(len(p.events)), uintptr(unsafe.Pointer(ts)), 0, 0)
		switch errno {
		case 0:
			return p.events[:n], nil
		case unix.EINTR:
			if d >= 0 {
				return nil, nil
			}
		default:
			return nil, fmt.Errorf("epoll_pwait2 (Linux 5.11 and newer): %w", errno)
		}
	}
}

// detach takes a socket out of the runtime's hands, which would close it once nobody refers to it there.
func detach(s interface {
	File() (*os.File, error)
	Close() error
}) (int, error) {
	f, err := s.File()
	if err != nil {
		return 0, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, f.Close(), s.Close()); err != nil {
		return 0, err
	}
	return fd, unix.SetNonblock(fd, true)
}
