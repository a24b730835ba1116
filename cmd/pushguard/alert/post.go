package alert

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// pagerDutyURL is from https://developer.pagerduty.com/docs/events-api-v2-overview.
const pagerDutyURL = "https://events.pagerduty.com/v2/enqueue"

// check says what is wrong with a target, without its secrets.
func (t *Target) check() error {
	if t.Kind == PagerDuty {
		if t.RoutingKey == "" {
			return fmt.Errorf("alert target %s: there is no routing key", t)
		}
		if t.URL == "" {
			t.URL = pagerDutyURL
		}
	}
	u, err := url.Parse(t.URL)
	switch {
	case t.Kind != Slack && t.Kind != PagerDuty && t.Kind != Webhook:
		return fmt.Errorf("alert target %s: it can be slack, pagerduty or webhook", t)
	case err != nil || u.Host == "":
		return fmt.Errorf("alert target %s: its URL is none", t)
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("alert target %s: its URL must begin with https:// or http://", t)
	case u.Scheme == "http" && t.Kind != Webhook && !loopback(u.Hostname()):
		return fmt.Errorf("alert target %s: its URL is a secret and must begin with https://", t)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newClient(cfg Config) *http.Client {
	transport := cfg.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: noLinkLocal}).DialContext
		t.MaxIdleConnsPerHost = 1
		t.IdleConnTimeout = 30 * time.Second
		transport = t
	}
	return &http.Client{
		Transport: transport,
		Timeout:   cfg.Timeout,
		// A redirect would carry the alert, and a secret, to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// result is what became of one try.
type result struct {
	err   error // nil: taken; never holds a URL
	final bool  // another try would be answered the same
	after time.Duration
}

const (
	maxAnswer = 64 << 10
	maxAfter  = time.Hour
)

// post tries once.
func (s *Sender) post(ctx context.Context, now time.Time, t Target, a *Alert) result {
	body, err := t.body(a)
	if err != nil {
		return result{err: err, final: true}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return result{err: errors.New("its URL cannot be used"), final: true}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "pushguard")
	req.Header.Set("Idempotency-Key", header(a.key()))
	res, err := s.client.Do(req)
	if err != nil {
		return result{err: plain(err)}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // so that the connection can be used again
	res.Body.Close()
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return result{}
	case code >= 300 && code < 400:
		return result{err: fmt.Errorf("answered %d: redirects are not followed, give the address itself", code), final: true}
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500:
		return result{err: fmt.Errorf("answered %d", code), after: retryAfter(res.Header.Get("Retry-After"), now)}
	default:
		return result{err: fmt.Errorf("answered %d: check its URL and key", code), final: true}
	}
}

func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, maxAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), maxAfter)
	}
	return 0
}

// plain says what went wrong in words that hold no address: http.Client's own
// error begins with the URL, and those of the net package have hosts.
func plain(err error) error {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	var timeout interface{ Timeout() bool }
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("stopped by the shutdown")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	case errors.As(err, &dns):
		return errors.New("its host's name cannot be resolved")
	case errors.As(err, &cert):
		return errors.New("its certificate is not trusted")
	case errors.As(err, &record):
		return errors.New("it does not speak TLS")
	case errors.As(err, &op) && op.Op == "dial":
		return errors.New("no connection")
	}
	return errors.New("the connection broke")
}

// body is the alert in the target's language.
func (t *Target) body(a *Alert) ([]byte, error) {
	switch t.Kind {
	case Slack:
		return json.Marshal(map[string]string{"text": slackText(a)})
	case PagerDuty:
		return json.Marshal(pagerDutyEvent(t.RoutingKey, a))
	}
	return json.Marshal(struct {
		Version int    `json:"version"`
		Source  string `json:"source"`
		*Alert
	}{1, "pushguard", a})
}

// slackText is in Slack's mrkdwn; https://docs.slack.dev/messaging/formatting-message-text
// says what must be escaped. Names come from callers: they must not make links,
// nor call a whole channel.
func slackText(a *Alert) string {
	safe := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b", "`", "'")
	mark := map[Severity]string{Critical: ":rotating_light:", Error: ":red_circle:", Warning: ":warning:", Info: ":white_check_mark:"}[a.Severity]
	var b strings.Builder
	fmt.Fprintf(&b, "%s *%s*\n%s", mark, safe.Replace(flat(a.Title)), safe.Replace(a.Text))
	if a.Command != "" {
		fmt.Fprintf(&b, "\n`%s`", safe.Replace(flat(a.Command)))
	}
	if link := cmp.Or(a.Link, a.Runbook); link != "" {
		fmt.Fprintf(&b, "\n%s", safe.Replace(flat(link)))
	}
	return cut(b.String(), 4000)
}

type pagerDuty struct {
	RoutingKey  string            `json:"routing_key"`
	EventAction string            `json:"event_action"`
	DedupKey    string            `json:"dedup_key"`
	Client      string            `json:"client,omitempty"`
	ClientURL   string            `json:"client_url,omitempty"`
	Payload     *pagerDutyPayload `json:"payload,omitempty"`
}

type pagerDutyPayload struct {
	Summary   string            `json:"summary"`
	Source    string            `json:"source"`
	Severity  Severity          `json:"severity"`
	Timestamp string            `json:"timestamp,omitempty"`
	Component string            `json:"component,omitempty"`
	Group     string            `json:"group,omitempty"`
	Class     string            `json:"class,omitempty"`
	Details   map[string]string `json:"custom_details,omitempty"`
}

// pagerDutyEvent is by https://developer.pagerduty.com/docs/send-alert-event:
// a summary of 1024 characters and a dedup_key of 255 at most.
func pagerDutyEvent(key string, a *Alert) pagerDuty {
	e := pagerDuty{RoutingKey: key, EventAction: "trigger", DedupKey: cut("pushguard-"+a.ID, 255), Client: "pushguard", ClientURL: cmp.Or(a.Link, a.Runbook)}
	switch a.Phase {
	case "resolved":
		e.EventAction = "resolve"
	case "acknowledged":
		e.EventAction = "acknowledge"
	}
	details := map[string]string{"text": a.Text}
	for k, v := range map[string]string{"culprit": a.Culprit, "forecast": a.Forecast, "command": a.Command, "runbook": a.Runbook} {
		if v != "" {
			details[k] = v
		}
	}
	for k, v := range a.Details {
		details[k] = v
	}
	e.Payload = &pagerDutyPayload{
		Summary: cut(flat(a.Title), 1024), Source: "pushguard/" + a.Account, Severity: a.Severity,
		Timestamp: a.At.UTC().Format(time.RFC3339), Component: a.Culprit, Group: a.Account, Class: "quota", Details: details,
	}
	return e
}

// flat keeps a text on one line.
func flat(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x2028 && r <= 0x202e {
			return ' '
		}
		return r
	}, s)
}

func header(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, cut(s, 200))
}

// cut shortens s to n bytes, not inside a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// noLinkLocal refuses to connect to what a name turned out to mean, if that is a
// link-local address: there live the metadata services of clouds.
func noLinkLocal(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	host, _, _ = strings.Cut(host, "%")
	if ip := net.ParseIP(host); ip == nil || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() {
		return errors.New("its host means a link-local address, where clouds keep their machines' credentials")
	}
	return nil
}
