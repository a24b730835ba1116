package main

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher"
)

// The one app of the run, and its account.
const appID, appKey, appSecret = "1234", "chaos-key", "chaos-secret"
const account = "chaos"

// load is what callers sent and were told.
type load struct {
	fleet  *fleet
	client *fasthttp.Client
	key    *pusher.Key

	mu         sync.Mutex
	offered    int
	sent       int
	refused    int
	unanswered int // no connection, or it ended without an answer
	unnamed    int // refusals without outcome or reason
	answers    map[string]int
	accepted   []string
	examples   []string

	classes      bool // a third each is bulk, normal and critical
	began        time.Time
	firstRefused map[string]time.Duration // since the fault, by priority
}

// kills counts those of a scene.
var kills atomic.Int64

// faulty says when the fault began.
func (l *load) faulty(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began, l.firstRefused = now, map[string]time.Duration{}
}

// driveUntil publishes at rate a second until stop, and returns when every answer is in.
func (l *load) driveUntil(rate int, stop <-chan struct{}) {
	var wg sync.WaitGroup
	began := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for on := true; on; {
		select {
		case <-stop:
			on = false
		case now := <-tick.C:
			for due := int(now.Sub(began).Seconds() * float64(rate)); n < due; n++ {
				id := n
				wg.Go(func() { l.publish(id) })
			}
		}
	}
	wg.Wait()
	l.offered = n
}

func newLoad(f *fleet) *load {
	return &load{fleet: f, key: pusher.NewKey(appKey, appSecret), answers: map[string]int{}, client: &fasthttp.Client{
		MaxConnsPerHost: 4096, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxIdemponentCallAttempts: 1,
		RetryIfErr: func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
		Dial:       func(addr string) (net.Conn, error) { return fasthttp.DialTimeout(addr, time.Second) },
	}}
}

// drive publishes at rate a second, whether answers come or not, and returns when
// every answer is in.
func (l *load) drive(rate int, length time.Duration) {
	var wg sync.WaitGroup
	began := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for now := range tick.C {
		passed := now.Sub(began)
		for due := int(min(passed, length).Seconds() * float64(rate)); n < due; n++ {
			id := n
			wg.Go(func() { l.publish(id) })
		}
		if passed >= length {
			break
		}
	}
	wg.Wait()
	l.offered = n
}

// useUp publishes, now that nothing is broken any more, until every replica says
// that the plan is spent: what is left then is left for good.
func (l *load) useUp() error {
	refused := 0
	for end := time.Now().Add(patience); refused < 30; l.offered++ {
		if time.Now().After(end) {
			return fmt.Errorf("after %v the plan is still not used up: %v", patience, l.answers)
		}
		if l.publish(l.offered) == "403 over_budget plan_spent" {
			refused++
			stage.Pause(50 * time.Millisecond) // who waited in vain for what others hold asks again with the next heartbeat
			continue
		}
		refused = 0
	}
	return nil
}

var turn atomic.Uint64

// publish returns the answer as note counts it.
func (l *load) publish(n int) string {
	id := "c" + strconv.Itoa(n)
	addr := l.fleet.address(turn.Add(1))
	if addr == "" {
		return l.note(id, 0, "", "no replica is up")
	}
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	name := "chaos"
	class := "normal"
	if l.classes {
		class = []string{"bulk", "normal", "critical"}[n%3]
		name = class
	}
	body := fmt.Appendf(nil, `{"name":%q,"channel":"room-%d","data":%q}`, name, n%512, id)
	path := "/apps/" + appID + "/events"
	req.SetRequestURI("http://" + addr + string(l.key.AppendSigned([]byte(path+"?"), "POST", []byte(path), nil, body, time.Now())))
	req.Header.SetMethod("POST")
	req.Header.SetContentType("application/json")
	req.SetBody(body)
	if err := l.client.Do(req, resp); err != nil {
		return l.note(id, 0, "", err.Error())
	}
	if resp.StatusCode() != 200 {
		l.mu.Lock()
		if _, ok := l.firstRefused[class]; !ok && l.firstRefused != nil {
			l.firstRefused[class] = time.Since(l.began)
		}
		l.mu.Unlock()
	}
	return l.note(id, resp.StatusCode(), string(resp.Header.Peek("Pushguard-Outcome")), string(resp.Header.Peek("Pushguard-Reason")))
}

func (l *load) note(id string, status int, outcome, reason string) (answer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case status == 0:
		l.unanswered++
		l.answers["no answer: "+cause(reason)]++
		return ""
	case status == 200 && outcome == "sent":
		l.sent++
		l.accepted = append(l.accepted, id)
	case status == 200:
		l.unnamed++
		l.example(fmt.Sprintf("%s: 200 %q", id, outcome))
	default:
		l.refused++
		if outcome == "" || reason == "" {
			l.unnamed++
			l.example(fmt.Sprintf("%s: %d %q %q", id, status, outcome, reason))
		}
	}
	answer = fmt.Sprintf("%d %s %s", status, outcome, reason)
	l.answers[answer]++
	return answer
}

// cause is an error without the addresses in it.
func cause(text string) string {
	for i := len(text) - 1; i > 0; i-- {
		if text[i] == ':' && i+1 < len(text) && text[i+1] == ' ' {
			return text[i+2:]
		}
	}
	return text
}

func (l *load) example(text string) {
	if len(l.examples) < 5 {
		l.examples = append(l.examples, text)
	}
}
