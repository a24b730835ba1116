package limiter

import "github.com/pushguard/pushguard/quota"

// Kind is what a request asks for.
type Kind uint8

// The kinds.
const (
	KindPublish   Kind = iota
	KindRead           // it changes nothing and costs one message: it passes the brake
	KindTerminate      // it ends a user's connections: a safety call, critical unless a rule says otherwise
	KindOther          // an endpoint that is not known
	Kinds
)

// String is the word that the config file uses.
func (k Kind) String() string {
	return [...]string{"publish", "read", "terminate", "other"}[min(k, KindOther)]
}

// kindRules judge what matches no rule of its kind.
func kindRules() [Kinds]Rule {
	return [Kinds]Rule{
		KindPublish:   defaultRule(),
		KindRead:      {Name: "reads", Match: Match{Kind: KindRead}, Priority: quota.Normal},
		KindTerminate: {Name: "terminate", Match: Match{Kind: KindTerminate}, Priority: quota.Critical},
		KindOther:     defaultRule(),
	}
}

// MatchKind finds the first rule in file order that enforces and is for what is asked by a caller; never nil. Without a
// rule of its own a read is normal, terminate_connections is critical.
func (a *App) MatchKind(k Kind, caller *Caller) *CompiledRule {
	p := a.policy.Load()
	if k == KindPublish || k >= Kinds {
		return p.fallback
	}
	for _, r := range p.rules {
		if r.spec.Mode == Enforce && r.spec.Match.Kind == k && matchAny(r.caller, caller.Name()) {
			return r
		}
	}
	return p.kinds[k]
}
