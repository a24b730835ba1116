package pusher

import (
	"fmt"
	"strings"
	"testing"
)

func TestReadChannels(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{`{"channels":{}}`, "", ""},
		{`{"channels":{"a":{},"presence-b":{"user_count":42},"c":{"subscription_count":7}}}`, "a=-1 presence-b=42 c=-1", ""},
		{`{"x":[1,{"channels":{"no":{}}}],"channels":{"a":{"x":null}},"y":1}`, "a=-1", ""},
		{`{"channels":{"stop":{},"b":{}}`, "stop=-1", ""}, // what follows is not looked at
		{``, "", "unexpected EOF"},
		{`{"channels":{"a":{},`, "a=-1", "unexpected EOF"},
		{`{"channels":{"a":{}`, "a=-1", "unexpected EOF"},
		{`{"channels":[]}`, "", "not of Pusher's form"},
		{`[]`, "", "not of Pusher's form"},
		{`{"channels":{"a":7}}`, "", "not of Pusher's form"},
		{`{}`, "", "no channels"},
		{`{"channels":{"a":{"user_count":"x"}}}`, "", "not of Pusher's form"},
	} {
		var got []string
		err := ReadChannels(strings.NewReader(c.in), func(channel string, users int64) bool {
			got = append(got, fmt.Sprintf("%s=%d", channel, users))
			return channel != "stop"
		})
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.in, err, c.err)
		}
	}
}

func TestReadChannel(t *testing.T) {
	for _, c := range []struct {
		in      string
		n       int64
		counted bool
		fails   bool
	}{
		{`{"occupied":true,"subscription_count":42}`, 42, true, false},
		{`{"occupied":false}`, 0, true, false},
		{`{"occupied":true}`, 0, false, false},
		{`{"occupied":true,"user_count":3}`, 0, false, false}, // users are not connections
		{`{"occupied":true,"subscription_count":-1}`, 0, false, false},
		{`{}`, 0, false, false},
		{`{"subscription_count":"4"}`, 0, false, true},
		{``, 0, false, true},
	} {
		n, counted, err := ReadChannel(strings.NewReader(c.in))
		if n != c.n || counted != c.counted || (err != nil) != c.fails {
			t.Errorf("%s: %d %v %v", c.in, n, counted, err)
		}
	}
}
