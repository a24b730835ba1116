package pusher

import (
	"bytes"
	"net/http"
	"strconv"
)

// Limits are what one request may hold. A zero field means Pusher's limit on its
// shared clusters; a dedicated cluster may agree on others.
type Limits struct {
	DataBytes   int // bytes of an event's decoded data; 10240
	Channels    int // channels of one publish; 100
	Batch       int // events of one batch; 10
	ChannelName int // bytes of a channel's name; 200, the limit of most SDKs (the documentation says 164)
	EventName   int // bytes of an event's name; 200
	Body        int // bytes of a request's body; what the other limits can need at worst
}

const (
	defaultDataBytes   = 10240
	defaultChannels    = 100
	defaultBatch       = 10
	defaultChannelName = 200
	defaultEventName   = 200
)

// full returns l with every zero filled in. A nil l is all defaults.
func (l *Limits) full() Limits {
	var f Limits
	if l != nil {
		f = *l
	}
	f.DataBytes = orDefault(f.DataBytes, defaultDataBytes)
	f.Channels = orDefault(f.Channels, defaultChannels)
	f.Batch = orDefault(f.Batch, defaultBatch)
	f.ChannelName = orDefault(f.ChannelName, defaultChannelName)
	f.EventName = orDefault(f.EventName, defaultEventName)
	if f.Body <= 0 {
		// A byte is six when written as \u00XX; names and the rest need a kilobyte or so.
		event := 6*(f.DataBytes+f.EventName) + f.ChannelName + 1024
		f.Body = max(f.Batch*event, event+f.Channels*(f.ChannelName+4))
	}
	return f
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// MaxBody is the number of bytes after which reading a body can stop: Body, or
// if that is zero, the longest that a legal request can be (about 640 KiB by
// default: ten events of 10 KiB with every byte escaped).
func (l *Limits) MaxBody() int { return l.full().Body }

// TooLarge is the 413 for a body of more than MaxBody bytes.
func (l *Limits) TooLarge() *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Text: "The body of this request exceeds the allowed maximum (" +
		strconv.Itoa(l.MaxBody()) + " bytes). Send fewer events in a batch, or less data."}
}

// dataTooLarge begins with Pusher's own words.
func dataTooLarge(where string, size, limit int) *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Text: "The data content of this event exceeds the allowed maximum (" +
		strconv.Itoa(limit) + " bytes). See https://pusher.com/docs/channels/server_api/http-api#publishing-events for more info. " +
		where + "data has " + strconv.Itoa(size) + " bytes: send an id and let the client fetch the rest."}
}

// Prefixes that give a channel its kind, see
// https://pusher.com/docs/channels/using_channels/channels/#channel-types.
const (
	encryptedPrefix = "private-encrypted-"
	presencePrefix  = "presence-"
	userPrefix      = "#server-to-user-"
)

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

// IsPresence reports whether a channel is a presence channel.
func IsPresence(channel []byte) bool { return hasPrefix(channel, presencePrefix) }

// IsEncrypted reports whether a channel's payloads are end-to-end encrypted.
func IsEncrypted(channel []byte) bool { return hasPrefix(channel, encryptedPrefix) }

// IsCache reports whether a channel keeps its last event for new subscribers,
// so that a publish counts even when nobody is subscribed.
func IsCache(channel []byte) bool {
	for _, prefix := range cachePrefixes {
		if hasPrefix(channel, prefix) {
			return true
		}
	}
	return false
}

var cachePrefixes = [...]string{"cache-", "private-cache-", "private-encrypted-cache-", "presence-cache-"}

var channelByte = func() (t [256]bool) {
	for _, c := range []byte("-_=@,.;") {
		t[c] = true
	}
	for c := range t {
		t[c] = t[c] || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	}
	return t
}()

// checkName, for the event at an index of a batch (-1: of none), reports why name is not a channel that a client can subscribe to.
func checkName(index int, name []byte, limit int) *Error {
	if len(name) == 0 {
		return badRequest(where(index), "the channel name is empty.")
	}
	for i, c := range name {
		if !channelByte[c] {
			return badRequest(where(index), "Invalid channel name ", quote(name, 220), ": byte ", strconv.Itoa(i),
				" is not one of a-z A-Z 0-9 - _ = @ , . ;")
		}
	}
	if len(name) > limit {
		return badRequest(where(index), "the channel name ", quote(name, 60), " has ", strconv.Itoa(len(name)),
			" bytes; at most ", strconv.Itoa(limit), " are allowed.")
	}
	return nil
}

// checkTarget is checkName for the target of a publish, which may also be all
// connections of one signed-in user.
func checkTarget(index int, name []byte, limit int) (toUser bool, e *Error) {
	if len(name) == 0 || name[0] != '#' {
		return false, checkName(index, name, limit)
	}
	if !hasPrefix(name, userPrefix) {
		return false, badRequest(where(index), "Invalid channel name ", quote(name, 60), ": # is reserved, except in #server-to-user-ID.")
	}
	id := name[len(userPrefix):]
	if len(id) == 0 || len(id) > limit {
		return false, badRequest(where(index), "the user id after #server-to-user- has ", strconv.Itoa(len(id)),
			" bytes; 1 to ", strconv.Itoa(limit), " are allowed.")
	}
	for _, c := range id {
		if c < ' ' || c == 0x7f {
			return false, badRequest(where(index), "the user id after #server-to-user- has a control character, ", quote(id, 60), ".")
		}
	}
	return true, nil
}

// maxSocketID is more than any socket id that Pusher hands out.
const maxSocketID = 64

func checkSocketID(index int, id []byte) *Error {
	dot := bytes.IndexByte(id, '.')
	ok := dot > 0 && dot < len(id)-1 && len(id) <= maxSocketID
	for i, c := range id {
		ok = ok && (i == dot || c >= '0' && c <= '9')
	}
	if ok {
		return nil
	}
	return badRequest(where(index), "Invalid socket_id ", quote(id, maxSocketID),
		`: send the socket id of a connection, two numbers joined by a dot such as "1234.5678", or leave it out.`)
}

// checkInfo accepts attributes that a publish can ask for. user_count exists on
// presence channels only; asked for together with others it is left out of the
// answer where it does not apply, as in Pusher's own example, so it is refused
// only when no channel of the publish could have it.
func checkInfo(index int, info []byte, channels [][]byte) *Error {
	for rest, more := info, true; more; {
		var attr []byte
		attr, rest, more = bytes.Cut(rest, comma)
		switch string(attr) {
		case "subscription_count":
		case "user_count":
			presence := false
			for _, ch := range channels {
				presence = presence || IsPresence(ch)
			}
			if !presence {
				return badRequest(where(index), "info=user_count is only known for presence channels. Ask for subscription_count, or publish to a channel that begins with presence-.")
			}
		default:
			return badRequest(where(index), "Unknown info attribute ", quote(attr, 60), ": ask for subscription_count, user_count, or both joined by a comma.")
		}
	}
	return nil
}

var comma = []byte(",")
