package proxy

import (
	"bufio"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/pushguard/pushguard/pusher/upstream"
)

// An upstream is reached through the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name, as every other program on the machine
// does. A tunnel (CONNECT) is asked for, for http:// upstreams as well, so what is sent is the same with and without a proxy.

// ForwardProxy is the proxy for an upstream by the environment; nil: none. Its password is in it: see ProxyName.
func ForwardProxy(target string) (*url.URL, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(u)
	switch {
	case err != nil:
		return nil, errors.New("HTTPS_PROXY or HTTP_PROXY is not the URL of a proxy; write http://host:port")
	case proxy == nil:
		return nil, nil
	case proxy.Scheme != "http":
		return nil, fmt.Errorf("the proxy in HTTPS_PROXY or HTTP_PROXY is spoken to by %s, which pushguard cannot; write http://host:port, or name the upstream in NO_PROXY", proxy.Scheme)
	case proxy.Hostname() == "":
		return nil, errors.New("HTTPS_PROXY or HTTP_PROXY names no host")
	}
	if proxy.Port() == "" {
		proxy.Host = net.JoinHostPort(proxy.Hostname(), "80")
	}
	return proxy, nil
}

// Roots reads who may sign for private upstreams, beside those that the system trusts.
func Roots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// ProxyName is where the proxy of the upstream is, without user and password; empty: there is none.
func (u *Upstream) ProxyName() string {
	if u.proxy == nil {
		return ""
	}
	return u.proxy.Scheme + "://" + u.proxy.Host
}

// through connects to addr through a proxy, with a dialer that connects to the proxy.
func through(proxy *url.URL, dial upstream.Dial) upstream.Dial {
	return func(addr string, timeout time.Duration) (net.Conn, error) {
		until := time.Now().Add(timeout)
		c, err := dial(proxy.Host, timeout)
		if err != nil {
			return nil, &upstream.NotSentError{Err: fmt.Errorf("the proxy %s cannot be reached: %w", proxy.Host, err)}
		}
		if err := connectThrough(c, proxy, addr, until); err != nil {
			_ = c.Close()
			return nil, &upstream.NotSentError{Err: &net.OpError{Op: "proxyconnect", Net: "tcp", Err: err}}
		}
		return c, nil
	}
}

// maxProxyHead bounds a proxy's answer.
const maxProxyHead = 16 << 10

func connectThrough(c net.Conn, proxy *url.URL, addr string, until time.Time) error {
	if err := c.SetDeadline(until); err != nil {
		return err
	}
	head := "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password)) + "\r\n"
	}
	if _, err := c.Write([]byte(head + "\r\n")); err != nil {
		return fmt.Errorf("the proxy %s takes nothing", proxy.Host)
	}
	// Byte by byte: what follows belongs to the tunnel.
	var answer []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(answer), "\r\n\r\n"); {
		if len(answer) == maxProxyHead {
			return fmt.Errorf("the proxy %s answers at too great length", proxy.Host)
		}
		if _, err := c.Read(one); err != nil {
			return fmt.Errorf("the proxy %s did not answer", proxy.Host)
		}
		answer = append(answer, one[0])
	}
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(answer))), &http.Request{Method: http.MethodConnect})
	switch {
	case err != nil:
		return fmt.Errorf("the proxy %s does not speak HTTP", proxy.Host)
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return fmt.Errorf("the proxy %s wants a user and a password; write them into HTTPS_PROXY", proxy.Host)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("the proxy %s answered %d to a tunnel to %s", proxy.Host, resp.StatusCode, addr)
	}
	return c.SetDeadline(time.Time{})
}
