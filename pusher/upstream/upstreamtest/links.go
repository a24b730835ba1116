// Package upstreamtest is how tests speak to an upstream: plainly and over each version of TLS.
package upstreamtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Link is one way to speak to an upstream.
type Link struct {
	Name    string
	Version uint16 // of TLS; 0: plain
}

// Links are all ways.
var Links = []Link{{"plain", 0}, {"TLS 1.2", tls.VersionTLS12}, {"TLS 1.3", tls.VersionTLS13}}

// Each has a story about an upstream happen over each.
func Each(t *testing.T, story func(t *testing.T, over Link)) {
	for _, w := range Links {
		t.Run(w.Name, func(t *testing.T) { story(t, w) })
	}
}

// CertificateFor makes a certificate for a name or an address, which is its own root.
func CertificateFor(name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstream"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		panic(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, roots
}

// Certificate is the certificate of all upstreams that are spoken to properly.
var Certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	return CertificateFor("127.0.0.1", time.Now().Add(time.Hour))
})

// Server is the upstream's side of it.
func (w Link) Server() *tls.Config {
	cert, _ := Certificate()
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: w.Version, MaxVersion: w.Version}
}

// Listen is an upstream's listener, with its URL and who signed for it.
func (w Link) Listen(t testing.TB) (ln net.Listener, url string, roots *x509.CertPool) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if w.Version == 0 {
		return ln, "http://" + ln.Addr().String(), nil
	}
	_, roots = Certificate()
	return tls.NewListener(ln, w.Server()), "https://" + ln.Addr().String(), roots
}

// Start has a server speak it.
func (w Link) Start(s *httptest.Server) (roots *x509.CertPool) {
	if w.Version == 0 {
		s.Start()
		return nil
	}
	s.TLS = w.Server()
	s.StartTLS()
	_, roots = Certificate()
	return roots
}
