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
//   - Baseline: a level per combination, a shape of the week per caller and,
//     for what is periodic, a profile of the hour by ten seconds; learned
//     slowly, not at all from an incident, and a day late (watch.go, shape.go,
//     habit.go). State and Restore carry it over restarts.
//   - Change: on five scales of time, from 8 s to 2 h, a likelihood ratio test
//     against the baseline with the scatter and the peaks that the series
//     itself has shown in the last days (watch.go, alarm.go); what a burst and a pause
//     explain is no rise (burst.go), and what a series did in the last minutes corrects
//     what the week says (lately.go).
//   - Attribution: caller by caller, which combination explains the excess,
//     shortest answer first, by Bayes factors over the cube of attributes
//     (blame.go, [Attribute]).
//   - Incident: opened, followed, resolved by itself (incident.go); its culprits
//     alone are to be held to their usual rate and a half once the excess has
//     lasted or cost enough, or at once when the plan would not last (hold.go,
//     Patience, Contained).
//
// What an attacker who knows all this can do: made-up names fill only his own
// room, and his total stays exact. A rise slower than the level forgets (a few
// per cent a day) is learned as growth, and new events may add 15 % of the
// account's rate a day; both are the quota's business. Bursts below the peaks
// he has shown for days go unnoticed for seconds, but not for minutes. To get
// another caller contained he must send as that caller, for which he needs its
// secret, and about twice its usual traffic for half a minute; with
// four accomplices he gets an event named, and whoever sends it is then held
// to half more than his own usual rate. docs/internals/detection.md has the figures.
//
// The package does no input or output, and takes time as a parameter.
package detect
