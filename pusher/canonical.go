package pusher

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// A request has one spelling. Routers differ in what they take for the same path: some undo escapes before they match,
// some merge slashes, resolve dots, cut path parameters, ignore case or a slash at the end. A spelling that one of them
// reads as a publish, and a guard in front as something else, passes that guard's rules. So whatever is not canonical is
// refused before it is routed, and what is left means the same to all of them.

// CheckMethod refuses a method that is not written in capital letters, or that no endpoint of an API has.
//
// The error, if any, is of status 400.
func CheckMethod(method []byte) *Error {
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return badRequest("The method ", quote(method, 20), " is not a word in capital letters. Send GET or POST.")
		}
	}
	if m := string(method); len(m) == 0 || len(m) > 16 || m == "CONNECT" || m == "TRACE" {
		return badRequest("The method ", quote(method, 20), " is none of Pusher's HTTP API. Send GET or POST.")
	}
	return nil
}

const (
	pathSlash  = 1 << iota
	pathDot    // .
	pathEscape // %
	pathParam  // ;
	pathBad    // must be escaped, in whatever segment it stands
)

var pathClass = func() (t [256]uint8) {
	for c := range t {
		t[c] = pathBad
	}
	for _, c := range []byte("-_~!$&'()*+,=:@") {
		t[c] = 0
	}
	for c := byte(0); c < 0x7f; c++ {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			t[c] = 0
		}
	}
	t['/'], t['.'], t['%'], t[';'] = pathSlash, pathDot, pathEscape, pathParam
	return t
}()

// CheckPath refuses a path that is not in canonical form: bytes that must be escaped, escapes of what needs none, double
// and broken escapes, empty and dot segments, a slash at the end, path parameters, a word of the API in another case, and
// whatever some router would take for a publish although it is not written as one.
//
// The segment after "channels" or "users" is a name that somebody chose: it may hold ; and any escape that keeps it one
// segment, because SDKs differ in what they escape there.
//
// The error, if any, is of status 400.
func CheckPath(path []byte) *Error {
	if isPlainPublish(path) {
		return nil
	}
	if len(path) == 0 || path[0] != '/' {
		return badPath(path, "it does not begin with a slash")
	}
	if len(path) == 1 {
		return nil // of nothing
	}
	return checkSegments(path)
}

// isPlainPublish reports whether a path is the one that nearly every request goes to.
func isPlainPublish(path []byte) bool {
	rest, ok := bytes.CutPrefix(path, []byte("/apps/"))
	if !ok {
		return false
	}
	for i, c := range rest {
		if c == '/' {
			return i > 0 && (string(rest[i+1:]) == "events" || string(rest[i+1:]) == "batch_events")
		}
		if pathClass[c] != 0 {
			return false
		}
	}
	return false
}

// apiWords are the fixed parts of paths, as they are written.
var apiWords = [...]string{"apps", "events", "batch_events", "channels", "users", "terminate_connections", "webhooks"}

func checkSegments(path []byte) *Error {
	named := false // the segment is a name
	rest := path[1:]
	for first := true; ; first = false {
		segment, after, more := bytes.Cut(rest, []byte("/"))
		if len(segment) == 0 {
			if !more && !first {
				return badPath(path, "it ends in a slash; leave that out")
			}
			return badPath(path, "it has an empty segment: two slashes in a row")
		}
		if why := checkSegment(segment, named); why != "" {
			return badPath(path, why)
		}
		if len(bytes.Trim(undoEscapes(segment), ". ")) == 0 {
			return badPath(path, "it has a segment of dots or blanks")
		}
		if named && hidesSegments(segment) {
			return badPath(path, "the name in it has a dot segment or an empty one in escapes")
		}
		word := ""
		if !named {
			for _, w := range apiWords {
				if strings.EqualFold(w, string(segment)) {
					if word = w; w != string(segment) {
						return badPath(path, "write "+w+" in small letters")
					}
				}
			}
		}
		named = word == "channels" || word == "users"
		if !more {
			break
		}
		rest = after
	}
	if !utf8.Valid(undoEscapes(path)) {
		return badPath(path, "what its escapes stand for is not UTF-8")
	}
	if !IsPublishPath(path) && readsAsPublish(path) {
		return badPath(path, "some servers would take it for a publish, although it is not written as one. Publish with POST /apps/ID/events or /apps/ID/batch_events")
	}
	return nil
}

// checkSegment says what is wrong with one segment.
func checkSegment(segment []byte, named bool) string {
	for i := 0; i < len(segment); i++ {
		switch c := segment[i]; pathClass[c] {
		case pathParam:
			if !named {
				return "it has a path parameter (;)"
			}
		case pathBad:
			return "it has a byte that must be percent-escaped, " + quote(segment[i:i+1], 1)
		case pathEscape:
			if i+2 >= len(segment) || hexValue[segment[i+1]]|hexValue[segment[i+2]] > 15 {
				return "it has a broken percent escape; write % itself as %25"
			}
			b := hexValue[segment[i+1]]<<4 | hexValue[segment[i+2]]
			switch {
			case b < ' ' || b == 0x7f:
				return "it has an escape that stands for a control character, " + string(segment[i:i+3])
			case pathClass[b] == pathDot, b != '~' && pathClass[b] == 0 && !subDelim(b):
				return "it escapes a character that needs no escape, " + string(segment[i:i+3])
			case b == '%' && i+4 < len(segment) && hexValue[segment[i+3]]|hexValue[segment[i+4]] <= 15:
				return "it has a double escape, " + string(segment[i:i+5])
			case !named && (b == '/' || b == '\\' || b == ';'):
				return "it has an escaped separator, " + string(segment[i:i+3])
			}
			i += 2
		}
	}
	return ""
}

// hidesSegments reports whether a name holds separators in escapes with nothing or only dots between them, which a server
// that unescapes a path before it cleans it would resolve.
func hidesSegments(name []byte) bool {
	decoded := undoEscapes(name)
	if !bytes.ContainsAny(decoded, `/\`) {
		return false
	}
	for _, part := range bytes.FieldsFunc(append(bytes.Clone(decoded), '/'), func(r rune) bool { return r == '/' || r == '\\' }) {
		if len(bytes.Trim(part, ". ")) == 0 {
			return true
		}
	}
	return decoded[0] == '/' || decoded[0] == '\\' || bytes.HasSuffix(decoded, []byte("/")) || bytes.HasSuffix(decoded, []byte(`\`)) ||
		bytes.Contains(bytes.ReplaceAll(decoded, []byte(`\`), []byte("/")), []byte("//"))
}

// subDelim reports whether c is allowed in a path as it is, and may be escaped as well: SDKs do either.
func subDelim(c byte) bool { return strings.IndexByte("!$&'()*+,=:@", c) >= 0 }

func badPath(path []byte, why string) *Error {
	return badRequest("The path ", quote(WithoutSignatures(path), 200), " is not in canonical form: ", why, ".")
}

// IsPublishPath reports whether a path is written as one of the three that publish.
func IsPublishPath(path []byte) bool {
	rest, ok := bytes.CutPrefix(path, []byte("/apps/"))
	if !ok {
		return false
	}
	_, rest, ok = bytes.Cut(rest, []byte("/"))
	if !ok {
		return false
	}
	if string(rest) == "events" || string(rest) == "batch_events" {
		return true
	}
	name, ok := bytes.CutPrefix(rest, []byte("channels/"))
	if !ok {
		return false
	}
	name, ok = bytes.CutSuffix(name, []byte("/events"))
	return ok && len(name) > 0 && bytes.IndexByte(name, '/') < 0
}

// readsAsPublish reports whether any router could take a path for one that publishes, after what routers do to paths: undo
// escapes, more than once; take \ for /; cut path parameters, what follows a NUL, blanks, dots and a format at the end;
// merge slashes; resolve dot segments; ignore case. Each of these is done whether or not a router does them together.
func readsAsPublish(path []byte) bool {
	decoded := path
	for range 4 {
		if spellsPublish(decoded) {
			return true
		}
		next := undoEscapes(decoded)
		if bytes.Equal(next, decoded) {
			return false
		}
		decoded = next
	}
	return spellsPublish(decoded)
}

func spellsPublish(path []byte) bool {
	p := string(path)
	if i := strings.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	if i := strings.IndexAny(p, "?#"); i >= 0 {
		p = p[:i]
	}
	p = strings.ReplaceAll(p, `\`, "/")
	var merged, resolved []string
	for segment := range strings.SplitSeq(p, "/") {
		if i := strings.IndexByte(segment, ';'); i >= 0 {
			segment = segment[:i]
		}
		segment = strings.TrimFunc(segment, func(r rune) bool { return r <= ' ' || r == 0x7f })
		switch segment {
		case "", ".":
			continue
		case "..":
			merged = append(merged, segment)
			resolved = resolved[:max(0, len(resolved)-1)]
			continue
		}
		merged, resolved = append(merged, segment), append(resolved, segment)
	}
	return endsInPublish(merged) || endsInPublish(resolved)
}

// endsInPublish reports whether segments end as those of a publish do, wherever the API is mounted.
func endsInPublish(s []string) bool {
	n := len(s)
	if n < 3 {
		return false
	}
	last := strings.TrimRight(s[n-1], ". ")
	if i := strings.IndexByte(last, '.'); i > 0 {
		last = last[:i]
	}
	events := strings.EqualFold(last, "events")
	if !events && !strings.EqualFold(last, "batch_events") {
		return false
	}
	for i := n - 3; i >= 0; i-- {
		if strings.EqualFold(s[i], "apps") && (i == n-3 || events && i+2 < n-1 && strings.EqualFold(s[i+2], "channels")) {
			return true
		}
	}
	return false
}

// undoEscapes undoes percent escapes once; a broken one stands for itself.
func undoEscapes(path []byte) []byte {
	if bytes.IndexByte(path, '%') < 0 {
		return path
	}
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) && hexValue[path[i+1]]|hexValue[path[i+2]] <= 15 {
			c = hexValue[path[i+1]]<<4 | hexValue[path[i+2]]
			i += 2
		}
		out = append(out, c)
	}
	return out
}

// HasPublishBody reports whether a body, or a query, says what only a publish says: it has data and where they go, or a
// batch. It is for endpoints that are not known, so that one under which a publish would be taken is judged as one.
func HasPublishBody(body []byte, q *Query) (single, batch bool) {
	var data, target bool
	for i := range q.Len() {
		switch key, _ := q.At(i); string(key) {
		case "data":
			data = true
		case "channel", "channels", "channels[]":
			target = true
		}
	}
	s := scan{b: body}
	if s.space() != '{' {
		return data && target, false
	}
	s.i++
	scratch := make([]byte, 0, len(body)+8)
	for first := true; ; first = false {
		more, ok := s.next('}', first)
		if !ok || !more {
			break
		}
		scratch = scratch[:0]
		key, ok := s.key(&scratch)
		if !ok {
			break
		}
		switch string(key) {
		case "data":
			data = true
		case "channel", "channels":
			target = true
		case "batch":
			batch = true
		}
		if !s.skip(1) {
			break
		}
	}
	return data && target, batch
}
