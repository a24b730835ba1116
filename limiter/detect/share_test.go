package detect_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter/detect"
)

// What other replicas say of payloads is bounded, replaces what they said
// before, and is forgotten when they fall silent.
func TestPayloadsOfOtherReplicasAreBounded(t *testing.T) {
	d := detect.New(detect.Config{})
	now := monday
	tick := func() { now = now.Add(time.Second); d.Tick(now) }
	tick()
	var long []detect.PayloadCount
	for i := range 1000 {
		long = append(long, detect.PayloadCount{Caller: "a", Event: "e", Channel: "c", Digest: uint64(i + 1), Count: 10, Error: 20})
	}
	for i := range 1000 {
		d.ImportPayloads(fmt.Sprintf("replica-%d", i), long)
	}
	top := d.Top(detect.ByPayload, time.Minute, 0)
	if len(top) != 64 || top[0].Count != 256*10 || top[0].Error > top[0].Count {
		t.Fatalf("%d payloads, the first %+v; want 64 of 256 replicas", len(top), top[:min(len(top), 1)])
	}
	for range 12 {
		tick()
	}
	if top = d.Top(detect.ByPayload, time.Minute, 0); len(top) > 0 {
		t.Errorf("after twelve silent seconds %+v", top[0])
	}
	// One that is silent makes room for another.
	d.ImportPayloads("new", long[:1])
	d.ImportPayloads("new", long[:1])
	if top = d.Top(detect.ByPayload, time.Minute, 0); len(top) != 1 || top[0].Count != 10 {
		t.Errorf("said twice: %+v", top)
	}
	// What is told is what is seen here, not what others told.
	for range 50 {
		d.Observe(&detect.Key{Caller: "a", Event: "e", Channel: "c", Payload: 99}, 1)
	}
	tick()
	if got := d.ExportPayloads(); len(got) != 1 || got[0] != (detect.PayloadCount{Caller: "a", Event: "e", Channel: "c", Digest: 99, Count: 50}) {
		t.Errorf("told: %+v", got)
	}
}
