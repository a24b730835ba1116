package ops

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// visitor is whoever asks. The zero value may do nothing.
type visitor struct {
	who   string // for the audit trail; empty: not known by name
	how   string // token, basic, session, header, loopback
	write bool
	why   string // why nothing, or not more
	tired bool   // too many wrong tokens came from there
}

type visitorKey struct{}

// look finds out who asks, in the order: an authenticating proxy's header, a
// token, a session, and last the fact that the caller is on this machine.
func (s *Server) look(r *http.Request) visitor {
	if v, known := r.Context().Value(visitorKey{}).(visitor); known {
		return v
	}
	if user := s.trusted(r); user != "" {
		return visitor{who: user, how: "header", write: true}
	}
	if token, user, how := credentials(r); how != "" && s.hasToken() {
		switch {
		case s.tokenIs(token):
			return visitor{who: user, how: how, write: true}
		case s.readTokenIs(token):
			return visitor{who: user, how: how, why: "the token that was sent is admin.read_token, which only reads; a lever needs admin.token"}
		case !s.tries.pay(s.cfg.Now(), r.RemoteAddr, token):
			return visitor{tired: true, why: "too many wrong tokens came from your address; this one is wrong too"}
		}
		return visitor{why: "the admin token is wrong"}
	}
	if sess, ok := s.sessions.of(r, s.cfg.Now()); ok {
		if !sess.write {
			return visitor{who: sess.name, how: "session", why: "you are signed in with admin.read_token, which only reads; a lever needs admin.token"}
		}
		return visitor{who: sess.name, how: "session", write: true}
	}
	switch {
	case !fromLoopback(r):
		return visitor{why: "reading from another host needs the admin token"}
	case !s.hostKnown(r):
		return visitor{why: "this port was asked for as " + printable(r.Host) + ", which is no name of this machine; sign in, or open it as 127.0.0.1 or localhost"}
	}
	return visitor{how: "loopback", why: "moving a lever needs the admin token"}
}

// trusted is the user name that an authenticating proxy vouches for.
func (s *Server) trusted(r *http.Request) string {
	if s.cfg.TrustHeader == "" {
		return ""
	}
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	for _, p := range s.cfg.TrustFrom {
		if p.Contains(ap.Addr().Unmap()) {
			return printable(r.Header.Get(s.cfg.TrustHeader))
		}
	}
	return ""
}

func credentials(r *http.Request) (token, user, how string) {
	// The name of a scheme is the same in small letters (RFC 9110, 11.1).
	if scheme, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token), "", "token"
	}
	if user, token, ok := r.BasicAuth(); ok {
		return token, printable(user), "basic"
	}
	return "", "", ""
}

func (s *Server) tokenIs(given string) bool {
	sum := sha256.Sum256([]byte(given))
	return s.cfg.Token != "" && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

func (s *Server) readTokenIs(given string) bool {
	sum := sha256.Sum256([]byte(given))
	return s.cfg.ReadToken != "" && subtle.ConstantTimeCompare(sum[:], s.readToken[:]) == 1
}

// hasToken reports whether there is a token to come with.
func (s *Server) hasToken() bool { return s.cfg.Token != "" || s.cfg.ReadToken != "" }

// forwarding are the headers by which proxies say for whom they ask, beside those that begin as forwardingPrefixes.
var (
	forwarding = map[string]bool{"Forwarded": true, "Via": true, "X-Real-Ip": true, "X-Client-Ip": true, "X-Cluster-Client-Ip": true, "True-Client-Ip": true,
		"Fastly-Client-Ip": true, "Client-Ip": true, "X-Proxyuser-Ip": true, "X-Remote-Ip": true, "X-Remote-Addr": true, "X-Amzn-Trace-Id": true, "X-Cloud-Trace-Context": true, "X-Azure-Clientip": true, "Proxy-Connection": true}
	forwardingPrefixes = []string{"X-Forwarded", "X-Original", "X-Envoy-", "X-Appengine-", "Cf-", "Fly-"}
)

// fromLoopback says whether the caller is on this machine. What came through a
// proxy on this machine is not: its sender may be anywhere. Any header that
// proxies add tells that there is one.
func fromLoopback(r *http.Request) bool {
	for h := range r.Header {
		if forwarding[h] {
			return false
		}
		for _, prefix := range forwardingPrefixes {
			if strings.HasPrefix(h, prefix) {
				return false
			}
		}
	}
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// hostKnown guards reads without a token against DNS rebinding: a page of
// evil.example that lets its name point to 127.0.0.1 has the browser ask for
// "evil.example". An address cannot be rebound.
func (s *Server) hostKnown(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	for _, h := range s.cfg.Hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

// read lets in whoever may look: everybody on loopback, elsewhere who is known.
func (s *Server) read(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := s.look(r)
		if v.how == "" {
			s.deny(w, r, v)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitorKey{}, v)))
	})
}

// write lets in only who is known, from wherever.
func (s *Server) write(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := s.look(r)
		switch {
		case v.write:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitorKey{}, v)))
		case s.cfg.Token == "" && s.cfg.TrustHeader == "" && v.how != "token" && v.how != "basic" && v.how != "session":
			fail(w, http.StatusForbidden, noToken)
		case v.how != "" && v.how != "loopback": // known, and may only read
			fail(w, http.StatusForbidden, v.why)
		default:
			s.deny(w, r, v)
		}
	})
}

const noToken = "no lever can be moved because this guard has no admin token; set admin.token in the config, or PUSHGUARD_ADMIN_TOKEN"

// deny answers 401, to a browser with a page on which one can sign in.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, v visitor) {
	status := http.StatusUnauthorized
	if v.tired {
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "5")
	}
	challenge := `Bearer realm="pushguard", Basic realm="pushguard"`
	if r.Header.Get("Sec-Fetch-Mode") != "" || r.Header.Get("Accept-Language") != "" {
		challenge = `Bearer realm="pushguard"` // the word Basic makes a browser open a window of its own
	}
	w.Header().Set("WWW-Authenticate", challenge)
	if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.signInPage(w, status, v.why)
		return
	}
	fail(w, status, v.why+`: send "Authorization: Bearer TOKEN", or the token as the password of basic auth`)
}

// who names the person for the audit trail: whom the proxy or the session
// vouches for, else what the order says, else the user name of basic auth.
func (s *Server) who(r *http.Request, by string) string {
	v := s.look(r)
	by = printable(by)
	switch {
	case v.how == "header", v.how == "session" && v.who != "":
		return v.who
	case by != "":
		return by
	case v.who != "":
		return v.who
	}
	return "admin token from " + r.RemoteAddr
}

// printable cuts s to what a line of an audit trail can bear.
func printable(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
	if r := []rune(s); len(r) > 100 {
		return string(r[:100])
	}
	return s
}

// Ten wrong tokens at once, then one every three seconds, from each address; and the same for each wrong token, from
// wherever it comes.
const (
	triesAtOnce = 10
	triesEvery  = 3 * time.Second
	maxTriers   = 1024
)

// tries slows down whoever guesses tokens. It is asked of wrong tokens only: a
// right one passes whatever its address did before, so nobody can lock the
// operator out. Addresses and tokens beyond maxTriers share one bucket.
type tries struct {
	mu   sync.Mutex
	by   map[any]*rate.Limiter // by netip.Prefix, and by hash of a token
	rest *rate.Limiter
}

func newTries() *tries {
	return &tries{by: map[any]*rate.Limiter{}, rest: rate.NewLimiter(rate.Every(triesEvery), triesAtOnce)}
}

// pay books a wrong token. It reports false when too many came.
func (t *tries) pay(now time.Time, remote, token string) bool {
	address := t.of(prefixOf(remote)).AllowN(now, 1)
	return t.of(sha256.Sum256([]byte(token))).AllowN(now, 1) && address
}

// prefixOf is whom an address belongs to; nil if it is none.
func prefixOf(remote string) any {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return nil
	}
	addr, bits := ap.Addr().Unmap(), 32
	if addr.Is6() {
		bits = 64 // one customer has a whole /64
	}
	key, err := addr.Prefix(bits)
	if err != nil {
		return nil
	}
	return key
}

func (t *tries) of(key any) *rate.Limiter {
	if key == nil {
		return t.rest
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.by[key]
	if l == nil {
		if len(t.by) >= maxTriers {
			for k, old := range t.by {
				if old.Tokens() >= triesAtOnce {
					delete(t.by, k)
				}
			}
		}
		if len(t.by) >= maxTriers {
			return t.rest
		}
		l = rate.NewLimiter(rate.Every(triesEvery), triesAtOnce)
		t.by[key] = l
	}
	return l
}
