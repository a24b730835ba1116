// Package detect finds out who calls too much: from the first excessive call
// to a name, in seconds, without a human.
//
// A [Detector] watches one account. Observe counts every publish that is
// offered, by caller, event and channel pattern (ids folded, see [Fold]), and
// by payload. Once a second Tick learns and tests:
//
//   - Rates: every combination has its own exact counters, bounded per caller
//     (file rates.go); payloads are a Space-Saving summary with an error bound
//     (payload.go). Top lists them.
//   - Usual: what a series did in the last two hours, and the median of the last
//     days at that hour; learned from every day, with incidents or without (usual.go,
//     shape.go, watch.go). What came twice at a time is known (episode.go). State and
//     Restore carry it over restarts.
//   - Change: on five scales of time, from 8 s to 2 h, a likelihood ratio test
//     against that with the scatter and the peaks that the series itself has shown
//     (watch.go, alarm.go); a burst of seconds is no rise (burst.go). New names
//     are judged by what they add to their caller; prices by themselves (price.go).
//   - Attribution: caller by caller, which combination explains the excess,
//     shortest answer first, by Bayes factors over the cube of attributes
//     (blame.go, [Attribute]).
//   - Incident: opened, followed, resolved by itself (incident.go); its culprits
//     alone are to be held once the excess has lasted or cost enough, or at once
//     when the plan would not last, to what SetAllowance leaves them (hold.go).
//
// What an attacker who knows all this can do is in docs/internals/detection.md.
//
// The package does no input or output, and takes time as a parameter.
package detect
