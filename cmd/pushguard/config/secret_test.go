package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func allSecrets() []string {
	var all []string
	for _, v := range hidden {
		all = append(all, v)
	}
	for _, v := range files {
		all = append(all, strings.TrimSpace(v))
	}
	return append(all, "lit3ral-s3cret", "p%40ss", "p@ss")
}

func mustHide(t *testing.T, what, shown string) {
	t.Helper()
	for _, s := range allSecrets() {
		if strings.Contains(shown, s) || strings.Contains(shown, fmt.Sprintf("%x", s)) {
			t.Errorf("%s shows %q: %.300s", what, s, shown)
		}
	}
}

// No way of printing gives a secret away, also not from inside other types.
func TestSecretsNeverPrint(t *testing.T) {
	// A key is no secret: it goes over the wire.
	text := strings.NewReplacer("${PUSHER_KEY}", "k", "store: embedded", "store: rediss://u:p%40ss@h/0?password=p%40ss", "cluster: eu", "cluster: us2",
		`"${CARE_API_SECRET}"`, `["${CARE_API_SECRET}", lit3ral-s3cret]`).Replace(published)
	c := mustParse(t, text)
	secret := NewSecret("lit3ral-s3cret")
	unexported := struct {
		s Secret
		m map[string]Secret
		c *Config
	}{secret, map[string]Secret{"a": secret}, c}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{secret, &secret, c.Accounts[0].Apps[0].Secret, c.Accounts[0].Apps[0].Callers, c, c.Alerts, c.Admin, c.Store, unexported} {
			mustHide(t, verb, fmt.Sprintf(verb, v))
		}
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("x", "secret", secret, "config", c, "store", c.Store, "callers", c.Accounts[0].Apps[0].Callers, "alerts", c.Alerts)
	}
	mustHide(t, "slog", log.String())
	for _, v := range []any{c.Accounts, c.Alerts, c.Store, c.Admin} {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		y, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		mustHide(t, "encoding", string(j)+string(y))
	}
	mustHide(t, "Warnings", fmt.Sprint(c.Warnings))
	if secret.String() != "[redacted]" || (Secret{}).String() != "" {
		t.Errorf("a secret shows as %q, none as %q", secret, Secret{})
	}
	if secret.Reveal() != "lit3ral-s3cret" || (Secret{}).Reveal() != "" || !secret.Equal(NewSecret("lit3ral-s3cret")) || secret.Equal(Secret{}) {
		t.Error("a secret is not what it was made of")
	}
	if (Secrets{}).Current().Reveal() != "" {
		t.Error("no secrets, and yet a current one")
	}
}

// A mistake on the line of a secret is told without the secret, wherever the
// secret stands and however it is written.
func TestMistakesNeverShowSecrets(t *testing.T) {
	const s = "lit3ral-s3cret"
	for _, text := range []string{
		withRest("admin: { token: " + s + ", lisen: x }"),
		withRest("admin: { tokn: " + s + " }"),
		withRest("admin: { token: [" + s + "] }"),
		withRest("admin: { token: { a: " + s + " } }"),
		withRest("admin: { token: \"" + s + "\" } # was " + s + "\nx: 1 # " + s),
		withRest("admin: { token: '" + s + "', token: '" + s + "' }"),
		withRest("admin: { token: " + s),
		withRest("admin: { token: \"" + s),
		withRest("admin: { token: \"" + s + "\\q\" }"),
		withRest("admin:\n  token: |\n    " + s + "\n  x: 1\n"),
		withRest("admin:\n  token: " + s + "\n   x: 1\n"),
		withRest("admin:\n  token: " + s + ": x\n"),
		withRest("admin:\n\ttoken: " + s + "\n"),
		withRest("admin: { listen: \"0.0.0.0:1\" } \nalerts: [ { slack: " + s + " } ]"),
		withRest("alerts: [ { webhook: \"ftp://" + s + "\" } ]"),
		withRest("alerts: [ " + s + " ]"),
		withRest("alerts: " + s),
		withRest("store: redis://:" + s + "@h:x/0"),
		withRest("store: redis://:" + s + "/0@h/0"),
		withRest("store: " + s),
		withRest("storee: redis://:" + s + "@h/0"),
		withRest("listen: redis://:" + s + "@h/0"),
		withRest("secret: " + s),
		withRest("? " + s + "x\n: y"),
		strings.Replace(withRest(""), `"http://127.0.0.1:6001"`, "http://k:"+s+"@h", 1),
		strings.Replace(withRest(""), "s3cr3t", "["+s+", '']", 1),
		strings.Replace(withRest(""), "s3cr3t", "["+s+", {a: b}], x: y", 1),
		strings.Replace(withRest(""), "s3cr3t", s+", callers: [{secret: ["+s+"]}], x: y", 1),
		strings.Replace(withRest(""), "s3cr3t", "${"+"PUSHER_SECRET} "+s+"${", 1),
		"- " + s, s, "%" + s, "[" + s, "{a: {" + s + "}}",
	} {
		_, err := parseFake(text)
		if err == nil {
			t.Errorf("loads: %s", text)
			continue
		}
		shown := err.Error()
		if strings.Contains(text, "? "+s) { // a key is shown: it is how an unknown one is told
			shown = strings.ReplaceAll(shown, s+"x", "")
		}
		mustHide(t, text, shown)
	}
}

// What a reference brings in is not shown either, if it is no secret by its
// key: neither in a mistake nor as a suggestion that is near to it.
func TestMistakesNeverShowWhatReferencesBringIn(t *testing.T) {
	const value = "Startuq-200/q"
	get := func(name string) string {
		if name == "V" {
			return value
		}
		return env(name)
	}
	for _, k := range []struct{ old, new, want string }{
		{"plan: startup", "plan: ${V}", `accounts[0].plan "${V}" is no plan of Pusher's; check what the reference brings in`},
		{"cluster: eu", "cluster: ${V}", `cluster "${V}" is not a cluster's name`},
		{"cluster: eu", "upstream: ${V}", `upstream "${V}" is not an http:// or https:// URL`},
		{"rate: 200/s", "rate: \"x${V}\"", `rate "x${V}" is not a rate`},
		{"contain: auto", "contain: ${V}", `contain "${V}" is not known here`},
		{"dedupe: 2s", "dedupe: ${V}", `dedupe "${V}" is not a duration`},
		{"share: 40%", "share: \"${V}\"", `share "${V}" is not a percentage`},
		{"name: care-api", "name: \"${V}\"", `name "${V}" is not a name`},
		{`listen: ":8080"`, `listen: "${V}"`, `listen "${V}" is not host:port`},
		{"default: 1", "default: \"${V}\"", `subscribers.default "${V}" is not a whole number`},
		{`channel: "private-user-*"`, `channel: "${V}"`, `match.channel "${V}" can match no channel`},
		{"key: care-api-1", "key: \"${V}\"", "key is not a key"},
	} {
		text := strings.Replace(published, k.old, k.new, 1)
		_, err := parse("pushguard.yaml", []byte(text), &resolver{getenv: get, read: readFake})
		if err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: got %v, want %s", k.new, err, k.want)
			continue
		}
		for _, part := range []string{value, "Startuq", "startup"} {
			if strings.Contains(strings.ReplaceAll(err.Error(), "plan: startup", ""), part) {
				t.Errorf("%s: shows %s: %v", k.new, part, err)
			}
		}
	}
}

func TestReferences(t *testing.T) {
	r := &resolver{getenv: func(n string) string { return map[string]string{"A": "a", "B_2": "b", "R": "${A}$$"}[n] }, dir: "/etc/pg",
		read: func(path string) (string, error) {
			switch path {
			case "/s":
				return "file\n", nil
			case "/etc/pg/rel":
				return "two\nlines\r\n", nil
			case "/nl":
				return "\n", nil
			case "/2nl":
				return "x\n\n", nil
			case "/big":
				return strings.Repeat("x", 40<<10), nil
			case "/no":
				return "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
			case "/dev/x":
				return "", errIrregular
			}
			return readFake(path)
		}}
	for _, k := range []struct{ in, want, fault string }{
		{"plain", "plain", ""},
		{"", "", ""},
		{"${A}", "a", ""},
		{"x${A}y${B_2}z", "xaybz", ""},
		{"$$", "$", ""},
		{"$${A}", "${A}", ""},
		{"$$${A}", "$a", ""},
		{"$A", "$A", ""},
		{"100$", "100$", ""},
		{"${R}", "${A}$$", ""}, // not expanded again
		{"${file:/s}", "file", ""},
		{"${file:rel}", "two\nlines", ""},
		{"${file:/2nl}", "x", ""},
		{"${NONE}", "", "refers to the environment variable NONE, which is not set or empty"},
		{"${}", "", "refers to ${}, which is no name of a variable"},
		{"${2A}", "", "no name of a variable"},
		{"${A", "", "has a ${ without its }"},
		{"${exec:ls}", "", "refers to ${exec:ls}, whose source is unknown"},
		{"${file:/none}", "", "refers to the file /none, which does not exist"},
		{"${file:/no}", "", "which may not be read"},
		{"${file:/nl}", "", "which is empty"},
		{"${file:/dev/x}", "", "which cannot be read: it is no regular file"},
		{"${file:/big}", strings.Repeat("x", 40<<10), ""},
		{"${file:/big}${file:/big}", "", "is longer than 64 KiB once resolved"},
	} {
		got, refs, err := r.expand(k.in)
		if fmt.Sprint(err) != k.fault && (k.fault == "" && err != nil || !strings.Contains(fmt.Sprint(err), k.fault)) || got != k.want {
			t.Errorf("expand(%q) = %.40q, %v; want %.40q, %s", k.in, got, err, k.want, k.fault)
		}
		if err == nil && refs != strings.Contains(strings.ReplaceAll(k.in, "$$", ""), "${") {
			t.Errorf("expand(%q) says refs=%v", k.in, refs)
		}
	}
	if _, _, err := (&resolver{}).expand("${A}"); err == nil {
		t.Error("without an environment nothing is set")
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), n), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := readSecretFile(write("full", maxValue)); len(got) != maxValue || err != nil {
		t.Errorf("a file of the longest length: %d bytes, %v", len(got), err)
	}
	if _, err := readSecretFile(write("over", maxValue+1)); !errors.Is(err, errTooLong) {
		t.Errorf("a longer one: %v", err)
	}
	if _, err := readSecretFile(dir); !errors.Is(err, errIrregular) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := readSecretFile("/dev/zero"); !errors.Is(err, errIrregular) {
		t.Errorf("a device: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(write("real", 3), link); err != nil {
		t.Fatal(err)
	}
	if got, err := readSecretFile(link); got != "xxx" || err != nil {
		t.Errorf("a link, as Kubernetes mounts have: %q, %v", got, err)
	}
}
