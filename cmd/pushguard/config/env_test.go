package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pushguard/pushguard/quota"
)

func vars(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(n string) string { return m[n] }
}

func TestFromEnv(t *testing.T) {
	url := func(u string) func(string) string {
		return vars("PUSHER_URL", u, "PUSHGUARD_PLAN", "pro")
	}
	for _, k := range []struct {
		name             string
		get              func(string) string
		id, key, secret  string
		upstream         string
		warnings         int
		listen, plan, st string
	}{
		{"URL", url("http://k1:s1@api-eu.pusher.com/apps/1234"), "1234", "k1", "s1", "https://api-eu.pusher.com", 0, "", "", ""},
		{"URL without cluster", url("https://k1:s1@api.pusherapp.com/apps/1234/"), "1234", "k1", "s1", "https://api.pusherapp.com", 0, "", "", ""},
		{"URL of another server", url("http://k1:s%2F1@127.0.0.1:6001/apps/app-id"), "app-id", "k1", "s/1", "http://127.0.0.1:6001", 0, "", "", ""},
		{"URL of a lookalike", url("http://k1:s1@api-eu.pusher.com.example/apps/1"), "1", "k1", "s1", "http://api-eu.pusher.com.example", 0, "", "", ""},
		{"parts", vars("PUSHER_APP_ID", "7", "PUSHER_KEY", "k", "PUSHER_SECRET", "s", "PUSHER_CLUSTER", "ap1"), "7", "k", "s", "https://api-ap1.pusher.com", 1, "", "sandbox", ""},
		{"parts without cluster", vars("PUSHER_APP_ID", "7", "PUSHER_KEY", "k", "PUSHER_SECRET", "s"), "7", "k", "s", "https://api-mt1.pusher.com", 2, "", "sandbox", ""},
		{"all", vars("PUSHER_URL", "http://k:s@api-eu.pusher.com/apps/1", "PUSHGUARD_PLAN", "5_000", "PUSHGUARD_LISTEN", "127.0.0.1:0",
			"PUSHGUARD_STORE", "redis://:pw@r:6379", "PUSHGUARD_ADMIN_TOKEN", "0123456789abcdef"), "1", "k", "s", "https://api-eu.pusher.com", 0, "127.0.0.1:0", "custom", "redis://r:6379"},
	} {
		c, err := FromEnv(k.get)
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		app := c.Accounts[0].Apps[0]
		if c.Accounts[0].Name != "default" || app.ID != k.id || app.Key != k.key || app.Secret.Current().Reveal() != k.secret || app.UpstreamURL() != k.upstream {
			t.Errorf("%s: %s %s %s %s", k.name, app.ID, app.Key, app.Secret.Current().Reveal(), app.UpstreamURL())
		}
		if len(c.Warnings) != k.warnings {
			t.Errorf("%s: warnings %v", k.name, c.Warnings)
		}
		if k.listen != "" && c.Listen != k.listen || k.plan != "" && c.Accounts[0].Plan.Name != k.plan || k.st != "" && c.Store.String() != k.st {
			t.Errorf("%s: %s %v %s", k.name, c.Listen, c.Accounts[0].Plan, c.Store)
		}
		again, err := FromEnv(k.get)
		if err != nil || !Equal(c, again) {
			t.Errorf("%s: the same environment makes another config: %v", k.name, err)
		}
	}
}

// A guessed plan is the smallest there is, and is said.
func TestFromEnvGuessesLow(t *testing.T) {
	c, err := FromEnv(vars("PUSHER_URL", "http://k:s@api-eu.pusher.com/apps/1"))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Accounts[0].Plan.MessagesPerDay
	for _, name := range quota.PlanNames() {
		if p, _ := quota.PlanByName(name); p.MessagesPerDay < got {
			t.Errorf("%s is smaller", name)
		}
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Error(), "environment: PUSHGUARD_PLAN is not set: counting on Pusher's smallest plan, sandbox, with 200000 messages a day") {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestFromEnvTellsAllMistakesAndNoValues(t *testing.T) {
	const s = "s3cr3t-v"
	for _, k := range []struct {
		name string
		get  func(string) string
		want string
	}{
		{"nothing", vars(), "environment: PUSHER_APP_ID is not set; set it, or PUSHER_URL instead of all, or give a file with --config FILE\n" +
			"environment: PUSHER_KEY is not set (or PUSHER_APP_KEY); set it, or PUSHER_URL instead of all, or give a file with --config FILE\n" +
			"environment: PUSHER_SECRET is not set (or PUSHER_APP_SECRET); set it, or PUSHER_URL instead of all, or give a file with --config FILE"},
		{"URL that is none", vars("PUSHER_URL", s), "environment: PUSHER_URL is not an http:// or https:// URL"},
		{"URL with a bad escape", vars("PUSHER_URL", "http://k:"+s+"%zz@h/apps/1"), "PUSHER_URL is not an http"},
		{"URL without secret", vars("PUSHER_URL", "http://"+s+"@h/apps/1"), "PUSHER_URL lacks key or secret"},
		{"URL without id", vars("PUSHER_URL", "http://k:"+s+"@h/"), "PUSHER_URL does not end with /apps/ID"},
		{"URL with more", vars("PUSHER_URL", "http://k:"+s+"@h/apps/1/"+s), "PUSHER_URL is not an app's id"},
		{"bad cluster", vars("PUSHER_APP_ID", "7", "PUSHER_KEY", "k", "PUSHER_SECRET", s, "PUSHER_CLUSTER", s+".x"), "PUSHER_CLUSTER is not a cluster's name"},
		{"bad id", vars("PUSHER_APP_ID", s+" 7", "PUSHER_KEY", "k", "PUSHER_SECRET", s, "PUSHER_CLUSTER", "eu"), "PUSHER_APP_ID is not an app's id"},
		{"bad plan", vars("PUSHER_URL", "http://k:s@h/apps/1", "PUSHGUARD_PLAN", "startap"), `PUSHGUARD_PLAN is no plan of Pusher's; did you mean "startup"?`},
		{"plan of nothing", vars("PUSHER_URL", "http://k:s@h/apps/1", "PUSHGUARD_PLAN", "0"), "PUSHGUARD_PLAN is out of range"},
		{"bad listen", vars("PUSHER_URL", "http://k:s@h/apps/1", "PUSHGUARD_LISTEN", s), "PUSHGUARD_LISTEN is not host:port"},
		{"bad store", vars("PUSHER_URL", "http://k:s@h/apps/1", "PUSHGUARD_STORE", "http://"+s), "PUSHGUARD_STORE has an unknown scheme"},
	} {
		_, err := FromEnv(k.get)
		var ps Problems
		if !errors.As(err, &ps) || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: got %v, want %s", k.name, err, k.want)
		}
		if strings.Contains(fmt.Sprint(err), s) {
			t.Errorf("%s: a value shows: %v", k.name, err)
		}
	}
}

// Laravel's names are taken too, and Pusher's own win where both are set.
func TestFromEnvTakesLaravelsNames(t *testing.T) {
	get := func(name string) string {
		return map[string]string{"PUSHER_APP_ID": "7", "PUSHER_APP_KEY": "k", "PUSHER_APP_SECRET": "s", "PUSHER_APP_CLUSTER": "eu"}[name]
	}
	cfg, err := FromEnv(get)
	if err != nil {
		t.Fatal(err)
	}
	app := cfg.Accounts[0].Apps[0]
	if app.Key != "k" || app.Secret.Current().Reveal() != "s" || app.Cluster != "eu" {
		t.Errorf("got %+v", app)
	}
	cfg, err = FromEnv(func(name string) string {
		return map[string]string{"PUSHER_KEY": "own"}[name] + map[bool]string{true: get(name)}[name != "PUSHER_KEY"]
	})
	if err != nil || cfg.Accounts[0].Apps[0].Key != "own" {
		t.Errorf("PUSHER_KEY beside PUSHER_APP_KEY: %v", err)
	}
}
