package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// call is a webhook as the app's own endpoint got it.
type call struct{ key, signature, kind, body string }

func signed(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// Pusher knows one URL for webhooks. When that becomes pushguard's, the app
// must still get every one, with a signature that it can check.
func TestWebhooksArePassedOnAtLeastOnce(t *testing.T) {
	var status atomic.Int32
	got := make(chan call, 16)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/pusher/hooks" || r.URL.RawQuery != "token=t" || r.Method != "POST" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		got <- call{r.Header.Get("X-Pusher-Key"), r.Header.Get("X-Pusher-Signature"), r.Header.Get("Content-Type"), string(b)}
		w.WriteHeader(int(status.Load()))
	}))
	defer app.Close()
	up := startSim(t, "--messages-per-day", "1000", "--subscribers", "1")
	config := oneApp(up.addr)
	config = strings.Replace(config, "        callers:\n", "        forward_webhooks: "+app.URL+"/pusher/hooks?token=t\n        callers:\n", 1)
	config += "    rules:\n      - { match: { channel: \"*\" }, vacant: skip }\n"
	g := serve(t, "guard", t.TempDir(), config)

	// With spaces and an order that no encoder here would write: the signature is over these bytes.
	body := fmt.Sprintf(`{ "events":[ {"channel":"room", "name":"channel_vacated"} ],"time_ms": %d }`, time.Now().UnixMilli())
	post := func(signature string) int {
		t.Helper()
		req, err := http.NewRequest("POST", "http://"+g.data+"/webhooks/"+appID, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Pusher-Key", appKey)
		req.Header.Set("X-Pusher-Signature", signature)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); strings.Contains(string(b), "token=t") {
			t.Errorf("the answer shows the endpoint's URL: %s", b)
		}
		return resp.StatusCode
	}
	taken := func() call {
		t.Helper()
		select {
		case c := <-got:
			return c
		case <-time.After(patience):
			t.Fatal("the app's endpoint was not called")
			return call{}
		}
	}
	want := call{appKey, signed(appSecret, body), "application/json", body}

	if s := post(signed(wrongSecret, body)); s != http.StatusUnauthorized || len(got) != 0 {
		t.Errorf("a forged webhook got %d, and the endpoint %d calls", s, len(got))
	}
	status.Store(http.StatusInternalServerError)
	if s := post(want.signature); s/100 == 2 {
		t.Errorf("Pusher was told %d although the app did not take it: it would not send it again", s)
	}
	if c := taken(); c != want {
		t.Errorf("got %+v", c)
	}
	status.Store(http.StatusNoContent)
	if s := post(want.signature); s != http.StatusOK {
		t.Errorf("Pusher sent it again and was told %d", s)
	}
	if c := taken(); c != want {
		t.Errorf("got %+v", c)
	}
	app.Close()
	if s := post(want.signature); s/100 == 2 {
		t.Errorf("Pusher was told %d although the app is gone", s)
	}
	until(t, "the counts", func() bool {
		_, m := g.get(t, "/metrics")
		return strings.Contains(m, `pushguard_webhooks_total{what="passed_on"} 1`) &&
			strings.Contains(m, `pushguard_webhooks_total{what="not_passed_on"} 2`)
	})
	// It taught, and once is as good as three times.
	status0 := up.stats(t).Messages
	resp, err := http.Post("http://"+g.data+signedAs(appKey, appSecret, `{"name":"e","channel":"room","data":"{}"}`, time.Now()), "application/json", strings.NewReader(`{"name":"e","channel":"room","data":"{}"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if o := resp.Header.Get("Pushguard-Outcome"); o != "vacant" || up.stats(t).Messages != status0 {
		t.Errorf("a publish to the empty channel: %s %s", resp.Status, o)
	}
	if strings.Contains(g.out.String(), "token=t") {
		t.Error("the log shows the endpoint's URL")
	}
}
