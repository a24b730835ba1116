package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store/redistest"
)

type fanout struct {
	Learned  int
	Occupied *int
	Asking   struct {
		On            bool
		Why           string
		Budget, Spent int64
		Samples       int64
		LastError     string `json:"last_error"`
	}
	Channel *struct {
		Subscribers int64
		Source      string
		AgeS        float64 `json:"age_s"`
		Empty       *struct{ Source string }
	}
}

func (g *guard) fanout(t *testing.T, channel string) (f fanout) {
	t.Helper()
	getJSON(t, "http://"+g.admin+"/api/v1/apps/"+appID+"/fanout?channel="+channel, &f)
	return f
}

// Two guards learn by themselves who subscribes, from one poll for both and a
// sample of the busy channel; what that costs is on the plan, to the message.
func TestGuardsLearnWhoSubscribes(t *testing.T) {
	up := startSim(t, "--messages-per-day", "1000000", "--subscribers", "1", "--subscribers-of", "lobby=3", "--subscribers-of", "hall=200")
	redis := redistest.Start(t)
	config := strings.Replace(oneApp(up.addr), "        callers:\n", "        learn: { poll: 1h, budget: 1% }\n        callers:\n", 1) +
		"    rules:\n      - { match: { channel: \"*\" }, vacant: skip }\nstore: " + redis.URL() + "\n"
	a, b := serve(t, "a", t.TempDir(), config), serve(t, "b", t.TempDir(), config)

	for _, g := range []*guard{a, b} {
		until(t, g.name+" knows of the poll", func() bool { n := g.fanout(t, "lobby").Occupied; return n != nil && *n == 2 })
		if f := g.fanout(t, "nobody"); f.Channel.Empty == nil || f.Channel.Empty.Source != "poll" || f.Channel.Source != "poll" {
			t.Errorf("%s: a channel that was not in the list: %+v", g.name, f.Channel)
		}
		if f := g.fanout(t, "hall"); f.Channel.Empty != nil || f.Channel.Subscribers != 1 || f.Channel.Source != "default" || f.Asking.Budget != 400_000 {
			t.Errorf("%s: %+v %+v", g.name, f, f.Channel)
		}
	}
	if n := up.stats(t).ByEndpoint["channels"]; n != 1 {
		t.Errorf("two guards polled %d times", n)
	}
	// A busy channel with more subscribers than anybody configured: soon both know.
	until(t, "the busy channel is known", func() bool {
		for range 8 {
			body := `{"name":"e","channel":"hall","data":"{}"}`
			resp, err := http.Post("http://"+a.data+signedAs(appKey, appSecret, body, time.Now()), "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		return a.fanout(t, "hall").Channel.Subscribers > 150 && b.fanout(t, "hall").Channel.Subscribers > 150
	})
	if f := b.fanout(t, "hall"); f.Channel.Source != "info" || f.Learned != 1 {
		t.Errorf("b: %+v %+v", f, f.Channel)
	}
	if n := up.stats(t).ByEndpoint["channel"]; n < 1 || n > 3 {
		t.Errorf("%d questions for one channel", n)
	}
	until(t, "what the questions cost is shown", func() bool {
		f, asked := a.fanout(t, ""), up.stats(t).ByEndpoint
		_, m := a.get(t, "/metrics")
		return f.Asking.On && f.Asking.Spent == asked["channels"]+asked["channel"] && f.Channel == nil &&
			strings.Contains(m, fmt.Sprintf("pushguard_learn_questions_total{app=%q,kind=\"sample\",result=\"ok\"} %d", appID, f.Asking.Samples))
	})
	if status, body := a.get(t, "/api/v1/apps/nobody/fanout"); status != http.StatusNotFound {
		t.Errorf("an app that is none: %d %s", status, body)
	}
}
