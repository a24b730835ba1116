package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	pusherhttp "github.com/pusher/pusher-http-go/v5"
)

// publication is a call that an app server makes, in no SDK's words.
type publication struct {
	op       string // trigger, batch, user, terminate, get
	channels []string
	event    string
	data     string
	socketID string
	info     string
	user     string
	batch    []publication
	path     string // of a get: /channels…
	params   map[string]string
}

// seen is what an SDK gave its caller: an answer, or an error in the SDK's own
// words.
type seen struct {
	Status int    // 0 where the SDK does not tell
	Body   string // JSON, keys in order
	Err    string
}

// sdk is a Pusher SDK with its client configured for one server.
type sdk interface {
	do(t testing.TB, p publication) seen
}

// credentials are what a caller configures its SDK with.
type credentials struct {
	Addr   string `json:"addr"`
	App    string `json:"app"`
	Key    string `json:"key"`
	Secret string `json:"secret"`
	Master string `json:"master"`
}

func ownPair(addr string) credentials {
	return credentials{Addr: addr, App: appID, Key: appKey, Secret: appSecret, Master: masterKey}
}

func callerPair(addr string) credentials {
	return credentials{Addr: addr, App: appID, Key: callerKey, Secret: callerSecret, Master: masterKey}
}

var sdks = []struct {
	name string
	new  func(testing.TB, credentials) sdk
}{
	{"node", newNodeSDK},
	{"go", newGoSDK},
}

// nodeSDK is npm pusher.
type nodeSDK struct {
	w    *worker
	cred credentials
}

func newNodeSDK(t testing.TB, c credentials) sdk {
	t.Helper()
	w, err := publisher()
	if err != nil {
		t.Fatal(err)
	}
	return nodeSDK{w, c}
}

func (s nodeSDK) do(t testing.TB, p publication) seen {
	t.Helper()
	o := order{"client": s.cred}
	switch p.op {
	case "trigger":
		params := map[string]string{}
		if p.socketID != "" {
			params["socket_id"] = p.socketID
		}
		if p.info != "" {
			params["info"] = p.info
		}
		o["channels"], o["event"], o["data"], o["params"] = p.channels, p.event, p.data, params
	case "batch":
		var batch []map[string]string
		for _, e := range p.batch {
			m := map[string]string{"channel": e.channels[0], "name": e.event, "data": e.data}
			if e.socketID != "" {
				m["socket_id"] = e.socketID
			}
			if e.info != "" {
				m["info"] = e.info
			}
			batch = append(batch, m)
		}
		o["batch"] = batch
	case "user":
		o["user"], o["event"], o["data"] = p.user, p.event, p.data
	case "terminate":
		o["user"] = p.user
	case "get":
		o["path"], o["params"] = p.path, p.params
	}
	var got struct {
		Status int
		Body   string
		Error  *struct {
			Name, Message, Body, Cause string
			Status                     int
		}
	}
	s.w.do(t, p.op, o, &got)
	if e := got.Error; e != nil {
		out := fmt.Sprintf("%s: %s", e.Name, e.Message)
		if e.Status > 0 {
			out += fmt.Sprintf("; status %d, body %q", e.Status, e.Body)
		}
		if e.Cause != "" {
			out += "; cause " + e.Cause
		}
		return seen{Status: e.Status, Err: out}
	}
	return seen{Status: got.Status, Body: canonical(t, got.Body)}
}

// goSDK is pusher-http-go.
type goSDK struct{ c *pusherhttp.Client }

func newGoSDK(_ testing.TB, c credentials) sdk {
	return goSDK{&pusherhttp.Client{
		AppID: c.App, Key: c.Key, Secret: c.Secret, Host: c.Addr, EncryptionMasterKeyBase64: c.Master,
		OverrideMaxMessagePayloadKB: 1000, // the limit is the server's to tell
	}}
}

var errNotInSDK = errors.New("this SDK has no such call")

func (s goSDK) do(t testing.TB, p publication) seen {
	t.Helper()
	var out any
	var err error
	switch p.op {
	case "trigger":
		out, err = s.c.TriggerMultiWithParams(p.channels, p.event, p.data, pusherhttp.TriggerParams{SocketID: optional(p.socketID), Info: optional(p.info)})
	case "batch":
		var batch []pusherhttp.Event
		for _, e := range p.batch {
			batch = append(batch, pusherhttp.Event{Channel: e.channels[0], Name: e.event, Data: e.data, SocketID: optional(e.socketID), Info: optional(e.info)})
		}
		out, err = s.c.TriggerBatch(batch)
	case "user":
		err = s.c.SendToUser(p.user, p.event, p.data)
	case "get":
		out, err = s.get(p)
	default:
		err = errNotInSDK
	}
	if err != nil {
		return seen{Status: statusIn(err), Err: address.ReplaceAllString(scrub(err.Error()), "HOST:PORT")}
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return seen{Body: canonical(t, string(b))}
}

var channelPath = regexp.MustCompile(`^/channels/([^/]+)(/users)?$`)

func (s goSDK) get(p publication) (any, error) {
	if p.path == "/channels" {
		return s.c.Channels(pusherhttp.ChannelsParams{FilterByPrefix: optional(p.params["filter_by_prefix"]), Info: optional(p.params["info"])})
	}
	m := channelPath.FindStringSubmatch(p.path)
	if m[2] != "" {
		return s.c.GetChannelUsers(m[1])
	}
	return s.c.Channel(m[1], pusherhttp.ChannelParams{Info: optional(p.params["info"])})
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// statusIn reads the status out of the Go SDK's only error, a string.
func statusIn(err error) int {
	rest, ok := strings.CutPrefix(err.Error(), "Status Code: ")
	if !ok {
		return 0
	}
	n, _, _ := strings.Cut(rest, " ")
	status, _ := strconv.Atoi(n)
	return status
}

var address = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// canonical writes JSON with its keys in order, so that equal answers are equal
// texts; what is no JSON stays as it is.
func canonical(t testing.TB, s string) string {
	t.Helper()
	var v any
	if json.Unmarshal([]byte(s), &v) != nil {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// awkward are payloads that a careless relay would change.
var awkward = map[string]string{
	"html":       `{"html":"<b>&amp;</b> <script>alert('x')</script> \u003c"}`,
	"unicode":    "{\"name\":\"Žluťoučký kůň 馬 🐴 \u2028\u2029 \u00a0 e\u0301\"}",
	"escapes":    `{"a":"\u0000\u001f\"\\\/\b\f\n\r\t","b":"\ud83d\udc34"}`,
	"spaces":     " {  \"z\" : 1 ,\n\t\"a\" : 1.0, \"big\": 12345678901234567890 } ",
	"no json":    `plain text with % + ; & = ? # "quotes" and \ backslash`,
	"empty":      "",
	"control":    "\x01\x02\x7f",
	"the most":   strings.Repeat("x", 10240),
	"duplicates": `{"a":1,"a":2}`,
}

// The same calls, by the real SDKs, once to the simulator and once through
// pushguard: equal answers, equal effects, an equal bill, and a ledger that
// says what the simulator billed.
func TestSDKEffects(t *testing.T) {
	direct := startSim(t, "--subscribers", "3", "--subscribers-of", "presence-*=2")
	behind := startSim(t, "--subscribers", "3", "--subscribers-of", "presence-*=2")
	g := serve(t, "guard", t.TempDir(), fmt.Sprintf(`
accounts:
  - name: care
    plan: startup
    apps:
      - id: %q
        key: %s
        secret: %s
        upstream: http://%s
        subscribers: { default: 3, "presence-*": 2 }
        learn: { sample: false }
        callers:
          - { name: api, key: %s, secret: %s }
`, appID, appKey, appSecret, behind.addr, callerKey, callerSecret))

	one := func(channel, event, data string) publication {
		return publication{op: "trigger", channels: []string{channel}, event: event, data: data}
	}
	calls := []struct {
		name string
		publication
		effects   int  // events that arrive
		encrypted bool // the nonce is random: equal only once decrypted
		notInGo   bool
		refused   bool // by Pusher, so by pushguard too, before it costs a message
	}{
		{name: "trigger", publication: one("room", "message", `{"n":1}`), effects: 1},
		{name: "trigger to a name with all legal characters", publication: one("a-Z_0=@,.;", "message", `{}`), effects: 1},
		{name: "trigger to several channels", publication: publication{op: "trigger", channels: []string{"b", "a", "private-c", "presence-d"}, event: "many", data: "x"}, effects: 1},
		{name: "trigger with info", publication: publication{op: "trigger", channels: []string{"presence-a"}, event: "i", data: "x", info: "user_count,subscription_count"}, effects: 1},
		{name: "trigger to several with info", publication: publication{op: "trigger", channels: []string{"a", "b"}, event: "i", data: "x", info: "subscription_count"}, effects: 1},
		{name: "trigger without one socket", publication: publication{op: "trigger", channels: []string{"a"}, event: "s", data: "x", socketID: "1234.5678"}, effects: 1},
		{name: "batch", publication: publication{op: "batch", batch: []publication{one("a", "e1", "1"), one("b", "e2", `{"x":"<&>"}`), one("a", "e3", "3")}}, effects: 3},
		{name: "batch with info for some", publication: publication{op: "batch", batch: []publication{
			one("a", "e1", "1"),
			{channels: []string{"presence-b"}, event: "e2", data: "2", info: "user_count"},
			{channels: []string{"c"}, event: "e3", data: "3", info: "subscription_count", socketID: "1.2"},
		}}, effects: 3},
		{name: "batch of one", publication: publication{op: "batch", batch: []publication{one("a", "only", "1")}}, effects: 1},
		{name: "to a user", publication: publication{op: "user", user: "user-42", event: "hello", data: `{"to":"you"}`}, effects: 1},
		{name: "to an encrypted channel", publication: one("private-encrypted-room", "secret", `{"html":"<b>&</b>"}`), effects: 1, encrypted: true},
		{name: "batch with an encrypted channel", publication: publication{op: "batch", batch: []publication{one("a", "e1", "1"), one("private-encrypted-room", "e2", "hidden")}}, effects: 2, encrypted: true},
		{name: "terminate a user's connections", publication: publication{op: "terminate", user: "user-42"}, notInGo: true},
		{name: "terminate a user with a space in the id", publication: publication{op: "terminate", user: "user 42"}, notInGo: true},
		{name: "channels", publication: publication{op: "get", path: "/channels"}},
		{name: "channels by prefix with info", publication: publication{op: "get", path: "/channels", params: map[string]string{"filter_by_prefix": "presence-", "info": "user_count"}}},
		{name: "a channel", publication: publication{op: "get", path: "/channels/room"}},
		{name: "a channel with info", publication: publication{op: "get", path: "/channels/presence-a", params: map[string]string{"info": "user_count"}}},
		{name: "users", publication: publication{op: "get", path: "/channels/presence-a/users"}},
		{name: "users of no presence channel", publication: publication{op: "get", path: "/channels/room/users"}, refused: true},
		{name: "info that does not apply", publication: publication{op: "get", path: "/channels", params: map[string]string{"info": "user_count"}}, refused: true},
	}
	for name, data := range awkward {
		calls = append(calls, struct {
			name string
			publication
			effects   int
			encrypted bool
			notInGo   bool
			refused   bool
		}{name: "payload: " + name, publication: one("room", "awkward", data), effects: 1})
	}
	for _, kit := range sdks {
		for _, pair := range []struct {
			name string
			of   func(string) credentials
		}{{"the app's pair", ownPair}, {"a caller's pair", callerPair}} {
			straight, guarded := kit.new(t, ownPair(direct.addr)), kit.new(t, pair.of(g.data))
			for _, call := range calls {
				if kit.name == "go" && call.notInGo {
					continue
				}
				t.Run(kit.name+"/"+pair.name+"/"+call.name, func(t *testing.T) {
					a, aEvents, aBill := effect(t, direct, straight, call.publication)
					used := g.account(t, "care").Used
					b, bEvents, bBill := effect(t, behind, guarded, call.publication)
					used = g.account(t, "care").Used - used
					if a != b {
						t.Errorf("the SDK was told\ndirect  %+v\nguarded %+v", a, b)
					}
					if call.effects != len(aEvents) {
						t.Errorf("%d events arrived directly, want %d", len(aEvents), call.effects)
					}
					if call.encrypted {
						decryptAll(t, aEvents)
						decryptAll(t, bEvents)
					}
					if !reflect.DeepEqual(aEvents, bEvents) {
						t.Errorf("what arrived\ndirect  %+v\nguarded %+v", aEvents, bEvents)
					}
					if want := aBill; bBill != want && !(call.refused && bBill == 0) {
						t.Errorf("billed directly %d, guarded %d", want, bBill)
					}
					if used != bBill {
						t.Errorf("the ledger counted %d messages, the simulator billed %d", used, bBill)
					}
				})
			}
		}
	}
}

// effect makes a call and tells what came of it, without what differs from one
// call to the next.
func effect(t *testing.T, s *sim, kit sdk, p publication) (seen, []simEvent, int64) {
	t.Helper()
	before := s.stats(t)
	last := int64(0)
	if all := s.events(t, 0); len(all) > 0 {
		last = all[len(all)-1].Seq
	}
	got := kit.do(t, p)
	after := s.stats(t)
	events := s.events(t, last)
	for i := range events {
		e := &events[i]
		e.Seq, e.Request = 0, e.Request-before.Requests
	}
	if n := after.Requests - before.Requests; n > 1 {
		t.Errorf("%d requests reached the simulator for one call", n)
	}
	return got, events, after.Messages - before.Messages
}

// Bytes that no SDK here would send, and that Pusher takes: they arrive as they
// left.
func TestRawEffects(t *testing.T) {
	s := startSim(t)
	g := serve(t, "guard", t.TempDir(), oneApp(s.addr))
	cases := map[string]string{
		"invalid UTF-8":            "{\"name\":\"e\",\"channel\":\"c\",\"data\":\"\xff\xfe\xc0\x80 \xed\xa0\x80\"}",
		"other escapes":            `{"name":"e","channel":"c","data":"\u0041\/\u003c\u003C"}`,
		"a lone surrogate":         `{"name":"e","channel":"c","data":"\ud800 x"}`,
		"keys in another order":    `{"data":"x","channels":["c"],"name":"e"}`,
		"white space":              "\r\n{ \"name\" : \"e\" ,\t\"channel\" : \"c\", \"data\" : \"x\" }\n",
		"keys that nobody knows":   `{"name":"e","channel":"c","data":"x","tomorrow":{"a":[1,2,{"b":null}]}}`,
		"ciphertext of another":    `{"name":"e","channel":"private-encrypted-c","data":"{\"nonce\":\"AAAA\",\"ciphertext\":\"<<&&>>\"}"}`,
		"a name with all of ASCII": `{"name":" !#$%&'()*+,-./:;<=>?@[]^_{|}~` + "`" + `","channel":"c","data":"x"}`,
	}
	for name, body := range cases {
		t.Run(name, func(t *testing.T) {
			before := s.events(t, 0)
			direct := mustPost(t, s.addr, body)
			guarded := mustPost(t, g.data, body)
			if direct.status != http.StatusOK || guarded.status != direct.status || guarded.body != direct.body {
				t.Errorf("direct %d %s, guarded %d %s", direct.status, direct.body, guarded.status, guarded.body)
			}
			got := s.events(t, int64(len(before)))
			if len(got) != 2 {
				t.Fatalf("%d events arrived, want 2", len(got))
			}
			// The simulator checked body_md5 against the bytes that it read.
			if got[0].BodyMD5 == "" || got[0].BodyMD5 != got[1].BodyMD5 {
				t.Errorf("the bytes changed on the way: md5 %s became %s", got[0].BodyMD5, got[1].BodyMD5)
			}
			for i := range got {
				got[i].Seq, got[i].Request = 0, 0
			}
			if !reflect.DeepEqual(got[0], got[1]) {
				t.Errorf("direct %+v\nguarded %+v", got[0], got[1])
			}
		})
	}
	t.Run("parameters in the query", func(t *testing.T) {
		before := len(s.events(t, 0))
		target := signedPath("POST", "/apps/"+appID+"/events", "", appKey, appSecret, timeNow(), "channels[]=b", "channels[]=a", "name=q", "data=x;y")
		for _, addr := range []string{s.addr, g.data} {
			all, err := exchange(addr, "POST "+target+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 1)
			if err != nil || all[0].status != http.StatusOK {
				t.Fatalf("%+v %v", all, err)
			}
		}
		got := s.events(t, int64(before))
		if len(got) != 2 || got[0].Data != "x;y" || got[1].Data != got[0].Data || !reflect.DeepEqual(got[0].Channels, got[1].Channels) {
			t.Errorf("what arrived: %+v", got)
		}
	})
}
