package sim

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// worker is the memory of one request.
type worker struct {
	query   pusher.Query
	decoder pusher.Decoder
	body    []byte
	out     []byte
}

// endpoints of the Channels API, as Stats names them.
const (
	endpointEvents        = "events"
	endpointBatch         = "batch_events"
	endpointChannels      = "channels"
	endpointChannel       = "channel"
	endpointUsers         = "users"
	endpointTerminate     = "terminate_connections"
	endpointChannelEvents = "channel_events"
	endpointOther         = "other"
)

// target is what a path asks for.
type target struct {
	endpoint, app string
	subject       string // a channel or a user, unescaped
	post          bool
}

// route reads a path as it was sent.
func route(path string) (t target, known bool) {
	rest, ok := strings.CutPrefix(path, "/apps/")
	if !ok {
		return target{endpoint: endpointOther}, false
	}
	part := strings.Split(rest, "/")
	t.app = part[0]
	t.endpoint = endpointOther
	switch {
	case len(part) == 2 && part[1] == "events":
		t.endpoint, t.post = endpointEvents, true
	case len(part) == 2 && part[1] == "batch_events":
		t.endpoint, t.post = endpointBatch, true
	case len(part) == 2 && part[1] == "channels":
		t.endpoint = endpointChannels
	case len(part) == 3 && part[1] == "channels":
		t.endpoint = endpointChannel
	case len(part) == 4 && part[1] == "channels" && part[3] == "users":
		t.endpoint = endpointUsers
	case len(part) == 4 && part[1] == "channels" && part[3] == "events":
		t.endpoint, t.post = endpointChannelEvents, true
	case len(part) == 4 && part[1] == "users" && part[3] == "terminate_connections":
		t.endpoint, t.post = endpointTerminate, true
	default:
		return t, false
	}
	if len(part) > 2 {
		subject, err := url.PathUnescape(part[2])
		if err != nil || subject == "" {
			t.endpoint = endpointOther
			return t, false
		}
		t.subject = subject
	}
	return t, true
}

// ServeHTTP answers the Channels API and /sim/v1.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/sim/v1/") {
		s.serveControl(w, r)
		return
	}
	wk := s.workers.Get().(*worker)
	defer s.workers.Put(wk)

	path, rawQuery := r.URL.EscapedPath(), r.URL.RawQuery
	if strings.HasPrefix(r.RequestURI, "/") {
		path, rawQuery, _ = strings.Cut(r.RequestURI, "?")
	}
	t, known := route(path)
	number, fault := s.arrive(t.endpoint)

	// The body is read first in any case: a server that answers before it has
	// read what was sent loses the connection, and with it the answer.
	tooLarge, err := wk.read(w, r, s.limits.MaxBody())
	switch {
	case err != nil:
		s.answer(w, http.StatusBadRequest, "The body could not be read.")
		return
	case fault == FailDrop:
		s.count(0)
		panic(http.ErrAbortHandler)
	case fault == FailError:
		s.answer(w, http.StatusInternalServerError, "Internal server error")
		return
	case fault == FailHang && !s.hang(r):
		s.count(0)
		panic(http.ErrAbortHandler)
	case tooLarge:
		s.answer(w, http.StatusRequestEntityTooLarge, s.limits.TooLarge().Text)
		return
	}

	now := s.now()
	if err := wk.query.Parse([]byte(rawQuery)); err != nil {
		s.answer(w, http.StatusBadRequest, err.Error())
		return
	}
	refusal := s.authenticate(r.Method, path, t.app, wk, now)
	if refusal != nil {
		s.answer(w, refusal.Status, refusal.Text)
		return
	}
	if fault == FailDisabled {
		s.answer(w, http.StatusForbidden, "Forbidden: "+pusher.AppDisabledText)
		return
	}
	switch {
	case !known:
		refusal = &pusher.Error{Status: http.StatusNotFound, Text: "There is no such endpoint: " + strconv.Quote(path[:min(len(path), 200)])}
	case t.post != (r.Method == http.MethodPost) || !t.post && r.Method != http.MethodGet:
		refusal = &pusher.Error{Status: http.StatusMethodNotAllowed, Text: "The method " + strconv.Quote(r.Method) + " is not allowed here."}
	default:
		refusal = s.perform(wk, t, number, now)
	}
	if refusal != nil {
		s.chargeFailed(refusal, now)
	}
	s.wait(r)
	switch {
	case fault == FailErrorAfter:
		s.answer(w, http.StatusInternalServerError, "Internal server error")
	case fault == FailHangAfter:
		s.count(0)
		s.hang(r)
		panic(http.ErrAbortHandler)
	case fault == FailDropAfter:
		s.count(0)
		panic(http.ErrAbortHandler)
	case refusal != nil:
		s.answer(w, refusal.Status, refusal.Text)
	case t.endpoint == endpointChannelEvents:
		s.count(http.StatusAccepted)
		w.WriteHeader(http.StatusAccepted)
	default:
		s.count(http.StatusOK)
		h := w.Header()
		h["Content-Type"] = jsonType
		h["Content-Length"] = []string{strconv.Itoa(len(wk.out))}
		w.Write(wk.out)
	}
}

var jsonType = []string{"application/json; charset=utf-8"}

// answer refuses in plain text, as Pusher does.
func (s *Server) answer(w http.ResponseWriter, status int, text string) {
	s.count(status)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// read reads the body into wk.body, at most limit bytes of it.
func (wk *worker) read(w http.ResponseWriter, r *http.Request, limit int) (tooLarge bool, err error) {
	wk.body = wk.body[:0]
	if r.Body == nil || r.ContentLength == 0 {
		return false, nil
	}
	if n := int(min(r.ContentLength, int64(limit))); n >= cap(wk.body) {
		wk.body = make([]byte, 0, max(4096, n+1))
	}
	body := http.MaxBytesReader(w, r.Body, int64(limit))
	for {
		if len(wk.body) == cap(wk.body) {
			wk.body = append(wk.body, 0)[:len(wk.body)]
		}
		n, err := body.Read(wk.body[len(wk.body):cap(wk.body)])
		wk.body = wk.body[:len(wk.body)+n]
		if err == io.EOF {
			return false, nil
		}
		if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (s *Server) authenticate(method, path, app string, wk *worker, now time.Time) *pusher.Error {
	name, ok := wk.query.Get("auth_key")
	if !ok {
		return pusher.MissingParameter("auth_key")
	}
	key, ok := s.keys[identity{app, string(name)}]
	if !ok {
		return pusher.UnknownKey(name)
	}
	return key.Verify(method, []byte(path), &wk.query, wk.body, now)
}

// arrive counts a request and says how it is to fail, if at all.
func (s *Server) arrive(endpoint string) (number int64, fault Fail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.account
	a.requests++
	a.byEndpoint[endpoint]++
	fault = s.behavior.fail
	if every := s.behavior.failEvery; fault == FailNone && every > 0 && a.requests%every == 0 {
		fault = FailError
	}
	return a.requests, fault
}

func (s *Server) count(status int) {
	s.mu.Lock()
	s.account.byStatus[status]++
	s.mu.Unlock()
}

// wait lets the latency pass.
func (s *Server) wait(r *http.Request) {
	s.mu.Lock()
	latency := s.behavior.latency
	s.mu.Unlock()
	if latency <= 0 {
		return
	}
	t := time.NewTimer(latency)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	case <-s.closed:
	}
}

// hang keeps a request until its client goes away, the server closes, or the
// server stops hanging; only then it returns true.
func (s *Server) hang(r *http.Request) bool {
	for {
		s.mu.Lock()
		fail, changed := s.behavior.fail, s.behavior.changed
		s.mu.Unlock()
		if fail != FailHang && fail != FailHangAfter {
			return true
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return false
		case <-s.closed:
			return false
		}
	}
}
