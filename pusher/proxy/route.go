package proxy

import (
	"bytes"
	"net/url"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/pusher"
)

// endpoint is what a path asks for; other endpoints of Pusher's API, known and
// yet to come, are relayed.
type endpoint uint8

const (
	epNone          endpoint = iota // no path of Channels' API
	epEvents                        // POST /apps/{id}/events
	epBatch                         // POST /apps/{id}/batch_events
	epChannelEvents                 // POST /apps/{id}/channels/{channel}/events, deprecated
	epChannels                      // GET /apps/{id}/channels
	epChannel                       // GET /apps/{id}/channels/{channel}
	epChannelUsers                  // GET /apps/{id}/channels/{channel}/users
	epRelay                         // anything else below /apps/{id}/
	epUsers                         // /users/…: Python's terminate_connections, which leaves /apps/{id} out
	epWebhook                       // POST /webhooks/{id}
)

var (
	pathApps     = []byte("/apps/")
	pathUsers    = []byte("/users/")
	pathWebhooks = []byte("/webhooks/")
	pathChannels = []byte("channels/")
	pathEvents   = []byte("/events")
	pathOfUsers  = []byte("/users")
)

// splitTarget cuts a request target into path and raw query, both as they were
// sent. An absolute-form target (RFC 9112, 3.2.2) loses its scheme and host. A
// fragment stays, for the checks of both to refuse.
func splitTarget(uri []byte) (path, query []byte) {
	if len(uri) > 0 && uri[0] != '/' {
		if i := bytes.Index(uri, []byte("://")); i >= 0 {
			uri = uri[i+3:]
			if j := bytes.IndexByte(uri, '/'); j >= 0 {
				uri = uri[j:]
			} else {
				uri = nil
			}
		}
	}
	if i := bytes.IndexByte(uri, '?'); i >= 0 {
		return uri[:i], uri[i+1:]
	}
	return uri, nil
}

// route reads endpoint, app id and, for the endpoints of one channel, the
// channel from a raw path.
func route(method, path []byte) (ep endpoint, id, channel []byte) {
	switch {
	case bytes.HasPrefix(path, pathApps):
		rest := path[len(pathApps):]
		i := bytes.IndexByte(rest, '/')
		if i <= 0 {
			return epNone, nil, nil
		}
		id, rest = rest[:i], rest[i+1:]
		post, get := string(method) == "POST", string(method) == "GET"
		channel, inside := bytes.CutPrefix(rest, pathChannels)
		switch {
		case post && string(rest) == "events":
			return epEvents, id, nil
		case post && string(rest) == "batch_events":
			return epBatch, id, nil
		case get && string(rest) == "channels":
			return epChannels, id, nil
		case inside && post && bytes.HasSuffix(channel, pathEvents):
			return epChannelEvents, id, channel[:len(channel)-len(pathEvents)]
		case inside && get && bytes.HasSuffix(channel, pathOfUsers):
			return epChannelUsers, id, channel[:len(channel)-len(pathOfUsers)]
		case inside && get:
			return epChannel, id, channel
		case len(rest) == 0:
			return epNone, nil, nil
		}
		return epRelay, id, nil
	case bytes.HasPrefix(path, pathUsers) && len(path) > len(pathUsers):
		return epUsers, nil, nil
	case bytes.HasPrefix(path, pathWebhooks) && len(path) > len(pathWebhooks):
		return epWebhook, path[len(pathWebhooks):], nil
	}
	return epNone, nil, nil
}

// unescaped is a path segment as it is meant; one that cannot be unescaped is
// taken as it is, for the name's own check to refuse.
func unescaped(segment []byte) []byte {
	if bytes.IndexByte(segment, '%') < 0 {
		return segment
	}
	if s, err := url.PathUnescape(string(segment)); err == nil {
		return []byte(s)
	}
	return segment
}

// misspelled refuses a method or a path that is not in canonical form, and a path that publishes asked for with another
// method than POST: servers behind this one may take either for a publish. It comes before everything that depends on what
// is asked, and is the same for every protocol.
func misspelled(method, path []byte) *pusher.Error {
	if string(method) != "POST" && string(method) != "GET" {
		if e := pusher.CheckMethod(method); e != nil {
			return e
		}
	}
	if e := pusher.CheckPath(path); e != nil {
		return e
	}
	if string(method) != "POST" && pusher.IsPublishPath(path) {
		return &pusher.Error{Status: fasthttp.StatusMethodNotAllowed, Text: "The method " + string(method) + " is not allowed here: publish with POST."}
	}
	return nil
}

// unknownPublish reads what is sent to an endpoint that is not known here as a publish if that is what its body says: then
// it is judged and priced as one, and goes to that endpoint alone.
func (j *job) unknownPublish(a *App, method []byte) (events []pusher.Publish, batch, isPublish bool, e *pusher.Error) {
	if m := string(method); m == "GET" || m == "HEAD" {
		return nil, false, false, nil
	}
	single, batch := pusher.HasPublishBody(j.in.Body, &j.query)
	switch {
	case batch:
		events, e = j.decoder.Batch(j.in.Body, &a.Limits)
	case single:
		events, e = j.decoder.Events(j.in.Body, &j.query, &a.Limits)
	default:
		return nil, false, false, nil
	}
	for i := range events {
		events[i].Alone = true
	}
	return events, batch, true, e
}
