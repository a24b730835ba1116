//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// poolSpec says what a pool of publishes looks like. Each is a whole HTTP request, signed as an SDK signs.
type poolSpec struct {
	App, Key, Secret string
	Event            string
	Requests         int  // how many there are
	Channels         int  // over how many channels they are spread
	Same             bool // all bear the same payload: only the channels differ
	BodyBytes        int
	Callers          int // 0, 1: all are signed by Key; more: in turns by that many of maxCallers
}

// maxCallers is how many callers of their own the guards know beside the one of Key.
const maxCallers = 20

// caller is one of these.
type caller struct{ Name, Key, Secret string }

func moreCallers() (all []caller) {
	for i := range maxCallers {
		n := strconv.Itoa(i + 1)
		all = append(all, caller{"caller-" + n, "caller-key-" + n, "caller-secret-" + n})
	}
	return all
}

// writePool signs with the present time; Pusher takes a request for 600 s after that. Requests are separated by a
// zero byte, which none of them has.
func writePool(w io.Writer, s poolSpec, now time.Time) error {
	keys := []*pusher.Key{pusher.NewKey(s.Key, s.Secret)}
	if s.Callers > 1 {
		keys = nil
		for _, c := range moreCallers()[:s.Callers] {
			keys = append(keys, pusher.NewKey(c.Key, c.Secret))
		}
	}
	path := "/apps/" + s.App + "/events"
	var body, query, all []byte
	for i := range s.Requests {
		id := i
		if s.Same {
			id = 0
		}
		channel := "private-user-" + strconv.Itoa(100000+i%s.Channels)
		body = fillBody(body[:0], s, channel, id)
		if len(body) != s.BodyBytes {
			return fmt.Errorf("a body of %d bytes is too small for event %q and channel %q", s.BodyBytes, s.Event, channel)
		}
		query = keys[i%len(keys)].AppendSigned(query[:0], "POST", []byte(path), nil, body, now)
		if i > 0 {
			all = append(all, 0)
		}
		all = fmt.Appendf(all, "POST %s?%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Pusher-Library: bench 1.0\r\nContent-Length: %d\r\n\r\n%s",
			path, query, len(body), body)
	}
	_, err := w.Write(all)
	return err
}

// fillBody writes a trigger whose data is a JSON text, as nearly all are, and so full of escapes.
func fillBody(dst []byte, s poolSpec, channel string, id int) []byte {
	event := func(padding int) []byte {
		data := fmt.Appendf(nil, `{"id":%d,"kind":"message","from":"bench","unread":%d,"text":"`, 10_000_000+id, id%100+100)
		data = append(data, bytes.Repeat([]byte("x"), max(padding, 0))...)
		return append(data, `"}`...)
	}
	p := pusher.Publish{Name: []byte(s.Event), Channels: [][]byte{[]byte(channel)}, Data: event(0)}
	bare := len(pusher.AppendEvent(dst, &p)) - len(dst)
	p.Data = event(s.BodyBytes - bare)
	return pusher.AppendEvent(dst, &p)
}

// poolFile signs a pool into a file.
func poolFile(name string, s poolSpec) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writePool(f, s, time.Now()); err != nil {
		return err
	}
	return f.Close()
}

func readPool(name string) ([][]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s: no request in it", name)
	}
	return bytes.Split(b, []byte{0}), nil
}

func (s *poolSpec) flags(fs *flag.FlagSet) {
	fs.StringVar(&s.App, "app", "1", "app `id`")
	fs.StringVar(&s.Key, "key", "caller-key", "auth key")
	fs.StringVar(&s.Secret, "secret", "caller-secret", "its secret")
	fs.StringVar(&s.Event, "event", "notification.created", "event name")
	fs.IntVar(&s.Requests, "requests", 40000, "distinct requests")
	fs.IntVar(&s.Channels, "channels", 10000, "channels they are spread over")
	fs.BoolVar(&s.Same, "same", false, "the same payload in all of them")
	fs.IntVar(&s.BodyBytes, "bytes", 500, "bytes of a body")
}

func pool(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("pool", flag.ContinueOnError)
	var s poolSpec
	s.flags(fs)
	if err := parse(fs, args, stderr); err != nil {
		return err
	}
	return writePool(stdout, s, time.Now())
}
