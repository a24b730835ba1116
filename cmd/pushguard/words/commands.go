package words

// The commands that alerts, pages and the terminal tell. Each is a line that
// pushguard's own parser takes; TEXT and N stand for what a person fills in.

// Contain holds an incident's culprits.
func Contain(id string) string { return "pushguard incidents " + id + " --contain --reason TEXT" }

// Release lets an incident's culprits go.
func Release(id string) string { return "pushguard incidents " + id + " --release --reason TEXT" }

// Incident shows one incident.
func Incident(id string) string { return "pushguard incidents " + id }

// BrakeOn lets only critical publishes of an account pass, for an hour.
func BrakeOn(account string) string {
	return "pushguard brake on --account " + account + " --allow critical --reason TEXT --for 1h"
}

// BrakeOff lifts the brake of an account.
func BrakeOff(account string) string {
	return "pushguard brake off --account " + account + " --reason TEXT"
}

// PlanSet tells pushguard of a plan that was raised at Pusher.
func PlanSet(account string) string {
	return "pushguard plan set N --account " + account + " --reason TEXT"
}

// UsageSet corrects the count to what Pusher's own dashboard shows.
func UsageSet(account string) string {
	return "pushguard usage set N --account " + account + " --reason TEXT"
}

// Status shows plan, quota and callers.
func Status() string { return "pushguard status" }

// Top shows who publishes most.
func Top() string { return "pushguard top --by event --once" }

// CheckConfig names the mistakes of a config file.
func CheckConfig() string { return "pushguard check --config FILE" }

// CheckAround proves store and Pusher from this machine, beside a guard that runs.
func CheckAround() string { return "pushguard check --config FILE --online --replacing" }
