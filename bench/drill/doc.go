// Drill is the restart drill: what an operator does to a running guard, done
// under load, with the simulator as judge of what really arrived.
//
//	go run ./bench/drill            # all stories, about a minute, needs redis-server
//	go run ./bench/drill -rate 500 -only handover
//
// Each publish carries an id of its own. The table says for each story how many
// were sent, how many connections were refused or broken, how many answers were
// no 200, how many that were answered 200 did not arrive (lost) and how many
// arrived twice (doubled). Exit code 1 if any of that is not 0.
//
// The stories: a rolling restart of three replicas on one Redis, behind clients
// that look at /readyz as a load balancer does; a hand-over on one host with
// --reuse-port; a hand-over over sockets that outlive the process (LISTEN_FDS);
// a new version that does not start; an environment that no longer fits, where
// the new process refuses to start and the old one goes on; and the same with
// last_good, where the new one starts; an older commit of this repository and
// this one side by side on one store, up and down again, and one after the other
// on one data directory (-old COMMIT).
package main
