//go:build linux

package main

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed templates
var templates embed.FS

// The identities of the benchmark; nothing outside of it uses them.
const (
	appID        = "1"
	appKey       = "app-key"
	appSecret    = "app-secret"
	callerKey    = "caller-key"
	callerSecret = "caller-secret"
)

// fleet is everything that runs during the benchmark.
type fleet struct {
	dir       string
	loadCore  int
	proxyCore int
	processes []*process

	stub, stubTLS string // host:port
	stubRun       *process
	cert          string // of the upstream over TLS
	old           string // a second binary of pushguard that is measured beside the first; empty: none
	*side
}

// side is the proxies in front of the upstream, plain or over TLS.
type side struct {
	tls     bool
	end     func() // ends its processes
	nginx   *process
	haproxy *process
	guard   *guard
	folding *guard // the same with folding on

	oldGuard, oldFolding *guard // the same two of a second binary

	nginxPlain, nginxLimited, nginxRefusing string
	haproxyLimited, haproxyRefusing         string
}

// guard is one pushguard.
type guard struct {
	*process
	data, admin string
}

// assemble starts the upstream and the proxies in front of it, and waits until each port answers.
func (f *fleet) assemble(ctx context.Context, o *options) (err error) {
	if f.loadCore, f.proxyCore, err = twoCores(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cert, key, err := certificate(f.dir)
	if err != nil {
		return err
	}
	f.cert = cert
	line := make(chan string, 1)
	keys := callerKey + ":" + callerSecret + "," + appKey + ":" + appSecret
	for _, c := range moreCallers() {
		keys += "," + c.Key + ":" + c.Secret
	}
	f.stubRun, err = f.run(ctx, f.loadCore, line, self, "stub", "--keys", keys, "--latency", o.latency.String(), "--tls-cert", cert, "--tls-key", key)
	if err != nil {
		return err
	}
	select {
	case addrs := <-line:
		f.stub, f.stubTLS, _ = strings.Cut(addrs, " ")
	case <-f.stubRun.gone:
		return f.stubRun.alive()
	}
	return f.face(ctx, o, o.tls)
}

// face starts the proxies in front of the upstream, plain or over TLS, in place of those that run, if any do: who is
// not measured does not stand by.
func (f *fleet) face(ctx context.Context, o *options, secure bool) error {
	if f.side != nil {
		f.end()
		for _, p := range f.processes {
			if p != f.stubRun {
				<-p.gone
			}
		}
	}
	ctx, end := context.WithCancel(ctx)
	f.side = &side{tls: secure, end: end}
	if err := f.assembleNginx(ctx); err != nil {
		return err
	}
	if err := f.assembleHAProxy(ctx); err != nil {
		return err
	}
	if o.pushguard != "" {
		var err error
		if f.guard, err = f.pushguard(ctx, o.pushguard, o, "pushguard", "false"); err != nil {
			return err
		}
		if o.fold != "" {
			if f.folding, err = f.pushguard(ctx, o.pushguard, o, "folding", o.fold); err != nil {
				return err
			}
		}
	}
	if f.old != "" {
		var err error
		if f.oldGuard, err = f.pushguard(ctx, f.old, o, "old", "false"); err != nil {
			return err
		}
		if f.oldFolding, err = f.pushguard(ctx, f.old, o, "old-folding", o.fold); err != nil {
			return err
		}
	}
	return nil
}

// upstream is where the proxies of this side send what they let through.
func (f *fleet) upstream() (scheme, addr string) {
	if f.tls {
		return "https", f.stubTLS
	}
	return "http", f.stub
}

func (f *fleet) run(ctx context.Context, core int, line chan<- string, name string, args ...string) (*process, error) {
	// The upstream's certificate is the only one that is trusted.
	p, err := start(ctx, core, []string{"SSL_CERT_FILE=" + f.cert, "SSL_CERT_DIR=" + f.dir}, line, name, args...)
	if err == nil {
		f.processes = append(f.processes, p)
	}
	return p, err
}

// disband ends what assemble started; the context it was given must have ended.
func (f *fleet) disband() {
	for _, p := range f.processes {
		<-p.gone
	}
}

func (f *fleet) assembleNginx(ctx context.Context) (err error) {
	addrs, err := freeAddrs(3)
	if err != nil {
		return err
	}
	f.nginxPlain, f.nginxLimited, f.nginxRefusing = addrs[0], addrs[1], addrs[2]
	scheme, stub := f.upstream()
	conf, err := f.render("nginx.conf", "nginx.conf", map[string]string{
		"Dir": f.dir, "Scheme": scheme, "Stub": stub, "Plain": addrs[0], "Limited": addrs[1], "Refusing": addrs[2],
	})
	if err != nil {
		return err
	}
	f.nginx, err = f.run(ctx, f.proxyCore, nil, program("nginx"), "-e", "stderr", "-p", f.dir, "-c", conf, "-g", "daemon off;")
	if err != nil {
		return err
	}
	return f.nginx.listening(addrs...)
}

func (f *fleet) assembleHAProxy(ctx context.Context) (err error) {
	addrs, err := freeAddrs(2)
	if err != nil {
		return err
	}
	f.haproxyLimited, f.haproxyRefusing = addrs[0], addrs[1]
	scheme, stub := f.upstream()
	conf, err := f.render("haproxy.cfg", "haproxy.cfg", map[string]string{"Scheme": scheme, "Stub": stub, "Limited": addrs[0], "Refusing": addrs[1]})
	if err != nil {
		return err
	}
	if f.haproxy, err = f.run(ctx, f.proxyCore, nil, program("haproxy"), "-q", "-db", "-f", conf); err != nil {
		return err
	}
	return f.haproxy.listening(addrs...)
}

func (f *fleet) pushguard(ctx context.Context, binary string, o *options, name, fold string) (*guard, error) {
	scheme, stub := f.upstream()
	if f.tls {
		name += "-tls"
	}
	conf, err := f.render("pushguard.yaml", name+".yaml", map[string]any{
		"Dir": f.dir, "Name": name, "Scheme": scheme, "Stub": stub, "App": appID, "AppKey": appKey, "AppSecret": appSecret,
		"CallerKey": callerKey, "CallerSecret": callerSecret, "Callers": moreCallers(), "Dedupe": o.dedupe.String(), "Fold": fold,
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(f.dir, name+".addr")
	p, err := f.run(ctx, f.proxyCore, nil, binary, "serve", "--config", conf, "--addr-file", file)
	if err != nil {
		return nil, err
	}
	g := &guard{process: p}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := p.alive(); err != nil {
			return nil, err
		}
		var addr struct{ Data, Admin string }
		if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &addr) == nil && addr.Data != "" {
			g.data, g.admin = addr.Data, addr.Admin
			return g, p.listening(g.data, g.admin)
		}
		if time.Now().After(limit) {
			return nil, fmt.Errorf("%s did not write its addresses within 20 s\n%s", name, p.log)
		}
	}
}

func (f *fleet) render(name, as string, data any) (string, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(templates, "templates/"+name)
	if err != nil {
		return "", err
	}
	file, err := os.Create(filepath.Join(f.dir, as))
	if err != nil {
		return "", err
	}
	defer file.Close()
	if err := t.ExecuteTemplate(file, name, data); err != nil {
		return "", err
	}
	return file.Name(), file.Close()
}

// listening waits until all of the addresses take connections.
func (p *process) listening(addrs ...string) error {
	for _, addr := range addrs {
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if err := p.alive(); err != nil {
				return err
			}
			if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
				c.Close()
				break
			} else if time.Now().After(limit) {
				return fmt.Errorf("%s does not listen on %s: %w\n%s", p.name, addr, err, p.log)
			}
		}
	}
	return nil
}

// freeAddrs finds ports for programs that cannot choose their own. Somebody else might take one in between; then the
// program does not start, and says so.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}

// program finds servers where Debian puts them, which is not on everybody's PATH.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}

// counts asks the upstream what it saw.
func (f *fleet) counts() (c counts, err error) {
	body, err := get("http://" + f.stub + "/stats")
	if err == nil {
		err = json.Unmarshal([]byte(body), &c)
	}
	return c, err
}

// outcomes are pushguard's own counts of publishes, from its metrics.
func (g *guard) outcomes() (map[string]int64, error) {
	body, err := get("http://" + g.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	sums := map[string]int64{}
	sc := bufio.NewScanner(strings.NewReader(body))
	for sc.Scan() {
		labels, ok := strings.CutPrefix(sc.Text(), "pushguard_publishes_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(labels, "} ")
		_, outcome, _ := strings.Cut(labels, `outcome="`)
		outcome, _, _ = strings.Cut(outcome, `"`)
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
		sums[outcome] += int64(n)
	}
	return sums, sc.Err()
}

var httpClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(url string) (string, error) {
	resp, err := httpClient.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(b), err
}
