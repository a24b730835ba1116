package e2e

import (
	"bufio"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// signedPath signs as https://pusher.com/docs/channels/library_auth_reference/rest-api/#generating-authentication-signatures
// says, by hand: neither pushguard's own code nor an SDK's, so that it can
// contradict both. change, if given, alters the parameters before signing.
func signedPath(method, path, body, key, secret string, at time.Time, extra ...string) string {
	params := append([]string{
		"auth_key=" + key,
		fmt.Sprintf("auth_timestamp=%d", at.Unix()),
		"auth_version=1.0",
	}, extra...)
	if body != "" {
		sum := md5.Sum([]byte(body))
		params = append(params, "body_md5="+hex.EncodeToString(sum[:]))
	}
	slices.Sort(params)
	query := strings.Join(params, "&")
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s\n%s\n%s", method, path, query)
	return path + "?" + query + "&auth_signature=" + hex.EncodeToString(mac.Sum(nil))
}

func eventsPath(body string) string {
	return signedPath("POST", "/apps/"+appID+"/events", body, appKey, appSecret, time.Now())
}

// answer is one HTTP answer as it stood on the wire.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) outcome() string { return a.header.Get("Pushguard-Outcome") }

// client is for raw requests: kept-alive, never redirected, and never repeating
// anything by itself.
var client = &http.Client{
	Timeout:       15 * time.Second,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// post publishes one body, signed with the app's own key.
func post(addr, body string) (answer, error) { return postAs(addr, appID, appKey, appSecret, body) }

func postAs(addr, app, key, secret, body string) (answer, error) {
	return postTo(addr, "/apps/"+app+"/events", key, secret, body)
}

func postTo(addr, path, key, secret, body string) (answer, error) {
	target := signedPath("POST", path, body, key, secret, time.Now())
	// A reader without GetBody: net/http must not send it a second time.
	req, err := http.NewRequest("POST", "http://"+addr+target, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return answer{}, err
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// mustPost is post for when a network error is a failure.
func mustPost(t testing.TB, addr, body string) answer {
	t.Helper()
	a, err := post(addr, body)
	if err != nil {
		t.Fatal(scrub(err.Error()))
	}
	return a
}

// scrub takes the signature out of a network error of net/http.
func scrub(s string) string {
	before, after, found := strings.Cut(s, "auth_signature=")
	if !found {
		return s
	}
	return before + "…" + strings.TrimLeft(after, "0123456789abcdef")
}

// exchange writes bytes on a connection of its own and reads n final answers,
// with the interim ones (1xx) before them, or as many as come before the
// connection ends or 15 s have passed.
func exchange(addr, bytes string, n int) (all []answer, err error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	// The peer may answer and close before all is written: that is an answer.
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		_, _ = io.WriteString(c, bytes)
	}()
	r := bufio.NewReader(c)
	for final := 0; final < n; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			c.Close()
			<-wrote
			return all, err
		}
		b, err := io.ReadAll(resp.Body)
		all = append(all, answer{resp.StatusCode, resp.Header, string(b)})
		if resp.StatusCode >= 200 {
			final++
		}
		if err != nil {
			c.Close()
			<-wrote
			return all, err
		}
	}
	c.Close()
	<-wrote
	return all, nil
}
