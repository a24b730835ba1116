//go:build race

package pusher

// The race detector makes sync.Pool forget at random.
const raceEnabled = true
