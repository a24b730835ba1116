package proxy

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

var everyWay = flag.Int("everyway", 600, "how many mutated requests TestMutatedRequestsOnEveryWay sends, each by three ways")

// keptConn is a connection that is used again while it lasts.
type keptConn struct {
	c  net.Conn
	in *bufio.Reader
}

func (r *rig) sendKept(t *testing.T, k *keptConn, chunked bool, method, target, body string) reply {
	t.Helper()
	for try := 0; ; try++ {
		if k.c == nil {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			k.c, k.in = c, bufio.NewReader(c)
		}
		_ = k.c.SetDeadline(time.Now().Add(20 * time.Second))
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
		if chunked {
			raw = fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", method, target)
			if body != "" {
				raw += fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
			}
			raw += "0\r\n\r\n"
		}
		_, err := io.WriteString(k.c, raw)
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(k.in, &http.Request{Method: method})
		}
		if err != nil {
			k.c.Close()
			k.c = nil
			if try == 1 {
				return reply{status: -1, body: err.Error()}
			}
			continue
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.Close {
			k.c.Close()
			k.c = nil
		}
		return reply{resp.StatusCode, resp.Header.Get("Pushguard-Outcome"), resp.Header, string(b)}
	}
}

// Mutated requests, methods and paths among them, are answered the same on every way; nothing that goes on is refused by Pusher
// for its signature, and no answer holds one. The long form has -everyway 30000.
func TestMutatedRequestsOnEveryWay(t *testing.T) {
	g := newRig(t, rigConfig{})
	r := rand.New(rand.NewPCG(9, 10))
	var kept [2]keptConn
	defer func() {
		for i := range kept {
			if kept[i].c != nil {
				kept[i].c.Close()
			}
		}
	}()
	counts := map[int]int{}
	for i := range *everyWay {
		method, path, body := "POST", []string{"/apps/7/events", "/apps/7/batch_events", "/apps/7/channels/c/events", "/apps/7/users/a%20b/terminate_connections", "/apps/7/new/thing"}[r.IntN(5)], ""
		switch {
		case strings.Contains(path, "batch"):
			body = `{"batch":[` + eventBody("e", fmt.Sprint("c", i), "d") + `]}`
		case strings.Contains(path, "terminate"):
			body = "{}"
		default:
			body = eventBody("e", fmt.Sprint("c", i), "d")
		}
		target := path + "?" + string(g.caller.AppendSigned(nil, method, []byte(path), nil, []byte(body), time.Now()))
		if strings.HasSuffix(path, "c/events") {
			continue
		}
		for range r.IntN(3) {
			n := r.IntN(len(target))
			switch r.IntN(8) {
			case 0:
				target = target[:n] + fmt.Sprintf("%%%02x", target[n]) + target[n+1:]
			case 1:
				target = target[:n] + []string{"/", "//", "/./", ";", "%", "%00", "..", "&", "=", "A", "é", "\\"}[r.IntN(12)] + target[n:]
			case 2:
				target = target[:n] + target[n+1:]
			case 3:
				method = []string{"POST", "PUT", "DELETE", "PATCH", "POSTT", "Post"}[r.IntN(6)]
			case 4:
				target = strings.Replace(target, "?", []string{"/?", "%2F?", ".json?", ";x?", "??"}[r.IntN(5)], 1)
			case 5:
				body += " "
			case 6:
				target = strings.Replace(target, "events", []string{"Events", "%65vents", "EVENTS", "events/"}[r.IntN(4)], 1)
			case 7:
				target = strings.Replace(target, "/apps/", []string{"//apps/", "/Apps/", "/x/../apps/", "/apps//", "/./apps/"}[r.IntN(5)], 1)
			}
			if target == "" {
				target = "/"
			}
		}
		answers := [...]reply{g.sendKept(t, &kept[0], false, method, target, body), g.sendKept(t, &kept[1], true, method, target, body), g.sendBy(t, "HTTP/2", method, target, body)}
		counts[answers[0].status]++
		for w, got := range answers {
			if signature.MatchString(got.body) {
				t.Fatalf("%s: %s %s: a signature in %s", ways[w], method, target, got.body)
			}
			first := answers[0]
			if got.status != first.status || got.outcome != first.outcome || target[0] == '/' && got.body != first.body || got.header.Get("Pushguard-Reason") != first.header.Get("Pushguard-Reason") {
				t.Fatalf("%q %q\n%s: %d %s %s\n%s: %d %s %s", method, target, ways[0], first.status, first.outcome, first.body, ways[w], got.status, got.outcome, got.body)
			}
		}
	}
	t.Logf("%d requests by %d ways: %v", *everyWay, len(ways), counts)
	if counts[200] < *everyWay/20 || counts[400] < *everyWay/20 || counts[401] < *everyWay/50 {
		t.Error("the generator tests little")
	}
	g.app.Upstream.Codes(func(status int, n int64) {
		if status == 401 {
			t.Errorf("Pusher refused %d signatures of pushguard's", n)
		}
	})
}
