package config

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/pushguard/pushguard/quota"
)

// Percent is a part of a whole as a fraction, 0 to 1; in the file it is
// written 40%.
type Percent float64

// String is the form of the file.
func (p Percent) String() string {
	return strconv.FormatFloat(math.Round(float64(p)*1e8)/1e6, 'f', -1, 64) + "%"
}

func (p *Percent) setText(text string) error {
	digits, ok := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fault{"is not a percentage", `write it like 40%`}
	}
	if f < 0 || f > 100 {
		return fault{"is out of range", "a percentage lies between 0% and 100%"}
	}
	*p = Percent(f / 100)
	return nil
}

// Bytes is a size.
type Bytes int64

// ParseBytes reads a size as the file has it.
func ParseBytes(s string) (int64, error) {
	var b Bytes
	err := b.setText(s)
	return int64(b), err
}

var units = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}

func (b *Bytes) setText(text string) error {
	digits, size := text, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			digits, size = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return fault{"is not a size", "write bytes, or a number with KiB, MiB, kB or MB, like 512KiB"}
	}
	*b = Bytes(n * size)
	return nil
}

// Store is where usage is kept. It can hold a password, and so shows itself
// without one.
type Store struct {
	url    Secret // everything but "embedded"
	public string // scheme, hosts and path
}

var embedded = Store{public: "embedded"}

// Reveal is the text as resolved: "embedded", or a URL with its password.
func (s Store) Reveal() string {
	if s.url.IsZero() {
		return s.public
	}
	return s.url.Reveal()
}

// String is the store without user, password and options.
func (s Store) String() string { return s.public }

// GoString is String.
func (s Store) GoString() string { return s.public }

// MarshalText is String.
func (s Store) MarshalText() ([]byte, error) { return []byte(s.public), nil }

// Embedded says whether the store is the one in data_dir.
func (s Store) Embedded() bool { return s.public == embedded.public }

var storeSchemes = []string{"redis", "rediss", "redis+sentinel", "redis+cluster"}

func (s *Store) setText(text string) error {
	if text == embedded.public {
		*s = embedded
		return nil
	}
	const forms = "use embedded, redis://host:6379/0, rediss://…, redis+sentinel://h1,h2/master or redis+cluster://h1,h2"
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return fault{"is not a store", didYouMean(text, []string{embedded.public}, forms)}
	}
	known := false
	for _, k := range storeSchemes {
		known = known || scheme == k
	}
	if !known {
		return fault{"has an unknown scheme", didYouMean(scheme, storeSchemes, forms)}
	}
	rest, _, _ = strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		if _, err := url.Parse("x://" + hosts[:at+1] + "h"); err != nil {
			return fault{"has a user or password that does not fit into a URL", "percent-encode what is special in it, / as %2F and @ as %40"}
		}
		hosts = hosts[at+1:]
	}
	many := strings.HasPrefix(scheme, "redis+")
	list := strings.Split(hosts, ",")
	if len(list) > 1 && !many {
		return fault{"names several hosts", "one Redis is redis://host:6379; several are redis+sentinel://h1,h2/master or redis+cluster://h1,h2"}
	}
	for _, h := range list {
		u, err := url.Parse("x://" + h)
		if err != nil || u.Hostname() == "" || u.Path != "" || !validPort(u.Port(), true) {
			return fault{"has a host that is not host or host:port", forms}
		}
	}
	switch scheme {
	case "redis+sentinel":
		if path == "" || strings.Contains(path, "/") {
			return fault{"does not name the master", "write redis+sentinel://h1,h2/master"}
		}
	case "redis+cluster":
		if path != "" {
			return fault{"has a path", "a cluster has no numbered databases: write redis+cluster://h1,h2"}
		}
	default:
		if n, err := strconv.Atoi(path); path != "" && (err != nil || n < 0) {
			return fault{"has a path that is not a database's number", "write redis://host:6379/0"}
		}
	}
	public := scheme + "://" + hosts
	if path != "" {
		public += "/" + path
	}
	*s = Store{url: NewSecret(text), public: public}
	return nil
}

// validPort says whether s is a port number; empty is allowed where the port
// may be left out.
func validPort(s string, empty bool) bool {
	if s == "" {
		return empty
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n <= math.MaxUint16
}

// Plan is what an account may send in a day, counted as Pusher bills. It
// converts to quota.Plan.
type Plan struct {
	// Name of one of Pusher's plans, or "custom".
	Name string
	// Messages a day, which ends at 00:00 UTC.
	MessagesPerDay int64
}

const maxPlan = 1_000_000_000_000

func (p *Plan) setText(text string) error {
	plan, ok := quota.PlanByName(text)
	if !ok {
		return fault{"is no plan of Pusher's", didYouMean(text, quota.PlanNames(),
			"known are "+strings.Join(quota.PlanNames(), ", ")+"; any other is { messages_per_day: N }")}
	}
	*p = Plan(plan)
	return nil
}

func (p *Plan) bindNode(b *binder, path string, n ast.Node) {
	if !isMap(n) {
		b.bindText(path, n, p)
		return
	}
	var custom CustomPlan
	b.bindStruct(path, n, &custom)
	*p = Plan{Name: "custom", MessagesPerDay: custom.MessagesPerDay}
}

// CustomPlan is a plan by its number.
type CustomPlan struct {
	// Messages a day as Pusher counts them.
	MessagesPerDay int64 `yaml:"messages_per_day" jsonschema:"required,minimum=1,maximum=1000000000000"`
}

// Dedupe is a rule's deduplication. The zero window is off.
type Dedupe struct {
	// How long a publish is remembered.
	Window time.Duration `yaml:"window" jsonschema:"required"`
	// replica remembers in this process, cluster in the store, for all replicas; while that does not answer, each replica by itself.
	Scope Scope `yaml:"scope,omitempty"`
}

func (d *Dedupe) bindNode(b *binder, path string, n ast.Node) {
	if isMap(n) {
		b.bindStruct(path, n, d)
		return
	}
	*d = DefaultDedupe()
	b.bindValue(path, n, &d.Window)
}

// Conflate is a rule's conflation. The zero window is off.
type Conflate struct {
	// How long only the newest value waits, to go out at the end.
	Window time.Duration `yaml:"window" jsonschema:"required"`
	// JSON pointer (RFC 6901) into the payload, as /order/id: values that differ there do not replace one another, though their channel and event are the same. A payload without it is not conflated.
	Key string `yaml:"key,omitempty"`
}

func (d *Conflate) bindNode(b *binder, path string, n ast.Node) {
	if isMap(n) {
		b.bindStruct(path, n, d)
		return
	}
	b.bindValue(path, n, &d.Window)
}

func (f *Fold) bindNode(b *binder, path string, n ast.Node) {
	*f = DefaultFold()
	if isMap(n) {
		b.bindStruct(path, n, f)
		return
	}
	b.bindValue(path, n, &f.Enabled)
}

// Rates are one rate or several; each must have a token.
type Rates []Rate

func (r *Rates) bindNode(b *binder, path string, n ast.Node) {
	if !isList(n) {
		*r = make(Rates, 1)
		b.bindValue(path, n, &(*r)[0])
		return
	}
	b.bindList(path, n, r)
}

// Quotas are one quota or several; each must have room.
type Quotas []Quota

func (q *Quotas) bindNode(b *binder, path string, n ast.Node) {
	if !isList(n) {
		*q = make(Quotas, 1)
		b.bindText(path, n, &(*q)[0])
		return
	}
	b.bindList(path, n, q)
}

func (q *Quota) bindNode(b *binder, path string, n ast.Node) { b.bindText(path, n, q) }

// RateAndBurst is a rate with a bucket of another size.
type RateAndBurst struct {
	// The rate, as 5/s per channel.
	Rate Rate `yaml:"rate" jsonschema:"required"`
	// Size of its token bucket. The default is one second's worth.
	Burst int `yaml:"burst,omitempty" jsonschema:"minimum=1,maximum=1000000000"`
}

func (r *Rate) bindNode(b *binder, path string, n ast.Node) {
	if !isMap(n) {
		b.bindText(path, n, r)
		return
	}
	if b.nested {
		b.failAt(path, n, "is a mapping", "write the rate itself, like 5/s per channel")
		return
	}
	b.nested = true
	var long RateAndBurst
	b.bindStruct(path, n, &long)
	b.nested = false
	*r = long.Rate
	if long.Burst > 0 {
		r.Burst = long.Burst
	}
}

// Globs are patterns, one or a list: * stands for any run of characters, ? for
// one. None matches everything.
type Globs []string

func (g *Globs) bindNode(b *binder, path string, n ast.Node) {
	if isList(n) {
		b.bindList(path, n, (*[]string)(g))
		return
	}
	*g = make(Globs, 1)
	b.bindValue(path, n, &(*g)[0])
}

func (s *Secrets) bindNode(b *binder, path string, n ast.Node) {
	if isList(n) {
		b.bindList(path, n, (*[]Secret)(s))
		return
	}
	*s = make(Secrets, 1)
	b.bindValue(path, n, &(*s)[0])
}

// Subscribers are how many subscribers a channel counts for until that is
// learned.
type Subscribers struct {
	// Default is for channels that no pattern matches.
	Default int64
	// Patterns are tried in the file's order.
	Patterns []SubscriberPattern
}

// SubscriberPattern is one line of Subscribers.
type SubscriberPattern struct {
	Pattern     string
	Subscribers int64
}

func (s *Subscribers) bindNode(b *binder, path string, n ast.Node) {
	b.eachEntry(path, n, func(e entry) {
		var count int64
		p := child(path, e.key)
		b.bindValue(p, e.value, &count)
		if count < 0 || count > maxPlan {
			b.failAt(p, e.value, "is out of range", "give 0 or more")
		}
		if e.key == "default" {
			s.Default = count
			return
		}
		s.Patterns = append(s.Patterns, SubscriberPattern{Pattern: e.key, Subscribers: count})
	})
}

// LastGood says whether what references resolved to is kept, and where.
type LastGood struct {
	// On keeps it.
	On bool
	// Path of the kept file; empty means last-good.json in data_dir.
	Path string
}

func (l *LastGood) setText(text string) error {
	switch text {
	case "true":
		*l = LastGood{On: true}
	case "false":
		*l = LastGood{}
	case "":
		return fault{"is empty", "write true, false or a path"}
	default:
		*l = LastGood{On: true, Path: text}
	}
	return nil
}
