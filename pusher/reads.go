package pusher

import "bytes"

// CheckChannels reports why Pusher would refuse GET /apps/ID/channels with this
// query: user_count needs filter_by_prefix to select presence channels only.
func CheckChannels(q *Query) *Error {
	info, ok := q.Get("info")
	if !ok || len(info) == 0 {
		return nil
	}
	for rest, more := info, true; more; {
		var attr []byte
		attr, rest, more = bytes.Cut(rest, comma)
		switch string(attr) {
		case "user_count":
			if prefix, _ := q.Get("filter_by_prefix"); !IsPresence(prefix) {
				return badRequest("info=user_count is only known for presence channels. Add filter_by_prefix=presence- to the request.")
			}
		case "subscription_count":
		default:
			return badRequest("Unknown info attribute ", quote(attr, 60), ": a list of channels can be asked for user_count or subscription_count.")
		}
	}
	return nil
}

// CheckChannel reports why Pusher would refuse GET /apps/ID/channels/CHANNEL
// with this query. channel is unescaped.
func CheckChannel(channel []byte, q *Query, lim *Limits) *Error {
	if e := checkName(-1, channel, lim.full().ChannelName); e != nil {
		return e
	}
	info, ok := q.Get("info")
	if !ok || len(info) == 0 {
		return nil
	}
	for rest, more := info, true; more; {
		var attr []byte
		attr, rest, more = bytes.Cut(rest, comma)
		switch string(attr) {
		case "user_count":
			if !IsPresence(channel) {
				return badRequest("info=user_count is only known for presence channels, and ", quote(channel, 220), " is none.")
			}
		case "cache":
			if !IsCache(channel) {
				return badRequest("info=cache is only known for cache channels, and ", quote(channel, 220), " is none.")
			}
		case "subscription_count":
		default:
			return badRequest("Unknown info attribute ", quote(attr, 60), ": a channel can be asked for subscription_count, user_count and cache.")
		}
	}
	return nil
}

// CheckUsers reports why Pusher would refuse GET
// /apps/ID/channels/CHANNEL/users. channel is unescaped.
func CheckUsers(channel []byte, lim *Limits) *Error {
	if e := checkName(-1, channel, lim.full().ChannelName); e != nil {
		return e
	}
	if !IsPresence(channel) {
		return badRequest("Users can only be retrieved for presence channels, and ", quote(channel, 220), " is none.")
	}
	return nil
}
