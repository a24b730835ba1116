package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/wire"
)

// What an answer of the upstream means. Pusher's own are passed on; what is none of Pusher's, a proxy's page in front of it or a
// server that is no Channels server, is a failure that says what is there and what to check.

var (
	headerContentEncoding = []byte("Content-Encoding")
	headerRetryAfter      = []byte(wire.HeaderRetry)
	headerLocation        = []byte("Location")

	pathOfTerminate = []byte("/terminate_connections")
)

const (
	// maxDecoded bounds an answer whose coding is undone.
	maxDecoded = 8 << 20
	// maxAnswerHead bounds an answer's status line and headers.
	maxAnswerHead = 64 << 10
	// maxRetryAfter bounds what an upstream may ask callers to wait: a day.
	maxRetryAfter = 24 * time.Hour
)

// shapeOf says what a 2xx answer to a request must be.
type shape uint8

const (
	anyShape    shape = iota // an endpoint that is not known
	objectShape              // a JSON object
	legacyShape              // that, or 202 with whatever body
)

func shapeOf(out *outgoing) shape {
	switch {
	case out.method == http.MethodHead:
		return anyShape
	case pusher.IsPublishPath(out.path):
		if bytes.Contains(out.path, pathOfChannels) {
			return legacyShape
		}
		return objectShape
	case bytes.HasSuffix(out.path, pathOfTerminate):
		return objectShape
	case out.method == http.MethodGet && isChannelsPath(out.path):
		return objectShape
	}
	return anyShape
}

var pathOfChannels = []byte("/channels")

// isChannelsPath reports whether a canonical path is /apps/ID/channels or below.
func isChannelsPath(path []byte) bool {
	rest, ok := bytes.CutPrefix(path, pathApps)
	if !ok {
		return false
	}
	i := bytes.IndexByte(rest, '/')
	return i > 0 && (bytes.Equal(rest[i:], pathOfChannels) || bytes.HasPrefix(rest[i:], []byte("/channels/")))
}

// understand says what an answer below 500 to a request means. It does not touch the breaker: faulty reports whether the answer is
// a failure of the upstream.
func (u *Upstream) understand(j *job, out *outgoing, resp *fasthttp.Response, now time.Time) (got answer, faulty bool) {
	status := resp.StatusCode()
	got = answer{fate: limiter.Delivered, outcome: limiter.Sent, status: status, body: resp.Body(), contentType: resp.Header.ContentType()}
	if len(got.contentType) > 0 && len(got.contentType) < 200 && status == fasthttp.StatusOK && len(got.body) == 2 && string(got.body) == "{}" {
		return got, false // what nearly every call is answered
	}
	if coding := resp.Header.PeekBytes(headerContentEncoding); len(coding) > 0 {
		if plain, ok := decoded(coding, got.body); ok {
			got.body = plain
		} else {
			got.encoding = coding
		}
	}
	if len(got.contentType) >= 200 || hasSignature(got.contentType) {
		got.contentType = contentPlain
	}
	if status < 300 {
		return u.understandSuccess(j, out, got, now)
	}
	got.fate, got.word = limiter.Refused, "upstream_refused"
	got.retryAfter = retryAfter(resp.Header.PeekBytes(headerRetryAfter), now)
	if len(got.encoding) == 0 {
		got.body = pusher.WithoutSignatures(got.body)
	}
	switch {
	case pusher.IsQuotaExceeded(status, got.body):
		u.quotaSpent(&got, now)
	case status == fasthttp.StatusUnauthorized:
		u.unauthorized(&got, got.body)
	case status < 400:
		u.redirected(&got, resp.Header.PeekBytes(headerLocation))
	case len(got.encoding) > 0: // nobody here knows what it says, or quotes
		got.own("upstream_refused", fmt.Sprintf("%s refused this with %d, in a content coding that cannot be read here.", u.Host(), status))
	case len(got.body) == 0: // the .NET SDK fails on an answer without a word
		got.own("upstream_refused", fmt.Sprintf("%s refused this with %d, without a word.%s", u.Host(), status, whatPublish(status, out)))
	case pusher.IsHTML(got.contentType, got.body):
		got.own("upstream_refused", fmt.Sprintf("%s answered %d with an HTML page, not as Pusher does; check upstream (or cluster) in pushguard's configuration, and any proxy between.%s",
			u.Host(), status, whatPublish(status, out)))
	}
	return got, false
}

// whatPublish says of a status that a missing endpoint causes what that would be.
func whatPublish(status int, out *outgoing) string {
	if status == fasthttp.StatusNotFound || status == fasthttp.StatusMethodNotAllowed {
		return " It has no " + out.method + " " + string(pusher.WithoutSignatures(out.path)) + "."
	}
	return ""
}

// understandSuccess looks whether a 2xx answer is one.
func (u *Upstream) understandSuccess(j *job, out *outgoing, got answer, now time.Time) (answer, bool) {
	if n := len(j.target) - signatureDigits; n > 0 && len(got.body) >= signatureDigits && bytes.Contains(got.body, j.target[n:]) {
		got.body = bytes.ReplaceAll(got.body, j.target[n:], bytes.Repeat([]byte{'x'}, signatureDigits))
	}
	want := shapeOf(out)
	if want == anyShape || len(got.encoding) > 0 && !knownCoding(got.encoding) || want == legacyShape && got.status == fasthttp.StatusAccepted {
		return got, false
	}
	kind, text, code := pusher.ReadAnswer(got.body)
	if len(got.encoding) > 0 { // it says gzip, and is not
		kind = pusher.AnswerOther
	}
	switch kind {
	case pusher.AnswerObject:
		return got, false
	case pusher.AnswerError:
		text = bytes.Clone(pusher.WithoutSignatures(firstLine(text)))
		got.fate, got.word = limiter.Refused, "upstream_refused"
		status := fasthttp.StatusBadGateway
		if code >= 400 && code < 500 {
			status = code
		}
		switch {
		case pusher.IsQuotaExceeded(code, text):
			got.body, got.status = text, status
			u.quotaSpent(&got, now)
		case code == fasthttp.StatusUnauthorized:
			u.unauthorized(&got, text)
		default:
			said := fmt.Sprintf("%s answered %d, but its body says that this failed (code %d): %s", u.Host(), got.status, code, text)
			got.status = status
			got.own("upstream_refused", said)
		}
		return got, false
	}
	got.fate, got.outcome, got.reason, got.retryAfter = limiter.Unknown, limiter.Unavailable, limiter.UpstreamFailing, time.Second
	status := got.status
	got.status = fasthttp.StatusBadGateway
	got.own("upstream_not_pusher", fmt.Sprintf("%s answered %d with %s; Pusher answers with a JSON object. Check upstream (or cluster) in pushguard's configuration: a proxy or another server seems to answer in its place. %s",
		u.Host(), status, kind, fateText(out)))
	fault := fmt.Sprintf(" It last answered %d with %s, which is no answer of Pusher's.", status, kind)
	u.lastFault.Store(&fault)
	return got, true
}

// lacks tells that an endpoint is missing.
func (u *Upstream) lacks(endpoint string) {
	if u.onLacking != nil {
		u.onLacking(endpoint)
	}
}

// fault is what the last failures were, if they were answers.
func (u *Upstream) fault() string {
	if f := u.lastFault.Load(); f != nil {
		return *f
	}
	return ""
}

// fateText says what is to be thought of a request that got no answer to be believed.
func fateText(out *outgoing) string {
	switch {
	case out.method == http.MethodGet || out.method == http.MethodHead:
		return "Nothing was asked of it but to be read."
	case bytes.HasSuffix(out.path, pathOfTerminate):
		return "The connections may or may not have been terminated."
	case pusher.IsPublishPath(out.path):
		return "The publish may or may not have been delivered, so pushguard does not repeat it."
	}
	return "The request may or may not have had an effect, so pushguard does not repeat it."
}

// own makes an answer one of pushguard's, in plain text.
func (got *answer) own(word, text string) {
	got.word, got.text, got.body, got.contentType, got.encoding = word, text, []byte(text), contentPlain, nil
}

// quotaSpent is Pusher's word that the account has no messages left today.
func (u *Upstream) quotaSpent(got *answer, now time.Time) {
	got.fate, got.outcome, got.reason, got.word = limiter.Refused, limiter.OverBudget, limiter.Exhausted, limiter.Exhausted.String()
	got.quotaSpent = true
	got.text = string(firstLine(got.body))
	if pusher.IsHTML(got.contentType, got.body) || len(got.encoding) > 0 {
		got.text = "message quota exceeded"
	}
	if got.retryAfter == 0 {
		got.retryAfter = utcMidnight(now).Sub(now)
	}
	got.status = fasthttp.StatusForbidden
}

// unauthorized is what the upstream thinks of pushguard's own signature. Its text quotes signatures, so the caller gets another.
func (u *Upstream) unauthorized(got *answer, text []byte) {
	got.status = fasthttp.StatusUnauthorized
	what := "the app's key, secret or cluster in pushguard's configuration"
	switch {
	case containsFold(text, "timestamp expired"), containsFold(text, "timestamp required"):
		what = "the clock of pushguard's host (NTP)"
	case containsFold(text, "unknown auth_key"), containsFold(text, "does not exist"):
		what = "the app's id, key and cluster in pushguard's configuration"
	}
	said := string(pusher.WithoutSignatures(firstLine(text)))
	if u.onRefusedSignature != nil {
		u.onRefusedSignature(said)
	}
	got.own("upstream_unauthorized", "Pusher at "+u.url.Host+" does not accept what pushguard signs for this app. This request was signed rightly; check "+what+".")
}

func containsFold(b []byte, lower string) bool {
	return bytes.Contains(bytes.ToLower(b), []byte(lower))
}

// redirected says where the upstream seems to be instead. The address itself holds the signature.
func (u *Upstream) redirected(got *answer, location []byte) {
	status := got.status
	got.status = fasthttp.StatusBadGateway
	to, err := url.Parse(string(location))
	switch {
	case err != nil || len(location) == 0 || to.Host == "":
		got.own("upstream_redirects", fmt.Sprintf("%s answered %d, a redirect; Pusher sends none. Check upstream (or cluster) in pushguard's configuration. Nothing was delivered.", u.Host(), status))
	case to.Scheme == "https" && u.url.Scheme == "http" && to.Hostname() == u.url.Hostname():
		got.own("upstream_redirects", fmt.Sprintf("%s answered %d, a redirect to https: use https. Write upstream: https://%s in pushguard's configuration. Nothing was delivered.", u.Host(), status, to.Host))
	default:
		host := string(pusher.WithoutSignatures([]byte(to.Scheme + "://" + to.Host)))
		got.own("upstream_redirects", fmt.Sprintf("%s answered %d, a redirect to %s; pushguard does not follow it, because its request is signed. Check upstream (or cluster) in pushguard's configuration. Nothing was delivered.",
			u.Host(), status, host[:min(len(host), 200)]))
	}
}

// retryAfter reads a Retry-After, in seconds or as a date; 0 if there is none.
func retryAfter(v []byte, now time.Time) time.Duration {
	if len(v) == 0 {
		return 0
	}
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return min(max(0, time.Duration(min(n, int64(maxRetryAfter/time.Second)))*time.Second), maxRetryAfter)
	}
	if at, err := http.ParseTime(string(v)); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

const signatureDigits = 64

func hasSignature(b []byte) bool {
	return len(b) >= signatureDigits && len(pusher.WithoutSignatures(b)) != len(b)
}

// knownCoding reports whether decoded knows a coding.
func knownCoding(coding []byte) bool {
	switch string(bytes.ToLower(bytes.TrimSpace(coding))) {
	case "gzip", "x-gzip", "deflate":
		return true
	}
	return false
}

// decoded undoes the codings that this side knows, within a bound.
func decoded(coding, body []byte) ([]byte, bool) {
	var r io.Reader
	var err error
	switch string(bytes.ToLower(bytes.TrimSpace(coding))) {
	case "identity":
		return body, true
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
	default:
		return nil, false
	}
	if err != nil {
		return nil, false
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxDecoded+1))
	if err != nil || len(plain) > maxDecoded {
		return nil, false
	}
	return plain, true
}
