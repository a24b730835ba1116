package alert

import (
	"fmt"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// OfGuess tells that much of what is counted is a guess, since opened, or that it is none any more.
func OfGuess(account string, opened, now time.Time, ratio float64, why string, over bool) Alert {
	a := Alert{
		ID: fmt.Sprintf("guess-%s-%d", account, opened.Unix()), Phase: "opened", At: now.UTC(), Account: account, Severity: Warning,
		Title:   fmt.Sprintf("%s: %.0f %% of the counted messages are a guess", account, 100*ratio),
		Text:    why + ".",
		Command: "pushguard status",
	}
	if over {
		a.Phase, a.Severity = "resolved", Info
		a.Title, a.Text = account+": the count of messages is no guess any more", "Numbers of subscribers are known."
	}
	return a
}

// OfShortfall tells what Pusher's own refusal showed.
func OfShortfall(account string, s quota.Shortfall) Alert {
	return Alert{
		ID: fmt.Sprintf("shortfall-%s-%d", account, s.At.Unix()), Phase: "opened", At: s.At.UTC(), Account: account, Severity: Critical,
		Title:   fmt.Sprintf("%s: Pusher counted at least %.3g times what pushguard did", account, s.Factor()),
		Text:    s.Words() + ".",
		Command: "pushguard status",
	}
}
