package config

import "github.com/pushguard/pushguard/quota"

// The words of the file are strings of their own types, so that a switch over
// them reads like the file. Each type lists what it may be.

// LossPolicy is the word of on_store_loss.
type LossPolicy string

// What a replica may send while the store is out of reach.
const (
	LossLease  LossPolicy = "lease"
	LossOpen   LossPolicy = "open"
	LossClosed LossPolicy = "closed"
)

func (LossPolicy) words() []string { return []string{"lease", "open", "closed"} }

// BurnMode is the word of breaker.burn_rate.
type BurnMode string

// Whether the breaker sheds before its thresholds when the plan burns too fast.
const (
	BurnOn      BurnMode = "on"
	BurnObserve BurnMode = "observe"
	BurnOff     BurnMode = "off"
)

func (BurnMode) words() []string { return []string{"on", "observe", "off"} }

// Mode is the word of mode. In what Load returns it is never empty, and if the
// whole file observes, so does every rule and caller.
type Mode string

// Whether decisions are acted on.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

func (Mode) words() []string { return []string{"enforce", "observe"} }

// Contain is the word of contain.
type Contain string

// What happens to the culprit of an incident.
const (
	ContainAuto    Contain = "auto"
	ContainStrict  Contain = "strict"
	ContainSuggest Contain = "suggest"
	ContainOff     Contain = "off"
)

func (Contain) words() []string { return []string{"auto", "strict", "suggest", "off"} }

// Answer is the word of answer; empty is the default of each refusal.
type Answer string

// What a refused publisher is told.
const (
	AnswerDefault Answer = ""
	Answer403     Answer = "403"
	Answer429     Answer = "429"
	AnswerOK      Answer = "ok"
)

func (Answer) words() []string { return []string{"403", "429", "ok"} }

// Scope is the word of a deduplication's scope.
type Scope string

// Who remembers a publish.
const (
	ScopeReplica Scope = "replica"
	ScopeCluster Scope = "cluster"
)

func (Scope) words() []string { return []string{"replica", "cluster"} }

// Vacancy is the word of vacant; empty is send.
type Vacancy string

// What becomes of a publish that nobody would get.
const (
	VacantSend Vacancy = "send"
	VacantSkip Vacancy = "skip"
)

func (Vacancy) words() []string { return []string{"send", "skip"} }

// Order is the word of order; empty is arrival.
type Order string

// In which order a caller's publishes to a channel go out.
const (
	OrderArrival Order = "arrival"
	OrderStrict  Order = "strict"
)

func (Order) words() []string { return []string{"arrival", "strict"} }

// Kind is the word of match.kind; empty is publish.
type Kind string

// What a rule is for.
const (
	KindPublish   Kind = "publish"
	KindRead      Kind = "read"
	KindTerminate Kind = "terminate"
)

func (Kind) words() []string { return []string{"publish", "read", "terminate"} }

// Priority is a rule's priority.
type Priority string

// The priorities, lowest first.
const (
	Bulk     Priority = "bulk"
	Normal   Priority = "normal"
	Critical Priority = "critical"
)

func (Priority) words() []string {
	return []string{quota.Bulk.String(), quota.Normal.String(), quota.Critical.String()}
}

// Protect is the word of breaker.protect.
type Protect string

// How the upper priorities are protected.
const (
	ProtectForecast Protect = "forecast"
	ProtectMarks    Protect = "marks"
)

func (Protect) words() []string { return []string{"forecast", "marks"} }

// BillingBatch is the word of billing.batch.
type BillingBatch string

// What a batch of events costs.
const (
	BatchPerEvent BillingBatch = "per_event"
	BatchPerCall  BillingBatch = "per_call"
)

func (BillingBatch) words() []string { return []string{"per_event", "per_call"} }

// BillingChannels is the word of billing.multi_channel.
type BillingChannels string

// What a publish to several channels costs.
const (
	MultiPerCall    BillingChannels = "per_call"
	MultiPerChannel BillingChannels = "per_channel"
)

func (BillingChannels) words() []string { return []string{"per_call", "per_channel"} }

// BillingCount is the word of billing.info and billing.failed.
type BillingCount string

// Whether something costs a message.
const (
	Counted BillingCount = "counted"
	Free    BillingCount = "free"
)

func (BillingCount) words() []string { return []string{"counted", "free"} }

// TLSVersion is the word of tls.min_version.
type TLSVersion string

// The versions that may be spoken.
const (
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

func (TLSVersion) words() []string { return []string{"1.2", "1.3"} }

// LogFormat is the word of log.format.
type LogFormat string

// The formats of the log.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

func (LogFormat) words() []string { return []string{"text", "json"} }

// LogLevel is the word of log.level.
type LogLevel string

// The levels of the log.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

func (LogLevel) words() []string { return []string{"debug", "info", "warn", "error"} }
