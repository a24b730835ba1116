package pusher

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

var spellings = flag.Int("spellings", 10_000, "how many spellings TestEverySpellingIsJudgedOrRefused draws")

// What callers send. All of it must pass.
func TestCanonicalPaths(t *testing.T) {
	for _, p := range []string{
		"/apps/1234/events", "/apps/1234/batch_events", "/apps/1234/channels", "/apps/1234/channels/a", "/apps/1234/channels/presence-a;b,c=d@e.f/users",
		"/apps/1234/channels/private-x%3Bb", "/apps/1234/channels/a/events", "/apps/1234/users/u1/terminate_connections",
		"/apps/1234/users/a%20b/terminate_connections", "/apps/1234/users/a%40b.c/terminate_connections", "/apps/1234/users/a@b.c/terminate_connections",
		"/apps/1234/users/%C3%BC/terminate_connections", "/apps/1234/users/google-oauth2%7C12/terminate_connections", "/apps/1234/users/100%25/terminate_connections",
		"/apps/1234/users/a%2Fb/terminate_connections", "/apps/1234/users/x;y/terminate_connections", "/apps/1234/users/~me/terminate_connections", "/apps/1234/users/%7Eme/terminate_connections",
		"/apps/1234/users/events/terminate_connections", "/apps/1234/users/Channels/terminate_connections", "/users/7/terminate_connections", "/webhooks/1234",
		"/apps/1234/newthing", "/apps/1234/newthing/sub/..x", "/apps/1234/events_v2", "/apps/1234/eventsource", "/apps/events/channels", "/",
	} {
		if e := CheckPath([]byte(p)); e != nil {
			t.Errorf("%s: %v", p, e)
		}
	}
	for _, m := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"} {
		if e := CheckMethod([]byte(m)); e != nil {
			t.Error(e)
		}
	}
}

func TestPathsThatAreNotCanonical(t *testing.T) {
	for _, p := range []string{
		"", "*", "apps/1234/events", "/apps/1234/events/", "//apps/1234/events", "/apps//1234/events", "/apps/1234//events", "/apps/1234/./events", "/apps/1234/x/../events",
		"/apps/1234/Events", "/apps/1234/EVENTS", "/apps/1234/batch_Events", "/Apps/1234/events", "/apps/1234/Channels", "/apps/1234/channels/a/Events", "/apps/1234/%65vents",
		"/apps/1234/%2565vents", "/apps/1234/events%20", "/apps/1234/events%00", "/apps/1234/events%2F", "/apps/1234%2Fevents", "/apps/1234/events;x=1", "/apps;a/1234/events",
		"/apps/1234/events.json", "/apps/1234/events.", "/apps/1234\\events", "/apps/1234%5Cevents", "/apps/1234/events%", "/apps/1234/events%2", "/apps/1234/%u0065vents",
		"/apps/1234/event\u017f", "/apps/1234/event%C5%BF", "/apps/1234/%c1%a5vents", "/apps/1234/events%09", "/apps/1234/events ", "/apps/1234/events\t", "/apps/1234/ev\x00ents",
		"/apps/1234/users/x%2F..%2F..%2Fevents", "/apps/1234/users/..%2F..%2Fevents", "/apps/1234/users/%2e%2e/terminate_connections", "/apps/1234/channels/a%2Fevents",
		"/apps/1234/channels/%2e%2e%2fevents", "/apps/1234/channels/a%2F..%2F..%2Fevents", "/apps/1234/channels/..%5Cevents", "/apps/1234/channels/../events", "/apps/1234/channels/%6Dine",
		"/prefix/apps/1234/events", "/apps/1234/apps/1234/events", "/apps/1234/events#x", "/apps/1234/\"events", "/apps/1234/é", "/apps/1234/users/\xff/terminate_connections",
		"/apps/1234/users/%FF/terminate_connections", "/apps/1234/events/.", "/apps/1234/events/..", "/apps/1234/events/x/..", "/apps/1234/users/a%2541/terminate_connections",
	} {
		if e := CheckPath([]byte(p)); e == nil {
			t.Errorf("%q passes", p)
		} else if e.Status != 400 || !strings.HasPrefix(e.Text, "The path ") || !strings.HasSuffix(e.Text, ".") {
			t.Errorf("%q: %d %s", p, e.Status, e.Text)
		}
	}
	for _, m := range []string{"", "post", "Post", "POST ", "POST\t", "POST /x HTTP/1.1", "GET\r\n", "PÖST", "M-SEARCH", "CONNECT", "TRACE", strings.Repeat("A", 17)} {
		if e := CheckMethod([]byte(m)); e == nil || e.Status != 400 {
			t.Errorf("%q: %v", m, e)
		}
	}
}

// router is how one of the servers behind, or in front of them, reads a path. It returns the path that its rules are held
// against.
type router struct {
	name string
	read func(string) string
	// matches is its table of what publishes.
	matches func(method, path string) bool
}

var publishRoutes = regexp.MustCompile(`^/apps/[^/]+/(events|batch_events|channels/[^/]+/events)$`)

func plainMatch(method, path string) bool { return method == "POST" && publishRoutes.MatchString(path) }

func unescapeOnce(p string) string {
	if u, err := url.PathUnescape(p); err == nil {
		return u
	}
	return string(undoEscapes([]byte(p)))
}

// mux is net/http's own, which cleans paths and unescapes segments.
var mux = func() *http.ServeMux {
	m := http.NewServeMux()
	hit := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) }
	m.HandleFunc("POST /apps/{id}/events", hit)
	m.HandleFunc("POST /apps/{id}/batch_events", hit)
	m.HandleFunc("POST /apps/{id}/channels/{name}/events", hit)
	return m
}()

func muxTakes(method, target string) bool {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return false
	}
	for range 3 {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, &http.Request{Method: method, URL: u, Host: "x", RequestURI: target, Header: http.Header{}})
		if w.Code == 299 {
			return true
		}
		// A redirect to the clean path, as a client or a proxy would follow with 307 and 308.
		to := w.Header().Get("Location")
		if w.Code/100 != 3 || to == "" {
			return false
		}
		if u, err = url.Parse(to); err != nil {
			return false
		}
	}
	return false
}

// routers' rules, as they are documented.
var routers = []router{
	// Symfony's UrlMatcher (Laravel, Reverb): rawurldecode of the whole path, then regular expressions; the method in capitals;
	// a slash at the end is redirected away or taken.
	{"symfony", func(p string) string { return strings.TrimRight(unescapeOnce(p), "/") }, func(m, p string) bool { return plainMatch(strings.ToUpper(m), p) }},
	// cowboy (poxa): cut into segments, empty ones at the end dropped, dot segments removed, each unescaped.
	{"cowboy", func(p string) string {
		var out []string
		for s := range strings.SplitSeq(p, "/") {
			switch s = unescapeOnce(s); s {
			case "", ".":
			case "..":
				out = out[:max(0, len(out)-1)]
			default:
				out = append(out, strings.ReplaceAll(s, "/", "\x00"))
			}
		}
		return "/" + strings.Join(out, "/")
	}, func(m, p string) bool { return plainMatch(strings.ToUpper(m), p) }},
	{"net/http", func(p string) string { return p }, muxTakes},
	// nginx: unescaped once, slashes merged, dots resolved, NUL refused.
	{"nginx merge_slashes", func(p string) string { return path.Clean(unescapeOnce(p)) }, plainMatch},
	// nginx in front of Symfony: one decodes, and passes its own form on, the other decodes again.
	{"nginx, then symfony", func(p string) string { return strings.TrimRight(unescapeOnce(path.Clean(unescapeOnce(p))), "/") }, func(m, p string) bool { return plainMatch(strings.ToUpper(m), p) }},
	// Express, ASP.NET and IIS: without regard to case; \ as /.
	{"express", func(p string) string { return strings.ToLower(strings.TrimRight(p, "/")) }, func(m, p string) bool { return plainMatch(m, p) }},
	{"iis", func(p string) string {
		return strings.ToLower(path.Clean(strings.ReplaceAll(strings.TrimRight(unescapeOnce(p), ". /"), `\`, "/")))
	}, func(m, p string) bool { return plainMatch(strings.ToUpper(m), p) }},
	// Tomcat, Spring: path parameters are cut before matching; Rails and Spring cut a format.
	{"tomcat", func(p string) string { return regexp.MustCompile(`;[^/]*`).ReplaceAllString(unescapeOnce(p), "") }, plainMatch},
	{"rails", func(p string) string { return regexp.MustCompile(`\.[a-z]+$`).ReplaceAllString(unescapeOnce(p), "") }, plainMatch},
	// uWebSockets (soketi): as sent.
	{"uwebsockets", func(p string) string { return p }, func(m, p string) bool { return plainMatch(strings.ToUpper(m), p) }},
}

// spelling makes one out of a publish's path by a few of the things that people try.
func spelling(r *rand.Rand) (method, target string) {
	method = "POST"
	target = []string{"/apps/1234/events", "/apps/1234/batch_events", "/apps/1234/channels/mine/events"}[r.IntN(3)]
	at := func() int { return r.IntN(len(target) + 1) }
	insert := func(i int, s string) { target = target[:i] + s + target[i:] }
	for range 1 + r.IntN(4) {
		switch r.IntN(16) {
		case 0, 1, 2: // an escape of one byte
			i := r.IntN(len(target))
			format := []string{"%%%02x", "%%%02X", "%%25%02x", "%%2525%02X"}[r.IntN(4)]
			target = target[:i] + fmt.Sprintf(format, target[i]) + target[i+1:]
		case 3:
			target += []string{"/", "//", "/.", "/..", "/x/..", "%2F", "%2f", ".", ".json", "%20", "%00", ";", ";a=b", "?", "#x", " ", "\t"}[r.IntN(17)]
		case 4:
			insert(at(), []string{"/", "//", "/./", "/x/../", "%2F", "%5C", `\`, "/../", "/%2e/", "/%2e%2e/", "/.%2E/"}[r.IntN(11)])
		case 5:
			if i := r.IntN(len(target)); true {
				target = target[:i] + strings.ToUpper(target[i:i+1]) + target[i+1:]
			}
		case 6:
			target = strings.ToUpper(target)
		case 7:
			insert(at(), []string{"%00", "\x00", " ", "%20", "\t", "%09", ";x", ";x=1", "%3B", "%3bx", "\u017f", "%C5%BF", "%c0%af", "%u002f"}[r.IntN(14)])
		case 8:
			method = []string{"post", "Post", "POSt", "PUT", "GET", "PATCH", "POST ", "pOST", "DELETE"}[r.IntN(9)]
		case 9:
			target = "/apps/1234/users/" + strings.ReplaceAll("x/../../events", "/", []string{"%2F", "%2f", "%5C", "/"}[r.IntN(4)])
		case 10:
			target = "/apps/1234/channels/" + strings.ReplaceAll("a/../../batch_events", "/", []string{"%2F", "%2f", "%252F", "/"}[r.IntN(4)])
		case 11:
			target = strings.ReplaceAll(target, "s", []string{"\u017f", "%73", "%53", "S"}[r.IntN(4)])
		case 12:
			insert(0, []string{"/", "/./", "/x/..", "/.", "/pusher", "/apps/1234"}[r.IntN(6)])
		default:
			i := r.IntN(len(target))
			target = target[:i] + target[i:i+1] + target[i:]
		}
		if target == "" {
			target = "/"
		}
	}
	return method, target
}

// Whatever one of the routers takes for a publish is judged as one, because it is written as one, or is refused. The long
// form is go test ./pusher -run Spelling -spellings 100000.
func TestEverySpellingIsJudgedOrRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	taken, refused, judged, passed := 0, 0, 0, 0
	for range *spellings {
		method, target := spelling(r)
		p, _, _ := strings.Cut(target, "?")
		ok := CheckMethod([]byte(method)) == nil && CheckPath([]byte(p)) == nil
		plain := IsPublishPath([]byte(p))
		switch {
		case !ok:
			refused++
		case plain:
			judged++ // or 405: no other method than POST goes on from there
		default:
			passed++
		}
		for _, router := range routers {
			if !router.matches(method, router.read(p)) {
				continue
			}
			taken++
			if ok && !plain {
				t.Fatalf("%s takes %s %q for a publish; here it passes as another endpoint", router.name, method, target)
			}
		}
	}
	t.Logf("%d spellings: %d refused, %d judged, %d other endpoints; taken for a publish by a router %d times", *spellings, refused, judged, passed, taken)
	if taken < *spellings/20 || judged < *spellings/100 || passed < *spellings/1000 {
		t.Errorf("the generator tests little: %d taken, %d judged, %d passed", taken, judged, passed)
	}
}

func TestHasPublishBody(t *testing.T) {
	for _, c := range []struct {
		body, query   string
		single, batch bool
	}{
		{`{}`, "", false, false}, {``, "", false, false}, {`{"name":"a","data":"b","channel":"c"}`, "", true, false}, {`{"data":1,"channels":[]}`, "", true, false},
		{` {"x":{"data":1,"channels":1}}`, "", false, false}, {`{"batch":[]}`, "", false, true}, {`{"d\u0061ta":"","channel":""}`, "", true, false},
		{`raw`, "name=a&data=b&channels[]=c", true, false}, {`{"data":""}`, "channel=x", true, false}, {`{"data":"","channel":"c"`, "", true, false},
	} {
		q := parse(t, c.query)
		if s, b := HasPublishBody([]byte(c.body), q); s != c.single || b != c.batch {
			t.Errorf("%s %s: %v %v", c.body, c.query, s, b)
		}
	}
}

func BenchmarkCheckPath(b *testing.B) {
	p := []byte("/apps/1234567/events")
	b.ReportAllocs()
	for b.Loop() {
		if CheckPath(p) != nil {
			b.Fatal()
		}
	}
}
