//go:build race

package netpoll

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Package syscall tells the race detector that who reads bytes comes after who
// wrote them.

func sysRecv(fd int, b []byte) (int, unix.Errno) { return told(syscall.Read(fd, b)) }
func sysSend(fd int, b []byte) (int, unix.Errno) { return told(syscall.Write(fd, b)) }

func told(n int, err error) (int, unix.Errno) {
	var e syscall.Errno
	errors.As(err, &e)
	return max(n, 0), e
}
