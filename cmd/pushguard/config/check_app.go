package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/pushguard/pushguard/limiter"
)

// ownCaller is the name under which the app's own pair counts; other is what
// metrics call those that do not fit.
const (
	ownCaller   = "app"
	otherCaller = "other"
)

var (
	idRE      = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	keyRE     = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	clusterRE = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9]){0,31}$`)
	// clusters are Pusher's shared ones (https://pusher.com/docs/channels/miscellaneous/clusters/).
	clusters = []string{"mt1", "us2", "us3", "eu", "ap1", "ap2", "ap3", "ap4", "sa1"}
)

func (c *checker) app(path string, a *App, u *unique) {
	if a.ID != "" && !idRE.MatchString(a.ID) {
		c.fail(path+".id", c.show(path+".id", a.ID)+"is not an app's id", "it is the number that Pusher's dashboard shows under App Keys")
	}
	u.add("app", a.ID, path+".id", "is also the id of", "an app belongs to one account, once")
	c.key(path+".key", a.Key, u)
	c.upstream(path, a)
	c.duration(path+".timeout", a.Timeout, 100*time.Millisecond, time.Minute)
	if a.ReadMax < 1<<20 || a.ReadMax > 16<<30 {
		c.fail(path+".read_max", "is not between 1MiB and 16GiB", "a list of 300,000 channels has about 8 MiB")
	}
	ub := a.UpstreamBreaker
	if ub.ErrorRate == 0 {
		c.fail(path+".upstream_breaker.error_rate", "is 0%", "give more than 0%; off: true switches the breaker off")
	}
	c.duration(path+".upstream_breaker.window", ub.Window, time.Second, 10*time.Minute)
	c.duration(path+".upstream_breaker.open_for", ub.OpenFor, 100*time.Millisecond, 10*time.Minute)
	for _, s := range a.Subscribers.Patterns {
		c.glob(child(path+".subscribers", s.Pattern), s.Pattern, channelGlob)
	}
	c.learn(path+".learn", a.Learn)
	if c.given(path+".forward_webhooks") && !a.ForwardWebhooks.IsZero() {
		u, err := url.Parse(a.ForwardWebhooks.Reveal())
		switch {
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
			c.fail(path+".forward_webhooks", "is not an http:// or https:// URL", "give the URL that was in Pusher's dashboard before pushguard's was put there")
		case linkLocal(u.Hostname()):
			c.fail(path+".forward_webhooks", "is a link-local address, where clouds keep their machines' credentials", "give the address of the app")
		}
	}
	if int64(a.Limits.DataBytes) > int64(c.cfg.MaxBody) {
		c.fail(path+".limits.data_bytes", "is more than max_body lets in", "raise max_body to at least twice as much")
	}
	if a.Fold.Enabled {
		c.duration(path+".fold.window", a.Fold.Window, 100*time.Microsecond, time.Second)
	}
	c.duration(path+".held_expiry", a.HeldExpiry, time.Second, 24*time.Hour)
	if a.Fold.Batch > a.Limits.Batch {
		c.fail(path+".fold.batch", "is more than limits.batch lets into one call", "give at most limits.batch")
	}
	c.ownRate(path+".rate", a.Rate, limiter.PerApp, "an app's rate counts the whole app", "write 500/s; what is counted per caller, event or channel stands in rules")
	c.burst(path, a.Burst, a.Rate != nil)

	names := map[string]bool{}
	for i := range a.Callers {
		caller := &a.Callers[i]
		p := fmt.Sprintf("%s.callers[%d]", path, i)
		switch {
		case caller.Name == "":
		case !isName(caller.Name):
			c.fail(p+".name", c.show(p+".name", caller.Name)+"is not a name", nameForm)
		case caller.Name == ownCaller || caller.Name == otherCaller:
			c.fail(p+".name", c.show(p+".name", caller.Name)+"is taken", `"app" is who signs with the app's own pair, "other" the rest in metrics: choose another name`)
		case names[caller.Name]:
			c.fail(p+".name", c.show(p+".name", caller.Name)+"is there twice in this app", "give each caller its own name; two secrets of one caller are a list under secret")
		}
		names[caller.Name] = true
		c.key(p+".key", caller.Key, u)
		c.ownRate(p+".rate", caller.Rate, limiter.PerCaller, "a caller's rate counts this caller", "write 200/s; what is counted per event or channel stands in rules")
		c.burst(p, caller.Burst, caller.Rate != nil)
		c.mode(p+".mode", caller.Mode)
		if caller.Share == 0 && c.given(p+".share") {
			c.fail(p+".share", "is 0%: this caller could send nothing", "give more than 0%, or take share out for no limit of its own")
		}
	}
}

func (c *checker) key(path, key string, u *unique) {
	if key != "" && !keyRE.MatchString(key) {
		c.fail(path, "is not a key", "use letters, digits, dot, - and _, at most 128")
	}
	u.add("key", key, path, "is also", "every app and caller has a key of its own: requests are told apart by it")
}

func (c *checker) upstream(path string, a *App) {
	cluster, upstream := path+".cluster", path+".upstream"
	switch {
	case c.bad[cluster] || c.bad[upstream]:
	case a.Cluster == "" && a.Upstream == "":
		c.fail(path, "has neither cluster nor upstream", "write cluster: eu (Pusher's dashboard shows which, under App Keys)")
	case a.Cluster != "" && a.Upstream != "":
		c.fail(upstream, "and cluster are both set", "keep one")
	case a.Cluster != "":
		name := c.show(cluster, a.Cluster)
		if !clusterRE.MatchString(a.Cluster) {
			c.fail(cluster, name+"is not a cluster's name", "write it as in api-CLUSTER.pusher.com: "+strings.Join(clusters, ", "))
			return
		}
		for _, k := range clusters {
			if a.Cluster == k {
				return
			}
		}
		c.warn(cluster, name+"is none of Pusher's shared clusters", "known are "+strings.Join(clusters, ", ")+"; a dedicated cluster is fine")
	default:
		u, err := url.Parse(a.Upstream)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			c.fail(upstream, c.show(upstream, a.Upstream)+"is not an http:// or https:// URL", "write http://host:port")
		case linkLocal(u.Hostname()):
			c.fail(upstream, "is a link-local address, where clouds keep their machines' credentials", "give the address of the Channels server")
		case u.User != nil:
			c.fail(upstream, "has a user in it", "the key and secret have their own settings: write http://host:port")
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			c.fail(upstream, c.show(upstream, a.Upstream)+"has more than host and port", "the path is Pusher's and part of the signature: write http://host:port")
		case !validPort(u.Port(), true) || u.Port() == "0":
			c.fail(upstream, c.show(upstream, a.Upstream)+"has no valid port", "a port is a number from 1 to 65535")
		}
	}
}

// linkLocal says whether host is an address that only this network segment
// has: among them 169.254.169.254, the metadata service of most clouds, which
// nobody means to publish to.
func linkLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap().IsLinkLocalUnicast() || ip.Unmap().IsLinkLocalMulticast())
}

// ownRate holds the rate of a caller or an app to what it counts, and says so
// in it.
func (c *checker) ownRate(path string, r *Rate, per limiter.Per, msg, hint string) {
	if r == nil {
		return
	}
	if r.Per != limiter.PerApp && r.Per != per {
		c.fail(path, "is per "+r.Per.String()+", but "+msg, hint)
		return
	}
	r.Per = per
}

// mode warns where the file's own mode overrules m.
func (c *checker) mode(path string, m Mode) {
	if m == Enforce && c.cfg.Mode == Observe {
		c.warn(path, "has no effect: the whole file is in mode observe", "take the mode at the top out, and set observe where it is wanted")
	}
}

func (c *checker) burst(path string, burst int, rate bool) {
	if burst > 0 && !rate && !c.bad[path+".rate"] {
		c.fail(path+".burst", "has no rate beside it", "add rate: 200/s, or take burst out")
	}
}

// UpstreamURL is where the app's publishes go: its upstream, or Pusher's
// cluster over TLS. It has no path and no slash at its end.
func (a *App) UpstreamURL() string {
	if a.Upstream != "" {
		return strings.TrimSuffix(a.Upstream, "/")
	}
	return "https://api-" + a.Cluster + ".pusher.com"
}

func (c *checker) learn(path string, l *Learn) {
	if l == nil {
		return
	}
	if l.Poll != 0 {
		c.duration(path+".poll", l.Poll, 10*time.Second, time.Hour)
	}
	if l.Poll == 0 && l.Presence {
		c.fail(path+".presence", "goes with a poll, but poll is 0s", "give poll: 1m, or take presence out")
	}
	if l.Budget == 0 && (l.Sample || l.Poll > 0) {
		c.fail(path+".budget", "is 0%: nothing could be asked", "give more than 0%, or sample: false to ask nothing")
	}
}

// polls is what polling costs a day, in messages.
func (l *Learn) polls() int64 {
	if l == nil || l.Poll <= 0 {
		return 0
	}
	n := int64(24 * time.Hour / l.Poll)
	if l.Presence {
		n *= 2
	}
	return n
}

func (l *Learn) budget() Percent {
	if l == nil {
		return 0
	}
	return l.Budget
}
