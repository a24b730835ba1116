package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// Dial connects without TLS, within a time. Its errors are NotSentErrors.
type Dial func(addr string, timeout time.Duration) (net.Conn, error)

// NotSentError is a failure before the first byte of a request left.
type NotSentError struct{ Err error }

func (e *NotSentError) Error() string { return e.Err.Error() }
func (e *NotSentError) Unwrap() error { return e.Err }

// TLSConfig is how an upstream of that name is spoken to over TLS: its certificate
// is verified with the system's roots, and a session is resumed where it remembers
// one.
func TLSConfig(host string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         host,
		ClientSessionCache: tls.NewLRUClientSessionCache(4), // of one name; a request for another version makes another
		// A request is one record: no browser waits for its first bytes.
		DynamicRecordSizingDisabled: true,
	}
}

// Handshake speaks TLS on c from now on, or closes it. Nothing of a request has
// been sent by then, whatever goes wrong.
func Handshake(c net.Conn, cfg *tls.Config, until time.Time) (*tls.Conn, error) {
	sec := tls.Client(c, cfg)
	err := c.SetDeadline(until)
	if err == nil {
		err = sec.Handshake()
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, &NotSentError{err}
	}
	return sec, nil
}

// TLSFailure names what is wrong with the TLS of an upstream, or nothing.
func TLSFailure(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var late net.Error
	switch {
	case errors.As(err, &name):
		return "its certificate is for another name"
	case errors.As(err, &unknown):
		return "its certificate is signed by an authority that this machine does not trust"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not valid yet"
	case errors.As(err, &cert):
		return "its certificate cannot be verified"
	case errors.As(err, &record):
		return "it does not speak TLS"
	case errors.Is(err, fasthttp.ErrDialTimeout), errors.As(err, &late) && late.Timeout():
		return "connecting took too long"
	}
	return ""
}
