package pusher

import (
	"bytes"
	"net/http"
)

// AnswerKind says what the body of a 2xx answer is. Only an object without an error is an answer of Pusher's: proxies in front of a
// server answer 200 with a page of their own, and compatible servers with an error in JSON.
type AnswerKind uint8

const (
	AnswerObject AnswerKind = iota // a JSON object
	AnswerError                    // a JSON object that says that the request failed
	AnswerEmpty
	AnswerHTML
	AnswerOther // anything else, half an object as well
)

// String names what is there, for a sentence.
func (k AnswerKind) String() string {
	switch k {
	case AnswerObject:
		return "a JSON object"
	case AnswerError:
		return "an error"
	case AnswerEmpty:
		return "an empty body"
	case AnswerHTML:
		return "an HTML page"
	}
	return "a text that is no JSON object"
}

// ReadAnswer says what the body of an answer is. Of an error it returns what it says and the code that it names, 0 if none.
func ReadAnswer(body []byte) (kind AnswerKind, text []byte, code int) {
	if string(body) == "{}" {
		return AnswerObject, nil, 0
	}
	s := scan{b: body}
	switch c := s.space(); {
	case s.i == len(body):
		return AnswerEmpty, nil, 0
	case c == '<':
		return AnswerHTML, nil, 0
	case c != '{':
		return AnswerOther, nil, 0
	}
	failed := false
	s.i++
	for first := true; ; first = false {
		more, ok := s.next('}', first)
		if !ok {
			return AnswerOther, nil, 0
		}
		if !more {
			break
		}
		key, ok := s.key(nil)
		if !ok {
			return AnswerOther, nil, 0
		}
		s.space()
		from := s.i
		if !s.skip(1) {
			return AnswerOther, nil, 0
		}
		value := s.b[from:s.i]
		switch string(key) {
		case "error", "errors":
			if v := string(value); v != "null" && v != "false" && v != `""` && v != "[]" && v != "{}" {
				failed, text = true, value
			}
		case "ok", "success":
			failed = failed || string(value) == "false"
		case "message":
			if text == nil {
				text = value
			}
		case "code", "status":
			if n, rest := digits(value); rest == 0 {
				code = n
			}
		}
	}
	if !s.end() {
		return AnswerOther, nil, 0
	}
	if !failed {
		return AnswerObject, nil, 0
	}
	if len(text) > 1 && text[0] == '"' {
		t := scan{b: text}
		scratch := make([]byte, 0, len(text)+8)
		if val, ok := t.str(&scratch); ok {
			text = val
		}
	}
	return AnswerError, text, code
}

// digits reads a number of up to nine digits, and says how many bytes are left.
func digits(b []byte) (n, rest int) {
	i := 0
	for ; i < len(b) && i < 9 && b[i]-'0' <= 9; i++ {
		n = n*10 + int(b[i]-'0')
	}
	if i == 0 {
		return 0, 1
	}
	return n, len(b) - i
}

// IsHTML reports whether an answer is a page for people. The type alone does not tell: some servers call all they send HTML.
func IsHTML(contentType, body []byte) bool {
	b := bytes.TrimLeft(body, " \t\r\n\xef\xbb\xbf")
	return len(b) > 0 && b[0] == '<' || len(b) == 0 && len(body) == 0 && bytes.HasPrefix(bytes.ToLower(contentType), []byte("text/html"))
}

// IsQuotaExceeded reports whether an answer of Pusher's says that the account's messages are used up. The status alone does not
// tell: a disabled app is answered 403 too, one page of Pusher's documentation names 413, which is also for data that are too
// large, and a 429 may come from a front end that counts requests.
func IsQuotaExceeded(status int, body []byte) bool {
	switch status {
	case http.StatusForbidden:
		return containsFold(body, "quota") && !aboutConnections(body) || limitReached(body)
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusPaymentRequired:
		return containsFold(body, "quota") && (containsFold(body, "message") || containsFold(body, "daily") || containsFold(body, "plan")) && !aboutConnections(body) || limitReached(body)
	}
	return false
}

func aboutConnections(body []byte) bool {
	return containsFold(body, "connection") && !containsFold(body, "message")
}

// limitReached is the same said without the word quota.
func limitReached(body []byte) bool {
	return containsFold(body, "message limit") && (containsFold(body, "exceed") || containsFold(body, "reached") || containsFold(body, "over "))
}

// signatureDigits is the length of a signature as it is written.
const signatureDigits = 64

// WithoutSignatures returns text with every run of hexadecimal digits that is as long as a signature, or longer, left out: servers
// quote what they were sent, or what they expected, and that is valid for another spelling of the same request. It returns text
// itself where there is none.
func WithoutSignatures(text []byte) []byte {
	var out []byte
	kept := 0
	for i := 0; i < len(text); {
		if hexValue[text[i]] > 15 {
			i++
			continue
		}
		from := i
		for i < len(text) && hexValue[text[i]] <= 15 {
			i++
		}
		if i-from >= signatureDigits {
			out = append(append(out, text[kept:from]...), "[signature]"...)
			kept = i
		}
	}
	if kept == 0 {
		return text
	}
	return append(out, text[kept:]...)
}
