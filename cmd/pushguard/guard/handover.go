package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/pusher/proxy"
)

// lingerFor is how long the last accepted connections have to send their
// request, after drain_delay.
const lingerFor = 500 * time.Millisecond

// Inherited takes the sockets that a service manager opened for this process
// (LISTEN_FDS): those named data and admin by FileDescriptorName=, or else the
// first and the second. Such a socket outlives this process, so a restart
// refuses nobody: who comes in between waits in its queue.
func Inherited() (ports, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return ports{}, fmt.Errorf("sockets from the service manager: %w", err)
	}
	var p ports
	var rest []net.Listener
	for name, all := range named {
		for _, ln := range all {
			switch {
			case ln == nil: // no stream socket
			case name == "data" && p.data == nil:
				p.data = ln
			case name == "admin" && p.admin == nil:
				p.admin = ln
			default:
				rest = append(rest, ln)
			}
		}
	}
	for _, slot := range []*net.Listener{&p.data, &p.admin} {
		if *slot == nil && len(rest) > 0 {
			*slot, rest = rest[0], rest[1:]
		}
	}
	for _, ln := range rest {
		_ = ln.Close()
	}
	return p, nil
}

// Listen opens a TCP port, beside another process that did the same if reuse
// is set.
func Listen(ctx context.Context, addr string, reuse bool) (net.Listener, error) {
	var lc net.ListenConfig
	if reuse {
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if ctl := c.Control(func(fd uintptr) { err = reusePort(fd) }); ctl != nil {
				return ctl
			}
			return err
		}
	}
	return lc.Listen(ctx, "tcp", addr)
}

// gate is a listener that can be closed without resetting connections which
// the kernel has accepted for it already.
type gate struct {
	net.Listener
	reuse    bool
	shutting atomic.Bool
	ended    chan struct{}
	once     sync.Once
}

func newGate(ln net.Listener, reuse bool) *gate {
	return &gate{Listener: ln, reuse: reuse, ended: make(chan struct{})}
}

// Accept returns io.EOF once the gate is shut and nobody waits any more.
func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil && g.shutting.Load() {
		g.once.Do(func() { close(g.ended) })
		return nil, io.EOF
	}
	return c, err
}

// shut stops accepting. Beside another process on the same port it first sends
// newcomers there, and then takes in who is still in this socket's own queue,
// which the kernel would reset. It returns when Accept has ended.
func (g *gate) shut() {
	if g.shutting.Swap(true) {
		return
	}
	rest := 20 * time.Millisecond
	if g.reuse {
		rest = 300 * time.Millisecond // a handshake that has begun may end
		if sc, ok := g.Listener.(syscall.Conn); ok {
			if raw, err := sc.SyscallConn(); err == nil {
				_ = raw.Control(sendElsewhere)
			}
		}
	}
	if d, ok := g.Listener.(interface{ SetDeadline(time.Time) error }); ok && d.SetDeadline(time.Now().Add(rest)) == nil {
		select {
		case <-g.ended:
		case <-time.After(rest + time.Second): // nobody accepts: it never served
		}
	}
	_ = g.Close()
}

// Close closes the listener; a second time it does nothing.
func (g *gate) Close() error {
	if err := g.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// certificates are the data port's certificate, read again when its files
// change.
type certificates struct {
	cfg atomic.Pointer[tls.Config]
}

func loadCertificates(c *config.TLS) (*certificates, error) {
	cfg, err := ReadCertificates(c)
	if err != nil {
		return nil, err
	}
	out := &certificates{}
	out.cfg.Store(cfg)
	return out, nil
}

func ReadCertificates(c *config.TLS) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			return nil, fmt.Errorf("tls: %s: %w; let pushguard's user read it", pe.Path, pe.Err)
		}
		return nil, fmt.Errorf("tls: %s and %s do not belong together: %w", c.Cert, c.Key, err)
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: proxy.ALPN}
	if c.MinVersion == config.TLS13 {
		out.MinVersion = tls.VersionTLS13
	}
	return out, nil
}

// over puts TLS on ln; a nil receiver leaves it plain.
func (c *certificates) over(ln net.Listener) net.Listener {
	if c == nil {
		return ln
	}
	return tlsListener{tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return c.cfg.Load(), nil
	}})}
}

// tlsListener tells who speaks plain HTTP to a TLS port that it does, as net/http does.
type tlsListener struct{ net.Listener }

// Accept returns connections whose Handshake answers a plain request.
func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tlsConn{c.(*tls.Conn)}, nil
}

type tlsConn struct{ *tls.Conn }

const plainRefusal = "this data port speaks TLS: turn it on in the SDK (useTLS: true, ssl=True, scheme https)."

func (c tlsConn) Handshake() error {
	err := c.Conn.Handshake()
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && plain.Conn != nil {
		switch string(plain.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET":
			fmt.Fprintf(plain.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nPushguard-Outcome: refused\r\nPushguard-Reason: invalid_request\r\nContent-Length: %d\r\n\r\n%s", len(plainRefusal), plainRefusal)
		}
	}
	return err
}

// Notify tells systemd; without it, it does nothing.
func Notify(state string) { _, _ = daemon.SdNotify(false, state) }

// watchdog tells systemd at half its interval that the guard lives, for as long
// as its own admin port answers.
func (g *Guard) watchdog(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if g.alive(every / 4) {
				Notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// alive says whether the data port still accepts: a connect to itself.
func (g *Guard) alive(within time.Duration) bool {
	addr := g.data.Addr().(*net.TCPAddr)
	host := addr.IP
	if host.IsUnspecified() {
		host = net.IPv4(127, 0, 0, 1)
		if addr.IP.To4() == nil {
			host = net.IPv6loopback
		}
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort(host.String(), fmt.Sprint(addr.Port)), within)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
