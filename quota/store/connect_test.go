package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url, kind, addrs, user, password, master string
		db                                       int
		tls                                      bool
		err                                      string
	}{
		{url: "redis://h", kind: "redis", addrs: "h:6379"},
		{url: "redis://h:1/2", kind: "redis", addrs: "h:1", db: 2},
		{url: "redis://u:p%40ss@h:1", kind: "redis", addrs: "h:1", user: "u", password: "p@ss"},
		{url: "redis://:p@h", kind: "redis", addrs: "h:6379", password: "p"},
		{url: "redis://:a@b@h", kind: "redis", addrs: "h:6379", password: "a@b"},
		{url: "redis://[::1]:7/1", kind: "redis", addrs: "[::1]:7", db: 1},
		{url: "redis://[::1]", kind: "redis", addrs: "[::1]:6379"},
		{url: "rediss://h", kind: "redis", addrs: "h:6379", tls: true},
		{url: "rediss://h?insecure=true&server_name=x", kind: "redis", addrs: "h:6379", tls: true},
		{url: "redis+sentinel://a,b:1/mymaster", kind: "sentinel", addrs: "a:26379 b:1", master: "mymaster"},
		{url: "redis+sentinel://u:p@a/m/3?sentinel_user=s&sentinel_password=w&tls=true", kind: "sentinel", addrs: "a:26379", user: "u", password: "p", master: "m", db: 3, tls: true},
		{url: "rediss+sentinel://a/m", kind: "sentinel", addrs: "a:26379", master: "m", tls: true},
		{url: "redis+cluster://a,b , c:5", kind: "cluster", addrs: "a:6379 b:6379 c:5"},
		{url: "rediss+cluster://a", kind: "cluster", addrs: "a:6379", tls: true},
		{url: "localhost:6379", err: "neither `embedded` nor a URL"},
		{url: "http://h", err: `scheme "http"`},
		{url: "redis://", err: "host is missing"},
		{url: "redis://a,,b", err: "host is missing"},
		{url: "redis://a,b", err: "redis+sentinel:// or redis+cluster://"},
		{url: "redis://h/x", err: "no database number"},
		{url: "redis://h/1/2", err: "no database number"},
		{url: "redis://h/-1", err: "no database number"},
		{url: "redis+cluster://h/1", err: "only database 0"},
		{url: "redis+sentinel://h", err: "name of the master is missing"},
		{url: "redis://h?colour=red", err: `unknown option "colour"`},
		{url: "redis://h?tls=maybe", err: "neither true nor false"},
		{url: "redis://h?insecure=maybe", err: "neither true nor false"},
		{url: "redis://h?a=%zz", err: "malformed"},
		{url: "redis://u:%zz@h", err: "bad %-escape"},
		{url: "rediss://h?ca=/nowhere", err: "no such file"},
		{url: "rediss://h?ca=" + os.DevNull, err: "no PEM"},
	} {
		kind, o, err := parseURL(c.url)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", c.url, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if kind != c.kind || strings.Join(o.Addrs, " ") != c.addrs || o.Username != c.user || o.Password != c.password ||
			o.MasterName != c.master || o.DB != c.db || (o.TLSConfig != nil) != c.tls {
			t.Errorf("%s: %s %+v", c.url, kind, o)
		}
		if o.TLSConfig != nil && o.TLSConfig.MinVersion < tls.VersionTLS12 {
			t.Errorf("%s: TLS below 1.2", c.url)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/2?tls=true", "redis+sentinel://a,b/m/1", "redis+cluster://a", "rediss://[::1]:7", "x", "://", "redis://:@,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		kind, o, err := parseURL(s)
		if err != nil {
			return
		}
		if kind == "" || len(o.Addrs) == 0 || slices.Contains(o.Addrs, "") {
			t.Fatalf("%q: %s %v", s, kind, o.Addrs)
		}
		if o.Password != "" && len(o.Password) > 3 && strings.Contains(Redact(s), ":"+o.Password+"@") {
			t.Fatalf("%q: the password shows in %q", s, Redact(s))
		}
	})
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"redis://user:secret@h:1/2":             "redis://user:***@h:1/2",
		"redis://:se@cret@h":                    "redis://:***@h",
		"redis://h?sentinel_password=secret":    "redis://h",
		"embedded":                              "embedded",
		"redis+cluster://u:secret@a,b?tls=true": "redis+cluster://u:***@a,b",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// works says that a store does what stores are for.
func works(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	b := &Beat{Account: "care {1} " + t.Name(), ID: "a/1", Day: 20000, Now: noon, Seq: 1, Join: true, TTL: time.Second, Plan: 1000, PlanName: "test",
		Pots: []PotReport{{Want: Counts{10}}, {Name: "api", PPM: 100_000, Want: Counts{500}}}}
	p, err := s.Beat(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if p.Replicas != 1 || p.State.Plan != 1000 || p.Pots[0].Granted != (Counts{10}) || p.Pots[0].Taken != 10 || p.Pots[1].Granted != (Counts{50}) {
		t.Fatalf("%+v", p)
	}
	at := At{Account: b.Account, Epoch: p.Epoch, Day: b.Day}
	if err := s.SetPlan(ctx, at, 2000, "custom", &AuditEntry{At: noon, Who: "ann", What: "plan set"}); err != nil {
		t.Fatal(err)
	}
	if lines, err := s.Audit(ctx, b.Account, 5); err != nil || len(lines) != 1 || lines[0].Who != "ann" || !lines[0].At.Equal(noon) {
		t.Fatalf("%+v %v", lines, err)
	}
}

func TestRealServers(t *testing.T) {
	dir := t.TempDir()
	cert, key := redistest.Certificate(t, dir)
	plain := redistest.Start(t)
	auth := redistest.Start(t, "--requirepass", "s3cret")
	acl := redistest.Start(t, "--user", "default", "off", "--user", "guard", "on", ">pass w%", "~pg:*", "+@read", "+@write", "+@scripting", "+@connection", "+info",
		"--user", "poor", "on", ">poor", "~pg:*", "+ping")
	tlsPort := redistest.FreePort(t)
	secure := redistest.Start(t, "--tls-port", fmt.Sprint(tlsPort), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	replica := redistest.Start(t, "--replicaof", "127.0.0.1", fmt.Sprint(plain.Port))
	redistest.Eventually(t, "the replica is in step", func() bool {
		return strings.Contains(replica.Do("INFO replication"), "master_link_status:up")
	})
	sentinels := redistest.StartSentinels(t)
	nodes, cluster := redistest.StartCluster(t)
	_ = secure

	for _, c := range []struct{ name, url, kind string }{
		{"one server", plain.URL(), "redis"},
		{"another database", plain.URL() + "/3", "redis"},
		{"password", "redis://:s3cret@" + auth.Addr(), "redis"},
		{"user with rights", "redis://guard:pass%20w%25@" + acl.Addr(), "redis"},
		{"TLS", fmt.Sprintf("rediss://127.0.0.1:%d?ca=%s", tlsPort, cert), "redis"},
		{"TLS, unverified", fmt.Sprintf("rediss://127.0.0.1:%d?insecure=true", tlsPort), "redis"},
		{"sentinel", sentinels.URL(), "sentinel"},
		{"cluster", cluster, "cluster"},
		{"embedded", "embedded", "embedded"},
		{"nothing said", "", "embedded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(ctx, c.url, Options{Log: quiet})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Kind() != c.kind || s.Exclusive() != (c.kind == "embedded") {
				t.Fatal(s.Kind())
			}
			works(t, s)
		})
	}

	for _, c := range []struct{ name, url, want string }{
		{"nobody listens", fmt.Sprintf("redis://127.0.0.1:%d", redistest.FreePort(t)), "is the server up"},
		{"no password", auth.URL(), "wants a password"},
		{"wrong password", "redis://:nope-nope@" + auth.Addr(), "is wrong"},
		{"too few rights", "redis://poor:poor@" + acl.Addr(), "give the user the rights"},
		{"TLS to a plain server", "rediss://" + plain.Addr(), "speak TLS"},
		{"plain to a TLS server", fmt.Sprintf("redis://127.0.0.1:%d", tlsPort), "rediss://"},
		{"untrusted certificate", fmt.Sprintf("rediss://127.0.0.1:%d", tlsPort), "ca=FILE"},
		{"a cluster node as one server", nodes[0].URL(), ""},
		{"no such master", "redis+sentinel://" + sentinels.Sentinel.Addr() + "/nobody", "sentinel"},
		{"one server as a cluster", "redis+cluster://" + plain.Addr(), "redis://"},
		{"silent server", "redis://" + silent(t), "does not answer in time"},
		{"bad URL", "redis://h/x", "database"},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := 20 * time.Second
			if c.want == "does not answer in time" || c.want == "speak TLS" {
				timeout = 300 * time.Millisecond
			}
			s, err := Open(ctx, c.url, Options{Log: quiet, Timeout: timeout})
			if err == nil {
				defer s.Close()
				// One key may lie on this very node; several accounts do not.
				for i := range 10 {
					if err = s.AuditAppend(ctx, fmt.Sprint("care", i), AuditEntry{}); err != nil {
						break
					}
				}
				c.want = "redis+cluster://"
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), "nope-nope") {
				t.Fatalf("the password shows: %v", err)
			}
		})
	}
	t.Run("read-only replica", func(t *testing.T) {
		s, err := Open(ctx, replica.URL(), Options{Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.AuditAppend(ctx, "care", AuditEntry{}); err == nil || !strings.Contains(err.Error(), "point at the master") {
			t.Fatal(err)
		}
	})
}

// silent accepts connections and never says a word.
func silent(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return l.Addr().String()
}

// Data of a newer release that older ones must not touch.
func TestNewerData(t *testing.T) {
	srv := redistest.Start(t)
	s, err := Open(ctx, srv.URL(), Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	srv.Do("HSET pg:{care}:state min 2 v 7 epoch x")
	b := &Beat{Account: "care", ID: "a", Now: noon, Seq: 1, Pots: []PotReport{{}}}
	for name, err := range map[string]error{
		"beat":  func() error { _, err := s.Beat(ctx, b); return err }(),
		"heal":  func() error { _, err := s.Heal(ctx, b, State{}, []Knowledge{{}}); return err }(),
		"lever": s.SetPlan(ctx, At{Account: "care", Epoch: "x"}, 5, "", nil),
	} {
		if err == nil || !strings.Contains(err.Error(), "upgrade") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A newer format that older ones may still use: min says so.
	srv.Do("HSET pg:{care}:state min 1")
	if _, err := s.Beat(ctx, b); err != nil {
		t.Fatal(err)
	}
}

// A request that was stuck on the way and arrives after newer ones changes nothing.
func TestLateReportChangesNothing(t *testing.T) {
	for _, url := range []string{"embedded", redistest.Start(t).URL()} {
		s, err := Open(ctx, url, Options{Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		send := func(seq, spent, want int64) *Pulse {
			p, err := s.Beat(ctx, &Beat{Account: "care", ID: "a", Now: noon, Seq: seq, TTL: time.Second, Join: true, Plan: 1000,
				Pots: []PotReport{{Spent: spent, Want: Counts{want}}}})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		send(1, 0, 10)
		send(3, 5, 0)
		for _, seq := range []int64{2, 3, 1} {
			if p := send(seq, 1, 100); p.Pots[0].Granted != (Counts{10}) || p.Pots[0].Spent != 5 || p.Pots[0].Taken != 10 {
				t.Fatalf("%s, report %d: %+v", url, seq, p.Pots[0])
			}
		}
	}
}

func TestCancelledCaller(t *testing.T) {
	s, err := Open(ctx, "embedded", Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.AuditAppend(gone, "care", AuditEntry{}); err == nil {
		t.Fatal("no error")
	}
}
