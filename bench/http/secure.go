//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The upstream over TLS. Handshakes block, each in a goroutine of its own; after that a connection is read and
// written by the same loop on epoll as plain ones, so that TLS costs the load core little more than the ciphers.

// acceptTLS shakes hands with whoever comes.
func (u *upstream) acceptTLS(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			tcp := c.(*net.TCPConn)
			raw := &sealed{Conn: tcp, fd: -1}
			p := &peer{sec: tls.Server(raw, u.secret), raw: raw, in: make([]byte, 8<<10)}
			_ = tcp.SetDeadline(time.Now().Add(10 * time.Second))
			if p.sec.Handshake() != nil {
				_ = tcp.Close()
				return
			}
			if p.fd, err = detach(tcp); err != nil {
				return
			}
			raw.fd = p.fd
			u.adopt(p)
		}()
	}
}

// sealed is what lies below TLS: during the handshake a connection of package net, then a socket that does not block.
type sealed struct {
	net.Conn
	fd   int  // -1 during the handshake
	left int  // of the record that is being read then
	dry  bool // nothing is to be asked of the socket
}

// Read returns EAGAIN where there is nothing to read, which crypto/tls passes on and forgets. During the handshake no
// record is read ahead: epoll could not know of it.
func (s *sealed) Read(b []byte) (n int, err error) {
	switch {
	case s.dry:
		return 0, unix.EAGAIN
	case s.fd >= 0:
		if n, err = unix.Read(s.fd, b); n == 0 && err == nil {
			err = io.EOF
		}
		return max(n, 0), err
	case s.left == 0:
		const header = 5
		if n, err = io.ReadFull(s.Conn, b[:header]); err == nil {
			s.left = int(b[3])<<8 | int(b[4])
		}
		return n, err
	}
	n, err = s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

func (s *sealed) Write(b []byte) (int, error) {
	if s.fd < 0 {
		return s.Conn.Write(b)
	}
	n, err := unix.Write(s.fd, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return max(n, 0), err
}

// read reads once; inside says not to ask the socket for more than TLS has read of it already.
func (p *peer) read(b []byte, inside bool) (int, error) {
	if p.sec == nil {
		return unix.Read(p.fd, b)
	}
	p.raw.dry = inside
	return p.sec.Read(b)
}

func (p *peer) send(b []byte) (int, error) {
	if p.sec == nil {
		return unix.Write(p.fd, b)
	}
	return p.sec.Write(b)
}

// certificate writes one for 127.0.0.1, and its key, into a directory. Whoever trusts it as a root can verify it.
func certificate(dir string) (cert, key string, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	cert, key = filepath.Join(dir, "upstream.crt"), filepath.Join(dir, "upstream.key")
	return cert, key, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}
