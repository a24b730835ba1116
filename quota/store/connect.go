package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	defaultTimeout = time.Second
	diskTimeout    = 5 * time.Second // a disk that stalls for a second is busy, not lost
)

// silence keeps go-redis from writing to stderr by itself; every error it has to tell comes back from the call.
var silence = sync.OnceFunc(func() { redis.SetLogger(noLog{}) })

type noLog struct{}

func (noLog) Printf(context.Context, string, ...any) {}

// Open connects and proves that the store answers; with Options.Patient a server that does not is no error. url is one of
//
//	embedded                                        one replica, journal in Options.Dir
//	redis://[user[:password]@]host[:port][/db]      one server; rediss:// the same over TLS
//	redis+sentinel://[user[:password]@]h1,h2/master[/db]
//	redis+cluster://[user[:password]@]h1,h2
//
// with the options, after `?`: tls=true (Sentinel and Cluster), ca=FILE, server_name=NAME, insecure=true,
// sentinel_user=NAME and sentinel_password=WORD.
// Redis must be version 6 or newer. Errors name the store without its password, and say what to do.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	silence()
	local := rawURL == "" || rawURL == "embedded"
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
		if local {
			o.Timeout = diskTimeout
		}
	}
	if local {
		return openEmbedded(ctx, o)
	}
	kind, opt, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	common(opt, o.Timeout)
	var rdb redis.UniversalClient
	switch kind {
	case "cluster":
		rdb = redis.NewClusterClient(opt.Cluster())
	case "sentinel":
		rdb = redis.NewFailoverClient(opt.Failover())
	default:
		rdb = redis.NewClient(opt.Simple())
	}
	s := &Store{kind: kind, rdb: rdb, timeout: o.Timeout, log: o.Log}
	if err := s.prove(ctx); err != nil {
		err = fmt.Errorf("store %s: %w", Redact(rawURL), err)
		if !o.Patient {
			rdb.Close()
			return nil, err
		}
		o.Log.Error("the store does not answer; this replica starts without it and tries again each second", "err", err)
	}
	return s, nil
}

// reloadEvery is how often a cluster that fails is asked for its slots: go-redis would do so once a minute.
const reloadEvery = time.Second

// failed looks at an operation's error. A cluster whose node is gone is asked at once, and then once a second while it
// fails, which node has taken over.
func (s *Store) failed(err error) error {
	if err == nil {
		return nil
	}
	if cl, ok := s.rdb.(*redis.ClusterClient); ok && followable(err) {
		now, at := time.Now().UnixNano(), s.reloaded.Load()
		if now-at >= int64(reloadEvery) && s.reloaded.CompareAndSwap(at, now) {
			cl.ReloadState(context.Background())
		}
	}
	return explain(err)
}

// followable says that an error may mean that another node serves the slot: a connection that failed, or a server's word
// for it. What a script or a right refuses is refused on every node.
func followable(err error) bool {
	var answer redis.Error
	if !errors.As(err, &answer) || errors.Is(err, redis.Nil) {
		return !errors.Is(err, redis.Nil)
	}
	text := err.Error()
	for _, word := range []string{"CLUSTERDOWN", "READONLY", "MOVED", "LOADING", "MASTERDOWN", "TRYAGAIN"} {
		if strings.HasPrefix(text, word) {
			return true
		}
	}
	return false
}

// prove shows at start what would else fail later: reachable, allowed to run scripts, new enough.
func (s *Store) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(s.timeout, 3*time.Second))
	defer cancel()
	if err := s.rdb.Ping(ctx).Err(); err != nil {
		return explain(err)
	}
	if err := s.rdb.Eval(ctx, "return 1", []string{stateKey("-")}).Err(); err != nil {
		return explain(err)
	}
	info, err := s.rdb.Info(ctx, "server").Result()
	if err != nil {
		return nil // the user may lack the right to INFO; nothing depends on it
	}
	_, v, _ := strings.Cut(info, "redis_version:")
	v, _, _ = strings.Cut(v, "\r\n")
	major, _, _ := strings.Cut(v, ".")
	if n, err := strconv.Atoi(major); err == nil && n < 6 {
		return fmt.Errorf("the server is Redis %s; pushguard needs 6 or newer", v)
	}
	return nil
}

func common(o *redis.UniversalOptions, timeout time.Duration) {
	o.ClientName = "pushguard"
	// A repeat is decided by the ledger, which numbers its reports, never silently here.
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.DialTimeout = timeout
	o.ReadTimeout = timeout
	o.WriteTimeout = timeout
	o.PoolTimeout = timeout
	o.ContextTimeoutEnabled = true
	o.PoolSize = 8
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

func parseURL(raw string) (kind string, o *redis.UniversalOptions, err error) {
	bad := func(format string, args ...any) (string, *redis.UniversalOptions, error) {
		return "", nil, fmt.Errorf("store %s: %s", Redact(raw), fmt.Sprintf(format, args...))
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return bad("is neither `embedded` nor a URL; write redis://host:6379, rediss://…, redis+sentinel://h1,h2/master or redis+cluster://h1,h2")
	}
	o = &redis.UniversalOptions{}
	useTLS := false
	port := "6379"
	switch scheme {
	case "redis":
		kind = "redis"
	case "rediss":
		kind, useTLS = "redis", true
	case "redis+sentinel", "rediss+sentinel":
		kind, port, useTLS = "sentinel", "26379", scheme == "rediss+sentinel"
	case "redis+cluster", "rediss+cluster":
		kind, useTLS = "cluster", scheme == "rediss+cluster"
	default:
		return bad("the scheme %q is none of redis, rediss, redis+sentinel, redis+cluster", scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, password, _ := strings.Cut(hosts[:i], ":")
		hosts = hosts[i+1:]
		if o.Username, err = url.PathUnescape(user); err == nil {
			o.Password, err = url.PathUnescape(password)
		}
		if err != nil {
			return bad("the user or password has a bad %%-escape")
		}
	}
	for h := range strings.SplitSeq(hosts, ",") {
		h = strings.TrimSpace(h)
		if h == "" {
			return bad("a host is missing")
		}
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
		o.Addrs = append(o.Addrs, h)
	}
	if kind == "redis" && len(o.Addrs) > 1 {
		return bad("several hosts need redis+sentinel:// or redis+cluster://")
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if kind == "sentinel" {
		if o.MasterName = parts[0]; o.MasterName == "" {
			return bad("the name of the master is missing; write redis+sentinel://h1,h2/mymaster")
		}
		parts = parts[1:]
	}
	if len(parts) > 0 && parts[0] != "" {
		if o.DB, err = strconv.Atoi(parts[0]); err != nil || o.DB < 0 || len(parts) > 1 {
			return bad("the path %q is no database number", path)
		}
		if kind == "cluster" && o.DB != 0 {
			return bad("a cluster has only database 0")
		}
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return bad("the part after `?` is malformed")
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	for k, v := range q {
		switch k {
		case "tls":
			if useTLS, err = strconv.ParseBool(v[0]); err != nil {
				return bad("tls=%s is neither true nor false", v[0])
			}
		case "insecure":
			if tc.InsecureSkipVerify, err = strconv.ParseBool(v[0]); err != nil {
				return bad("insecure=%s is neither true nor false", v[0])
			}
		case "server_name":
			tc.ServerName = v[0]
		case "ca":
			if tc.RootCAs, err = loadCA(v[0]); err != nil {
				return bad("ca: %v", err)
			}
		case "sentinel_user":
			o.SentinelUsername = v[0]
		case "sentinel_password":
			o.SentinelPassword = v[0]
		default:
			return bad("unknown option %q; known are tls, ca, server_name, insecure, sentinel_user, sentinel_password", k)
		}
	}
	if useTLS {
		if tc.ServerName == "" && len(o.Addrs) == 1 {
			tc.ServerName, _, _ = net.SplitHostPort(o.Addrs[0])
		}
		o.TLSConfig = tc
	}
	return kind, o, nil
}

// Redact is rawURL without its password, for logs and errors.
func Redact(rawURL string) string {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return rawURL
	}
	rest, _, _ = strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, _, _ := strings.Cut(authority[:i], ":")
		authority = user + ":***" + authority[i:]
	}
	if path != "" {
		authority += "/" + path
	}
	return scheme + "://" + authority
}

// explain adds what to do to the errors that operators meet.
func explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	hint := ""
	var netErr *net.OpError
	var certErr *tls.CertificateVerificationError
	switch {
	case strings.HasPrefix(text, "NOAUTH"):
		hint = "the server wants a password: write it into the URL, redis://user:password@host"
	case strings.HasPrefix(text, "WRONGPASS"):
		hint = "user or password in the URL is wrong"
	case strings.HasPrefix(text, "NOPERM"):
		hint = "give the user the rights `~pg:* +@read +@write +@scripting +@connection +info`"
	case strings.HasPrefix(text, "READONLY"):
		hint = "this server is a replica: point at the master, or use redis+sentinel://"
	case strings.HasPrefix(text, "MOVED"), strings.HasPrefix(text, "CLUSTERDOWN"):
		hint = "the server belongs to a cluster: use redis+cluster:// and see that all its slots are served"
	case strings.HasPrefix(text, "MISCONF"):
		hint = "the server cannot write its snapshot: look at its disk and log"
	case strings.HasPrefix(text, "OOM"):
		hint = "the server's memory is full: raise maxmemory; pushguard's keys need a few kB an account"
	case strings.HasPrefix(text, "LOADING"):
		hint = "the server is still loading its data: wait"
	case strings.Contains(text, "unsupported cluster"), strings.Contains(text, "cluster support disabled"):
		hint = "the server is no cluster: use redis://"
	case errors.As(err, &certErr), strings.Contains(text, "x509:"):
		hint = "the server's certificate is not trusted: check the host name, or give ca=FILE in the URL"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		hint = "the server speaks no TLS: use redis:// instead of rediss://"
	case text == "EOF", strings.Contains(text, "connection reset by peer"):
		hint = "the server hung up: does it want TLS (rediss://)?"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), strings.HasSuffix(text, "i/o timeout"):
		hint = "the server does not answer in time: is it up, reachable from here, and does it speak TLS as the URL says?"
	case errors.As(err, &netErr):
		hint = "is the server up, and the address right?"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}
