package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/pusher/sim"
)

// scene is one fault, tried by itself: what was refused, lost and stranded is then its own.
type scene struct {
	name     string
	store    string        // single, sentinel or cluster
	warm     time.Duration // of load before the fault
	standby  string        // config; empty: the default
	classes  bool          // a third of the load each is bulk, normal and critical
	stranded float64       // at most, percent of the plan
	refused  bool          // refusals belong to it
	long     bool          // takes minutes: only with -long
	fault    func(x *act) error
}

// act is a scene being played.
type act struct {
	*fleet
	servers *servers
	wires   [3]*wire
	rng     *rand.Rand
	cluster *cluster
}

func (x *act) cut(d time.Duration, which ...int) error {
	for _, i := range which {
		x.wires[i].set(true)
	}
	stage.Pause(d)
	for _, i := range which {
		x.wires[i].set(false)
	}
	return nil
}

// with runs commands on Redis, and others after d.
func (x *act) with(d time.Duration, before, after [][]any) error {
	c := redis.NewClient(&redis.Options{Addr: x.servers.nodes[0].addr, MaxRetries: -1})
	defer c.Close()
	for i, list := range [][][]any{before, after} {
		for _, cmd := range list {
			if err := c.Do(context.Background(), cmd...).Err(); err != nil && !errors.Is(err, redis.Nil) {
				return fmt.Errorf("%v: %w", cmd, err)
			}
		}
		if i == 0 {
			stage.Pause(d)
		}
	}
	return nil
}

// crash kills a replica and starts it again, with its disk or never.
func (x *act) crash(i int, back bool) error {
	r := x.take(i)
	if r == nil {
		return nil
	}
	r.Kill()
	if !back {
		return nil
	}
	return x.start(i)
}

func scenes() []scene {
	all := []int{0, 1, 2}
	return []scene{
		{name: "store gone 30 s after 6 s", warm: 6 * time.Second, fault: func(x *act) error { return x.cut(30*time.Second, all...) }},
		{name: "store gone 10 min after 2 min", warm: 2 * time.Minute, long: true, fault: func(x *act) error { return x.cut(10*time.Minute, all...) }},
		{name: "OOM for 30 s", warm: 6 * time.Second, fault: func(x *act) error {
			return x.with(30*time.Second, [][]any{{"config", "set", "maxmemory", "1"}}, [][]any{{"config", "set", "maxmemory", "0"}})
		}},
		{name: "READONLY for 30 s", warm: 6 * time.Second, fault: func(x *act) error {
			return x.with(30*time.Second, [][]any{{"config", "set", "replica-serve-stale-data", "yes"}, {"replicaof", "127.0.0.1", "1"}}, [][]any{{"replicaof", "no", "one"}})
		}},
		{name: "MISCONF for 30 s", warm: 6 * time.Second, fault: func(x *act) error {
			return x.with(30*time.Second, [][]any{{"config", "set", "min-replicas-to-write", "1"}}, [][]any{{"config", "set", "min-replicas-to-write", "0"}})
		}},
		{name: "NOAUTH for 30 s", warm: 6 * time.Second, fault: func(x *act) error {
			return x.with(30*time.Second, [][]any{{"config", "set", "requirepass", "other"}, {"client", "kill", "type", "normal", "skipme", "yes"}}, [][]any{{"config", "set", "requirepass", ""}})
		}},
		{name: "latency 1.2 s for 30 s", warm: 6 * time.Second, fault: func(x *act) error {
			for _, w := range x.wires {
				w.delay.Store(int64(600 * time.Millisecond))
			}
			stage.Pause(30 * time.Second)
			for _, w := range x.wires {
				w.delay.Store(0)
			}
			return nil
		}},
		{name: "FLUSHALL", warm: 6 * time.Second, stranded: 0.2, fault: func(x *act) error { return x.servers.flush() }},
		{name: "Redis killed, back empty after 2 s", warm: 6 * time.Second, stranded: 0.2, fault: func(x *act) error {
			x.servers.nodes[0].kill()
			stage.Pause(2 * time.Second)
			return x.servers.nodes[0].start()
		}},
		{name: "Sentinel, master killed", store: "sentinel", warm: 6 * time.Second, stranded: 0.2, fault: func(x *act) error { return x.servers.failover() }},
		{name: "fail-over to a copy 6 s old", store: "sentinel", warm: 6 * time.Second, stranded: 0.2, fault: func(x *act) error {
			for _, n := range x.servers.nodes {
				if n != x.servers.master() {
					n.freeze()
					defer n.thaw()
					stage.Pause(6 * time.Second)
					x.servers.master().freeze() // it must not send the copy what it missed
					n.thaw()
				}
			}
			return x.servers.failover()
		}},
		{name: "Cluster, owner of the slot killed for good", store: "cluster", warm: 6 * time.Second, stranded: 0.2, fault: func(x *act) error { return x.cluster.killOwner(account) }},
		{name: "node death: Redis' master and a replica", store: "sentinel", warm: 6 * time.Second, stranded: 1, fault: func(x *act) error {
			x.take(2).Kill()
			return x.servers.failover()
		}},
		{name: "partition of 1 of 3 for 20 s", warm: 6 * time.Second, fault: func(x *act) error { return x.cut(20*time.Second, 0) }},
		{name: "partition of 2 of 3 for 20 s", warm: 6 * time.Second, fault: func(x *act) error { return x.cut(20*time.Second, 0, 1) }},
		{name: "kill -9 of a replica, back after 4 s", warm: 6 * time.Second, fault: func(x *act) error {
			x.take(1).Kill()
			stage.Pause(4 * time.Second)
			return x.start(1)
		}},
		{name: "kill -9 of a replica, never back", warm: 6 * time.Second, stranded: 1, fault: func(x *act) error { return x.crash(1, false) }},
		{name: "kill -9 in a loss of 20 s, back in it", warm: 6 * time.Second, fault: func(x *act) error {
			lost := make(chan error)
			go func() { lost <- x.cut(20*time.Second, all...) }()
			stage.Pause(5 * time.Second)
			err := x.crash(1, true)
			return errors.Join(err, <-lost)
		}},
		{name: "40 kill -9 in 20 s", warm: 6 * time.Second, stranded: 0.5, fault: func(x *act) error {
			var errs [3]error
			var all sync.WaitGroup
			end := time.Now().Add(20 * time.Second)
			for i := range errs {
				all.Go(func() {
					for time.Now().Before(end) && errs[i] == nil {
						stage.Pause(time.Duration(500+100*i) * time.Millisecond)
						errs[i] = x.crash(i, true)
						kills.Add(1)
					}
				})
			}
			all.Wait()
			return errors.Join(errs[:]...)
		}},
		{name: "store gone 45 s, standby of 20 s", warm: 8 * time.Second, standby: "20s", classes: true, refused: true, fault: func(x *act) error { return x.cut(45*time.Second, all...) }},
	}
}

// table plays every scene whose name holds only, and prints what it came to.
func table(out io.Writer, s settings, only string, long bool) error {
	dir, err := os.MkdirTemp("", "pushguard-chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if s.binary == "" {
		if s.binary, err = stage.Build(dir); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "fault\tper second\tpublishes\trefused\tno answer\tover\tlost\tdoubled\tstranded\t% of plan\tnot met\tanswers")
	var broken []error
	for i, sc := range scenes() {
		if only != "" && !strings.Contains(sc.name, only) || sc.long != long {
			continue
		}
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		row, notMet, err := sc.play(sub, s)
		if err != nil {
			row, notMet = fmt.Sprintf("%s\t%d\t\t\t\t\t\t\t\t", sc.name, s.rate), err.Error()
		}
		if notMet != "" {
			broken = append(broken, fmt.Errorf("%s: %s", sc.name, notMet))
		}
		if s.said != nil {
			fmt.Fprintln(s.said, strings.ReplaceAll(row, "\t", " | "), notMet)
		}
		fmt.Fprintln(w, row)
	}
	return errors.Join(w.Flush(), errors.Join(broken...))
}

func (sc *scene) play(dir string, s settings) (row, notMet string, err error) {
	plan := int64(s.rate) * 2 * 86_400 // what this load uses in a day
	j, err := stage.StartJudge(sim.Config{Apps: []sim.App{{ID: appID, Key: appKey, Secret: appSecret}}, Subscribers: 1, Record: -1})
	if err != nil {
		return "", "", err
	}
	defer j.Close()
	x := &act{fleet: &fleet{dir: dir, binary: s.binary}, rng: rand.New(rand.NewPCG(s.seed, 1))}
	urls := [3]string{}
	if sc.store == "cluster" {
		if x.cluster, err = startCluster(dir); err != nil {
			return "", "", err
		}
		defer x.cluster.stop()
		urls = [3]string{x.cluster.url(), x.cluster.url(), x.cluster.url()}
	} else {
		kind := sc.store
		if kind == "" {
			kind = "single"
		}
		if x.servers, err = startServers(dir, kind); err != nil {
			return "", "", err
		}
		defer x.servers.stop()
		for i := range urls {
			urls[i] = x.servers.url()
			if kind == "single" {
				if x.wires[i], err = newWire(x.servers.nodes[0].addr); err != nil {
					return "", "", err
				}
				defer x.wires[i].close()
				urls[i] = "redis://" + x.wires[i].ln.Addr().String()
			}
		}
	}
	defer x.kill()
	standby := ""
	if sc.standby != "" {
		standby = "standby: " + sc.standby
	}
	for i := range x.replicas {
		x.files[i], err = stage.WriteConfig(dir, fmt.Sprintf("replica-%d", i), fmt.Sprintf(`listen: "127.0.0.1:0"
admin: { listen: "127.0.0.1:0" }
replica: replica-%d
data_dir: %q
store: %q
%s
log: { level: warn }
accounts:
  - name: %s
    plan: { messages_per_day: %d }
    apps:
      - { id: %q, key: %s, secret: %q, upstream: %q }
    rules:
      - { match: { event: "bulk" }, priority: bulk }
      - { match: { event: "critical" }, priority: critical }
`, i, filepath.Join(dir, fmt.Sprint("data-", i)), urls[i], standby, account, plan, appID, appKey, appSecret, j.URL()))
		if err != nil {
			return "", "", err
		}
		if err := x.start(i); err != nil {
			return "", "", err
		}
	}
	x.followReady()
	defer x.stopFollowing()
	l := newLoad(x.fleet)
	l.classes = sc.classes
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.driveUntil(s.rate, stop)
	}()
	stage.Pause(sc.warm)
	began := time.Now()
	kills.Store(0)
	l.faulty(began)
	err = sc.fault(x)
	stage.Pause(8 * time.Second)
	close(stop)
	<-done
	if err != nil {
		return "", "", err
	}
	ledger, err := x.settled()
	if err != nil {
		return "", "", err
	}
	bill := j.Bill()
	lost, doubled := j.Verdict(l.accepted)
	stranded := ledger - bill
	percent := 100 * float64(stranded) / float64(plan)
	var bad []string
	wrong := func(on bool, format string, args ...any) {
		if on {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	wrong(l.refused > 0 && !sc.refused, "%d refused", l.refused)
	wrong(bill > plan || ledger < bill, "the replicas count %d, the bill is %d of %d", ledger, bill, plan)
	wrong(len(lost) > 0, "%d lost", len(lost))
	wrong(doubled > 0, "%d doubled", doubled)
	// Publishes without an answer are paid for and may not have arrived.
	wrong(float64(stranded-2*int64(l.unanswered)) > sc.stranded/100*float64(plan), "%d stranded", stranded)
	wrong(l.unnamed > 0, "%d unnamed", l.unnamed)
	notMet = strings.Join(bad, ", ")
	name := sc.name
	if n := kills.Load(); n > 0 {
		name += fmt.Sprintf(" (%d)", n)
	}
	row = fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.3f\t%s\t%s", name, s.rate, l.offered, l.refused, l.unanswered, max(bill-plan, 0), len(lost), doubled,
		stranded, percent, notMet, l.summary())
	return row, notMet, nil
}

// summary is what was answered besides "sent", and when each priority was first refused.
func (l *load) summary() string {
	var parts []string
	for k, n := range l.answers {
		if k != "200 sent " {
			parts = append(parts, fmt.Sprintf("%d %s", n, k))
		}
	}
	sort.Strings(parts)
	for _, class := range []string{"bulk", "normal", "critical"} {
		if at, ok := l.firstRefused[class]; ok {
			parts = append(parts, fmt.Sprintf("%s refused from %.0f s on", class, at.Seconds()))
		}
	}
	return strings.Join(parts, "; ")
}

// settled is the count of the replicas that live, once they agree and nothing is on its way any more.
func (x *act) settled() (int64, error) {
	var last []int64
	same := 0
	for end := time.Now().Add(patience); time.Now().Before(end); stage.Pause(500 * time.Millisecond) {
		var now []int64
		for _, r := range x.replicas {
			if r == nil {
				continue
			}
			n, _, state, err := status(r)
			if err != nil || state != "up" {
				now = nil
				break
			}
			now = append(now, n)
		}
		if len(now) == 0 {
			continue
		}
		agree := len(now) == len(last)
		for i := range now {
			agree = agree && now[i] == now[0] && now[i] == last[i]
		}
		if last = now; agree {
			if same++; same >= 24 { // longer than a dead replica's entry stays open
				return now[0], nil
			}
			continue
		}
		same = 0
	}
	return 0, fmt.Errorf("no count that all agree on: %v", last)
}

// followReady does what a load balancer does: it asks each replica whether it is ready.
func (f *fleet) followReady() {
	f.stopReady = make(chan struct{})
	client := http.Client{Timeout: 500 * time.Millisecond}
	for i := range f.replicas {
		f.following.Go(func() {
			for {
				select {
				case <-f.stopReady:
					return
				case <-time.After(200 * time.Millisecond):
				}
				f.mu.Lock()
				r := f.replicas[i]
				f.mu.Unlock()
				if r == nil {
					continue
				}
				resp, err := client.Get("http://" + r.Admin + "/readyz")
				bad := err == nil && resp.StatusCode != http.StatusOK
				if err == nil {
					resp.Body.Close()
				}
				f.mu.Lock()
				f.unready[i] = bad
				f.mu.Unlock()
			}
		})
	}
}

func (f *fleet) stopFollowing() {
	close(f.stopReady)
	f.following.Wait()
}

// cluster is three masters with a replica each.
type cluster struct{ nodes []*server }

func startCluster(dir string) (c *cluster, err error) {
	c = &cluster{}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	ctx := context.Background()
	for i := range 6 {
		sub := filepath.Join(dir, fmt.Sprint("cluster-", i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return c, err
		}
		bus, err := stage.FreePort()
		if err != nil {
			return c, err
		}
		_, busPort, _ := net.SplitHostPort(bus)
		n, err := newServer(sub, "--save", "", "--cluster-enabled", "yes", "--cluster-port", busPort, "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0")
		if err != nil {
			return c, err
		}
		n.bus = busPort
		c.nodes = append(c.nodes, n)
		if err := n.start(); err != nil {
			return c, err
		}
	}
	first := c.nodes[0]
	host, port, _ := net.SplitHostPort(first.addr)
	ids := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		cl := redis.NewClient(&redis.Options{Addr: n.addr})
		ids[i] = cl.Do(ctx, "cluster", "myid").Val().(string)
		if i < 3 {
			if err := cl.ClusterAddSlotsRange(ctx, i*5461, min(i*5461+5460, 16383)).Err(); err != nil {
				return c, err
			}
		}
		if i > 0 {
			if err := cl.Do(ctx, "cluster", "meet", host, port, first.bus).Err(); err != nil {
				return c, err
			}
		}
		cl.Close()
	}
	for i, n := range c.nodes {
		if err := n.until(func(ctx context.Context, cl *redis.Client) bool {
			return strings.Contains(cl.ClusterInfo(ctx).Val(), "cluster_known_nodes:6") &&
				(i < 3 || cl.Do(ctx, "cluster", "replicate", ids[i-3]).Err() == nil)
		}); err != nil {
			return c, fmt.Errorf("node %d: %w", i, err)
		}
	}
	for i, n := range c.nodes {
		if err := n.until(func(ctx context.Context, cl *redis.Client) bool {
			return strings.Contains(cl.ClusterInfo(ctx).Val(), "cluster_state:ok")
		}); err != nil {
			return c, fmt.Errorf("node %d: %w", i, err)
		}
	}
	for _, n := range c.nodes[3:] {
		if err := n.until(func(ctx context.Context, cl *redis.Client) bool {
			info, err := cl.InfoMap(ctx, "replication").Result()
			return err == nil && info["Replication"]["master_link_status"] == "up"
		}); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *cluster) url() string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.addr)
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// killOwner ends the master of the account's slot for good, and waits until its replica has taken over.
func (c *cluster) killOwner(account string) error {
	cl := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{c.nodes[0].addr}})
	master, err := cl.MasterForKey(context.Background(), "pg:{"+account+"}:state")
	if err != nil {
		return err
	}
	owner := master.Options().Addr
	cl.Close()
	for i, n := range c.nodes {
		if n.addr != owner {
			continue
		}
		n.kill()
		heir := c.nodes[(i+3)%6]
		return heir.until(func(ctx context.Context, cl *redis.Client) bool {
			info, err := cl.InfoMap(ctx, "replication").Result()
			return err == nil && info["Replication"]["role"] == "master"
		})
	}
	return fmt.Errorf("no node has the address %s", owner)
}

func (c *cluster) stop() {
	for _, n := range c.nodes {
		n.kill()
	}
}
