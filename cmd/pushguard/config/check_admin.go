package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

var (
	hostRE   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)
	headerRE = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

func (c *checker) adminPort() {
	a := c.cfg.Admin
	for i, h := range a.Hosts {
		if p := fmt.Sprintf("admin.hosts[%d]", i); !c.bad[p] && (len(h) > 253 || !hostRE.MatchString(h)) {
			c.fail(p, c.show(p, h)+"is not the name of a host", "write it as in the browser's address, without port: guard.internal")
		}
	}
	if a.URL != "" && !c.bad["admin.url"] {
		u, err := url.Parse(a.URL)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			c.fail("admin.url", c.show("admin.url", a.URL)+"is not an http:// or https:// URL", "write it as in the browser's address, like https://guard.internal:8081")
		case u.User != nil || u.RawQuery != "" || u.Fragment != "":
			c.fail("admin.url", "has more than host and path", "alerts show it: write it without user, query and fragment")
		}
	}
	t := a.TrustHeader
	if t == nil {
		return
	}
	switch p := "admin.trust_header.name"; {
	case t.Name == "": // said already
	case !headerRE.MatchString(t.Name):
		c.fail(p, c.show(p, t.Name)+"is not the name of a header", "write it like X-Forwarded-User")
	case takenHeader[strings.ToLower(t.Name)]:
		c.fail(p, c.show(p, t.Name)+"is a header that every client sends", "choose one that only the proxy sets, like X-Forwarded-User")
	}
	for i, from := range t.From {
		p := fmt.Sprintf("admin.trust_header.from[%d]", i)
		prefix, err := ParsePrefix(from)
		switch {
		case c.bad[p]:
		case err != nil:
			c.fail(p, c.show(p, from)+"is not an address", "write 10.0.0.7, or a network like 10.0.0.0/24")
		case prefix.Bits() == 0:
			c.fail(p, c.show(p, from)+"is everybody: whoever sends the header could move every lever", "name the proxy's address")
		}
	}
}

// takenHeader are headers that can never say who somebody is.
var takenHeader = map[string]bool{
	"host": true, "authorization": true, "cookie": true, "user-agent": true, "accept": true, "origin": true, "referer": true,
	"accept-language": true, "accept-encoding": true, "connection": true, "content-type": true, "content-length": true,
}

// ParsePrefix reads an address, which stands for itself alone, or a network.
func ParsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
}

func (c *checker) tracing() {
	t := c.cfg.Tracing
	if t == nil || t.OTLP == "" || c.bad["tracing.otlp"] {
		return
	}
	const p = "tracing.otlp"
	u, err := url.Parse(t.OTLP)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !validPort(u.Port(), true):
		c.fail(p, c.show(p, t.OTLP)+"is not an http:// or https:// URL", "write the collector's OTLP over HTTP, like http://127.0.0.1:4318")
	case u.User != nil:
		c.fail(p, "has a user in it", "write what the collector wants to see under tracing.authorization")
	case linkLocal(u.Hostname()):
		c.fail(p, "is a link-local address, where clouds keep their machines' credentials", "give the address of the collector")
	case u.Port() == "4317":
		c.warn(p, "has the port of OTLP over gRPC", "OTLP over HTTP is usually on 4318")
	}
}
