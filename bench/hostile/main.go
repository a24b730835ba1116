// Hostile attacks a running serve over loopback and tells what came of it:
// what the attacker was answered, how much memory the process gained, and what
// another caller's p99 was meanwhile.
//
//	go run ./bench/hostile              # about half a minute
//	go run ./bench/hostile -for 5s      # each attack for longer
//
// Exit code 1 if an attack published something that it must not, if the process
// ended, or if the other caller lost a publish.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
)

const appID, appKey, appSecret = "1234", "hostile-key", "hostile-secret"

// attack sends once and returns what it was answered, in a few words; many runs
// side by side until the time is over.
type attack struct {
	name, sends string
	side        int // how many at once
	once        func(t *target) string
}

type target struct{ addr string }

func (t *target) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", t.addr, 5*time.Second)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return c, err
}

// say sends raw bytes and returns the first line of the answer, or how it ended.
func (t *target) say(raw string) string {
	c, err := t.dial()
	if err != nil {
		return "no connection"
	}
	defer c.Close()
	if _, err := io.WriteString(c, raw); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return "cut off while sending"
	}
	return firstLine(c)
}

func firstLine(c net.Conn) string {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "closed, no answer"
	}
	return strings.TrimSpace(line)
}

// signed is the request line of a publish that would be accepted.
func signed(body string) string {
	path := "/apps/" + appID + "/events"
	return string(pusher.NewKey(appKey, appSecret).AppendSigned([]byte(path+"?"), "POST", []byte(path), nil, []byte(body), time.Now()))
}

const body = `{"name":"attack","channel":"c","data":"attack"}`

var attacks = []attack{
	{"slow headers", "one header byte, then silence", 200, func(t *target) string {
		return t.say("POST /apps/1234/events HTTP/1.1\r\nHost: x\r\nX: ")
	}},
	{"slow body", "a length of 1000, 3 bytes, then silence", 200, func(t *target) string {
		return t.say("POST /apps/1234/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
	}},
	{"large body", "a length of 1 GiB", 50, func(t *target) string {
		return t.say("POST /apps/1234/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n" + strings.Repeat("a", 64<<10))
	}},
	{"endless chunks", "64 KiB chunks until cut off", 20, func(t *target) string {
		return t.say("POST /apps/1234/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat("a", 65536)+"\r\n", 64))
	}},
	{"length and chunks", "signed, both Content-Length and Transfer-Encoding", 5, func(t *target) string {
		return t.say("POST " + signed(body) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
	}},
	{"two lengths", "signed, two different Content-Length", 5, func(t *target) string {
		return t.say("POST " + signed(body) + fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Length: 3\r\n\r\n%s", len(body), body))
	}},
	{"unknown coding", "signed, Transfer-Encoding: xchunked beside a length", 5, func(t *target) string {
		return t.say("POST " + signed(body) + fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	}},
	{"coding twice", "signed, chunked and identity", 5, func(t *target) string {
		return t.say("POST " + signed(body) + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
	}},
	{"space before colon", "signed, \"Content-Length :\"", 5, func(t *target) string {
		return t.say("POST " + signed(body) + fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nContent-Length : %d\r\n\r\n%s", len(body), body))
	}},
	{"folded header", "signed, a length that goes on in the next line", 5, func(t *target) string {
		return t.say("POST " + signed(body) + fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n %d\r\n\r\n%s", len(body), body))
	}},
	{"signed length", "signed, Content-Length: +N", 5, func(t *target) string {
		return t.say("POST " + signed(body) + fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nContent-Length: +%d\r\n\r\n%s", len(body), body))
	}},
	{"chunk overflow", "signed, a chunk size of 17 digits", 5, func(t *target) string {
		return t.say("POST " + signed(body) + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\n" + body + "\r\n0\r\n\r\n")
	}},
	{"absolute form", "unsigned, the target is a URL of another host", 5, func(t *target) string {
		return t.say("POST http://169.254.169.254/apps/1234/events HTTP/1.1\r\nHost: y\r\nContent-Length: 2\r\n\r\n{}")
	}},
	{"CONNECT", "CONNECT to another host", 5, func(t *target) string {
		return t.say("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n")
	}},
	{"header flood", "2000 headers of 100 bytes", 20, func(t *target) string {
		return t.say("POST /apps/1234/events HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-"+strings.Repeat("h", 90)+": v\r\n", 2000) + "\r\n")
	}},
	{"h2c upgrade", "Upgrade: h2c", 5, func(t *target) string {
		return t.say("GET /apps/1234/channels HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	}},
	{"h2 preface", "PRI * HTTP/2.0", 5, func(t *target) string { return t.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }},
	{"noise", "TLS hello at the plain port", 20, func(t *target) string {
		return t.say("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00\xff", 256) + "\r\n\r\n")
	}},
	{"connections", "open, say nothing, hold", 1000, func(t *target) string {
		c, err := t.dial()
		if err != nil {
			return "no connection"
		}
		defer c.Close()
		return firstLine(c)
	}},
	{"pipelining", "500 unsigned requests in one write", 10, func(t *target) string {
		return t.say(strings.Repeat("POST /apps/1234/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 500))
	}},
	{"guessing", "signed with a wrong secret", 20, func(t *target) string {
		path := "/apps/" + appID + "/events"
		uri := pusher.NewKey(appKey, "guess").AppendSigned([]byte(path+"?"), "POST", []byte(path), nil, []byte(body), time.Now())
		return t.say("POST " + string(uri) + fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
	}},
}

func main() {
	long := flag.Duration("for", 2*time.Second, "how long each attack lasts")
	only := flag.String("only", "", "run only the attacks whose name contains this")
	binary := flag.String("binary", "", "pushguard to attack; built from this tree if empty")
	flag.Parse()
	if err := run(os.Stdout, *binary, *only, *long); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, binary, only string, long time.Duration) error {
	dir, err := os.MkdirTemp("", "pushguard-hostile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "pushguard")
		if text, err := exec.Command("go", "build", "-o", binary, "github.com/pushguard/pushguard/cmd/pushguard").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, text)
		}
	}
	server := sim.New(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, MessagesPerDay: 1 << 40, Subscribers: 1})
	upstream := httptest.NewServer(server)
	defer upstream.Close()
	file, addrs := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "addr.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, "listen: \"127.0.0.1:0\"\nadmin: { listen: \"127.0.0.1:0\" }\ndata_dir: %s/data\nread_timeout: 1s\naccounts: [ { name: a, plan: { messages_per_day: 1000000000 }, apps: [ { id: %q, key: %s, secret: %s, upstream: %q } ] } ]\n",
		dir, appID, appKey, appSecret, upstream.URL), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(binary, "serve", "--config", file, "--addr-file", addrs, "--log-level", "error")
	cmd.Env, cmd.Stderr = append(os.Environ(), "GOMEMLIMIT=256MiB"), os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { _ = cmd.Process.Kill(); <-ended }()
	var at struct{ Data string }
	for end := time.After(30 * time.Second); at.Data == ""; {
		select {
		case <-end:
			return errors.New("serve did not come up")
		case <-ended:
			return errors.New("serve ended")
		case <-time.After(20 * time.Millisecond):
			if text, err := os.ReadFile(addrs); err == nil {
				_ = json.Unmarshal(text, &at)
			}
		}
	}
	t := &target{addr: at.Data}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "attack\tsent\ttimes\tanswers\tmemory\tothers' p99\tothers lost")
	bad := 0
	others := func(d time.Duration) (time.Duration, int) { return publish(t.addr, d) }
	p99, lost := others(long)
	fmt.Fprintf(table, "none\t\t\t\t%s\t%s\t%d\n", memory(cmd.Process.Pid), p99.Round(100*time.Microsecond), lost)
	for _, a := range attacks {
		if !strings.Contains(a.name, only) {
			continue
		}
		answers, times := map[string]int{}, 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		stop := time.Now().Add(long)
		for range a.side {
			wg.Go(func() {
				for time.Now().Before(stop) {
					got := a.once(t)
					mu.Lock()
					answers[got]++
					times++
					mu.Unlock()
				}
			})
		}
		p99, lost := others(long)
		wg.Wait()
		var said []string
		for text, n := range answers {
			said = append(said, fmt.Sprintf("%s (%d)", text, n))
			if strings.Contains(text, " 200 ") {
				bad++
			}
		}
		slices.Sort(said)
		if lost > 0 {
			bad++
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%d\n", a.name, a.sends, times, strings.Join(said, ", "), memory(cmd.Process.Pid), p99.Round(100*time.Microsecond), lost)
		select {
		case <-ended:
			table.Flush()
			return fmt.Errorf("%s ended the process", a.name)
		default:
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d attacks had an effect", bad)
	}
	return nil
}

// publish is the other caller: 100 a second, open loop.
func publish(addr string, long time.Duration) (p99 time.Duration, lost int) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32, Proxy: nil}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var took []time.Duration
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(long); ; {
		select {
		case <-end:
			wg.Wait()
			slices.Sort(took)
			if len(took) == 0 {
				return 0, lost
			}
			return took[len(took)*99/100], lost
		case <-tick.C:
		}
		wg.Go(func() {
			began := time.Now()
			resp, err := client.Post("http://"+addr+signed(body), "application/json", strings.NewReader(body))
			ok := err == nil && resp.StatusCode == http.StatusOK
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			if !ok {
				lost++
				return
			}
			took = append(took, time.Since(began))
		})
	}
}

// memory is the process's resident set.
func memory(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "unknown"
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(rest, "\n")
	var kb int
	if _, err := fmt.Sscanf(strings.TrimSpace(line), "%d kB", &kb); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%d MiB", kb>>10)
}
