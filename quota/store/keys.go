package store

import (
	"strconv"
	"strings"
)

// Every key of the project is made here. The account is the hash tag, so that all keys of one account lie on
// one node of a cluster and one script can touch them together.
//
//	pg:{account}:state            hash   plan, brake, exhausted, epoch (see lua/beat.lua)
//	pg:{account}:audit            list   newest first, bounded
//	pg:{account}:D:pot            hash   the day's totals of a pot: what closed replicas took (cv: its version), corrections
//	pg:{account}:D:pot:live       hash   replica → its entry
//	pg:{account}:D:pot:gone       hash   replica → its last entry, once it left or fell silent
//	pg:{account}:D:tally          hash   what the day's messages were for, by place (see quota/tally.go)
//	pg:{account}:learned:topic    list   messages about learned subscriber counts, and …:count how many there ever were
//	pg:{account}:asked:app        hash   what the replicas asked Pusher by themselves today, and who polls (see lua/asked.lua)
//	pg:{account}:occupied:app     string the last poll's list of occupied channels
//	pg:{account}:blob:name        string one value, as the profile of the week
//	pg:{account}:held:due …:body …:out …:outbody …:busy …:paced   publishes that were answered and wait to be sent (see lua/held.lua)
//	pg:{account}:twins:due …:state  what was published, for dedupe with scope cluster (see lua/twins.lua)
//	pg:{account}:rates:pool …:due …:live …:meta …:news   shares of token buckets (see lua/rates.lua)
//
// D is the day's number, pot is "plan" or "share." and the caller's name.
const keyPrefix = "pg:{"

// tag escapes what would end the hash tag or make two accounts look alike.
var tag = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")

func stateKey(account string) string { return keyPrefix + tag.Replace(account) + "}:state" }
func auditKey(account string) string { return keyPrefix + tag.Replace(account) + "}:audit" }

func potKeys(account string, day int32, pot string) (totals, live, gone string) {
	name := "plan"
	if pot != "" {
		name = "share." + pot
	}
	totals = keyPrefix + tag.Replace(account) + "}:" + strconv.Itoa(int(day)) + ":" + name
	return totals, totals + ":live", totals + ":gone"
}

func tallyKey(account string, day int32) string {
	return keyPrefix + tag.Replace(account) + "}:" + strconv.Itoa(int(day)) + ":tally"
}

func learnedKeys(account, topic string) (list, count string) {
	list = keyPrefix + tag.Replace(account) + "}:learned:" + topic
	return list, list + ":count"
}

func askedKeys(account, app string) (asked, occupied string) {
	base := keyPrefix + tag.Replace(account) + "}:"
	return base + "asked:" + app, base + "occupied:" + app
}

func blobKey(account, name string) string {
	return keyPrefix + tag.Replace(account) + "}:blob:" + name
}

// heldKeys are in the order that lua/held.lua expects.
func heldKeys(account string) []string {
	base := keyPrefix + tag.Replace(account) + "}:held:"
	return []string{base + "due", base + "body", base + "out", base + "outbody", base + "busy", base + "paced"}
}

// twinKeys are in the order that lua/twins.lua expects.
func twinKeys(account string) []string {
	base := keyPrefix + tag.Replace(account) + "}:twins:"
	return []string{base + "due", base + "state"}
}

// rateKeys are in the order that lua/rates.lua expects.
func rateKeys(account string) []string {
	base := keyPrefix + tag.Replace(account) + "}:rates:"
	return []string{base + "pool", base + "due", base + "live", base + "meta", base + "news"}
}
