package pusher

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var mutated = flag.Int("mutated", 50_000, "how many mutated requests TestMutatedRequests draws")

// rule is what pusher-signature says of a request, written from its documentation and apart from this package: values
// unescaped, keys in small letters, 600 seconds. twice says that a parameter is given twice, which it does not notice.
func rule(method, path, query, secret string, now time.Time) (accepted, twice bool) {
	params := map[string]string{}
	lists := map[string][]string{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil {
			return false, false
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return false, false
		}
		key = asciiLower(key)
		if strings.HasSuffix(key, "[]") {
			lists[key] = append(lists[key], value)
			continue
		}
		_, before := params[key]
		twice = twice || before
		params[key] = value
	}
	if params["auth_key"] != "key" || params["auth_version"] != "1.0" {
		return false, twice
	}
	stamp, err := strconv.ParseInt(params["auth_timestamp"], 10, 64)
	if err != nil { // Ruby reads the digits in front
		digits := strings.TrimLeft(params["auth_timestamp"], " \t\n\v\f\r")
		n := 0
		for n < len(digits) && (digits[n] >= '0' && digits[n] <= '9' || n == 0 && (digits[n] == '-' || digits[n] == '+')) {
			n++
		}
		stamp, _ = strconv.ParseInt(digits[:n], 10, 64)
	}
	if d := now.Unix() - stamp; d >= 600 || d <= -600 {
		return false, twice
	}
	sent := params["auth_signature"]
	delete(params, "auth_signature")
	var parts []string
	var keys []string
	for k := range params {
		keys = append(keys, k)
	}
	for k := range lists {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if v, ok := lists[k]; ok {
			for _, one := range v {
				parts = append(parts, k+"="+one)
			}
			continue
		}
		parts = append(parts, k+"="+params[k])
	}
	for _, p := range []string{path, unescapeOnce(path)} {
		m := hmac.New(sha256.New, []byte(secret))
		m.Write([]byte(method + "\n" + p + "\n" + strings.Join(parts, "&")))
		if hex.EncodeToString(m.Sum(nil)) == sent {
			return true, twice
		}
	}
	return false, twice
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// A mutated request is accepted exactly where pusher-signature would accept it, but for what is refused here on purpose: a
// parameter given twice, a query that is none, a body that its MD5 is not of. The long form is go test ./pusher -run
// MutatedRequests -mutated 1000000.
func TestMutatedRequests(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	k := NewKey("key", "secret")
	now := docTime
	const alphabet = "abcXYZ019%&=+;,[]-_~ ./\x00\xff#?"
	var q Query
	accepted, refused, stricter := 0, 0, 0
	for range *mutated {
		method := []string{"GET", "POST"}[r.IntN(2)]
		path := []string{"/apps/1/events", "/apps/1/channels/a;b", "/apps/1/users/a%20b/terminate_connections"}[r.IntN(3)]
		body := []byte(fmt.Sprintf(`{"n":%d}`, r.IntN(1000)))
		if err := q.Parse([]byte([]string{"", "info=a,b", "channels[]=b&channels[]=a", "x=%41+b", "Filter=Q"}[r.IntN(5)])); err != nil {
			t.Fatal(err)
		}
		var query string
		if r.IntN(4) == 0 {
			query = string(k.AppendSignedUnescaped(nil, method, []byte(path), &q, body, now.Add(time.Duration(r.IntN(1300)-650)*time.Second)))
		} else {
			query = string(k.AppendSigned(nil, method, []byte(path), &q, body, now.Add(time.Duration(r.IntN(1300)-650)*time.Second)))
		}
		for range r.IntN(3) {
			parts := strings.Split(query, "&")
			i := r.IntN(len(query))
			switch r.IntN(9) {
			case 0:
				query = query[:i] + string(alphabet[r.IntN(len(alphabet))]) + query[i+1:]
			case 1:
				query = query[:i] + query[i+1:]
			case 2: // an escape that changes nothing
				if c := query[i]; c != '&' && c != '=' && c != '%' && (i < 1 || query[i-1] != '%') && (i < 2 || query[i-2] != '%') {
					query = query[:i] + fmt.Sprintf("%%%02x", c) + query[i+1:]
				}
			case 3:
				r.Shuffle(len(parts), func(a, b int) { parts[a], parts[b] = parts[b], parts[a] })
				query = strings.Join(parts, "&")
			case 4:
				n := r.IntN(len(parts))
				parts[n] = strings.ToUpper(parts[n][:max(strings.IndexByte(parts[n], '='), 0)]) + parts[n][max(strings.IndexByte(parts[n], '='), 0):]
				query = strings.Join(parts, "&")
			case 5:
				query += "&" + parts[r.IntN(len(parts))]
			case 6:
				query = "&" + strings.Replace(query, "&", "&&", 1)
			case 7:
				body = append(body, ' ')
			case 8:
				path = path[:len(path)-1]
			}
		}
		want, twice := rule(method, path, query, "secret", now)
		err := q.Parse([]byte(query))
		got := err == nil && k.Verify(method, []byte(path), &q, body, now) == nil
		sum := md5.Sum(body)
		md5Sent, _ := q.Get("body_md5")
		switch {
		case got && !want:
			t.Fatalf("accepted, and pusher-signature would not: %s %s?%s", method, path, query)
		case got:
			accepted++
		case want && err == nil && !twice && string(md5Sent) == hex.EncodeToString(sum[:]):
			t.Fatalf("refused, and pusher-signature would not: %s %s?%s: %v", method, path, query, k.Verify(method, []byte(path), &q, body, now))
		case want:
			stricter++
		default:
			refused++
		}
	}
	t.Logf("%d requests: %d accepted as pusher-signature does, %d refused as it does, %d refused on purpose (twice, malformed, body_md5)", *mutated, accepted, refused, stricter)
	if accepted < *mutated/10 || refused < *mutated/10 || stricter == 0 {
		t.Error("the generator tests little")
	}
}
