// Package netpoll waits for many sockets at once and batches what is written to them, on Linux. It
// knows no protocol: whoever adds a socket is woken when the socket has something to read or room to
// write, and reads and writes it by calls that never block.
//
// A Poller has one goroutine. It looks at the sockets, wakes their owners, lets them run, and makes
// the writes that they left in the WriteBatch. Then it looks again, or sleeps if there is nothing.
package netpoll
