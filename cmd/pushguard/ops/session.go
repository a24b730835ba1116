package ops

import (
	"crypto/rand"
	"crypto/sha256"
	"net"
	"net/http"
	"sync"
	"time"
)

// A session lasts a working day. There are at most maxSessions; the oldest goes
// first. They are kept in memory: a restart ends them.
const (
	sessionLife = 12 * time.Hour
	maxSessions = 256
)

type session struct {
	name  string
	write bool
	until time.Time
}

// sessions are known by the hash of their cookie, so that the table is of no use
// to whoever reads the memory, and finding one tells nothing by its timing.
type sessions struct {
	mu sync.Mutex
	by map[[sha256.Size]byte]session
}

// cookieName has the port in it: cookies do not tell ports apart, and one
// machine may have several guards.
func cookieName(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		return "pushguard_" + port
	}
	return "pushguard"
}

func (ss *sessions) of(r *http.Request, now time.Time) (session, bool) {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return session{}, false
	}
	key := sha256.Sum256([]byte(c.Value))
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s, ok := ss.by[key]
	if ok && now.After(s.until) {
		delete(ss.by, key)
		ok = false
	}
	return s, ok
}

func (ss *sessions) begin(w http.ResponseWriter, r *http.Request, now time.Time, name string, write bool) {
	id := rand.Text() // 128 random bits and more
	ss.mu.Lock()
	if ss.by == nil {
		ss.by = map[[sha256.Size]byte]session{}
	}
	if len(ss.by) >= maxSessions {
		var oldest [sha256.Size]byte
		var until time.Time
		for k, s := range ss.by {
			if until.IsZero() || s.until.Before(until) {
				oldest, until = k, s.until
			}
		}
		delete(ss.by, oldest)
	}
	ss.by[sha256.Sum256([]byte(id))] = session{name: name, write: write, until: now.Add(sessionLife)}
	ss.mu.Unlock()
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil, MaxAge: int(sessionLife / time.Second),
	})
}

func (ss *sessions) end(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookieName(r)); err == nil {
		ss.mu.Lock()
		delete(ss.by, sha256.Sum256([]byte(c.Value)))
		ss.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil, MaxAge: -1})
}

// SessionStatus says what whoever asks may do.
type SessionStatus struct {
	How      string `json:"how"` // token, basic, session, header, loopback
	Who      string `json:"who"`
	CanWrite bool   `json:"can_write"`
	// SignIn says whether there is a token to sign in with; if not, Why says what
	// to do.
	SignIn bool   `json:"sign_in"`
	Why    string `json:"why,omitempty"`
}

// SignIn is the body of POST /api/v1/session. Name is for the audit trail.
type SignIn struct {
	Token string `json:"token"`
	Name  string `json:"name"`
}

func (s *Server) sessionStatus(r *http.Request) (SessionStatus, error) {
	v := s.look(r)
	out := SessionStatus{How: v.how, Who: v.who, CanWrite: v.write, SignIn: s.hasToken(), Why: v.why}
	if !out.CanWrite && !out.SignIn {
		out.Why = noToken
	}
	return out, nil
}

// signIn begins a session if the token is right.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request, in SignIn) error {
	now := s.cfg.Now()
	write := s.tokenIs(in.Token)
	switch {
	case !s.hasToken():
		return &failure{http.StatusForbidden, noToken}
	case write || s.readTokenIs(in.Token):
	case !s.tries.pay(now, r.RemoteAddr, in.Token):
		w.Header().Set("Retry-After", "5")
		return &failure{http.StatusTooManyRequests, "too many wrong tokens came from your address; this one is wrong too"}
	default:
		s.cfg.Log.Warn("sign-in with a wrong token", "from", r.RemoteAddr)
		return &failure{http.StatusUnauthorized, "that is not the admin token of this guard"}
	}
	s.sessions.begin(w, r, now, printable(in.Name), write)
	s.cfg.Log.Info("signed in", "from", r.RemoteAddr, "name", printable(in.Name))
	return nil
}

func (s *Server) signInJSON(w http.ResponseWriter, r *http.Request) {
	var in SignIn
	if err := decode(r, &in); err != nil {
		failWith(w, err)
		return
	}
	if err := s.signIn(w, r, in); err != nil {
		failWith(w, err)
		return
	}
	reply(w, SessionStatus{How: "session", Who: printable(in.Name), CanWrite: s.tokenIs(in.Token), SignIn: true})
}

// signInForm is for the page that is shown with a 401, which needs no script.
func (s *Server) signInForm(w http.ResponseWriter, r *http.Request) {
	err := s.signIn(w, r, SignIn{Token: r.PostFormValue("token"), Name: r.PostFormValue("name")})
	if f, ok := err.(*failure); ok {
		s.signInPage(w, f.status, f.text)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	s.sessions.end(w, r)
	reply(w, map[string]bool{"signed_out": true})
}
