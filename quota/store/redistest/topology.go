package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sentinels is a master, a replica and one sentinel that watches them.
type Sentinels struct {
	Master, Replica, Sentinel *Server
}

// StartSentinels returns when the sentinel knows the replica and that is in step.
func StartSentinels(t testing.TB) *Sentinels {
	t.Helper()
	s := &Sentinels{}
	s.Master = Start(t)
	s.Replica = Start(t, "--replicaof", "127.0.0.1", fmt.Sprint(s.Master.Port))
	conf := WriteConfig(t, t.TempDir(), "sentinel.conf", fmt.Sprintf("sentinel monitor mymaster 127.0.0.1 %d 1\n"+
		"sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n", s.Master.Port))
	s.Sentinel = &Server{Port: FreePort(t), Dir: filepath.Dir(conf), t: t, first: []string{conf, "--sentinel"}}
	s.Sentinel.Restart()
	t.Cleanup(s.Sentinel.Kill)
	Eventually(t, "the sentinel knows the replica", func() bool {
		return strings.Contains(s.Sentinel.Do("INFO sentinel"), "slaves=1") &&
			strings.Contains(s.Replica.Do("INFO replication"), "master_link_status:up")
	})
	return s
}

// URL is the address as a store URL.
func (s *Sentinels) URL() string { return "redis+sentinel://" + s.Sentinel.Addr() + "/mymaster" }

// StartCluster starts three masters that share all slots.
func StartCluster(t testing.TB) (nodes []*Server, url string) {
	t.Helper()
	var addrs []string
	var bus []int
	for range 3 {
		port := FreePort(t)
		nodes = append(nodes, Start(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(port), "--cluster-node-timeout", "2000"))
		bus = append(bus, port)
		addrs = append(addrs, nodes[len(nodes)-1].Addr())
	}
	for i, r := range []string{"0 5460", "5461 10922", "10923 16383"} {
		if got := nodes[i].Do("CLUSTER ADDSLOTSRANGE " + r); got != "+OK" {
			t.Fatal(got)
		}
		if i > 0 {
			nodes[i].Do(fmt.Sprintf("CLUSTER MEET 127.0.0.1 %d %d", nodes[0].Port, bus[0]))
		}
	}
	Eventually(t, "the cluster is whole", func() bool {
		for _, n := range nodes {
			info := n.Do("CLUSTER INFO")
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") || !strings.Contains(info, "cluster_size:3") {
				return false
			}
		}
		return true
	})
	return nodes, "redis+cluster://" + strings.Join(addrs, ",")
}

// Eventually polls until ok.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("never happened: ", what)
		}
	}
}

// Certificate writes a self-signed certificate for 127.0.0.1 and its key, as PEM.
func Certificate(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redistest"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
