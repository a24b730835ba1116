package config

import (
	"net/url"
	"testing"
)

// A reference brings in a value, whatever it is made of: the URL that holds it reads back as that value.
func TestReferencesInURLsAreValues(t *testing.T) {
	for _, v := range []string{"p@ss:w/rd", "100%sure", "a b+c", "plain", "#?&=", "ä€", "%41"} {
		r := newResolver(func(string) string { return v }, ".")
		for form, read := range map[string]func(*url.URL) string{
			"redis://:${P}@h:6379/0":         func(u *url.URL) string { p, _ := u.User.Password(); return p },
			"rediss://${P}:x@h":              func(u *url.URL) string { return u.User.Username() },
			"http://h/a/${P}/b":              func(u *url.URL) string { return u.Path[3 : len(u.Path)-2] },
			"redis://h/0?server_name=${P}":   func(u *url.URL) string { return u.Query().Get("server_name") },
			"redis://u:${file:/x/y}@h/0?a=b": nil,
		} {
			if read == nil {
				r.read = func(string) (string, error) { return v, nil }
				read = func(u *url.URL) string { p, _ := u.User.Password(); return p }
			}
			text, _, err := r.expand(form)
			if err != nil {
				t.Fatal(form, err)
			}
			u, err := url.Parse(text)
			if err != nil {
				t.Errorf("%s with %q: %v", form, v, err)
				continue
			}
			if got := read(u); got != v {
				t.Errorf("%s with %q reads back as %q", form, v, got)
			}
		}
		if text, _, _ := r.expand("${P}"); text != v {
			t.Errorf("alone it is %q, not %q", text, v)
		}
	}
	r := newResolver(func(string) string { return "user:p@ss" }, ".")
	if text, _, _ := r.expand("redis://${BOTH}@h"); text != "redis://user:p%40ss@h" {
		t.Error(text)
	}
	r = newResolver(func(string) string { return "redis://u:p@h:1/0" }, ".")
	if text, _, _ := r.expand("${URL}"); text != "redis://u:p@h:1/0" {
		t.Error(text)
	}
	r = newResolver(func(string) string { return "h1:1,h2:2" }, ".")
	if text, _, _ := r.expand("redis+sentinel://${HOSTS}/m"); text != "redis+sentinel://h1:1,h2:2/m" {
		t.Error(text)
	}
}

func TestValuesLoseWhatSurroundsThem(t *testing.T) {
	for in, want := range map[string]string{"s3cret\n": "s3cret", " s3cret\r\n": "s3cret", "\"s3cret\"": "s3cret", "'s3cret'\n": "s3cret", "s3\"cret": "s3\"cret", "\"": "\""} {
		r := newResolver(func(string) string { return in }, ".")
		got, _, err := r.expand("${S}")
		if err != nil || got != want {
			t.Errorf("%q became %q, %v", in, got, err)
		}
		if (len(r.said) > 0) != (in != want) {
			t.Errorf("%q: said %q", in, r.said)
		}
	}
	for _, in := range []string{" ", "\n", "''"} {
		r := newResolver(func(string) string { return in }, ".")
		if got, _, err := r.expand("${S}"); err == nil {
			t.Errorf("%q passed as %q", in, got)
		}
	}
}
