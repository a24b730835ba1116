package upstream

import (
	"context"
	"fmt"
	"net"
)

// NoLinkLocal resolves names as Next does, but to no link-local address: there live
// the metadata services of clouds, with their machines' credentials, and a config
// that names one by its address is refused already. A name can come to mean one
// later.
type NoLinkLocal struct {
	Next interface {
		LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
	}
}

func (e NoLinkLocal) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	all, err := e.Next.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	var rest []net.IPAddr
	for _, a := range all {
		if !a.IP.IsLinkLocalUnicast() && !a.IP.IsLinkLocalMulticast() {
			rest = append(rest, a)
		}
	}
	if len(rest) == 0 {
		return nil, &net.DNSError{Err: fmt.Sprintf("it means only link-local addresses (%d)", len(all)), Name: host, IsNotFound: true}
	}
	return rest, nil
}
