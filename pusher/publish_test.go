package pusher

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// view is a Publish in strings; nil and empty differ.
type view struct {
	Name, Data             string
	Channels               []string
	SocketID, Info, Raw    *string
	HasInfo, Encrypt, User bool
}

func s(v string) *string { return &v }

func viewOf(p *Publish) view {
	opt := func(b []byte) *string {
		if b == nil {
			return nil
		}
		return s(string(b))
	}
	v := view{Name: string(p.Name), Data: string(p.Data), SocketID: opt(p.SocketID), Info: opt(p.Info), Raw: opt(p.Raw),
		HasInfo: p.HasInfo, Encrypt: p.Encrypted, User: p.ToUser}
	for _, c := range p.Channels {
		v.Channels = append(v.Channels, string(c))
	}
	return v
}

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name, body, query string
		want              view
		noRaw             bool
	}{
		{"channel", `{"name":"e","data":"d","channel":"c"}`, "", view{Name: "e", Data: "d", Channels: []string{"c"}}, false},
		{"channels", `{"channels":["a","b"],"name":"e","data":"d"}`, "", view{Name: "e", Data: "d", Channels: []string{"a", "b"}}, false},
		{"all", `{"name":"e","data":"","channel":"presence-c","socket_id":"1.2","info":"user_count,subscription_count"}`, "", view{Name: "e", Channels: []string{"presence-c"}, SocketID: s("1.2"), Info: s("user_count,subscription_count"), HasInfo: true}, false},
		{"escapes", `{"na\u006de":"\u00e9\n\ud83d\ude00","data":"{\"a\":\"\\u0041\/\"}","ch\u0061nnels":["\u0063"]}`, "", view{Name: "é\n😀", Data: `{"a":"\u0041/"}`, Channels: []string{"c"}}, false},
		{"half a pair", `{"name":"\ud83d","data":"\ude00x\ud83d\u0041","channel":"c"}`, "", view{Name: "\ufffd", Data: "\ufffdx\ufffdA", Channels: []string{"c"}}, false},
		{"invalid UTF-8", "{\"name\":\"\xff\",\"data\":\"<\xc3(&>\",\"channel\":\"c\"}", "", view{Name: "\xff", Data: "<\xc3(&>", Channels: []string{"c"}}, false},
		{"white space and unknown keys", " {\t\"x\" : [1,-2.5e+3,{\"y\":[]},null,true,false,\"\\n\"] ,\r\n\"name\":\"e\",\"data\":\"d\",\"channel\":\"c\",\"x\":{}} ", "", view{Name: "e", Data: "d", Channels: []string{"c"}}, false},
		{"nulls", `{"name":"e","data":"d","channel":"c","channels":null,"socket_id":null,"info":null}`, "", view{Name: "e", Data: "d", Channels: []string{"c"}}, false},
		{"encrypted", `{"name":"e","data":"{\"nonce\":\"n\",\"ciphertext\":\"c\"}","channels":["private-encrypted-c"]}`, "", view{Name: "e", Data: `{"nonce":"n","ciphertext":"c"}`, Channels: []string{"private-encrypted-c"}, Encrypt: true}, false},
		{"to a user", `{"name":"e","data":"d","channels":["#server-to-user-ü 1/#"]}`, "", view{Name: "e", Data: "d", Channels: []string{"#server-to-user-ü 1/#"}, User: true}, false},
		{"user_count where one channel has it", `{"name":"e","data":"d","channels":["presence-a","b"],"info":"user_count"}`, "", view{Name: "e", Data: "d", Channels: []string{"presence-a", "b"}, Info: s("user_count"), HasInfo: true}, false},
		{"empty info", `{"name":"e","data":"d","channel":"c","info":""}`, "", view{Name: "e", Data: "d", Channels: []string{"c"}, Info: s(""), HasInfo: true}, false},
		{"all in the query", "", "name=e&data=a+b%3B;&channels[]=a&channels%5B%5D=b&socket_id=1.2&info=subscription_count&auth_key=k", view{Name: "e", Data: "a b;;", Channels: []string{"a", "b"}, SocketID: s("1.2"), Info: s("subscription_count"), HasInfo: true}, true},
		{"some in the query", `{"data":"d"}`, "name=e&channel=c", view{Name: "e", Data: "d", Channels: []string{"c"}}, true},
		{"query without a say", `{"name":"e","data":"d","channel":"c"}`, "auth_key=k&x=y", view{Name: "e", Data: "d", Channels: []string{"c"}}, false},
		{"the longest", `{"name":"` + strings.Repeat("n", 200) + `","data":"` + strings.Repeat(`\u00e9`, 5120) + `","channel":"` + strings.Repeat("c", 200) + `"}`, "", view{Name: strings.Repeat("n", 200), Data: strings.Repeat("é", 5120), Channels: []string{strings.Repeat("c", 200)}}, false},
	} {
		if !c.noRaw {
			c.want.Raw = s(strings.TrimSpace(c.body))
		}
		var d Decoder
		events, e := d.Events([]byte(c.body), parse(t, c.query), nil)
		if e != nil || len(events) != 1 {
			t.Errorf("%s: %v", c.name, e)
			continue
		}
		if got := viewOf(&events[0]); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v, want\n%+v", c.name, got, c.want)
		}
		// What is written reads the same.
		again := AppendEvent(nil, &events[0])
		var d2 Decoder
		second, e := d2.Events(again, nil, nil)
		if e != nil {
			t.Errorf("%s: written as %s: %v", c.name, again, e)
			continue
		}
		c.want.Raw = s(string(again))
		if got := viewOf(&second[0]); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: written as %s", c.name, again)
		}
	}
}

func channels(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"c%d"`, i)
	}
	return "[" + strings.Join(names, ",") + "]"
}

// Each line is one mistake; the text must begin so, and where the place in the
// body matters it must be right.
var refusedEvents = []struct {
	name, body, query string
	status            int
	want              string
}{
	{"nothing", "", "", 400, "Missing required parameter: name"},
	{"white space", "  ", "", 400, "The body is not valid JSON: it ends too early at byte 2"},
	{"no JSON", "name=e", "", 400, "The body is not valid JSON: an object with name, channels and data is expected at byte 0"},
	{"an array", "[]", "", 400, "The body is not valid JSON: an object with"},
	{"cut off", `{"name":"e","data":"d`, "", 400, "The body is not valid JSON: it ends inside a string at byte 21"},
	{"cut off in an escape", `{"name":"e","data":"d\`, "", 400, "The body is not valid JSON: it ends inside a string at byte 21"},
	{"more after it", `{"name":"e","data":"d","channel":"c"} {}`, "", 400, "The body is not valid JSON: there is more after the end of the value at byte 38"},
	{"comma too many", `{"name":"e",}`, "", 400, "The body is not valid JSON: there is a comma too many at byte 12"},
	{"comma missing", `{"name":"e" "data":"d"}`, "", 400, "The body is not valid JSON: a comma is missing at byte 12"},
	{"colon missing", `{"name" "e"}`, "", 400, "The body is not valid JSON: a colon is missing after the key at byte 8"},
	{"key without quotes", `{name:"e"}`, "", 400, "The body is not valid JSON: a key in double quotes is missing at byte 1"},
	{"control character", "{\"name\":\"a\nb\"}", "", 400, "The body is not valid JSON: a control character in a string is not escaped at byte 10"},
	{"control character after an escape", "{\"name\":\"a\\n\x00b12345678\"}", "", 400, "The body is not valid JSON: a control character in a string is not escaped at byte 12"},
	{"broken escape", `{"name":"a\x"}`, "", 400, "The body is not valid JSON: there is an escape that JSON does not know at byte 10"},
	{"broken unicode escape", `{"name":"a\u12g4"}`, "", 400, "The body is not valid JSON: there is an escape that JSON does not know at byte 10"},
	{"broken value", `{"x":tru}`, "", 400, "The body is not valid JSON: there is a word that JSON does not know at byte 5"},
	{"broken number", `{"x":01}`, "", 400, "The body is not valid JSON: a comma is missing at byte 6"},
	{"nested too deeply", `{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "", 400, "The body is not valid JSON: it is nested too deeply at byte 68"},
	{"name missing", `{"data":"d","channel":"c"}`, "", 400, "Missing required parameter: name"},
	{"name empty", `{"name":"","data":"d","channel":"c"}`, "", 400, "Missing required parameter: name"},
	{"name null", `{"name":null,"data":"d","channel":"c"}`, "", 400, `"name" must be a string, at byte 8`},
	{"name too long", `{"name":"` + strings.Repeat("n", 201) + `","data":"d","channel":"c"}`, "", 400, "the event name"},
	{"data missing", `{"name":"e","channel":"c"}`, "", 400, "Missing required parameter: data"},
	{"data an object", `{"name":"e","data":{"a":1},"channel":"c"}`, "", 400, `"data" must be a string, at byte 19: encode the object as JSON first`},
	{"data null", `{"name":"e","data":null,"channel":"c"}`, "", 400, `"data" must be a string, at byte 19`},
	{"data broken", `{"name":"e","data":{a},"channel":"c"}`, "", 400, "The body is not valid JSON: a key in double quotes is missing at byte 20"},
	{"data too large", `{"name":"e","data":"` + strings.Repeat("x", 10241) + `","channel":"c"}`, "", 413, "The data content of this event exceeds the allowed maximum (10240 bytes). See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info. data has 10241 bytes"},
	{"body too large", strings.Repeat(" ", 700<<10), "", 413, "The body of this request exceeds the allowed maximum ("},
	{"no channel", `{"name":"e","data":"d"}`, "", 400, "Missing required parameter: channels"},
	{"empty list", `{"name":"e","data":"d","channels":[]}`, "", 400, "Missing required parameter: channels"},
	{"list of numbers", `{"name":"e","data":"d","channels":["a",1]}`, "", 400, `"channels" must be an array of strings, at byte 39`},
	{"list no list", `{"name":"e","data":"d","channels":"a"}`, "", 400, `"channels" must be an array of strings, at byte 34`},
	{"channel no string", `{"name":"e","data":"d","channel":["a"]}`, "", 400, `"channel" must be a string, at byte 33`},
	{"channel and channels", `{"name":"e","data":"d","channel":"a","channels":["b"]}`, "", 400, `Both "channel" and "channels" are given`},
	{"channel empty", `{"name":"e","data":"d","channel":""}`, "", 400, "the channel name is empty"},
	{"channel with a blank", `{"name":"e","data":"d","channel":"a b"}`, "", 400, `Invalid channel name "a b": byte 1`},
	{"channel with a newline at its end", `{"name":"e","data":"d","channel":"a\n"}`, "", 400, `Invalid channel name "a\n": byte 1`},
	{"channel with #", `{"name":"e","data":"d","channel":"#a"}`, "", 400, `Invalid channel name "#a": # is reserved`},
	{"channel with an accent", `{"name":"e","data":"d","channel":"é"}`, "", 400, "Invalid channel name"},
	{"channel too long", `{"name":"e","data":"d","channel":"` + strings.Repeat("c", 201) + `"}`, "", 400, "the channel name"},
	{"user without id", `{"name":"e","data":"d","channel":"#server-to-user-"}`, "", 400, "the user id after #server-to-user- has 0 bytes"},
	{"user id too long", `{"name":"e","data":"d","channel":"#server-to-user-` + strings.Repeat("u", 201) + `"}`, "", 400, "the user id after #server-to-user- has 201 bytes"},
	{"user id with a control character", `{"name":"e","data":"d","channel":"#server-to-user-\t"}`, "", 400, "the user id after #server-to-user- has a control character"},
	{"too many channels", `{"name":"e","data":"d","channels":` + channels(101) + `}`, "", 400, "Too many channels: one publish can go to at most 100"},
	{"encrypted with others", `{"name":"e","data":"d","channels":["a","private-encrypted-b"]}`, "", 400, "An end-to-end encrypted channel cannot"},
	{"socket id of letters", `{"name":"e","data":"d","channel":"a","socket_id":"a.b"}`, "", 400, `Invalid socket_id "a.b"`},
	{"socket id without a dot", `{"name":"e","data":"d","channel":"a","socket_id":"12"}`, "", 400, "Invalid socket_id"},
	{"socket id with two dots", `{"name":"e","data":"d","channel":"a","socket_id":"1.2.3"}`, "", 400, "Invalid socket_id"},
	{"socket id half", `{"name":"e","data":"d","channel":"a","socket_id":"1."}`, "", 400, "Invalid socket_id"},
	{"socket id other half", `{"name":"e","data":"d","channel":"a","socket_id":".1"}`, "", 400, "Invalid socket_id"},
	{"socket id with a newline", `{"name":"e","data":"d","channel":"a","socket_id":"1.2\n"}`, "", 400, "Invalid socket_id"},
	{"socket id empty", `{"name":"e","data":"d","channel":"a","socket_id":""}`, "", 400, "Invalid socket_id"},
	{"unknown info", `{"name":"e","data":"d","channel":"a","info":"subscription_count,cache"}`, "", 400, `Unknown info attribute "cache"`},
	{"info with a blank", `{"name":"e","data":"d","channel":"presence-a","info":"user_count, subscription_count"}`, "", 400, `Unknown info attribute " subscription_count"`},
	{"user_count of a public channel", `{"name":"e","data":"d","channel":"a","info":"subscription_count,user_count"}`, "", 400, "info=user_count is only known for presence channels"},
	{"key twice", `{"name":"e","data":"d","channel":"a","data":"x"}`, "", 400, `the key "data" is given twice, again at byte 44`},
	{"key twice, once escaped", `{"name":"e","data":"d","channel":"a","n\u0061me":"x"}`, "", 400, `the key "name" is given twice`},
	{"in the query and in the body", `{"name":"e","data":"d","channel":"a"}`, "name=e", 400, `The parameter "name" is given in the query string and in the body`},
	{"channel in the body, channels in the query", `{"name":"e","data":"d","channel":"a"}`, "channels[]=b", 400, `Both "channel" and "channels" are given`},
}

func TestEventsRefused(t *testing.T) {
	var d Decoder // the same one throughout: nothing may be left over
	for _, c := range refusedEvents {
		events, e := d.Events([]byte(c.body), parse(t, c.query), nil)
		if e == nil || events != nil || e.Status != c.status || !strings.HasPrefix(e.Text, c.want) {
			t.Errorf("%s: %+v, want %d %s", c.name, e, c.status, c.want)
		} else if len(e.Text) > 700 {
			t.Errorf("%s: %d bytes of text", c.name, len(e.Text))
		}
	}
}

func TestBatch(t *testing.T) {
	body := ` {"x":[{}], "batch" : [ {"channel":"a","name":"1","data":"d"},` +
		`{"channel":"presence-b","name":"2","data":"\u0041","info":"user_count","socket_id":"1.2", "y": 1 } ,{"channel":"private-encrypted-c","name":"3","data":""}] }`
	var d Decoder
	events, e := d.Batch([]byte(body), nil)
	if e != nil || len(events) != 3 {
		t.Fatal(e)
	}
	want := []view{
		{Name: "1", Data: "d", Channels: []string{"a"}, Raw: s(`{"channel":"a","name":"1","data":"d"}`)},
		{Name: "2", Data: "A", Channels: []string{"presence-b"}, SocketID: s("1.2"), Info: s("user_count"), HasInfo: true, Raw: s(`{"channel":"presence-b","name":"2","data":"\u0041","info":"user_count","socket_id":"1.2", "y": 1 }`)},
		{Name: "3", Channels: []string{"private-encrypted-c"}, Encrypt: true, Raw: s(`{"channel":"private-encrypted-c","name":"3","data":""}`)},
	}
	for i := range events {
		if got := viewOf(&events[i]); !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%d: %+v, want %+v", i, got, want[i])
		}
		var d2 Decoder
		again := AppendBatchEvent([]byte(`{"batch":[`), &events[i])
		second, e := d2.Batch(append(again, "]}"...), nil)
		if e != nil || string(second[0].Data) != want[i].Data || string(second[0].Channels[0]) != want[i].Channels[0] || second[0].HasInfo != want[i].HasInfo {
			t.Errorf("%d: written as %s: %v", i, again, e)
		}
	}

	one := `{"channel":"a","name":"e","data":"d"}`
	ten := strings.Repeat(one+",", 9) + one
	if events, e := d.Batch([]byte(`{"batch":[`+ten+`]}`), nil); e != nil || len(events) != 10 {
		t.Error(e)
	}
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"nothing", "", 400, "The body is not valid JSON: it ends too early at byte 0"},
		{"an event", one, 400, "The batch is empty"},
		{"empty", `{"batch":[]}`, 400, "The batch is empty"},
		{"no array", `{"batch":{}}`, 400, `"batch" must be an array of events, at byte 9`},
		{"no objects", `{"batch":[1]}`, 400, "The body is not valid JSON: an object with"},
		{"eleven", `{"batch":[` + ten + `,` + one + `]}`, 400, "The batch has more than 10 events"},
		{"twice", `{"batch":[` + one + `],"batch":[` + one + `]}`, 400, `The body has the key "batch" twice`},
		{"more after it", `{"batch":[` + one + `]}]`, 400, "The body is not valid JSON: there is more after the end"},
		{"cut off", `{"batch":[` + one, 400, "The body is not valid JSON: it ends too early at byte 47"},
		{"channels", `{"batch":[` + one + `,{"channels":["a"],"name":"e","data":"d"}]}`, 400, "batch[1]: an event of a batch goes to one channel"},
		{"no channel", `{"batch":[` + one + `,{"name":"e","data":"d"}]}`, 400, "batch[1]: Missing required parameter: channel. "},
		{"one too large", `{"batch":[` + one + `,{"channel":"a","name":"e","data":"` + strings.Repeat("x", 10241) + `"}]}`, 413, "The data content of this event exceeds the allowed maximum (10240 bytes). See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info. batch[1]: data has 10241 bytes"},
		{"too deep", `{"batch":[{"x":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + `}]}`, 400, "The body is not valid JSON: it is nested too deeply"},
		{"as deep as can be", `{"batch":[{"x":` + strings.Repeat("[", 61) + strings.Repeat("]", 61) + `}]}`, 400, "batch[0]: Missing required parameter: name"},
	} {
		events, e := d.Batch([]byte(c.body), nil)
		if e == nil || events != nil || e.Status != c.status || !strings.HasPrefix(e.Text, c.want) {
			t.Errorf("%s: %+v, want %d %s", c.name, e, c.status, c.want)
		}
	}
}

func TestOtherLimits(t *testing.T) {
	lim := &Limits{DataBytes: 3, Channels: 2, Batch: 1, ChannelName: 4, EventName: 5}
	var d Decoder
	for _, c := range []struct {
		body   string
		batch  bool
		status int
	}{
		{`{"name":"eeeee","data":"ddd","channels":["aaaa","b"]}`, false, 0},
		{`{"name":"eeeee","data":"dddd","channels":["a"]}`, false, 413},
		{`{"name":"eeeeee","data":"d","channels":["a"]}`, false, 400},
		{`{"name":"e","data":"d","channels":["aaaaa"]}`, false, 400},
		{`{"name":"e","data":"d","channels":["a","b","c"]}`, false, 400},
		{`{"batch":[{"name":"e","data":"d","channel":"a"}]}`, true, 0},
		{`{"batch":[{"name":"e","data":"d","channel":"a"},{"name":"e","data":"d","channel":"a"}]}`, true, 400},
	} {
		run := func(l *Limits) *Error {
			if c.batch {
				_, e := d.Batch([]byte(c.body), l)
				return e
			}
			_, e := d.Events([]byte(c.body), nil, l)
			return e
		}
		e := run(lim)
		if c.status == 0 && e != nil || c.status != 0 && (e == nil || e.Status != c.status) {
			t.Errorf("%s: %v", c.body, e)
		}
		if e := run(nil); e != nil {
			t.Errorf("%s: by default %v", c.body, e)
		}
	}
	// The longest legal requests fit into MaxBody.
	full := (&Limits{}).full()
	long := func(n int) string { return strings.Repeat(`\u0041`, n) }
	event := `{"name":"` + long(full.EventName) + `","data":"` + long(full.DataBytes) + `","channel":"` + strings.Repeat("c", full.ChannelName) + `","socket_id":"1234567890.1234567890","info":"subscription_count"}`
	body := `{"batch":[` + strings.Repeat(event+",", full.Batch-1) + event + `]}`
	if _, e := d.Batch([]byte(body), nil); e != nil || len(body) > (&Limits{}).MaxBody() {
		t.Error(e, len(body))
	}
	if got := (&Limits{Body: 7}).MaxBody(); got != 7 {
		t.Error(got)
	}
	if e := (&Limits{Body: 7}).TooLarge(); e.Status != 413 || !strings.Contains(e.Text, "(7 bytes)") {
		t.Error(e)
	}
}

func TestChannelEvent(t *testing.T) {
	var d Decoder
	events, e := d.ChannelEvent([]byte("c"), []byte("not JSON \xff"), parse(t, "name=e&socket_id=1.2"), nil)
	if e != nil || !reflect.DeepEqual(viewOf(&events[0]), view{Name: "e", Data: "not JSON \xff", Channels: []string{"c"}, SocketID: s("1.2")}) {
		t.Errorf("%v %+v", e, events)
	}
	if _, e := d.ChannelEvent([]byte("c"), []byte("d"), parse(t, ""), nil); e == nil || !strings.HasPrefix(e.Text, "Missing required parameter: name") {
		t.Error(e)
	}
	if _, e := d.ChannelEvent([]byte("c d"), []byte("d"), parse(t, "name=e"), nil); e == nil || e.Status != 400 {
		t.Error(e)
	}
}

func TestReads(t *testing.T) {
	status := func(e *Error) int {
		if e == nil {
			return 200
		}
		return e.Status
	}
	for _, c := range []struct {
		what, channel, query string
		want                 int
	}{
		{"channels", "", "", 200},
		{"channels", "", "info=", 200},
		{"channels", "", "filter_by_prefix=presence-&info=user_count", 200},
		{"channels", "", "filter_by_prefix=presence-r&info=user_count,subscription_count", 200},
		{"channels", "", "info=user_count", 400},
		{"channels", "", "filter_by_prefix=presence&info=user_count", 400},
		{"channels", "", "filter_by_prefix=presence-&info=cache", 400},
		{"channel", "a", "", 200},
		{"channel", "a", "info=subscription_count", 200},
		{"channel", "a", "info=user_count", 400},
		{"channel", "presence-a", "info=user_count,subscription_count", 200},
		{"channel", "cache-a", "info=cache", 200},
		{"channel", "private-encrypted-cache-a", "info=cache", 200},
		{"channel", "a", "info=cache", 400},
		{"channel", "a", "info=everything", 400},
		{"channel", "a b", "", 400},
		{"channel", "", "", 400},
		{"users", "presence-a", "", 200},
		{"users", "a", "", 400},
		{"users", "presence-a/b", "", 400},
	} {
		q := parse(t, c.query)
		var e *Error
		switch c.what {
		case "channels":
			e = CheckChannels(q)
		case "channel":
			e = CheckChannel([]byte(c.channel), q, nil)
		case "users":
			e = CheckUsers([]byte(c.channel), nil)
		}
		if status(e) != c.want {
			t.Errorf("%s %q %q: %v", c.what, c.channel, c.query, e)
		}
	}
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	body := benchBody(5000, true)
	batch := []byte(`{"batch":[` + strings.Repeat(`{"channel":"a","name":"\u0041","data":"{\"x\":1}"},`, 9) + `{"channel":"a","name":"e","data":"d"}]}`)
	q := parse(t, docQuery)
	lim := &Limits{DataBytes: 20000}
	seed := NewSeed()
	var d Decoder
	var out []byte
	if n := testing.AllocsPerRun(200, func() {
		events, e := d.Events(body, q, lim)
		if e != nil {
			t.Fatal(e)
		}
		seed.Digest(&events[0])
		out = AppendEvent(out[:0], &events[0])
		if _, e := d.Batch(batch, lim); e != nil {
			t.Fatal(e)
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// Strings handed out stay what they are while more of the body is read, however
// many escapes come later.
func TestScratchIsNotMoved(t *testing.T) {
	var d Decoder
	for n := range 300 {
		body := fmt.Sprintf(`{"name":"\u0041%s","channels":["\u0062","\u0063\u0064"],"data":"%s"}`, strings.Repeat("x", n%150), strings.Repeat(`\"\u00e9`, n))
		events, e := d.Events([]byte(body), nil, nil)
		if e != nil {
			t.Fatal(e)
		}
		var want struct {
			Name, Data string
			Channels   []string
		}
		if err := json.Unmarshal([]byte(body), &want); err != nil {
			t.Fatal(err)
		}
		if got := viewOf(&events[0]); got.Name != want.Name || got.Data != want.Data || !reflect.DeepEqual(got.Channels, want.Channels) {
			t.Fatalf("%s\n%+v", body, got)
		}
	}
}

// The end of a string, and a fault in it, are found at every distance from its
// beginning, whether it is read by bytes or by words, before and after an escape.
func TestStringsOfEveryLength(t *testing.T) {
	for n := range 100 {
		for _, lead := range []string{"", `\n`, "é"} {
			text := lead + strings.Repeat("x", n)
			want := strings.Replace(text, `\n`, "\n", 1)
			for _, c := range []struct {
				tail, val, fault string
				at               int // after the text
			}{
				{`"`, want, "", 0},
				{`" ` + strings.Repeat("y", 40), want, "", 0},
				{`\"` + strings.Repeat("z", 40) + `"`, want + `"` + strings.Repeat("z", 40), "", 0},
				{"\x1f" + strings.Repeat("z", 40) + `"`, "", "a control character in a string is not escaped", 0},
				{"\x00\"", "", "a control character in a string is not escaped", 0},
				{"\x80\xff\x7f \"", want + "\x80\xff\x7f ", "", 0},
				{"", "", "it ends inside a string", 0},
				{`zz\`, "", "it ends inside a string", 2},
			} {
				for _, validate := range []bool{false, true} {
					sc := scan{b: []byte(`"` + text + c.tail)}
					scratch := make([]byte, 0, len(sc.b)+8)
					dst := &scratch
					if validate {
						dst = nil
					}
					val, ok := sc.str(dst)
					if ok != (c.fault == "") || sc.fault != c.fault || !ok && sc.at != 1+len(text)+c.at || ok && !validate && string(val) != c.val {
						t.Fatalf("%q: %q %v, %s at %d", sc.b, val, ok, sc.fault, sc.at)
					}
				}
			}
		}
	}
}

// Whatever stands where, plain stops at it, and a string with an escape in it is
// read as encoding/json reads it.
func TestLongStringsAreReadToTheByte(t *testing.T) {
	for n := range 200 {
		for at := range n {
			for _, c := range []byte{'"', '\\', 0, 0x1f, ' ', '!', '#', '[', 0x7f, 0x80, 0xff} {
				b := []byte(strings.Repeat("x", n))
				b[at] = c
				want := n
				if c == '"' || c == '\\' || c < ' ' {
					want = at
				}
				if got := (&scan{b: b}).plain(0); got != want {
					t.Fatalf("%d bytes, %#x at %d: %d", n, c, at, got)
				}
			}
			text := `"` + strings.Repeat("y", n-at) + `\n` + strings.Repeat("x", at) + `\"` + strings.Repeat("z", n-at) + `"`
			scratch := make([]byte, 0, len(text)+8)
			val, ok := (&scan{b: []byte(text)}).str(&scratch)
			var want string
			if err := json.Unmarshal([]byte(text), &want); err != nil || !ok || string(val) != want {
				t.Fatalf("%s: %q", text, val)
			}
		}
	}
}
