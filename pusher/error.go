package pusher

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// Error is a refusal in Pusher's terms: the HTTP status and the plain text body
// that goes with it (the .NET SDK loses refusals that are JSON). It never
// holds a secret; what it quotes of a request is cut to a stated length.
type Error struct {
	Status int
	Text   string
}

func (e *Error) Error() string { return e.Text }

// Pusher's words for the two meanings of a 403.
const (
	// QuotaText is the body of the 403 that answers every publish once the
	// account's daily messages are used up.
	QuotaText = "API call failed since (daily) message quota exceeded"
	// AppDisabledText marks the 403 of an app that its owner switched off.
	AppDisabledText = "app disabled"
)

// IsAppDisabled reports whether an answer of Pusher's says that this app, and
// not the account, is closed.
func IsAppDisabled(status int, body []byte) bool {
	return status == http.StatusForbidden && !containsFold(body, "quota") && containsFold(body, "disabled")
}

// answerPeek is how much of an upstream's answer is looked at for words.
const answerPeek = 1024

func containsFold(body []byte, lower string) bool {
	return bytes.Contains(bytes.ToLower(body[:min(len(body), answerPeek)]), []byte(lower))
}

func badRequest(parts ...string) *Error {
	return &Error{Status: http.StatusBadRequest, Text: strings.Join(parts, "")}
}

func unauthorized(parts ...string) *Error {
	return &Error{Status: http.StatusUnauthorized, Text: strings.Join(parts, "")}
}

// UnknownKey is Pusher's 401 for an auth_key that belongs to nobody.
func UnknownKey(key []byte) *Error {
	return unauthorized("Unknown auth_key: ", quote(key, 64),
		" is not known for this app. Check the key and the app id in the caller's configuration.")
}

// MissingParameter is Pusher's 401 for a request that is not signed in full.
func MissingParameter(name string) *Error {
	return unauthorized("Missing parameter: ", name,
		". Every request must be signed: send auth_key, auth_timestamp, auth_version, auth_signature, and body_md5 when it has a body.")
}

// quote shows bytes of a request in a sentence, never more than limit of them.
func quote(b []byte, limit int) string {
	if len(b) > limit {
		return strconv.Quote(string(b[:limit])) + "..."
	}
	return strconv.Quote(string(b))
}
