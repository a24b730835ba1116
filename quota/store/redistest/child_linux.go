package redistest

import "syscall"

// childAttr lets the server die with the test process, even if that is killed.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
