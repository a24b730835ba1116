package upstream

import (
	"context"
	"net"
	"testing"
)

type names map[string][]net.IPAddr

func (n names) LookupIPAddr(_ context.Context, host string) ([]net.IPAddr, error) {
	return n[host], nil
}

// A name that means the metadata service, alone or among others, leads nowhere.
func TestNoNameLeadsToALinkLocalAddress(t *testing.T) {
	good := net.IPAddr{IP: net.IPv4(192, 0, 2, 1)}
	bad := []net.IPAddr{{IP: net.IPv4(169, 254, 169, 254)}, {IP: net.ParseIP("fe80::1"), Zone: "eth0"}, {IP: net.ParseIP("::ffff:169.254.169.254")}}
	r := NoLinkLocal{Next: names{"mixed": append(bad, good), "bad": bad, "good": {good}}}
	for host, want := range map[string]int{"mixed": 1, "good": 1, "bad": 0} {
		got, err := r.LookupIPAddr(t.Context(), host)
		if len(got) != want || (err == nil) != (want > 0) || want == 1 && !got[0].IP.Equal(good.IP) {
			t.Errorf("%s: %v %v", host, got, err)
		}
	}
}
