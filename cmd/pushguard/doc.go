// Pushguard is a guard in front of Pusher Channels: a drop-in proxy that
// verifies, attributes, limits and budgets every publish.
//
// # Ports
//
//   - data port (default :8080): Pusher Channels' HTTP API, for app servers.
//   - admin port (default 127.0.0.1:8081): health, metrics, JSON API, levers.
//
// # Signals
//
//   - SIGHUP: reload the config, all of it or nothing; so does a change of the
//     file or of what it refers to.
//   - SIGTERM, SIGINT: stop being ready, serve on for drain_delay, finish what is
//     in flight, hand back leases, exit 0. A second one ends at once, exit 1.
//
// # Exit codes
//
//	0  done
//	1  it failed; the reason is on standard error
//	2  wrong usage
//
// # What is trusted
//
// The config file and whoever can write it; the store; whoever holds the admin
// token. App servers are trusted with the key they sign with and nothing more.
// Pusher's answers are trusted about its quota.
package main
