package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher/sim"
)

func main() {
	rate := flag.Int("rate", 300, "publishes a second")
	only := flag.String("only", "", "run only the stories whose name contains this")
	binary := flag.String("binary", "", "pushguard to drill; built from this tree if empty")
	fresh := flag.Bool("fresh", false, "a new connection for each publish: harder on the listener")
	rounds := flag.Int("rounds", 3, "replacements in each story")
	old := flag.String("old", "HEAD~20", "commit whose build is the old version in the upgrade stories, which need git; empty: without them")
	flag.Parse()
	if err := run(os.Stdout, *binary, *only, *old, *rate, *rounds, *fresh); err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(1)
	}
}

// drill is what the stories share.
type drill struct {
	dir, binary, redis string
	old                string // a commit
	account            string // the story's own: what another spent on the store is not its count
	judge              *stage.Judge
	rate, rounds       int
	fresh              bool
}

func run(out io.Writer, binary, only, old string, rate, rounds int, fresh bool) error {
	dir, err := os.MkdirTemp("", "pushguard-drill-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		if binary, err = stage.Build(dir); err != nil {
			return err
		}
	}
	redis, err := stage.StartRedis(dir)
	if err != nil {
		return err
	}
	defer redis.Stop()
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "story\tpublishes\trefused\tbroken\tnot 200\tlost\tdoubled\tslowest\twhat happened")
	failed := 0
	for _, s := range stories {
		if !strings.Contains(s.name, only) || (old == "" && strings.HasPrefix(s.name, "upgrade")) {
			continue
		}
		j, err := stage.StartJudge(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, Subscribers: 1, Latency: 2 * time.Millisecond})
		if err != nil {
			return err
		}
		d := &drill{dir: dir, binary: binary, redis: redis.URL, judge: j, rate: rate, rounds: rounds, fresh: fresh, old: old, account: s.name}
		r, note, err := s.run(d)
		if err != nil {
			j.Close()
			fmt.Fprintf(table, "%s\t\t\t\t\t\t\t\tFAILED: %s\n", s.name, strings.ReplaceAll(err.Error(), "\n", " "))
			failed++
			continue
		}
		lost, doubled := j.Verdict(r.accepted)
		j.Close()
		notOK := 0
		for text, n := range r.notOK {
			notOK += n
			note += fmt.Sprintf("; %d× %q", n, text)
		}
		for text, n := range r.errs {
			note += fmt.Sprintf("; %d× %s", n, text)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", s.name, r.sent, r.refused, r.broken, notOK, len(lost), doubled, r.slowest.Round(time.Millisecond), note)
		if r.refused+r.broken+notOK+len(lost)+doubled > 0 || r.sent < rate {
			failed++
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d stories were not clean", failed)
	}
	return nil
}

var stories = []struct {
	name string
	run  func(*drill) (*result, string, error)
}{
	{"rolling", (*drill).rolling},
	{"handover", (*drill).handover},
	{"sockets", (*drill).sockets},
	{"failed-version", (*drill).failedVersion},
	{"environment", (*drill).environment},
	{"last-good", (*drill).lastGood},
	{"upgrade", (*drill).upgrade},
	{"upgrade-embedded", (*drill).upgradeEmbedded},
}

// config is one account on the shared store; more goes at its top.
func (d *drill) config(name, more string) (string, error) {
	return stage.WriteConfig(d.dir, name, fmt.Sprintf(`%s
admin: { listen: "127.0.0.1:0" }
data_dir: %q
store: %q
drain_delay: 500ms
log: { level: warn }
accounts:
  - name: %s
    plan: { messages_per_day: 1000000000 }
    apps:
      - { id: %q, key: %s, secret: %q, upstream: %q }
    rules: [ { priority: critical } ]
`, more, filepath.Join(d.dir, name), d.redis, d.account, appID, appKey, "${DRILL_SECRET}", d.judge.URL()))
}

var secretEnv = []string{"DRILL_SECRET=" + appSecret}

// under drives load at to while act runs, with a second before and after.
func (d *drill) under(story string, to target, act func() error) (*result, error) {
	stop := make(chan struct{})
	done := make(chan *result, 1)
	go func() { done <- drive(d.rate, to, stop, story, d.fresh) }()
	stage.Pause(time.Second)
	err := act()
	stage.Pause(time.Second)
	close(stop)
	return <-done, err
}

const patience = 60 * time.Second

func (d *drill) start(config string, env []string, sockets []*os.File, args ...string) (*stage.Replica, error) {
	return stage.Start(d.dir, d.binary, env, sockets, patience, append([]string{"--config", config}, args...)...)
}

// rolling replaces three replicas one after the other. Clients send to those
// that said ready when they were last asked, every 100 ms, as a load balancer
// does.
func (d *drill) rolling() (*result, string, error) {
	file, err := d.config("rolling", `listen: "127.0.0.1:0"`)
	if err != nil {
		return nil, "", err
	}
	var all [3]atomic.Pointer[stage.Replica]
	for i := range all {
		r, err := d.start(file, secretEnv, nil)
		if err != nil {
			return nil, "", err
		}
		all[i].Store(r)
		defer func() { all[i].Load().Kill() }()
	}
	var ready atomic.Pointer[[]string]
	look := func() {
		var up []string
		for i := range all {
			if r := all[i].Load(); r.IsReady() {
				up = append(up, r.Data)
			}
		}
		ready.Store(&up)
	}
	look()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				look()
			}
		}
	}()
	to := func(n int64) string {
		up := *ready.Load()
		if len(up) == 0 {
			return ""
		}
		return up[n%int64(len(up))]
	}
	r, err := d.under("rolling", to, func() error {
		for i := range all {
			next, err := d.start(file, secretEnv, nil)
			if err != nil {
				return err
			}
			old := all[i].Load()
			if err := old.Leave(patience); err != nil { // no longer asked once it says so itself
				next.Kill()
				return err
			}
			all[i].Store(next)
		}
		return nil
	})
	return r, "3 replicas replaced one by one", errors.Join(err, d.exact(all[0].Load()))
}

// serving is a replica on a port that the one that replaces it can share, with
// more at the top of its config.
func (d *drill) serving(name, more string) (addr, file string, now *stage.Replica, err error) {
	if addr, err = stage.FreePort(); err != nil {
		return "", "", nil, err
	}
	if file, err = d.config(name, fmt.Sprintf("listen: %q%s", addr, more)); err != nil {
		return "", "", nil, err
	}
	now, err = d.start(file, secretEnv, nil, "--reuse-port")
	return addr, file, now, err
}

func always(addr string) target { return func(int64) string { return addr } }

// handover replaces the process on one address, the new one beside the old.
func (d *drill) handover() (*result, string, error) {
	addr, file, now, err := d.serving("handover", "")
	if err != nil {
		return nil, "", err
	}
	defer func() { now.Kill() }()
	r, err := d.under("handover", always(addr), func() error {
		for range d.rounds {
			next, err := d.start(file, secretEnv, nil, "--reuse-port")
			if err != nil {
				return err
			}
			old := now
			now = next
			if err := old.Leave(patience); err != nil {
				old.Kill()
				return err
			}
		}
		return nil
	})
	return r, fmt.Sprintf("%d processes in turn on one port, --reuse-port", d.rounds+1), errors.Join(err, d.exact(now))
}

// sockets restarts the process, stop then start, over sockets that outlive it.
func (d *drill) sockets() (*result, string, error) {
	var files []*os.File
	addr := ""
	for i := range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			return nil, "", err
		}
		if i == 0 {
			addr = ln.Addr().String()
		}
		ln.Close() // f holds the socket
		defer f.Close()
		files = append(files, f)
	}
	file, err := d.config("sockets", `listen: "127.0.0.1:0"`)
	if err != nil {
		return nil, "", err
	}
	now, err := d.start(file, secretEnv, files)
	if err != nil {
		return nil, "", err
	}
	defer func() { now.Kill() }()
	r, err := d.under("sockets", always(addr), func() error {
		for range d.rounds {
			if err := now.Leave(patience); err != nil {
				return err
			}
			next, err := d.start(file, secretEnv, files)
			if err != nil {
				return err
			}
			now = next
		}
		return nil
	})
	return r, fmt.Sprintf("stopped and started %d times, LISTEN_FDS", d.rounds), errors.Join(err, d.exact(now))
}

// failedVersion hands over to a config that does not start, and to a binary
// that is none.
func (d *drill) failedVersion() (*result, string, error) {
	addr, file, now, err := d.serving("failed", "")
	if err != nil {
		return nil, "", err
	}
	defer now.Kill()
	bad, err := d.config("failed-bad", fmt.Sprintf("listen: %q\nno_such_setting: 1", addr))
	if err != nil {
		return nil, "", err
	}
	r, err := d.under("failed", always(addr), func() error {
		if next, err := d.start(bad, secretEnv, nil, "--reuse-port"); err == nil {
			next.Kill()
			return errors.New("the bad config started")
		}
		d := *d
		d.binary = "/bin/false"
		if next, err := d.start(file, secretEnv, nil, "--reuse-port"); err == nil {
			next.Kill()
			return errors.New("a binary that is none started")
		}
		return nil
	})
	return r, "a bad config and a bad binary were tried; the old process went on", err
}

// environment is the incident: the secret that was there is no longer there.
func (d *drill) environment() (*result, string, error) {
	addr, file, now, err := d.serving("environment", "")
	if err != nil {
		return nil, "", err
	}
	defer now.Kill()
	r, err := d.under("environment", always(addr), func() error {
		check := exec.Command(d.binary, "check", "--config", file, "--online", "--replacing")
		if text, err := check.CombinedOutput(); err == nil {
			return fmt.Errorf("check found nothing wrong: %s", text)
		}
		if next, err := d.start(file, nil, nil, "--reuse-port"); err == nil {
			next.Kill()
			return errors.New("it started without its secret")
		}
		return nil
	})
	return r, "the secret is gone: check says so, the new process refuses, the old one went on", err
}

// lastGood is the same with a cache of what was there.
func (d *drill) lastGood() (*result, string, error) {
	addr, file, now, err := d.serving("last-good", "\nlast_good: true")
	if err != nil {
		return nil, "", err
	}
	defer func() { now.Kill() }()
	r, err := d.under("last-good", always(addr), func() error {
		next, err := d.start(file, nil, nil, "--reuse-port")
		if err != nil {
			return err
		}
		old := now
		now = next
		if !strings.Contains(next.Out.String(), "LAST GOOD") {
			return fmt.Errorf("it does not say that it runs on old values: %s", next.Out)
		}
		return old.Leave(patience)
	})
	return r, "the secret is gone, but last_good has it: the new process took over, loudly", err
}
