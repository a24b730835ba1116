package ops

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

const elsewhere = "203.0.113.9:50000"

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestWhoMayReadAndWrite(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server(func(c *Config) {
		c.TrustHeader = "X-Forwarded-User"
		c.TrustFrom = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		c.Hosts = []string{"guard.internal"}
		c.ReadToken = "only-for-looking-at"
	})
	basic := func(r *http.Request) { r.SetBasicAuth("anna", stageToken) }
	for _, c := range []struct {
		name        string
		change      []func(*http.Request)
		read, write int
	}{
		{"this machine", nil, 200, 401},
		{"this machine, by name", []func(*http.Request){host("localhost:8081")}, 200, 401},
		{"this machine, IPv6", []func(*http.Request){from("[::1]:5"), host("[::1]:8081")}, 200, 401},
		{"this machine, by a name of the config", []func(*http.Request){host("Guard.Internal:8081")}, 200, 401},
		{"a page whose name was rebound to 127.0.0.1", []func(*http.Request){host("evil.example:8081")}, 401, 401},
		{"a name that only begins well", []func(*http.Request){host("localhost.evil.example")}, 401, 401},
		{"through a proxy on this machine", []func(*http.Request){header("X-Forwarded-For", "203.0.113.9")}, 401, 401},
		{"elsewhere", []func(*http.Request){from(elsewhere)}, 401, 401},
		{"elsewhere, token", []func(*http.Request){from(elsewhere), withToken}, 200, 400},
		{"elsewhere, basic", []func(*http.Request){from(elsewhere), basic}, 200, 400},
		{"elsewhere, token, the scheme in small letters", []func(*http.Request){from(elsewhere), header("Authorization", "bearer  "+stageToken)}, 200, 400},
		{"elsewhere, read token", []func(*http.Request){from(elsewhere), header("Authorization", "Bearer only-for-looking-at")}, 200, 403},
		{"here, read token", []func(*http.Request){header("Authorization", "BEARER only-for-looking-at")}, 200, 403},
		{"through nginx with a header of its own", []func(*http.Request){header("X-Real-IP", "203.0.113.9")}, 401, 401},
		{"through Envoy", []func(*http.Request){header("X-Envoy-External-Address", "203.0.113.9")}, 401, 401},
		{"through Cloudflare", []func(*http.Request){header("CF-Connecting-IP", "203.0.113.9")}, 401, 401},
		{"through whatever says the scheme", []func(*http.Request){header("X-Forwarded-Proto", "https")}, 401, 401},
		{"through a load balancer of Amazon's", []func(*http.Request){header("X-Amzn-Trace-Id", "Root=1")}, 401, 401},
		{"elsewhere, wrong token", []func(*http.Request){from(elsewhere), header("Authorization", "Bearer correct-horse-batterz")}, 401, 401},
		{"elsewhere, empty token", []func(*http.Request){from(elsewhere), header("Authorization", "Bearer ")}, 401, 401},
		{"here, wrong token", []func(*http.Request){header("Authorization", "Bearer x")}, 401, 401},
		{"the authenticating proxy", []func(*http.Request){from("10.1.2.3:9"), header("X-Forwarded-User", "ben")}, 200, 400},
		{"the proxy without a user", []func(*http.Request){from("10.1.2.3:9")}, 401, 401},
		{"somebody who plays the proxy", []func(*http.Request){from(elsewhere), header("X-Forwarded-User", "ben")}, 401, 401},
	} {
		if w := ask(t, srv, "GET", "/api/v1/status", nil, c.change...); w.Code != c.read {
			t.Errorf("%s: reading gives %d, want %d: %s", c.name, w.Code, c.read, w.Body)
		}
		// 400: let in, and the order is found to be empty.
		if w := ask(t, srv, "PUT", "/api/v1/accounts/care/plan", strings.NewReader("{}"), c.change...); w.Code != c.write {
			t.Errorf("%s: writing gives %d, want %d: %s", c.name, w.Code, c.write, w.Body)
		}
	}
	for _, path := range []string{"/api/v1/events", "/api/v1/history", "/api/v1/incidents", "/api/v1/top", "/api/v1/rules", "/api/v1/savings", "/api/v1/audit", "/metrics", "/"} {
		if w := ask(t, srv, "GET", path, nil, from(elsewhere)); w.Code != 401 {
			t.Errorf("%s from elsewhere: %d", path, w.Code)
		}
	}
}

func TestWithoutATokenNothingMoves(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server(func(c *Config) { c.Token = "" })
	for _, change := range [][]func(*http.Request){nil, {header("Authorization", "Bearer ")}, {withToken}, {from(elsewhere)}} {
		w := ask(t, srv, "PUT", "/api/v1/accounts/care/plan", strings.NewReader(`{"messages_per_day":5}`), change...)
		if w.Code != 403 || !strings.Contains(w.Body.String(), "admin.token") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if w := ask(t, srv, "POST", "/api/v1/session", strings.NewReader(`{"token":""}`)); w.Code != 403 {
		t.Errorf("signing in with no token: %d", w.Code)
	}
}

func TestAnotherSiteCannotMoveALever(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.example"}} {
		w := ask(t, srv, "PUT", "/api/v1/accounts/care/plan", strings.NewReader(`{"messages_per_day":5}`), withToken, header(h[0], h[1]))
		if w.Code != 403 {
			t.Errorf("%v: %d", h, w.Code)
		}
	}
}

func TestSession(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	w := ask(t, srv, "POST", "/api/v1/session", strings.NewReader(`{"token":"`+stageToken+`","name":"anna\u0000"}`), from(elsewhere), host("guard.example:8081"))
	if w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	cookie := w.Result().Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure || cookie.Name != "pushguard_8081" {
		t.Errorf("cookie %+v", cookie)
	}
	with := []func(*http.Request){from(elsewhere), host("guard.example:8081"), func(r *http.Request) { r.AddCookie(cookie) }}
	if st := into[AccountStatus](t, ask(t, srv, "POST", "/api/v1/accounts/care/brake", strings.NewReader(`{"allow":"none","reason":"x","by":"mallory"}`), with...)); st.Brake.By != "anna" {
		t.Errorf("the brake was pulled by %q: a session's name cannot be overridden", st.Brake.By)
	}
	if st := into[SessionStatus](t, ask(t, srv, "GET", "/api/v1/session", nil, with...)); !st.CanWrite || st.Who != "anna" || st.How != "session" {
		t.Errorf("session %+v", st)
	}
	tampered := func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value[:len(cookie.Value)-1] + "!"})
	}
	if w := ask(t, srv, "GET", "/api/v1/status", nil, from(elsewhere), host("guard.example:8081"), tampered); w.Code != 401 {
		t.Errorf("a cookie that was changed: %d", w.Code)
	}
	s.at(noon.Add(sessionLife + time.Second))
	if w := ask(t, srv, "GET", "/api/v1/status", nil, with...); w.Code != 401 {
		t.Errorf("after its end: %d", w.Code)
	}
	s.at(noon)
	// Signing out ends it, and so do many newer ones.
	in := func() func(*http.Request) {
		c := ask(t, srv, "POST", "/api/v1/session", strings.NewReader(`{"token":"`+stageToken+`"}`)).Result().Cookies()[0]
		return func(r *http.Request) { r.AddCookie(c) }
	}
	one := in()
	ask(t, srv, "DELETE", "/api/v1/session", nil, one)
	if w := ask(t, srv, "PUT", "/api/v1/accounts/care/plan", strings.NewReader("{}"), one); w.Code != 401 {
		t.Errorf("after signing out: %d", w.Code)
	}
	oldest := in()
	s.at(noon.Add(time.Second))
	for range maxSessions {
		in()
	}
	if n := len(srv.sessions.by); n != maxSessions {
		t.Errorf("%d sessions, want %d", n, maxSessions)
	}
	if w := ask(t, srv, "PUT", "/api/v1/accounts/care/plan", strings.NewReader("{}"), oldest); w.Code != 401 {
		t.Errorf("the oldest of too many: %d", w.Code)
	}
}

func TestGuessingIsSlow(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	wrong := func(addr string) int {
		return ask(t, srv, "GET", "/api/v1/status", nil, from(addr), header("Authorization", "Bearer nope")).Code
	}
	right := func(addr string) int { return ask(t, srv, "GET", "/api/v1/status", nil, from(addr), withToken).Code }
	for i := range triesAtOnce {
		if code := wrong("[2001:db8::1]:1"); code != 401 {
			t.Fatalf("try %d: %d", i, code)
		}
	}
	if code := wrong("[2001:db8::ffff:2]:1"); code != 429 {
		t.Errorf("try 11, from the next address of the same network: %d", code)
	}
	if code := right("[2001:db8::1]:1"); code != 200 {
		t.Errorf("the right token: %d; nobody may lock the operator out", code)
	}
	if code := ask(t, srv, "POST", "/api/v1/session", strings.NewReader(`{"token":"`+stageToken+`"}`), from("[2001:db8::1]:1")).Code; code != 200 {
		t.Errorf("by the form: %d", code)
	}
	if code := wrong("203.0.113.9:1"); code != 429 {
		t.Errorf("the same wrong token from elsewhere: %d", code)
	}
	s.at(noon.Add(2 * triesEvery))
	if code := wrong("[2001:db8::1]:1"); code != 401 {
		t.Errorf("a while later: %d", code)
	}
	for i := range 3 * maxTriers {
		srv.tries.pay(noon, netip.AddrPortFrom(netip.AddrFrom4([4]byte{7, byte(i >> 16), byte(i >> 8), byte(i)}), 1).String(), strconv.Itoa(i))
	}
	if n := len(srv.tries.by); n > maxTriers {
		t.Errorf("the table has %d addresses", n)
	}
}

func TestBrowserUnderstandsThe401(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	html := header("Accept", "text/html,application/xhtml+xml")
	w := ask(t, srv, "GET", "/", nil, from(elsewhere), html, header("Accept-Language", "en"))
	if w.Code != 401 || !strings.Contains(w.Body.String(), `action="/sign-in"`) || strings.Contains(w.Header().Get("WWW-Authenticate"), "Basic") {
		t.Errorf("%d %q %s", w.Code, w.Header().Get("WWW-Authenticate"), w.Body)
	}
	if w := ask(t, srv, "GET", "/api/v1/status", nil, from(elsewhere)); !strings.Contains(w.Header().Get("WWW-Authenticate"), "Basic") || !strings.Contains(w.Body.String(), "Bearer TOKEN") {
		t.Errorf("curl is told %q %s", w.Header(), w.Body)
	}
	post := func(token string) *httptest.ResponseRecorder {
		body := url.Values{"token": {token}, "name": {"<b>"}}.Encode()
		return ask(t, srv, "POST", "/sign-in", strings.NewReader(body), from(elsewhere), header("Content-Type", "application/x-www-form-urlencoded"))
	}
	if w := post("wrong"); w.Code != 401 || !strings.Contains(w.Body.String(), "not the admin token") {
		t.Errorf("wrong token: %d %s", w.Code, w.Body)
	}
	if w := post(stageToken); w.Code != 303 || w.Header().Get("Location") != "/" || len(w.Result().Cookies()) != 1 {
		t.Errorf("right token: %d %v", w.Code, w.Header())
	}
}

func TestPageAndItsHeaders(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	w := ask(t, srv, "GET", "/", nil, header("Accept", "text/html"))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "/assets/app.js") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	policy := w.Header().Get("Content-Security-Policy")
	for _, never := range []string{"unsafe", "http:", "https:", "*", "data:"} {
		if strings.Contains(policy, never) {
			t.Errorf("the policy allows %q: %s", never, policy)
		}
	}
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("the policy: %s", policy)
	}
	for name, a := range srv.assets.files {
		text := string(a.body)
		if strings.HasSuffix(name, ".html") && (strings.Contains(text, "<style") || strings.Contains(text, " style=") || strings.Contains(text, "onclick=") || strings.Contains(text, "<script>")) {
			t.Errorf("%s has script or style inside", name)
		}
		if !strings.HasPrefix(name, "vendor/") && (strings.Contains(text, "innerHTML") || strings.Contains(text, "eval(")) {
			t.Errorf("%s makes markup or code of text", name)
		}
		if strings.HasSuffix(name, ".html") {
			continue
		}
		// Assets are open, so that the sign-in page has its style.
		w := ask(t, srv, "GET", "/assets/"+name, nil, from(elsewhere), header("Accept-Encoding", "gzip"))
		if w.Code != 200 {
			t.Errorf("%s: %d", name, w.Code)
		}
		if again := ask(t, srv, "GET", "/assets/"+name, nil, header("If-None-Match", w.Header().Get("ETag"))); again.Code != 304 || again.Body.Len() != 0 {
			t.Errorf("%s again: %d", name, again.Code)
		}
	}
	if w := ask(t, srv, "GET", "/", nil, header("Accept", "*/*")); !strings.Contains(w.Body.String(), "/api/v1/status") || strings.Contains(w.Body.String(), "<html") {
		t.Errorf("curl gets %s", w.Body)
	}
	for _, path := range []string{"/nothing", "/assets/index.html", "/assets/../ops.go", "/assets/nothing.js"} {
		if w := ask(t, srv, "GET", path, nil); w.Code != 404 && w.Code != 307 && w.Code != 301 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
