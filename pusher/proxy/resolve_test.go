package proxy

import (
	"context"
	"net"
	"testing"

	"github.com/pushguard/pushguard/pusher"
)

type names map[string][]net.IPAddr

func (n names) LookupIPAddr(_ context.Context, host string) ([]net.IPAddr, error) {
	return n[host], nil
}

// A name that means the metadata service, alone or among others, leads nowhere.
func TestNoNameLeadsToALinkLocalAddress(t *testing.T) {
	good := net.IPAddr{IP: net.IPv4(192, 0, 2, 1)}
	bad := []net.IPAddr{{IP: net.IPv4(169, 254, 169, 254)}, {IP: net.ParseIP("fe80::1"), Zone: "eth0"}, {IP: net.ParseIP("::ffff:169.254.169.254")}}
	r := elsewhere{names{"mixed": append(bad, good), "bad": bad, "good": {good}}}
	for host, want := range map[string]int{"mixed": 1, "good": 1, "bad": 0} {
		got, err := r.LookupIPAddr(t.Context(), host)
		if len(got) != want || (err == nil) != (want > 0) || want == 1 && !got[0].IP.Equal(good.IP) {
			t.Errorf("%s: %v %v", host, got, err)
		}
	}
	// And the upstream asks no other resolver.
	up, err := NewUpstream(UpstreamConfig{URL: "http://169.254.169.254", Key: pusher.NewKey("k", "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if c, err := up.client.DialTimeout("169.254.169.254:80", 0); err == nil {
		c.Close()
		t.Error("connected")
	} else if _, early := err.(*notSentError); !early || connectFailure(err.(*notSentError).err) != "its name cannot be resolved" {
		t.Errorf("%T %v", err, err)
	}
}
