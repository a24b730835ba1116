//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// The upstream answers over TLS as it does without, however its requests come, and counts both as one.
func TestTheUpstreamOverTLS(t *testing.T) {
	cert, key, err := certificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { _ = stub([]string{"--tls-cert", cert, "--tls-key", key}, w, io.Discard) }() // until the test process ends
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	plain, secure, _ := strings.Cut(strings.TrimSpace(line), " ")
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c, err := tls.Dial("tcp", secure, &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	one := "POST /apps/1/events HTTP/1.1\r\nContent-Length: 20\r\n\r\n" + `{"channel":"c"}     `
	large := "POST /apps/1/events HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)
	for _, records := range [][]string{{one}, {one[:10], one[10:]}, {one + one}, {one + one[:30], one[30:]}, {large}} {
		all := strings.Join(records, "")
		for _, s := range records {
			if _, err := io.WriteString(c, s); err != nil {
				t.Fatal(err)
			}
		}
		for range strings.Count(all, "POST") {
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "{}" {
				t.Fatalf("%q %v", b, err)
			}
		}
	}
	f := &fleet{stub: plain}
	if got, err := f.counts(); err != nil || got != (counts{Calls: 7, Publishes: 7}) {
		t.Errorf("%+v %v", got, err)
	}
}
