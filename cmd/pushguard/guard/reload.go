package guard

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// restartError names settings that only a restart changes.
type restartError struct{ settings []string }

func (e restartError) Error() string {
	return strings.Join(e.settings, ", ") + ": needs a restart; nothing of the new config was taken"
}

// needsRestart lists what differs between the two and cannot change while the
// process runs: what it listens on, where its data lies, who it is.
func needsRestart(old, new *config.Config) error {
	var changed []string
	for _, s := range []struct {
		name     string
		old, new any
	}{
		{"listen", old.Listen, new.Listen},
		{"admin.listen", old.Admin.Listen, new.Admin.Listen},
		{"admin.token", old.Admin.Token, new.Admin.Token},
		{"admin.read_token", old.Admin.ReadToken, new.Admin.ReadToken},
		{"admin.hosts", old.Admin.Hosts, new.Admin.Hosts},
		{"admin.trust_header", old.Admin.TrustHeader, new.Admin.TrustHeader},
		{"tracing", old.Tracing, new.Tracing},
		{"store", old.Store, new.Store},
		{"data_dir", old.DataDir, new.DataDir},
		{"replica", old.Replica, new.Replica},
		{"replicas", old.Replicas, new.Replicas},
		{"max_body", old.MaxBody, new.MaxBody},
		{"max_connections", old.MaxConnections, new.MaxConnections},
		{"max_connections_per_peer", old.MaxConnectionsPerPeer, new.MaxConnectionsPerPeer},
		{"read_timeout", old.ReadTimeout, new.ReadTimeout},
		{"tls (on or off)", old.TLS != nil, new.TLS != nil},
		{"log.format", old.Log.Format, new.Log.Format},
	} {
		if !reflect.DeepEqual(s.old, s.new) {
			changed = append(changed, s.name)
		}
	}
	if len(changed) > 0 {
		return restartError{changed}
	}
	return nil
}

// reload puts cfg in force if all of it can be, and reports whether anything
// changed. An error means that the old config goes on, whole.
func (g *Guard) reload(ctx context.Context, cfg *config.Config) (changed bool, err error) {
	g.applying.Lock()
	defer g.applying.Unlock()
	if g.leaving.Load() {
		return false, errLeaving
	}
	old := g.fleet.Load().cfg
	if err := needsRestart(old, cfg); err != nil {
		return false, err
	}
	certs, err := g.newCertificates(cfg)
	if err != nil {
		return false, err
	}
	same := config.Equal(old, cfg)
	if same && !certs {
		return false, nil
	}
	if !same {
		lines := config.Diff(old, cfg)
		if err := g.apply(ctx, cfg); err != nil {
			return false, err
		}
		for _, line := range lines {
			g.log.Info("config changed", "what", line)
		}
		if g.level != nil && old.Log.Level != cfg.Log.Level {
			_ = setLevel(g.level, string(cfg.Log.Level))
		}
	}
	if certs {
		now, err := ReadCertificates(cfg.TLS)
		if err != nil {
			return !same, err
		}
		g.certs.cfg.Store(now)
		g.log.Info("certificate of the data port changed", "valid_until", now.Certificates[0].Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return true, nil
}

// newCertificates says whether the files of cfg hold another certificate than
// the one in use, and fails if they hold none that can be used.
func (g *Guard) newCertificates(cfg *config.Config) (bool, error) {
	if cfg.TLS == nil {
		return false, nil
	}
	now, err := ReadCertificates(cfg.TLS)
	if err != nil {
		return false, err
	}
	was := g.certs.cfg.Load()
	return was.MinVersion != now.MinVersion || !reflect.DeepEqual(was.Certificates[0].Certificate, now.Certificates[0].Certificate), nil
}

// reloads is what /readyz and the metrics tell of the config.
type reloads struct {
	mu       sync.Mutex
	since    time.Time // when the config in force was taken
	failed   time.Time // zero: the last reload succeeded
	why      string
	lastGood []string

	good, bad prometheus.Counter
}

func (r *reloads) began(now time.Time, cfg *config.Config) {
	r.since, r.lastGood = now, cfg.FromLastGood
	r.good = prometheus.NewCounter(prometheus.CounterOpts{Name: "pushguard_config_reloads_total", Help: "Reloads of the config, by result.", ConstLabels: prometheus.Labels{"result": "taken"}})
	r.bad = prometheus.NewCounter(prometheus.CounterOpts{Name: "pushguard_config_reloads_total", Help: "Reloads of the config, by result.", ConstLabels: prometheus.Labels{"result": "refused"}})
}

// done notes how a reload ended; fresh says whether that is news: a refusal
// that repeats word for word is not.
func (r *reloads) done(now time.Time, changed bool, cfg *config.Config, err error) (fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		fresh = r.failed.IsZero() || r.why != err.Error()
		r.failed, r.why = now, err.Error()
		if fresh {
			r.bad.Inc()
		}
		return fresh
	}
	fresh = changed || !r.failed.IsZero() || len(r.lastGood) > 0
	r.failed, r.why, r.lastGood = time.Time{}, "", cfg.FromLastGood
	if changed {
		r.since = now
		r.good.Inc()
	}
	return fresh
}

func (r *reloads) ok() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed.IsZero()
}

// note is for /readyz: the config never makes a replica unready, for the one
// in force is good.
func (r *reloads) note() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	note := "in force since " + r.since.UTC().Format(time.RFC3339)
	if len(r.lastGood) > 0 {
		note += "; LAST GOOD values are used for what is out of reach: " + strings.Join(r.lastGood, ", ")
	}
	if !r.failed.IsZero() {
		first, _, _ := strings.Cut(r.why, "\n")
		note += "; RELOAD REFUSED at " + r.failed.UTC().Format(time.RFC3339) + ": " + first
	}
	return note
}

func (r *reloads) collectors() []prometheus.Collector {
	return []prometheus.Collector{r.good, r.bad,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pushguard_config_last_good_values", Help: "References of the config that are served from the last good cache because their source was out of reach."}, func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return float64(len(r.lastGood))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pushguard_config_last_reload_success_timestamp_seconds", Help: "When the config in force was taken."}, func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return float64(r.since.Unix())
		}),
	}
}

// sayReload is the log's account of one reload.
func (g *Guard) sayReload(ctx context.Context, load func(context.Context) (*config.Loaded, error), why string) *config.Loaded {
	loaded, err := load(ctx)
	var changed bool
	if err == nil {
		changed, err = g.reload(ctx, loaded.Config)
	}
	if errors.Is(err, errLeaving) || ctx.Err() != nil {
		return loaded
	}
	fresh := g.reloads.done(time.Now(), changed, loaded.Config, err)
	switch {
	case err != nil:
		level := slog.LevelDebug
		if fresh {
			level = slog.LevelError
		}
		g.log.Log(ctx, level, "config refused: the old one stays in force", "why", err.Error(), "asked_by", why)
	case changed || fresh:
		for _, w := range loaded.Config.Warnings {
			g.log.Warn("config: " + w.Error())
		}
		g.log.Info("config reloaded", "asked_by", why)
		g.Keep(loaded)
	default:
		g.log.Debug("config reloaded: nothing changed", "asked_by", why)
	}
	return loaded
}

// Keep writes the last good cache, if the config wants one.
func (g *Guard) Keep(loaded *config.Loaded) {
	if loaded == nil {
		return
	}
	if err := loaded.Keep(time.Now()); err != nil {
		g.log.Warn("the last good cache could not be written: a later start has to reach every secret", "err", err)
	}
}
