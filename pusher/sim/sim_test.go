package sim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/pusher/pusher-http-go/v5"

	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/sim"
)

const (
	appID  = "1234"
	key    = "278d425bdf160c739803"
	secret = "7ad3773142a6692b25b8"
)

// clock is a clock that a test moves. The SDK signs with the real time, so tests
// of it start there.
type clock struct{ unix atomic.Int64 }

func (c *clock) Now() time.Time { return time.Unix(c.unix.Load(), 0) }

func start(t *testing.T, cfg sim.Config) (*sim.Server, *sdk.Client) {
	t.Helper()
	if cfg.Apps == nil {
		cfg.Apps = []sim.App{{ID: appID, Key: key, Secret: secret}}
	}
	s := sim.New(cfg)
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, &sdk.Client{AppID: cfg.Apps[0].ID, Key: cfg.Apps[0].Key, Secret: cfg.Apps[0].Secret, Host: addr}
}

func p[T any](v T) *T { return &v }

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused reports whether the SDK got this status and a body that begins so.
func refused(err error, status int, text string) bool {
	return err != nil && strings.HasPrefix(err.Error(), fmt.Sprintf("Status Code: %d - %s", status, text))
}

func TestSDKTrigger(t *testing.T) {
	s, c := start(t, sim.Config{Subscribers: 10})
	noErr(t, c.Trigger("orders", "created", map[string]string{"a": "<b>&"}))
	noErr(t, c.TriggerMulti([]string{"a;b", "c,d=e@f.g"}, "created", "plain"))
	_, err := c.TriggerWithParams("orders", "created", []byte("not for the sender"), sdk.TriggerParams{SocketID: p("12.34")})
	noErr(t, err)
	noErr(t, c.SendToUser("user 7/ü", "hello", "you"))

	type row struct {
		name, data, socket string
		channels           []string
		deliveries         int64
	}
	want := []row{
		{"created", `{"a":"\u003cb\u003e\u0026"}`, "", []string{"orders"}, 10}, // the SDK escapes, not we
		{"created", "plain", "", []string{"a;b", "c,d=e@f.g"}, 20},
		{"created", "not for the sender", "12.34", []string{"orders"}, 9},
		{"hello", "you", "", []string{"#server-to-user-user 7/ü"}, 10},
	}
	var got []row
	for i, e := range s.Events(-1) {
		got = append(got, row{e.Name, e.Data, e.SocketID, e.Channels, e.Deliveries})
		if e.Seq != int64(i+1) || e.App != appID || e.Key != key || e.Endpoint != "events" || len(e.BodyMD5) != 32 || e.At.IsZero() {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("arrived:\n%+v, want\n%+v", got, want)
	}
	if st := s.Stats(); st.Requests != 4 || st.Events != 4 || st.Deliveries != 49 || st.Messages != 4+49 || st.MessagesToday != 53 || st.ByEndpoint["events"] != 4 || st.ByStatus["200"] != 4 {
		t.Errorf("%+v", st)
	}
}

func TestSDKInfo(t *testing.T) {
	s, c := start(t, sim.Config{Subscribers: 3, SubscribersOf: []sim.Pattern{{"presence-?", 7}, {"presence-*", 250}}})
	one, err := c.TriggerMultiWithParams([]string{"presence-a", "room", "presence-big"}, "e", "d", sdk.TriggerParams{Info: p("user_count,subscription_count")})
	noErr(t, err)
	want := map[string]sdk.TriggerChannelListItem{
		"presence-a":   {UserCount: p(7), SubscriptionCount: p(7)},
		"room":         {SubscriptionCount: p(3)},
		"presence-big": {UserCount: p(100), SubscriptionCount: p(250)},
	}
	if !reflect.DeepEqual(one.Channels, want) {
		t.Errorf("got %+v", one.Channels)
	}
	if st := s.Stats(); st.Messages != 1+1+7+3+250 {
		t.Errorf("billed %d", st.Messages)
	}
	batch, err := c.TriggerBatch([]sdk.Event{
		{Channel: "presence-a", Name: "e", Data: "1", Info: p("user_count")},
		{Channel: "room", Name: "e", Data: "2", SocketID: p("1.2")},
		{Channel: "room", Name: "e", Data: "3", Info: p("subscription_count")},
	})
	noErr(t, err)
	items := []sdk.TriggerBatchChannelListItem{{UserCount: p(7)}, {}, {SubscriptionCount: p(3)}}
	if !reflect.DeepEqual(batch.Batch, items) {
		t.Errorf("got %+v", batch.Batch)
	}
	if st := s.Stats(); st.Messages != 262+3+2+(7+2+3) || st.Events != 4 || st.Requests != 2 {
		t.Errorf("%+v", st)
	}
	events := s.Events(3)
	if events[0].Request != 2 || events[2].Request != 2 || events[2].Endpoint != "batch_events" || events[2].Info != "subscription_count" {
		t.Errorf("%+v", events)
	}
}

func TestSDKReads(t *testing.T) {
	s, c := start(t, sim.Config{Subscribers: 2, SubscribersOf: []sim.Pattern{{"presence-room", 3}, {"empty*", 0}}})
	noErr(t, c.Trigger("cache-prices", "e", "42"))
	noErr(t, c.Trigger("empty-one", "e", "x"))

	list, err := c.Channels(sdk.ChannelsParams{})
	noErr(t, err)
	if len(list.Channels) != 2 || list.Channels["cache-prices"] != (sdk.ChannelListItem{}) {
		t.Errorf("%+v", list)
	}
	list, err = c.Channels(sdk.ChannelsParams{FilterByPrefix: p("presence-"), Info: p("user_count")})
	noErr(t, err)
	if !reflect.DeepEqual(list.Channels, map[string]sdk.ChannelListItem{"presence-room": {UserCount: 3}}) {
		t.Errorf("%+v", list)
	}
	if _, err = c.Channels(sdk.ChannelsParams{Info: p("user_count")}); !refused(err, 400, "info=user_count") {
		t.Error(err)
	}
	ch, err := c.Channel("presence-room", sdk.ChannelParams{Info: p("user_count,subscription_count")})
	noErr(t, err)
	if !ch.Occupied || ch.UserCount != 3 || ch.SubscriptionCount != 3 {
		t.Errorf("%+v", ch)
	}
	ch, err = c.Channel("empty-one", sdk.ChannelParams{})
	noErr(t, err)
	if ch.Occupied {
		t.Errorf("%+v", ch)
	}
	if _, err = c.Channel("room", sdk.ChannelParams{Info: p("user_count")}); !refused(err, 400, "") {
		t.Error(err)
	}
	users, err := c.GetChannelUsers("presence-room")
	noErr(t, err)
	if !reflect.DeepEqual(users.List, []sdk.User{{ID: "1"}, {ID: "2"}, {ID: "3"}}) {
		t.Errorf("%+v", users)
	}
	if _, err = c.GetChannelUsers("room"); !refused(err, 400, "") {
		t.Error(err)
	}
	// 2 publishes with 2 deliveries, 5 reads, 3 refusals that Pusher may count.
	st := s.Stats()
	want := map[string]int64{"events": 2, "channels": 3, "channel": 3, "users": 2}
	if st.Messages != 2+2+5+3 || !reflect.DeepEqual(st.ByEndpoint, want) {
		t.Errorf("%+v", st)
	}
}

func TestSDKRefusals(t *testing.T) {
	s, c := start(t, sim.Config{Billing: pusher.Billing{FailedFree: true}})
	for _, step := range []struct {
		name   string
		do     func() error
		status int
		text   string
	}{
		{"wrong secret", func() error { d := *c; d.Secret = "wrong"; return d.Trigger("a", "e", "") }, 401, `Invalid signature: you should have sent HmacSHA256Hex("POST\n/apps/1234/events\nauth_key=` + key + "&"},
		{"wrong key", func() error { d := *c; d.Key = "wrong"; return d.Trigger("a", "e", "") }, 401, "Unknown auth_key"},
		{"wrong app", func() error { d := *c; d.AppID = "9"; return d.Trigger("a", "e", "") }, 401, "Unknown auth_key"},
		{"long event name", func() error { return c.Trigger("a", strings.Repeat("x", 201), "") }, 400, "the event name"},
		{"batch of eleven", func() error {
			_, err := c.TriggerBatch(make11())
			return err
		}, 400, "The batch has more than 10 events"},
		{"too much data", func() error {
			d := *c
			d.OverrideMaxMessagePayloadKB = 100
			return d.Trigger("a", "e", strings.Repeat("x", 10241))
		}, 413, "The data content of this event exceeds the allowed maximum (10240 bytes). See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info"},
		{"user_count of a public channel", func() error {
			_, err := c.TriggerWithParams("a", "e", "", sdk.TriggerParams{Info: p("user_count")})
			return err
		}, 400, "info=user_count"},
	} {
		if err := step.do(); !refused(err, step.status, step.text) {
			t.Errorf("%s: %v", step.name, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the secret is shown: %v", step.name, err)
		}
	}
	if st := s.Stats(); st.Messages != 0 || st.Events != 0 || st.Refused != 0 || st.Requests != 7 {
		t.Errorf("%+v", st)
	}
}

func make11() []sdk.Event {
	batch := make([]sdk.Event, 11)
	for i := range batch {
		batch[i] = sdk.Event{Channel: "a", Name: "e", Data: ""}
	}
	return batch
}

// The account has 20 messages; each line is what a call costs and what becomes
// of it. A call that does not fit is refused and costs nothing, so a smaller one
// can still pass.
func TestPlanEnd(t *testing.T) {
	var now clock
	now.unix.Store(time.Now().Unix())
	s, c := start(t, sim.Config{
		Apps: []sim.App{{appID, key, secret}, {"5", "k5", "s5"}}, MessagesPerDay: 20, Subscribers: 4, Now: now.Now,
		SubscribersOf: []sim.Pattern{{"none", 0}},
	})
	other := &sdk.Client{AppID: "5", Key: "k5", Secret: "s5", Host: c.Host}
	step := func(what string, err error, ok bool, used, rejected int64) {
		t.Helper()
		if ok != (err == nil) || !ok && !refused(err, 403, "API call failed since (daily) message quota exceeded") {
			t.Errorf("%s: %v", what, err)
		}
		if st := s.Stats(); st.MessagesToday != used || st.Refused != rejected {
			t.Errorf("%s: used %d, refused %d; want %d, %d", what, st.MessagesToday, st.Refused, used, rejected)
		}
	}
	step("5 messages", c.Trigger("a", "e", ""), true, 5, 0)
	step("5 by another app", other.Trigger("a", "e", ""), true, 10, 0)
	step("9 messages", c.TriggerMulti([]string{"a", "b"}, "e", ""), true, 19, 0)
	step("5 do not fit", c.Trigger("a", "e", ""), false, 19, 1)
	step("1 fits", c.Trigger("none", "e", ""), true, 20, 1)
	step("1 does not", other.Trigger("none", "e", ""), false, 20, 2)
	_, err := c.Channels(sdk.ChannelsParams{})
	step("a read neither", err, false, 20, 3)
	if n := len(s.Events(-1)); n != 4 {
		t.Errorf("%d events arrived", n)
	}

	s.SetPlan(25)
	step("the plan is raised", c.Trigger("a", "e", ""), true, 25, 3)
	s.SetUsed(24)
	step("usage is set", c.Trigger("none", "e", ""), true, 25, 3)
	s.SetPlan(0)
	step("no plan", c.Trigger("none", "e", ""), true, 26, 3)
}

func TestDayChange(t *testing.T) {
	var now clock
	midnight := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	s := sim.New(sim.Config{Apps: []sim.App{{appID, key, secret}}, MessagesPerDay: 2, Now: now.Now})
	k := pusher.NewKey(key, secret)
	publish := func() int {
		body := []byte(`{"name":"e","data":"","channel":"a"}`)
		q := k.AppendSigned(nil, "POST", []byte("/apps/1234/events"), nil, body, now.Now())
		r := httptest.NewRequest("POST", "/apps/1234/events?"+string(q), strings.NewReader(string(body)))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	for _, step := range []struct {
		at           time.Duration // from midnight
		status       int
		day          string
		today, total int64
	}{
		{-2 * time.Second, 200, "2026-11-23", 1, 1},
		{-2 * time.Second, 200, "2026-11-23", 2, 2},
		{-1 * time.Second, 403, "2026-11-23", 2, 2},
		{0, 200, "2026-11-24", 1, 3},
		{-1 * time.Second, 200, "2026-11-24", 2, 4}, // a clock that goes back opens nothing
		{-1 * time.Second, 403, "2026-11-24", 2, 4},
		{23*time.Hour + 59*time.Minute, 403, "2026-11-24", 2, 4},
		{24 * time.Hour, 200, "2026-11-25", 1, 5},
	} {
		now.unix.Store(midnight.Add(step.at).Unix())
		status := publish()
		if st := s.Stats(); status != step.status || st.Day != step.day || st.MessagesToday != step.today || st.Messages != step.total {
			t.Errorf("at %v: %d, %+v", step.at, status, st)
		}
	}
}

func TestBilling(t *testing.T) {
	one := `{"name":"e","data":"","channel":"five"}`
	for _, c := range []struct {
		name     string
		billing  pusher.Billing
		endpoint string
		body     string
		want     int64
	}{
		{"one", pusher.Billing{}, "events", one, 6},
		{"excluded socket", pusher.Billing{}, "events", `{"name":"e","data":"","channel":"five","socket_id":"1.2"}`, 5},
		{"excluded socket of nobody", pusher.Billing{}, "events", `{"name":"e","data":"","channel":"none","socket_id":"1.2"}`, 1},
		{"info", pusher.Billing{}, "events", `{"name":"e","data":"","channel":"five","info":"subscription_count"}`, 7},
		{"info free", pusher.Billing{InfoFree: true}, "events", `{"name":"e","data":"","channel":"five","info":"subscription_count"}`, 6},
		{"multi", pusher.Billing{}, "events", `{"name":"e","data":"","channels":["five","none","two"]}`, 8},
		{"multi by channel", pusher.Billing{MultiChannelPerChannel: true}, "events", `{"name":"e","data":"","channels":["five","none","two"]}`, 10},
		{"batch", pusher.Billing{}, "batch_events", `{"batch":[` + one + `,` + one + `]}`, 12},
		{"batch by call", pusher.Billing{BatchPerCall: true}, "batch_events", `{"batch":[` + one + `,` + one + `]}`, 11},
		{"refused", pusher.Billing{}, "events", `{"name":"e"}`, 1},
		{"refused free", pusher.Billing{FailedFree: true}, "events", `{"name":"e"}`, 0},
		{"terminate", pusher.Billing{}, "users/u%2F1/terminate_connections", `{}`, 1},
	} {
		s := sim.New(sim.Config{Apps: []sim.App{{appID, key, secret}}, Billing: c.billing,
			SubscribersOf: []sim.Pattern{{"five", 5}, {"two", 2}, {"none", 0}}})
		post(s, "/apps/1234/"+c.endpoint, c.body)
		if got := s.Stats().Messages; got != c.want {
			t.Errorf("%s: %d messages, want %d", c.name, got, c.want)
		}
	}
}

func post(s *sim.Server, path, body string) *httptest.ResponseRecorder {
	return signed(s, "POST", path, "", body)
}

func signed(s *sim.Server, method, path, query, body string) *httptest.ResponseRecorder {
	var q pusher.Query
	if err := q.Parse([]byte(query)); err != nil {
		panic(err)
	}
	full := pusher.NewKey(key, secret).AppendSigned(nil, method, []byte(path), &q, []byte(body), time.Now())
	r := httptest.NewRequest(method, path+"?"+string(full), strings.NewReader(body))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	s := sim.New(sim.Config{Apps: []sim.App{{appID, key, secret}}, Subscribers: 2})
	for _, c := range []struct {
		method, path, query, body string
		status                    int
		want                      string // the whole answer, or its beginning if the status is no 2xx
	}{
		{"POST", "/apps/1234/events", "", `{"name":"e","data":"d","channel":"a"}`, 200, "{}"},
		{"POST", "/apps/1234/events", "name=e&data=d&channels[]=a&channels[]=b&info=subscription_count", "", 200, `{"channels":{"a":{"subscription_count":2},"b":{"subscription_count":2}}}`},
		{"POST", "/apps/1234/events", "", `{"name":"e","data":"d","channels":["a","a"],"info":"subscription_count"}`, 200, `{"channels":{"a":{"subscription_count":2}}}`},
		{"POST", "/apps/1234/batch_events", "", `{"batch":[{"name":"e","data":"d","channel":"a"}]}`, 200, "{}"},
		{"POST", "/apps/1234/channels/a/events", "name=old", "the data", 202, ""},
		{"POST", "/apps/1234/users/7/terminate_connections", "", "{}", 200, "{}"},
		{"GET", "/apps/1234/channels/cache-x", "info=cache,subscription_count", "", 200, `{"occupied":true,"subscription_count":2,"cache":null}`},
		{"POST", "/apps/1234/events", "", `{"name":"e","data":"\"d","channel":"cache-x"}`, 200, "{}"},
		{"GET", "/apps/1234/channels/cache-x", "info=cache", "", 200, `{"occupied":true,"cache":{"data":"\"d","ttl":1800}}`},
		{"GET", "/apps/1234/channels/presence-x/users", "", "", 200, `{"users":[{"id":"1"},{"id":"2"}]}`},
		{"GET", "/apps/1234/channels", "info=user_count&filter_by_prefix=presence-", "", 200, `{"channels":{}}`},
		{"GET", "/apps/1234/channels/%41-b", "", "", 200, `{"occupied":true}`},
		{"GET", "/apps/1234/channels/a%2Fb", "", "", 400, "Invalid channel name"},
		{"GET", "/apps/1234/events", "", "", 405, "The method"},
		{"POST", "/apps/1234/stats", "", "{}", 404, "There is no such endpoint"},
		{"POST", "/apps/1234/events", "", `{"name":"e","data":"d","channel":"a"`, 400, "The body is not valid JSON: it ends too early at byte 36"},
	} {
		w := signed(s, c.method, c.path, c.query, c.body)
		got := w.Body.String()
		if w.Code != c.status || c.status < 300 && got != c.want || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s?%s %s: %d %s", c.method, c.path, c.query, c.body, w.Code, got)
		}
		if kind := w.Header().Get("Content-Type"); c.status == 200 != strings.HasPrefix(kind, "application/json") || c.status >= 400 && !strings.HasPrefix(kind, "text/plain") {
			t.Errorf("%s %s: Content-Type %s", c.method, c.path, kind)
		}
	}
}

// Every failure mode, seen by the SDK, and whether the publish took effect.
func TestFailModes(t *testing.T) {
	s, c := start(t, sim.Config{})
	c.HTTPClient = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, step := range []struct {
		fail   sim.Fail
		text   string
		effect int
	}{
		{sim.FailNone, "", 1},
		{sim.FailError, "Status Code: 500", 0},
		{sim.FailErrorAfter, "Status Code: 500", 1},
		{sim.FailDrop, "EOF", 0},
		{sim.FailDropAfter, "EOF", 1},
		{sim.FailDisabled, "Status Code: 403 - Forbidden: app disabled", 0},
	} {
		s.Reset()
		s.SetFail(step.fail)
		err := c.Trigger("a", "e", "")
		if (err == nil) != (step.text == "") || err != nil && !strings.Contains(err.Error(), step.text) {
			t.Errorf("%q: %v", step.fail, err)
		}
		if st := s.Stats(); len(s.Events(-1)) != step.effect || st.Messages != int64(step.effect) {
			t.Errorf("%q: effect %d, %+v", step.fail, len(s.Events(-1)), st)
		}
	}

	// What hangs without effect is served when the mode ends.
	s.Reset()
	s.SetFail(sim.FailHang)
	done := make(chan error)
	go func() { done <- c.Trigger("a", "e", "") }()
	for s.Stats().Requests == 0 {
		runtime.Gosched()
	}
	s.SetFail(sim.FailNone)
	if err := <-done; err != nil || len(s.Events(-1)) != 1 {
		t.Errorf("after hanging: %v, %d events", err, len(s.Events(-1)))
	}

	// What hangs with effect never answers.
	s.SetFail(sim.FailHangAfter)
	go func() { done <- c.Trigger("a", "e", "") }()
	for len(s.Events(-1)) < 2 {
		runtime.Gosched()
	}
	s.Close()
	if err := <-done; err == nil {
		t.Error("answered after hang_after")
	}
}

func TestFailEvery(t *testing.T) {
	s, c := start(t, sim.Config{FailEvery: 3})
	var got []bool
	for range 7 {
		got = append(got, c.Trigger("a", "e", "") == nil)
	}
	if want := []bool{true, true, false, true, true, false, true}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if st := s.Stats(); st.Events != 5 || st.Messages != 5 || st.ByStatus["500"] != 2 {
		t.Errorf("%+v", st)
	}
}

func TestLatency(t *testing.T) {
	_, c := start(t, sim.Config{Latency: 30 * time.Millisecond})
	begin := time.Now()
	noErr(t, c.Trigger("a", "e", ""))
	if d := time.Since(begin); d < 30*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
}

// The shapes that programs outside rely on.
func TestStatsAndEventsJSON(t *testing.T) {
	s, c := start(t, sim.Config{Subscribers: 1, MessagesPerDay: 100})
	noErr(t, c.TriggerMulti([]string{"a", "b"}, "multi", "m"))
	body := "{\"name\":\"raw\",\"data\":\"\xff<&>\\u00e9\",\"channel\":\"a\",\"socket_id\":\"1.2\"}"
	if w := post(s, "/apps/1234/events", body); w.Code != 200 {
		t.Fatal(w.Body)
	}
	var stats map[string]any
	get(t, c.Host, "/sim/v1/stats", &stats)
	for name, want := range map[string]any{"requests": 2.0, "events": 2.0, "deliveries": 2.0, "messages": 4.0, "refused": 0.0,
		"by_endpoint": map[string]any{"events": 2.0}, "messages_per_day": 100.0} {
		if !reflect.DeepEqual(stats[name], want) {
			t.Errorf("%s is %v, want %v", name, stats[name], want)
		}
	}
	var raw []map[string]any
	get(t, c.Host, "/sim/v1/events?limit=1", &raw)
	if len(raw) != 1 || raw[0]["name"] != "raw" || raw[0]["channel"] != "a" || raw[0]["data_base64"] != "/zwmPsOp" || raw[0]["socket_id"] != "1.2" || raw[0]["endpoint"] != "events" {
		t.Errorf("%v", raw)
	}
	var events []sim.Event
	get(t, c.Host, "/sim/v1/events", &events)
	if !reflect.DeepEqual(events, s.Events(-1)) || events[1].Data != "\xff<&>é" || events[0].Name != "multi" {
		t.Errorf("%+v", events)
	}
	get(t, c.Host, "/sim/v1/events?after=1", &events)
	if len(events) != 1 || events[0].Seq != 2 {
		t.Errorf("%+v", events)
	}
}

func get(t *testing.T, host, path string, into any) {
	t.Helper()
	resp, err := http.Get("http://" + host + path)
	noErr(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	noErr(t, err)
	if resp.StatusCode != 200 {
		t.Fatalf("%s: %s %s", path, resp.Status, b)
	}
	noErr(t, json.Unmarshal(b, into))
}

func TestControl(t *testing.T) {
	s, c := start(t, sim.Config{})
	control := func(body string) (int, string) {
		resp, err := http.Post("http://"+c.Host+"/sim/v1/control", "application/json", strings.NewReader(body))
		noErr(t, err)
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if status, text := control(`{"messages_per_day":3,"used":2,"subscribers":0,"subscribers_of":[{"Pattern":"x*","N":4}],"latency":"1ms","fail_every":0}`); status != 200 || !strings.Contains(text, `"messages_per_day":3`) {
		t.Fatal(status, text)
	}
	noErr(t, c.Trigger("a", "e", ""))
	if err := c.Trigger("a", "e", ""); !refused(err, 403, pusher.QuotaText) {
		t.Error(err)
	}
	for _, bad := range []string{`{"latency":"fast"}`, `{"fail":"sometimes","messages_per_day":99}`, `{"plan":1}`, `[]`, `{"webhook":[{"name":"x"}]}`} {
		if status, text := control(bad); status != 400 {
			t.Errorf("%s: %d %s", bad, status, text)
		}
	}
	if st := s.Stats(); st.MessagesPerDay != 3 {
		t.Errorf("a refused control changed the plan: %+v", st)
	}
	control(`{"fail":"500"}`)
	if err := c.Trigger("a", "e", ""); !refused(err, 500, "") {
		t.Error(err)
	}
	control(`{"fail":"none","reset":true,"used":0}`)
	noErr(t, c.Trigger("a", "e", ""))
	if st := s.Stats(); st.Requests != 1 || st.Messages != 1 || st.MessagesToday != 1 || len(s.Events(-1)) != 1 {
		t.Errorf("%+v", st)
	}
}

// The record keeps the newest, by number and by bytes, in order.
func TestRecordIsBounded(t *testing.T) {
	s := sim.New(sim.Config{Apps: []sim.App{{appID, key, secret}}, Record: 5, RecordBytes: 30})
	datas := func() (out []string) {
		for _, e := range s.Events(-1) {
			out = append(out, e.Data)
		}
		return out
	}
	for i := range 12 {
		post(s, "/apps/1234/events", fmt.Sprintf(`{"name":"e","data":"%d","channel":"a"}`, i))
	}
	if got := datas(); !reflect.DeepEqual(got, []string{"7", "8", "9", "10", "11"}) {
		t.Errorf("%v", got)
	}
	big := strings.Repeat("x", 25)
	post(s, "/apps/1234/events", `{"name":"e","data":"`+big+`","channel":"a"}`)
	if got := datas(); !reflect.DeepEqual(got, []string{"9", "10", "11", big}) {
		t.Errorf("%v", got)
	}
	for i := range 9 {
		post(s, "/apps/1234/events", fmt.Sprintf(`{"name":"e","data":"n%d","channel":"a"}`, i))
	}
	if got := datas(); !reflect.DeepEqual(got, []string{"n4", "n5", "n6", "n7", "n8"}) {
		t.Errorf("%v", got)
	}
	if st := s.Stats(); st.Events != 22 || st.Recorded != 5 || st.Forgotten != 17 {
		t.Errorf("%+v", st)
	}
	if got := s.EventsAfter(20, 1); len(got) != 1 || got[0].Seq != 22 {
		t.Errorf("%+v", got)
	}
}

func TestWebhook(t *testing.T) {
	var got []sdk.WebhookEvent
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c := sdk.Client{Key: key, Secret: secret}
		hook, err := c.Webhook(r.Header, body)
		if err != nil || !pusher.VerifyWebhook(pusher.NewKey(key, secret), []byte(r.Header.Get("X-Pusher-Key")), []byte(r.Header.Get("X-Pusher-Signature")), body) {
			w.WriteHeader(401)
			return
		}
		got = append(got, hook.Events...)
	}))
	defer receiver.Close()
	s, c := start(t, sim.Config{Webhook: receiver.URL})
	resp, err := http.Post("http://"+c.Host+"/sim/v1/control", "application/json", strings.NewReader(
		`{"webhook":[{"name":"channel_occupied","channel":"a"},{"name":"member_added","channel":"presence-a","user_id":"7"}]}`))
	noErr(t, err)
	resp.Body.Close()
	if resp.StatusCode != 200 || len(got) != 2 || got[0].Name != "channel_occupied" || got[1].UserID != "7" {
		t.Errorf("%s %+v", resp.Status, got)
	}
	if err := s.SendWebhook(t.Context(), "no such app", nil); err == nil {
		t.Error("a webhook of an unknown app was sent")
	}
}

func BenchmarkPublish(b *testing.B) {
	s := sim.New(sim.Config{Apps: []sim.App{{appID, key, secret}}, Subscribers: 3})
	body := `{"name":"e","data":"` + strings.Repeat("x", 500) + `","channel":"private-user-1"}`
	q := pusher.NewKey(key, secret).AppendSigned(nil, "POST", []byte("/apps/1234/events"), nil, []byte(body), time.Now())
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/apps/1234/events?"+string(q), strings.NewReader(body))
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

// Many publishers at once never get more out of the plan than it has, and all of
// it.
func TestPlanIsExactUnderConcurrency(t *testing.T) {
	s := sim.New(sim.Config{Apps: []sim.App{{appID, key, secret}}, MessagesPerDay: 301, Subscribers: 2})
	var wg sync.WaitGroup
	var accepted atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if post(s, "/apps/1234/events", `{"name":"e","data":"","channel":"a"}`).Code == 200 {
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); accepted.Load() != 100 || st.Messages != 300 || st.Refused != 300 || st.Events != 100 || len(s.Events(-1)) != 100 {
		t.Errorf("%d accepted, %+v", accepted.Load(), st)
	}
}

// A body that is cut off at the limit, with and without a length said before.
func TestBodyLimit(t *testing.T) {
	s, c := start(t, sim.Config{Limits: pusher.Limits{Body: 100}})
	for _, body := range []io.Reader{strings.NewReader(strings.Repeat("x", 101)), io.MultiReader(strings.NewReader(strings.Repeat("x", 200_000)))} {
		resp, err := http.Post("http://"+c.Host+"/apps/1234/events", "application/json", body)
		noErr(t, err)
		resp.Body.Close()
		if resp.StatusCode != 413 {
			t.Error(resp.Status)
		}
	}
	if st := s.Stats(); st.Messages != 0 || st.ByStatus["413"] != 2 {
		t.Errorf("%+v", st)
	}
}
