package config

import "time"

// Default is a Config in which all that can be left out has its value; it has
// no account and so does not pass the checks. Every default of the file is set
// in this source file: here for the top, in the functions below for what
// stands in lists.
func Default() *Config {
	return &Config{
		Listen:         ":8080",
		Admin:          Admin{Listen: "127.0.0.1:8081"},
		DataDir:        "./pushguard-data",
		Store:          embedded,
		OnStoreLoss:    LossLease,
		Standby:        15 * time.Minute,
		Mode:           Enforce,
		Breaker:        Breaker{Protect: ProtectForecast, ShedBulkAt: 0.80, ShedNormalAt: 0.95, CriticalOnlyAt: 0.98, Probe: time.Minute, BurnRate: BurnOn},
		Contain:        ContainAuto,
		DrainDelay:     3 * time.Second,
		MaxBody:        1 << 20, // ten events of 10 kB in their longest JSON escaping
		MaxConnections: 65536,
		ReadTimeout:    10 * time.Second,
		SecretPoll:     time.Minute,
		Log:            Log{Format: LogText, Level: LogInfo},
	}
}

// DefaultAccount is an account before the file speaks: no floors (the
// breaker's thresholds already keep the last part of the plan for the upper
// priorities), and Pusher's bill as documented, the dearer reading where it is not.
func DefaultAccount() Account {
	return Account{HeldMax: 64 << 20, HeldMaxPerCaller: 32 << 20, Billing: Billing{Batch: BatchPerEvent, MultiChannel: MultiPerCall, Info: Counted, Failed: Counted,
		Webhooks: BatchPerEvent, SubscriptionCount: Counted, Presence: Counted, ClientEvents: Counted, Unseen: Counted}}
}

// DefaultApp is an app before the file speaks. The timeout answers before the
// most impatient SDK (Java, 4 s) gives up; the limits are Pusher's own on its
// shared clusters (https://pusher.com/docs/channels/library_auth_reference/rest-api/).
func DefaultApp() App {
	learn := DefaultLearn()
	return App{
		Learn:           &learn,
		Timeout:         3500 * time.Millisecond,
		MaxCalls:        4096,
		ReadMax:         256 << 20, // about two million channels
		UpstreamBreaker: UpstreamBreaker{ErrorRate: 0.50, MinRequests: 20, Window: 10 * time.Second, OpenFor: 5 * time.Second},
		Subscribers:     Subscribers{Default: 1},
		Limits:          Limits{DataBytes: 10240, Channels: 100, Batch: 10, ChannelName: 200, EventName: 200},
		Fold:            DefaultFold(),
		HeldExpiry:      10 * time.Minute,
	}
}

// DefaultLearn is an app's learning before the file speaks. Samples pay for themselves; a poll a minute is 1,440 messages
// a day, whatever is published, and so has to be asked for.
func DefaultLearn() Learn { return Learn{Sample: true, Budget: 0.01} }

// DefaultFold is folding before the file speaks.
func DefaultFold() Fold { return Fold{Enabled: true, Window: 3 * time.Millisecond} }

// DefaultRule is a rule before the file speaks. Its mode becomes the file's.
func DefaultRule() Rule { return Rule{Priority: Normal, Digest: true, Order: OrderArrival} }

// DefaultDigest is an account's digest before the file speaks.
func DefaultDigest() Digest {
	return Digest{Event: "refresh", Data: "{}", Every: 30 * time.Second, Budget: 0.01}
}

// DefaultDedupe is a deduplication before the file speaks.
func DefaultDedupe() Dedupe { return Dedupe{Scope: ScopeReplica} }

// DefaultTLS is a certificate's setting before the file speaks.
func DefaultTLS() TLS { return TLS{MinVersion: TLS12} }

// DefaultTracing is tracing before the file speaks: few traces, as every one
// costs memory and a line to the collector.
func DefaultTracing() Tracing { return Tracing{Sample: 0.01} }

func (t *Tracing) preset() { *t = DefaultTracing() }
func (a *Account) preset() { *a = DefaultAccount() }
func (a *App) preset()     { *a = DefaultApp() }
func (l *Learn) preset()   { *l = DefaultLearn() }
func (r *Rule) preset()    { *r = DefaultRule() }
func (d *Digest) preset()  { *d = DefaultDigest() }
func (d *Dedupe) preset()  { *d = DefaultDedupe() }
func (t *TLS) preset()     { *t = DefaultTLS() }
