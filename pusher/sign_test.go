package pusher

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/pusher/pusher-http-go/v5"
)

// The worked example of
// https://pusher.com/docs/channels/library_auth_reference/rest-api/#worked-authentication-example
const (
	docKey    = "278d425bdf160c739803"
	docSecret = "7ad3773142a6692b25b8"
	docBody   = `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`
	docQuery  = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
)

var docTime = time.Unix(1353088179, 0)

func parse(t testing.TB, raw string) *Query {
	t.Helper()
	var q Query
	if err := q.Parse([]byte(raw)); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return &q
}

func verify(t testing.TB, k *Key, method, path, query, body string, now time.Time) *Error {
	t.Helper()
	return k.Verify(method, []byte(path), parse(t, query), []byte(body), now)
}

func TestDocumentedVector(t *testing.T) {
	k := NewKey(docKey, docSecret)
	if e := verify(t, k, "POST", "/apps/3/events", docQuery, docBody, docTime); e != nil {
		t.Error(e)
	}
	if got := k.AppendSigned(nil, "POST", []byte("/apps/3/events"), nil, []byte(docBody), docTime); string(got) != docQuery {
		t.Errorf("signed\n%s, want\n%s", got, docQuery)
	}
}

// What the real SDK sends, over a real connection.
func TestSDKSignatures(t *testing.T) {
	k := NewKey("key", "secret")
	seen := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		path, query, _ := strings.Cut(r.RequestURI, "?")
		if e := verify(t, k, r.Method, path, query, string(body), time.Now()); e != nil {
			t.Errorf("%s %s: %v", r.Method, r.RequestURI, e)
		}
		// The same request, signed again for the next server.
		q := parse(t, query)
		if e := k.Verify(r.Method, []byte(path), q, body, time.Now()); e != nil {
			t.Error(e)
		}
		again := k.AppendSigned(nil, r.Method, []byte(path), q, body, time.Now())
		if e := verify(t, k, r.Method, path, string(again), string(body), time.Now()); e != nil {
			t.Errorf("%s %s signed again as %s: %v", r.Method, r.RequestURI, again, e)
		}
		seen++
		io.WriteString(w, "{}")
	}))
	defer srv.Close()
	c := sdk.Client{AppID: "1", Key: "key", Secret: "secret", Host: strings.TrimPrefix(srv.URL, "http://")}
	text := func(s string) *string { return &s }
	for _, err := range []error{
		c.Trigger("a", "e", map[string]any{"x": "<é>"}),
		c.TriggerMulti([]string{"a,b", "c;d"}, "e", "x"),
		c.SendToUser("u;1", "e", "x"),
		func() error { _, err := c.TriggerBatch([]sdk.Event{{Channel: "a", Name: "e", Data: "d"}}); return err }(),
		func() error {
			_, err := c.Channels(sdk.ChannelsParams{FilterByPrefix: text("presence-a;b,c=@"), Info: text("user_count")})
			return err
		}(),
		func() error {
			_, err := c.Channel("presence-a;b,c=@", sdk.ChannelParams{Info: text("user_count")})
			return err
		}(),
		func() error { _, err := c.GetChannelUsers("presence-a"); return err }(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if seen != 7 {
		t.Errorf("%d requests arrived", seen)
	}
}

// signText signs as an SDK would that builds the string to sign by itself.
func signText(k *Key, text string) string { return SignWebhook(k, []byte(text)) }

// What pusher-signature refuses is refused: it knows values unescaped only.
func TestSignedAsSentIsRefused(t *testing.T) {
	k := NewKey("k", "s")
	const auth = "auth_key=k&auth_timestamp=1353088179&auth_version=1.0"
	for _, query := range []string{auth + "&filter_by_prefix=a%3Bb", auth + "&filter_by_prefix=a+b", auth + "&x=%41"} {
		sig := signText(k, "GET\n/apps/1/channels\n"+query)
		e := verify(t, k, "GET", "/apps/1/channels", query+"&auth_signature="+sig, "", docTime)
		if e == nil || e.Status != 401 {
			t.Errorf("%s, signed as sent: %v", query, e)
		} else if strings.Contains(e.Text, sig) {
			t.Errorf("the refusal quotes a signature: %s", e.Text)
		}
	}
}

// Every way in which SDKs are known to differ is one line: what was signed, and
// what was sent.
func TestSignatureForms(t *testing.T) {
	k := NewKey("k", "s")
	const auth = "auth_key=k&auth_timestamp=1353088179&auth_version=1.0"
	for _, c := range []struct {
		name, method, signedPath, signedQuery, path, query string
	}{
		{"raw semicolon and comma", "GET", "/apps/1/channels", auth + "&filter_by_prefix=a;b,c", "/apps/1/channels", auth + "&filter_by_prefix=a;b,c"},
		{"escaped, signed unescaped", "GET", "/apps/1/channels", auth + "&filter_by_prefix=a;b,c d+e", "/apps/1/channels", auth + "&filter_by_prefix=a%3Bb%2cc+d%2Be"},
		{"upper case keys", "GET", "/apps/1/channels", auth + "&info=x&name=Y", "/apps/1/channels", "Auth_Key=k&AUTH_VERSION=1.0&auth_timestamp=1353088179&NAME=Y&Info=x"},
		{"unsorted", "GET", "/apps/1/channels", "a=1&" + auth + "&info=x&z=2", "/apps/1/channels", "z=2&info=x&" + auth + "&a=1"},
		{"arrays keep their order", "POST", "/apps/1/events", auth + "&channels[]=b&channels[]=a&data=&name=n", "/apps/1/events", "name=n&channels[]=b&data=&channels[]=a&" + auth},
		{"escaped array keys", "POST", "/apps/1/events", auth + "&channels[]=b&channels[]=a", "/apps/1/events", auth + "&channels%5B%5D=b&channels%5b%5d=a"},
		{"encoded path, signed raw (Node)", "POST", "/apps/1/users/a b/terminate_connections", auth, "/apps/1/users/a%20b/terminate_connections", auth},
		{"encoded path, signed as built (Ruby)", "POST", "/apps/1/users/a%20b/terminate_connections", auth, "/apps/1/users/a%20b/terminate_connections", auth},
		{"both escaped, both signed raw", "GET", "/apps/1/channels/a;b", auth + "&info=x,y", "/apps/1/channels/a%3Bb", auth + "&info=x%2Cy"},
		{"MD5 of nothing on a GET (Python)", "GET", "/apps/1/channels", auth + "&body_md5=d41d8cd98f00b204e9800998ecf8427e", "/apps/1/channels", auth + "&body_md5=d41d8cd98f00b204e9800998ecf8427e"},
		{"empty pairs", "GET", "/apps/1/channels", auth + "&flag=", "/apps/1/channels", "&" + auth + "&&flag&"},
	} {
		sig := signText(k, c.method+"\n"+c.signedPath+"\n"+c.signedQuery)
		// .NET sends the signature first, the others last.
		for _, query := range []string{"auth_signature=" + sig + "&" + c.query, c.query + "&auth_signature=" + sig} {
			if e := verify(t, k, c.method, c.path, query, "", docTime); e != nil {
				t.Errorf("%s: %v", c.name, e)
				continue
			}
			// Relayed, it is signed anew in the one form: over the path as it is sent, values unescaped.
			q := parse(t, query)
			later := docTime.Add(time.Hour)
			again := string(k.AppendSigned(nil, c.method, []byte(c.path), q, nil, later))
			if e := verify(t, k, c.method, c.path, again, "", later); e != nil {
				t.Errorf("%s: signed again as %s: %v", c.name, again, e)
			}
			signedAgain := strings.Replace(strings.Replace(c.signedQuery, "1353088179", "1353091779", 1), "&body_md5=d41d8cd98f00b204e9800998ecf8427e", "", 1)
			if want := signText(k, c.method+"\n"+c.path+"\n"+signedAgain); !strings.HasSuffix(again, "&auth_signature="+want) {
				t.Errorf("%s: signed again over another form: %s", c.name, again)
			}
			unescaped := string(k.AppendSignedUnescaped(nil, c.method, []byte(c.path), q, nil, later))
			if want := signText(k, c.method+"\n"+string(undoEscapes([]byte(c.path)))+"\n"+signedAgain); !strings.HasSuffix(unescaped, "&auth_signature="+want) {
				t.Errorf("%s: signed over another form than the unescaped path: %s", c.name, unescaped)
			}
			for i := range q.Len() {
				if key, value := q.At(i); !strings.HasPrefix(string(key), "auth_") && string(key) != "body_md5" {
					if got, ok := parse(t, again).Get(string(key)); !ok || string(key) != "channels[]" && string(got) != string(value) {
						t.Errorf("%s: %s=%s is lost in %s", c.name, key, value, again)
					}
				}
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := NewKey(docKey, docSecret)
	swap := func(old, new string) string {
		if !strings.Contains(docQuery, old) {
			t.Fatal("no " + old)
		}
		return strings.Replace(docQuery, old, new, 1)
	}
	resign := func(query, body string) string {
		query = strings.TrimSuffix(query, "&"+docQuery[strings.Index(docQuery, "auth_signature"):])
		return query + "&auth_signature=" + signText(k, "POST\n/apps/3/events\n"+query)
	}
	for _, c := range []struct {
		name, method, path, query, body string
		now                             time.Time
		want                            string // how the 401 begins; "" for accepted
	}{
		{"as documented", "POST", "/apps/3/events", docQuery, docBody, docTime, ""},
		{"no query", "POST", "/apps/3/events", "", docBody, docTime, "Missing parameter: auth_key"},
		{"other key", "POST", "/apps/3/events", swap(docKey, "other"), docBody, docTime, "Unknown auth_key"},
		{"no version", "POST", "/apps/3/events", swap("&auth_version=1.0", ""), docBody, docTime, "Version required"},
		{"other version", "POST", "/apps/3/events", swap("1.0", "2.0"), docBody, docTime, "Version not supported"},
		{"no timestamp", "POST", "/apps/3/events", swap("&auth_timestamp=1353088179", ""), docBody, docTime, "Timestamp required"},
		{"empty timestamp", "POST", "/apps/3/events", swap("1353088179", ""), docBody, docTime, "Timestamp expired: Given timestamp (1970-01-01T00:00:00Z) not within 600s of server time (2012-11-16T17:49:39Z). auth_timestamp must be whole seconds"},
		{"word as timestamp", "POST", "/apps/3/events", swap("1353088179", "now"), docBody, docTime, "Timestamp expired: Given timestamp (1970-01-01T00:00:00Z) not within 600s of server time (2012-11-16T17:49:39Z). auth_timestamp must be whole seconds"},
		{"negative timestamp", "POST", "/apps/3/events", swap("1353088179", "-1"), docBody, docTime, "Timestamp expired"},
		{"milliseconds", "POST", "/apps/3/events", swap("1353088179", "1353088179000"), docBody, docTime, "Timestamp expired: Given timestamp (9999-12-31T23:59:59Z) not within 600s of server time (2012-11-16T17:49:39Z). auth_timestamp must be seconds"},
		{"endless timestamp", "POST", "/apps/3/events", swap("1353088179", strings.Repeat("9", 1000)), docBody, docTime, "Timestamp expired"},
		{"599 s later", "POST", "/apps/3/events", docQuery, docBody, docTime.Add(599*time.Second + 999*time.Millisecond), ""},
		{"600 s later", "POST", "/apps/3/events", docQuery, docBody, docTime.Add(600 * time.Second), "Timestamp expired: Given timestamp (2012-11-16T17:49:39Z) not within 600s of server time (2012-11-16T17:59:39Z)"},
		{"599 s earlier", "POST", "/apps/3/events", docQuery, docBody, docTime.Add(-599 * time.Second), ""},
		{"600 s earlier", "POST", "/apps/3/events", docQuery, docBody, docTime.Add(-600 * time.Second), "Timestamp expired"},
		{"no signature", "POST", "/apps/3/events", docQuery[:strings.Index(docQuery, "&auth_signature")], docBody, docTime, "Missing parameter: auth_signature"},
		{"empty signature", "POST", "/apps/3/events", docQuery[:strings.Index(docQuery, "da4548")], docBody, docTime, `Invalid signature: you should have sent HmacSHA256Hex("POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f", your_secret_key)`},
		{"upper case signature", "POST", "/apps/3/events", swap("da4548", "DA4548"), docBody, docTime, "Invalid signature"},
		{"long signature", "POST", "/apps/3/events", docQuery + strings.Repeat("0", 5000), docBody, docTime, "Invalid signature"},
		{"other method", "GET", "/apps/3/events", docQuery, docBody, docTime, `Invalid signature: you should have sent HmacSHA256Hex("GET\n`},
		{"other path", "POST", "/apps/4/events", docQuery, docBody, docTime, "Invalid signature"},
		{"parameter added", "POST", "/apps/3/events", docQuery + "&info=x", docBody, docTime, "Invalid signature"},
		{"other body", "POST", "/apps/3/events", docQuery, strings.Replace(docBody, "foo", "bar", 1), docTime, `Invalid body_md5: the request says "ec365a775a4cd0599faeb73354201b6f", but its body of 68 bytes`},
		{"no body", "POST", "/apps/3/events", docQuery, "", docTime, "Invalid body_md5"},
		{"body without MD5", "POST", "/apps/3/events", resign(swap("&body_md5=ec365a775a4cd0599faeb73354201b6f", ""), docBody), docBody, docTime, "Missing parameter: body_md5"},
		{"upper case MD5", "POST", "/apps/3/events", resign(swap("ec365a775a4cd0599faeb73354201b6f", "EC365A775A4CD0599FAEB73354201B6F"), docBody), docBody, docTime, ""},
		{"MD5 with another first digit", "POST", "/apps/3/events", resign(swap("body_md5=e", "body_md5=d"), docBody), docBody, docTime, "Invalid body_md5"},
		{"short MD5", "POST", "/apps/3/events", resign(swap("ec365a775a4cd0599faeb73354201b6f", "ec36"), docBody), docBody, docTime, "Invalid body_md5"},
	} {
		e := verify(t, k, c.method, c.path, c.query, c.body, c.now)
		switch {
		case c.want == "" && e != nil:
			t.Errorf("%s: %v", c.name, e)
		case c.want != "" && (e == nil || e.Status != 401 || !strings.HasPrefix(e.Text, c.want)):
			t.Errorf("%s: %+v, want 401 %s", c.name, e, c.want)
		case e != nil && (strings.Contains(e.Text, docSecret) || len(e.Text) > 2000):
			t.Errorf("%s: shows the secret or too much: %s", c.name, e.Text)
		}
	}
}

func TestKeyHidesItsSecret(t *testing.T) {
	k := NewKey("public", "hidden")
	k.AppendSigned(nil, "GET", []byte("/"), nil, nil, docTime)
	holder := struct {
		K *Key
		k *Key
	}{k, k}
	text := fmt.Sprintf("%v %+v %#v %s %q %v %+v", k, k, k, k, k, holder, holder)
	j, err := json.Marshal(holder)
	if text += string(j); err != nil || strings.Contains(text, "hidden") || !strings.Contains(text, "public") {
		t.Errorf("%v %s", err, text)
	}
	if k.Name() != "public" {
		t.Error(k.Name())
	}
}

func TestOwnParametersAreEscaped(t *testing.T) {
	k := NewKey("a key&b=c", "s")
	raw := k.AppendSigned([]byte("?"), "GET", []byte("/x"), parse(t, "auth_token=stale&body_md5=stale&aa=1&AUTH_key=stale&z"), nil, docTime)
	if want := "?aa=1&auth_key=a%20key%26b%3Dc&auth_timestamp=1353088179&auth_version=1.0&z="; !strings.HasPrefix(string(raw), want) {
		t.Errorf("%s", raw)
	}
	if e := verify(t, k, "GET", "/x", string(raw[1:]), "", docTime); e != nil {
		t.Error(e)
	}
}

func TestSigningDoesNotAllocate(t *testing.T) {
	k := NewKey(docKey, docSecret)
	body, path := []byte(docBody), []byte("/apps/3/events")
	raw := []byte(docQuery + "&extra=%41+b")
	raw = k.AppendSigned(nil, "POST", path, parse(t, string(raw)), body, docTime)
	dst := make([]byte, 0, 1024)
	var q Query
	if n := testing.AllocsPerRun(200, func() {
		if err := q.Parse(raw); err != nil {
			t.Fatal(err)
		}
		if e := k.Verify("POST", path, &q, body, docTime); e != nil {
			t.Fatal(e)
		}
		dst = k.AppendSigned(dst[:0], "POST", path, &q, body, docTime)
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func TestQuery(t *testing.T) {
	type pairs [][2]string
	for _, c := range []struct {
		raw  string
		want pairs
	}{
		{"", nil},
		{"&&", nil},
		{"a=1&b=2", pairs{{"a", "1"}, {"b", "2"}}},
		{"B=2&a=x%3d+y%2B&c", pairs{{"b", "2"}, {"a", "x= y+"}, {"c", ""}}},
		{"a=b=c;d,e&=v", pairs{{"a", "b=c;d,e"}, {"", "v"}}},
		{"channels%5B%5D=1&Channels[]=2", pairs{{"channels[]", "1"}, {"channels[]", "2"}}},
		{"%41=%c3%A9\xff", pairs{{"a", "é\xff"}}},
	} {
		q := parse(t, c.raw)
		var got pairs
		for i := range q.Len() {
			k, v := q.At(i)
			got = append(got, [2]string{string(k), string(v)})
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.raw, got, c.want)
		}
	}
	for _, c := range []struct{ raw, want string }{
		{"a=1&a=1", `The query parameter "a" is given twice`},
		{"auth_key=x&b=1&AUTH%5fKEY=y", `The query parameter "auth_key" is given twice`},
		{"a=%", "The query string has a broken percent escape at byte 2"},
		{"a=1&b%4=1", "The query string has a broken percent escape at byte 5"},
		{"a=1&b=%4z", "The query string has a broken percent escape at byte 6"},
		{"a=1&b=%zz", "The query string has a broken percent escape at byte 6"},
		{"a=1 2", `The query string has a byte that must be percent-escaped, " ", at byte 3`},
		{"a=1\n", `The query string has a byte that must be percent-escaped, "\n", at byte 3`},
		{"a=#x", `The query string has a byte that must be percent-escaped, "#", at byte 2`},
		{strings.Repeat("k[]=&", 165), "The query string has more than 164 parameters"},
		{strings.Repeat("k", 100000), "The query string is longer than 98304 bytes"},
	} {
		var q Query
		err := q.Parse([]byte(c.raw))
		e, ok := err.(*Error)
		if !ok || e.Status != 400 || !strings.HasPrefix(e.Text, c.want) || q.Len() != 0 {
			t.Errorf("%.50s: %v", c.raw, err)
		}
	}
	if q := parse(t, strings.Repeat("k[]=&", 164)); q.Len() != 164 {
		t.Errorf("%d pairs", q.Len())
	}
	var none *Query
	if _, ok := none.Get("x"); ok || none.Len() != 0 {
		t.Error("a nil query has pairs")
	}
}

func TestKeyIsSafeForConcurrentUse(t *testing.T) {
	k := NewKey(docKey, docSecret)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var q Query
			for i := range 200 {
				now := docTime.Add(time.Duration(i) * time.Hour)
				raw := k.AppendSigned(nil, "POST", []byte("/a"), nil, []byte(docBody), now)
				if err := q.Parse(raw); err != nil {
					t.Error(err)
				}
				if e := k.Verify("POST", []byte("/a"), &q, []byte(docBody), now); e != nil {
					t.Error(e)
				}
			}
		})
	}
	wg.Wait()
}

func TestEncodeHexIsThatOfTheStandardLibrary(t *testing.T) {
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	got := make([]byte, 2*len(all))
	encodeHex(got, all[:])
	if want := hex.EncodeToString(all[:]); string(got) != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestPlainQueryIsNeverAboutAByteThatMatters(t *testing.T) {
	for n := 1; n < 20; n++ {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("a", n))
				b[at] = byte(c)
				matters := queryClass[c]&(queryEscape|queryBad) != 0
				usual := strings.IndexByte("abcxyzABCXYZ0189=&-_.~,:;[]", byte(c)) >= 0
				if plain := plainQuery(b); plain && matters || !plain && usual {
					t.Fatalf("%q: %v", b, plain)
				}
			}
		}
	}
}
