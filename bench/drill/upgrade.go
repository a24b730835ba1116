package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher"
)

// before is the binary of an older commit of this repository, built in a
// worktree that is gone afterwards.
func (d *drill) before() (string, error) {
	if text, err := exec.Command("git", "rev-parse", "--verify", "--quiet", d.old+"^{commit}").CombinedOutput(); err != nil {
		return "", fmt.Errorf("-old %s: this needs the repository with its history: %w %s", d.old, err, text)
	}
	tree := filepath.Join(d.dir, "before")
	if text, err := exec.Command("git", "worktree", "add", "--detach", tree, d.old).CombinedOutput(); err != nil {
		return "", fmt.Errorf("git worktree add: %w\n%s", err, text)
	}
	defer func() { _ = exec.Command("git", "worktree", "remove", "--force", tree).Run() }()
	return stage.BuildIn(tree, d.dir, "pushguard-before")
}

// account is what a replica's status says of the drill's account.
type account struct {
	Used  int64 `json:"used"`
	Brake *struct {
		Reason string `json:"reason"`
	} `json:"brake"`
	Ledger struct {
		Replicas int  `json:"replicas"`
		Healing  bool `json:"healing"`
	} `json:"ledger"`
}

func statusOf(r *stage.Replica) (account, error) {
	resp, err := http.Get("http://" + r.Admin + "/api/v1/status")
	if err != nil {
		return account{}, err
	}
	defer resp.Body.Close()
	var all struct{ Accounts []account }
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil || len(all.Accounts) != 1 {
		return account{}, fmt.Errorf("status: %d accounts, %w", len(all.Accounts), err)
	}
	return all.Accounts[0], nil
}

// upgrade puts the new version beside the old one on one store, takes the old one
// away, and goes back again: three times both run at once and share one plan. What
// one counts the other must know, a brake pulled at one must hold at the other,
// and what one holds back for later and does not live to send the other sends.
func (d *drill) upgrade() (*result, string, error) {
	old, err := d.before()
	if err != nil {
		return nil, "", err
	}
	// Events of the drill's kind that are conflated are asked for beside the load.
	file, err := d.config("upgrade", `listen: "127.0.0.1:0"`)
	if err != nil {
		return nil, "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", err
	}
	text = []byte(strings.Replace(strings.Replace(string(text), "rules: [ ", "rules: [ { match: { event: held }, priority: critical, conflate: 3s }, ", 1),
		`admin: { listen: "127.0.0.1:0" }`, `admin: { listen: "127.0.0.1:0", token: "`+leverToken+`" }`, 1))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, "", err
	}
	binaries := []string{old, d.binary, old, d.binary}
	var serving atomic.Pointer[[]*stage.Replica]
	serving.Store(&[]*stage.Replica{})
	var all []*stage.Replica
	defer func() {
		for _, r := range all {
			r.Kill()
		}
	}()
	start := func(binary string) (*stage.Replica, error) {
		on := *d
		on.binary = binary
		r, err := on.start(file, secretEnv, nil)
		if err == nil {
			all = append(all, r)
		}
		return r, err
	}
	now, err := start(binaries[0])
	if err != nil {
		return nil, "", fmt.Errorf("the old version: %w", err)
	}
	serving.Store(&[]*stage.Replica{now})
	to := func(n int64) string {
		up := *serving.Load()
		return up[n%int64(len(up))].Data
	}
	held := 0
	r, err := d.under("upgrade", to, func() error {
		for i, binary := range binaries[1:] {
			next, err := start(binary)
			if err != nil {
				return fmt.Errorf("step %d, beside the other version: %w", i+1, err)
			}
			serving.Store(&[]*stage.Replica{now, next})
			stage.Pause(time.Second) // both carry
			if err := d.agree(now, next); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
			// Two of one event and channel: the first goes out, the second is held by
			// the version that leaves.
			for k := range 2 {
				if err := d.hold(now.Data, i, k); err != nil {
					return err
				}
			}
			held++
			serving.Store(&[]*stage.Replica{next})
			stage.Pause(200 * time.Millisecond) // who was on the way to the old one has arrived
			if err := now.Leave(patience); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
			now = next
		}
		return nil
	})
	if err != nil {
		return r, "", err
	}
	for i := range held {
		if err := d.judge.Wait(fmt.Sprintf("held-%d-1", i), 20*time.Second); err != nil {
			return r, "", fmt.Errorf("what the version of step %d held was not sent by the next: %w", i+1, err)
		}
	}
	if err := d.exact(now); err != nil {
		return r, "", err
	}
	return r, fmt.Sprintf("%s → this → %s → this on one store, each beside the other; %d messages billed and counted; %d held by one sent by the next", d.old, d.old, d.judge.Bill(), held), nil
}

// exact holds the count against the bill. More would be a lease that a replica
// took along when it left: safe, but messages that nobody may use.
func (d *drill) exact(r *stage.Replica) error {
	var st account
	if until(r, func(s account) bool { st = s; return s.Used == d.judge.Bill() }) != nil {
		return fmt.Errorf("%d messages that Pusher billed, %d that are counted; status %+v", d.judge.Bill(), st.Used, st)
	}
	return nil
}

const leverToken = "drill-token-long-enough"

// agree pulls the brake at one version and sees it at the other, both ways, with
// counts that are the same at both.
func (d *drill) agree(a, b *stage.Replica) error {
	for _, pair := range [][2]*stage.Replica{{a, b}, {b, a}} {
		if err := d.lever(pair[0], http.MethodPost, `{"allow":"critical","reason":"drill","for":"1h"}`); err != nil {
			return fmt.Errorf("brake on: %w", err)
		}
		if err := until(pair[1], func(s account) bool { return s.Brake != nil && s.Brake.Reason == "drill" }); err != nil {
			return fmt.Errorf("the brake did not reach the other version: %w", err)
		}
		if err := d.lever(pair[0], http.MethodDelete, ``); err != nil {
			return fmt.Errorf("brake off: %w", err)
		}
		if err := until(pair[1], func(s account) bool { return s.Brake == nil && s.Ledger.Replicas >= 2 && !s.Ledger.Healing }); err != nil {
			return fmt.Errorf("the end of the brake did not reach the other version: %w", err)
		}
	}
	return nil
}

func until(r *stage.Replica, is func(account) bool) error {
	end := time.After(20 * time.Second)
	for {
		s, err := statusOf(r)
		if err == nil && is(s) {
			return nil
		}
		select {
		case <-end:
			return errors.Join(fmt.Errorf("it never came about; status %+v", s), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *drill) lever(r *stage.Replica, method, body string) error {
	req, err := http.NewRequest(method, "http://"+r.Admin+"/api/v1/accounts/"+d.account+"/brake", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+leverToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		return fmt.Errorf("%d %s", resp.StatusCode, text)
	}
	return nil
}

// upgradeEmbedded goes to the new version and back on one data_dir, which belongs
// to one process at a time: what was counted is still counted.
func (d *drill) upgradeEmbedded() (*result, string, error) {
	old, err := d.before()
	if err != nil {
		return nil, "", err
	}
	on := *d
	on.redis = "embedded"
	addr, err := stage.FreePort()
	if err != nil {
		return nil, "", err
	}
	file, err := on.config("upgrade-embedded", fmt.Sprintf("listen: %q", addr))
	if err != nil {
		return nil, "", err
	}
	total := &result{notOK: map[string]int{}, errs: map[string]int{}}
	for i, binary := range []string{old, d.binary, old, d.binary} {
		on.binary = binary
		r, err := on.start(file, secretEnv, nil)
		if err != nil {
			return nil, "", fmt.Errorf("start %d: %w", i+1, err)
		}
		st, err := statusOf(r)
		if err == nil && st.Used < d.judge.Bill() {
			err = fmt.Errorf("start %d knows of %d messages, Pusher billed %d", i+1, st.Used, d.judge.Bill())
		}
		if err != nil {
			r.Kill()
			return nil, "", err
		}
		part, _ := on.under(fmt.Sprint("embedded", i), always(addr), func() error { return nil })
		total.add(part)
		if i == 1 { // a kill as well: the other version reads what was not closed
			r.Kill()
			continue
		}
		if err := r.Leave(patience); err != nil {
			return nil, "", err
		}
	}
	return total, fmt.Sprintf("%s → this, killed → %s → this on one data_dir, counts kept", d.old, d.old), nil
}

func (r *result) add(o *result) {
	r.sent, r.refused, r.broken = r.sent+o.sent, r.refused+o.refused, r.broken+o.broken
	r.accepted, r.slowest = append(r.accepted, o.accepted...), max(r.slowest, o.slowest)
	for k, n := range o.notOK {
		r.notOK[k] += n
	}
	for k, n := range o.errs {
		r.errs[k] += n
	}
}

// hold publishes what the rule conflates; the second of a kind must be held.
func (d *drill) hold(addr string, i, k int) error {
	body := fmt.Sprintf(`{"name":"held","channel":"held-%d","data":"held-%d-%d"}`, i, i, k)
	path := "/apps/" + appID + "/events"
	uri := pusher.NewKey(appKey, appSecret).AppendSigned([]byte(path+"?"), http.MethodPost, []byte(path), nil, []byte(body), time.Now())
	resp, err := http.Post("http://"+addr+string(uri), "application/json", strings.NewReader(body))
	if err != nil {
		return errors.New("a publish that is to be held got no answer")
	}
	defer resp.Body.Close()
	if outcome := resp.Header.Get("Pushguard-Outcome"); resp.StatusCode != http.StatusOK || (outcome == "conflated") != (k > 0) {
		return fmt.Errorf("publish %d of %s got %d %s", k, body, resp.StatusCode, outcome)
	}
	return nil
}
