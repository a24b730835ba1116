package config

import "time"

// Config is the whole file. It is plain data: Load and FromEnv make it,
// nothing changes it afterwards, so it may be read from any goroutine.
type Config struct {
	// Address of the data port, which speaks Pusher's HTTP API, as host:port. Port 0 picks a free one.
	Listen string `yaml:"listen,omitempty"`
	// Admin port: dashboard, JSON API, metrics, health.
	Admin Admin `yaml:"admin,omitempty"`
	// Directory of the embedded store and of what must survive a restart. Made with mode 0700.
	DataDir string `yaml:"data_dir,omitempty"`
	// Where usage is kept: "embedded" (one replica), or redis://…, rediss://…, redis+sentinel://h1,h2/master, redis+cluster://h1,h2 (shared by all replicas).
	Store Store `yaml:"store,omitempty"`
	// What a replica may still send while the store is out of reach: lease (what it holds, see standby, then nothing: the plan is kept, publishes are refused with 503), open (beyond that, its even part of what was left of the plan), closed (nothing).
	OnStoreLoss LossPolicy `yaml:"on_store_loss,omitempty"`
	// For how long a replica can go on without the store, at its present rate: it holds that many messages of the plan ready, at most a hundredth of it. 0 means for its lease alone, about 1.5 s.
	Standby time.Duration `yaml:"standby,omitempty"`
	// Name of this replica in the store, the logs and on the dashboard. Empty means the host's name.
	Replica string `yaml:"replica,omitempty"`
	// How many replicas there are as a rule. A replica that starts while the store is away holds one part of so many of each rate; without it, it refuses what has a rate until it has heard from the store. Needs a restart.
	Replicas int `yaml:"replicas,omitempty" jsonschema:"minimum=1,maximum=1000"`
	// enforce acts on what it decides; observe decides, counts and reports, but changes nothing, whatever rules and callers say.
	Mode Mode `yaml:"mode,omitempty"`
	// The accounts at Pusher, each with its plan and apps.
	Accounts []Account `yaml:"accounts" jsonschema:"required,minItems=1"`
	// Thresholds of the quota breaker, for every account.
	Breaker Breaker `yaml:"breaker,omitempty"`
	// What happens to the culprit of an incident: auto (held only while the plan does not bear it, to the highest rate that fits), strict (held to half more than its usual rate), suggest (a person is asked), off.
	Contain Contain `yaml:"contain,omitempty"`
	// Where incidents and breaker transitions are told.
	Alerts []Alert `yaml:"alerts,omitempty"`
	// How long the data port goes on serving after SIGTERM, while /readyz already says no, so that load balancers look away first.
	DrainDelay time.Duration `yaml:"drain_delay,omitempty"`
	// Largest request body that is read, in bytes or with a unit (512KiB). More is cut off and answered 413.
	MaxBody Bytes `yaml:"max_body,omitempty"`
	// Most open connections on the data port.
	MaxConnections int `yaml:"max_connections,omitempty" jsonschema:"minimum=1,maximum=10000000"`
	// Most open connections of one peer address on the data port; 0, the default, is no bound. Behind a load balancer all connections have the balancer's address.
	MaxConnectionsPerPeer int `yaml:"max_connections_per_peer,omitempty" jsonschema:"minimum=0,maximum=10000000"`
	// How long one request may take to arrive, from its first byte to its last. Whoever is slower is cut off.
	ReadTimeout time.Duration `yaml:"read_timeout,omitempty"`
	// Certificate of the data port. Without it the port speaks plain HTTP. The files are read again when they change.
	TLS *TLS `yaml:"tls,omitempty"`
	// Format and level of the log on standard error.
	Log Log `yaml:"log,omitempty"`
	// OpenTelemetry traces of the data port, by OTLP. Off if left out. Needs a restart.
	Tracing *Tracing `yaml:"tracing,omitempty"`
	// Keep what the references last resolved to (mode 0600) and start from that when a secret source is out of reach: true keeps it in data_dir, a path keeps it there.
	LastGood LastGood `yaml:"last_good,omitempty"`
	// How often references to AWS are asked again, so that a changed secret is taken without a restart; 0s is never. Files are watched.
	SecretPoll time.Duration `yaml:"secret_poll,omitempty"`

	// Warnings are what is legal but probably not meant, in file order. Not part of Equal and Diff.
	Warnings []Problem `yaml:"-"`

	// FromLastGood are the references that were out of reach and came from the last good cache instead. Not part of Equal and Diff.
	FromLastGood []string `yaml:"-"`

	refs map[string]string // path → text as written, for values that came by reference
}

// Admin is the admin port.
type Admin struct {
	// Address of the admin port, as host:port. Off loopback it needs a token.
	Listen string `yaml:"listen,omitempty"`
	// Token for writes always, and for reads when the address is not loopback.
	Token Secret `yaml:"token,omitempty"`
	// A second token, which only reads: for scrapers, screens and top. Needs a restart.
	ReadToken Secret `yaml:"read_token,omitempty"`
	// Address under which people open this port in a browser, such as https://guard.internal:8081. Alerts link to it.
	URL string `yaml:"url,omitempty"`
	// Names under which this port may be read without the token from this machine, beside localhost and addresses, such as guard.internal. Needs a restart.
	Hosts []string `yaml:"hosts,omitempty"`
	// An authenticating proxy that says in a header who the user is. Needs a restart.
	TrustHeader *TrustHeader `yaml:"trust_header,omitempty"`
}

// TrustHeader lets in whom an authenticating proxy vouches for, to read and to
// move levers.
type TrustHeader struct {
	// The header with the user's name, such as X-Forwarded-User. The proxy must remove it from what it is sent.
	Name string `yaml:"name" jsonschema:"required"`
	// Addresses of the proxy, as 10.0.0.7 or 10.0.0.0/24. From elsewhere the header is ignored.
	From []string `yaml:"from" jsonschema:"required,minItems=1"`
}

// Tracing sends OpenTelemetry traces of requests to a collector.
type Tracing struct {
	// URL of the collector's OTLP over HTTP, as http://127.0.0.1:4318; /v1/traces is added where no path is given.
	OTLP string `yaml:"otlp" jsonschema:"required"`
	// Part of the requests that begin a trace here. A caller's own decision (traceparent) is followed.
	Sample Percent `yaml:"sample,omitempty"`
	// Value of the Authorization header towards the collector.
	Authorization Secret `yaml:"authorization,omitempty"`
}

// Account is one account at Pusher: a plan that several apps share.
type Account struct {
	// Name of the account in metrics, the admin API and the store's keys.
	Name string `yaml:"name" jsonschema:"required"`
	// A plan of Pusher's by name, or { messages_per_day: N }.
	Plan Plan `yaml:"plan" jsonschema:"required"`
	// The account's apps.
	Apps []App `yaml:"apps" jsonschema:"required,minItems=1"`
	// Rules for the publishes of all apps of the account. The first that matches wins; what matches none is normal and unlimited by rule.
	Rules []Rule `yaml:"rules,omitempty"`
	// Parts of the plan that lower priorities cannot eat.
	Floors Floors `yaml:"floors,omitempty"`
	// While a priority is shed, each channel of its publishes gets at most one refresh event in a time, from a budget of its own; the publishers are answered 200.
	Digest *Digest `yaml:"digest,omitempty"`
	// Part of the plan that is kept for traffic that is never counted: pushguard takes the plan to be smaller by it.
	Headroom Percent `yaml:"headroom,omitempty"`
	// How many bytes of held publishes (conflate) each replica keeps for the account, such as 64MiB. What is beyond goes out at once, and is counted.
	HeldMax Bytes `yaml:"held_max,omitempty"`
	// The same for one caller.
	HeldMaxPerCaller Bytes `yaml:"held_max_per_caller,omitempty"`
	// How Pusher bills where its documentation leaves a doubt. Where it is silent, the default is the dearer reading.
	Billing Billing `yaml:"billing,omitempty"`
}

// Digest is the event that tells a channel's clients that something was shed, so that they fetch it.
type Digest struct {
	// Name of the event.
	Event string `yaml:"event,omitempty"`
	// Its data, as a string; clients mostly parse it as JSON.
	Data string `yaml:"data,omitempty"`
	// How often a channel gets it at most.
	Every time.Duration `yaml:"every,omitempty"`
	// Part of the day's plan that these events may spend, deliveries included.
	Budget Percent `yaml:"budget,omitempty"`
}

// Floors keep a part of the plan for the upper priorities.
type Floors struct {
	// Part of the plan that only critical publishes may spend.
	Critical Percent `yaml:"critical,omitempty"`
	// Part of the plan that normal and critical publishes may spend, but bulk may not. It is counted on top of the floor of critical.
	Normal Percent `yaml:"normal,omitempty"`
}

// Billing says how Pusher counts what.
type Billing struct {
	// A batch of events costs one message per_event or one per_call.
	Batch BillingBatch `yaml:"batch,omitempty"`
	// A publish to several channels costs one message per_call, as documented, or one per_channel; deliveries come on top.
	MultiChannel BillingChannels `yaml:"multi_channel,omitempty"`
	// Asking for info costs a further message (counted), as documented, or nothing (free).
	Info BillingCount `yaml:"info,omitempty"`
	// Calls that Pusher answers with 4xx cost a message (counted) or nothing (free).
	Failed BillingCount `yaml:"failed,omitempty"`
	// A webhook costs one message per_event that it holds or one per_call. Only webhooks that pushguard gets can be counted.
	Webhooks BillingBatch `yaml:"webhooks,omitempty"`
	// A subscription_count event to every subscriber of a channel, of which a webhook tells, costs a message each (counted) or nothing (free).
	SubscriptionCount BillingCount `yaml:"subscription_count,omitempty"`
	// What the other members of a presence channel are told when one comes or goes costs a message each (counted) or nothing (free).
	Presence BillingCount `yaml:"presence,omitempty"`
	// A client event costs a message and one for each other subscriber (counted) or nothing (free).
	ClientEvents BillingCount `yaml:"client_events,omitempty"`
	// What corrections of the count show of traffic that never passes pushguard is booked by itself from then on, by the hour of the week (counted), or not (free).
	Unseen BillingCount `yaml:"unseen,omitempty"`
}

// App is one Pusher app.
type App struct {
	// The app's id at Pusher.
	ID string `yaml:"id" jsonschema:"required"`
	// The app's key. Publishes signed with it count as caller "app".
	Key string `yaml:"key" jsonschema:"required"`
	// The app's secret. A list keeps an old one valid while it is being replaced; the first one signs towards Pusher.
	Secret Secrets `yaml:"secret" jsonschema:"required"`
	// Pusher's cluster, as in api-CLUSTER.pusher.com. This or upstream.
	Cluster string `yaml:"cluster,omitempty"`
	// Where publishes go instead of Pusher's cluster, as http://host:port or https://host:port.
	Upstream string `yaml:"upstream,omitempty"`
	// File with certificates in PEM that may sign for the upstream, beside those that the system trusts.
	CA string `yaml:"ca,omitempty"`
	// How long a request may take from its arrival to its answer, whatever it waits for. What could not be sent by then is never sent, and gets 503. Keep it below the SDKs' own timeout (4 s for Java, 5 s for Go and Python).
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// Most publishes under way to Pusher at once; each call has a connection of its own. One under way takes about 20 kB of memory. What comes beyond it waits, and gets 503 when it has waited too long.
	MaxCalls int `yaml:"max_calls,omitempty" jsonschema:"minimum=16,maximum=65536"`
	// The longest answer to a read (GET) that is passed on, such as 256MiB. Reads are passed on while they arrive.
	ReadMax Bytes `yaml:"read_max,omitempty"`
	// When to stop sending to an upstream that fails.
	UpstreamBreaker UpstreamBreaker `yaml:"upstream_breaker,omitempty"`
	// What a channel's fan-out counts as until it is learned: default, and patterns. The first pattern that matches wins.
	Subscribers Subscribers `yaml:"subscribers,omitempty"`
	// Questions that pushguard asks Pusher by itself, to know how many subscribe. Each costs a message of the plan. { sample: false } asks none.
	Learn *Learn `yaml:"learn,omitempty"`
	// URL of the app's own endpoint, to which Pusher's webhooks are passed on as they came, with Pusher's signature. Pusher is told 200 only when it answered 2xx.
	ForwardWebhooks Secret `yaml:"forward_webhooks,omitempty"`
	// Callers with a key and secret of their own.
	Callers []Caller `yaml:"callers,omitempty"`
	// Most publishes of the whole app, as 500/s or 30000/m.
	Rate *Rate `yaml:"rate,omitempty"`
	// Size of the app's token bucket. The default is one second's worth.
	Burst int `yaml:"burst,omitempty" jsonschema:"minimum=1,maximum=1000000000"`
	// Pusher's limits, where a dedicated cluster has others.
	Limits Limits `yaml:"limits,omitempty"`
	// Publishes that wait at the same moment share calls to Pusher: true, false, or { enabled, window, batch }.
	Fold Fold `yaml:"fold,omitempty"`
	// How old a publish that is held (conflate, digest) may become where the brake, the budget or Pusher keeps it after its window's end. Then it expires: it is counted and never sent.
	HeldExpiry time.Duration `yaml:"held_expiry,omitempty"`
}

// Learn are questions to Pusher that nobody but pushguard wants answered: who subscribes to what, so that what publishes
// cost is estimated better.
type Learn struct {
	// How often the list of occupied channels is asked for, by one replica for all; 0s, the default: never.
	Poll time.Duration `yaml:"poll,omitempty"`
	// Whether a poll also asks for the number of users of each presence channel: one message more.
	Presence bool `yaml:"presence,omitempty"`
	// Whether to ask for the count of single channels where the messages that would be miscounted without are more than the question costs. Pusher answers only if subscription counting is on in the app's settings.
	Sample bool `yaml:"sample,omitempty"`
	// Part of the day's plan that all of it may cost this app, over all replicas.
	Budget Percent `yaml:"budget,omitempty"`
}

// Fold lets publishes that wait at the same moment share calls.
type Fold struct {
	// Whether publishes share calls at all.
	Enabled bool `yaml:"enabled,omitempty"`
	// The longest that a publish waits so that it can leave together with others: until a call in flight ends, or until so long after the last call left. On an idle line nothing waits.
	Window time.Duration `yaml:"window,omitempty"`
	// Most events of one call; the default is limits.batch.
	Batch int `yaml:"batch,omitempty" jsonschema:"minimum=1,maximum=10000"`
}

// UpstreamBreaker stops sending to an app's upstream while that fails.
type UpstreamBreaker struct {
	// Off sends whatever happens.
	Off bool `yaml:"off,omitempty"`
	// Part of the requests in the window that must fail (5xx, timeouts) to open it.
	ErrorRate Percent `yaml:"error_rate,omitempty"`
	// Fewest requests in the window that are evidence enough.
	MinRequests int `yaml:"min_requests,omitempty" jsonschema:"minimum=1,maximum=1000000"`
	// Length of the window.
	Window time.Duration `yaml:"window,omitempty"`
	// How long it stays open before one request may try.
	OpenFor time.Duration `yaml:"open_for,omitempty"`
}

// Limits are what Pusher refuses above.
type Limits struct {
	// Bytes of an event's data string.
	DataBytes int `yaml:"data_bytes,omitempty" jsonschema:"minimum=1,maximum=16777216"`
	// Channels of one publish.
	Channels int `yaml:"channels,omitempty" jsonschema:"minimum=1,maximum=10000"`
	// Events of one batch.
	Batch int `yaml:"batch,omitempty" jsonschema:"minimum=1,maximum=10000"`
	// Characters of a channel's name.
	ChannelName int `yaml:"channel_name,omitempty" jsonschema:"minimum=1,maximum=10000"`
	// Characters of an event's name.
	EventName int `yaml:"event_name,omitempty" jsonschema:"minimum=1,maximum=10000"`
}

// Caller is one app server or service that publishes with a key of its own.
type Caller struct {
	// Name of the caller in metrics, incidents and rules.
	Name string `yaml:"name" jsonschema:"required"`
	// The key that the caller's SDK is given instead of the app's.
	Key string `yaml:"key" jsonschema:"required"`
	// The secret to that key. A list keeps an old one valid while it is being replaced.
	Secret Secrets `yaml:"secret" jsonschema:"required"`
	// Most publishes of this caller, as 200/s or 6000/m.
	Rate *Rate `yaml:"rate,omitempty"`
	// Size of the caller's token bucket. The default is one second's worth.
	Burst int `yaml:"burst,omitempty" jsonschema:"minimum=1,maximum=1000000000"`
	// Part of the account's plan that this caller may spend, as 40%.
	Share Percent `yaml:"share,omitempty"`
	// observe decides and counts this caller's own rate and share without acting on them.
	Mode Mode `yaml:"mode,omitempty"`
	// true: this caller's publishes are a load test. They are judged and answered as others, by buckets of their own, but never sent, never counted on the plan, and the detector does not see them.
	LoadTest bool `yaml:"load_test,omitempty"`
}

// Rule says what happens to the publishes that it matches.
type Rule struct {
	// Name of the rule in metrics and on the dashboard. The default is made from what it matches.
	Name string `yaml:"name,omitempty"`
	// Which publishes. What is left out matches all.
	Match Match `yaml:"match,omitempty"`
	// bulk, normal or critical: who is shed first, and whose floor it may spend.
	Priority Priority `yaml:"priority,omitempty"`
	// The same publish within this time goes out once, as 2s or { window: 2s, scope: cluster }.
	Dedupe Dedupe `yaml:"dedupe,omitempty"`
	// Within this time only the newest value of a channel and event goes out; the first of a burst goes at once. As 1s, or { window: 1s, key: /order/id }.
	Conflate Conflate `yaml:"conflate,omitempty"`
	// skip: a publish to channels that are known to be empty does not go out; send, the default: it does. Known from Pusher's webhooks channel_occupied and channel_vacated; who subscribes within the seconds that those take misses what is published meanwhile.
	Vacant Vacancy `yaml:"vacant,omitempty"`
	// arrival, the default: publishes are sent in the order in which they arrive and none waits for another's answer, as from an SDK. strict: a caller's publish to a channel waits until the one before it is answered; about 10 events a round trip to Pusher is then the most for that channel.
	Order Order `yaml:"order,omitempty"`
	// Most publishes, as 5/s per channel (or per event, per caller, per app), or a list of them.
	Rate Rates `yaml:"rate,omitempty"`
	// Most publishes of a UTC day, as 5000/day per channel (or per event, per caller, per app), in messages as billed where it says so (20000 messages/day per caller), or by a part of the channel's name: 5000/day per channel /^canvas-(.+?)-/ or canvas-(*)-*. One or a list. What is beyond is refused until 00:00 UTC.
	Quota Quotas `yaml:"quota,omitempty"`
	// Size of the token bucket of the rule's only rate. The default is one second's worth.
	Burst int `yaml:"burst,omitempty" jsonschema:"minimum=1,maximum=1000000000"`
	// true: nothing that the rule matches goes out, for good. What is refused is answered braked.
	Deny bool `yaml:"deny,omitempty"`
	// Whether the channels of what is shed get the account's digest; false refuses it as without one.
	Digest bool `yaml:"digest,omitempty"`
	// What a refused publisher is told: 403, 429, or ok (200, dropped, counted). The default depends on why it was refused.
	Answer Answer `yaml:"answer,omitempty"`
	// observe decides and counts what this rule says without acting on it.
	Mode Mode `yaml:"mode,omitempty"`
}

// Match selects publishes. In a pattern * stands for any run of characters and ? for one.
type Match struct {
	// Patterns of event names.
	Event Globs `yaml:"event,omitempty"`
	// Patterns of channel names; one channel of the publish is enough.
	Channel Globs `yaml:"channel,omitempty"`
	// Patterns of caller names.
	Caller Globs `yaml:"caller,omitempty"`
	// publish, the default; read: GETs, which pass the brake and are normal without a rule; or terminate: terminate_connections, critical without a rule. The last two have neither event nor channel.
	Kind Kind `yaml:"kind,omitempty"`
}

// Breaker are the thresholds of the quota breaker, in parts of the day's plan.
type Breaker struct {
	// forecast refuses bulk from where what normal and critical publishes will still need today would not fit beside it, and normal from where critical ones would not, once the account's week is known; until then, and with marks, the parts of the plan below decide.
	Protect Protect `yaml:"protect,omitempty"`
	// From here on bulk is refused.
	ShedBulkAt Percent `yaml:"shed_bulk_at,omitempty"`
	// From here on normal is refused too.
	ShedNormalAt Percent `yaml:"shed_normal_at,omitempty"`
	// From here on nothing but critical passes.
	CriticalOnlyAt Percent `yaml:"critical_only_at,omitempty"`
	// How long it stays open before one publish may try whether Pusher accepts again.
	Probe time.Duration `yaml:"probe,omitempty"`
	// on sheds before the thresholds when the plan burns so fast that the forecast says it will not last until the reset; observe only decides and tells; off looks at the thresholds alone.
	BurnRate BurnMode `yaml:"burn_rate,omitempty"`
}

// Alert is one place that is told. Exactly one of slack, pagerduty and webhook is given.
type Alert struct {
	// URL of a Slack-compatible incoming webhook.
	Slack Secret `yaml:"slack,omitempty"`
	// Routing key of PagerDuty's Events API v2.
	PagerDuty Secret `yaml:"pagerduty,omitempty"`
	// URL that gets plain JSON.
	Webhook Secret `yaml:"webhook,omitempty"`
}

// TLS is the certificate of the data port.
type TLS struct {
	// File with the certificate chain in PEM.
	Cert string `yaml:"cert" jsonschema:"required"`
	// File with the private key in PEM.
	Key string `yaml:"key" jsonschema:"required"`
	// Lowest version that is spoken.
	MinVersion TLSVersion `yaml:"min_version,omitempty"`
}

// Log is what standard error looks like.
type Log struct {
	// text or json.
	Format LogFormat `yaml:"format,omitempty"`
	// debug, info, warn or error.
	Level LogLevel `yaml:"level,omitempty"`
}
