package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/pushguard/pushguard/bench/stage"
	"github.com/pushguard/pushguard/quota/store"
)

// chaos breaks things, one after another, for as long as the load lasts.
type chaos struct {
	rng     *rand.Rand
	fleet   *fleet
	servers *servers
	began   time.Time
	said    io.Writer
	log     []string

	wasted int64 // at most: what replicas that did not leave in order held

	mending sync.WaitGroup
	mu      sync.Mutex
	errs    []error
}

func (c *chaos) note(format string, args ...any) {
	line := fmt.Sprintf("%5.1f s  ", time.Since(c.began).Seconds()) + fmt.Sprintf(format, args...)
	c.log = append(c.log, line)
	if c.said != nil {
		fmt.Fprintln(c.said, line)
	}
}

// rage goes on until done is closed. Faults overlap: a replica is away for a while
// after its kill, whatever happens to Redis meanwhile.
func (c *chaos) rage(done <-chan struct{}) error {
	kinds := []func() error{c.killReplica, c.killReplica, c.restartReplica, c.freeze, c.flush}
	if c.servers.sentinel != nil {
		kinds = append(kinds, c.failover)
	} else {
		kinds = append(kinds, c.killRedis)
	}
	// Each kind comes at least once before any comes again.
	var order []int
	for {
		if len(order) == 0 {
			order = c.rng.Perm(len(kinds))
		}
		wait := time.Duration(1500+c.rng.IntN(2000)) * time.Millisecond
		select {
		case <-done:
			c.mending.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.errs) > 0 {
				return c.errs[0]
			}
			return nil
		case <-time.After(wait):
		}
		if err := kinds[order[0]](); err != nil {
			c.mending.Wait()
			return err
		}
		order = order[1:]
	}
}

// settle mends what is still broken and lets the replicas speak.
func (c *chaos) settle() error {
	c.mending.Wait()
	for i := range c.fleet.replicas {
		if c.fleet.replicas[i] == nil {
			if err := c.fleet.start(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *chaos) again(i int, after time.Duration) {
	c.mending.Go(func() {
		stage.Pause(after)
		if err := c.fleet.start(i); err != nil {
			c.mu.Lock()
			c.errs = append(c.errs, fmt.Errorf("replica %d does not start again: %w", i, err))
			c.mu.Unlock()
		}
	})
}

func (c *chaos) killReplica() error {
	i := c.rng.IntN(len(c.fleet.replicas))
	after := time.Duration(200+c.rng.IntN(2000)) * time.Millisecond
	r := c.fleet.take(i)
	if r == nil {
		return nil // it is dead already
	}
	r.Kill()
	held, err := heldBy(c.fleet.dir, i)
	if err != nil {
		return err
	}
	c.wasted += held
	c.note("kill -9 of replica %d, which held %d messages at most, started again after %v", i, held, after)
	c.again(i, after)
	return nil
}

// heldBy is what a replica that is dead had leased and not spent, at most: what its
// own record on disk says, which it writes before it spends a token of a lease.
func heldBy(dir string, i int) (int64, error) {
	mine, left, err := store.OpenRecord(filepath.Join(dir, fmt.Sprint("data-", i)), fmt.Sprintf("%s@replica-%d", account, i))
	if err != nil {
		return 0, err
	}
	defer mine.Close()
	for _, r := range left {
		defer r.Close()
	}
	if mine.Left == nil {
		return 0, fmt.Errorf("replica %d has no record of its leases", i)
	}
	var r struct{ Pots []store.Knowledge }
	if err := store.Unpack(mine.Left, &r); err != nil {
		return 0, err
	}
	for _, p := range r.Pots {
		if p.Report.Name == "" {
			return max(p.Granted.Sum()-p.Report.Ret-p.Report.Spent, 0), nil
		}
	}
	return 0, fmt.Errorf("the record of replica %d has no plan in it", i)
}

func (c *chaos) restartReplica() error {
	i := c.rng.IntN(len(c.fleet.replicas))
	r := c.fleet.take(i)
	if r == nil {
		return nil
	}
	c.note("replica %d is told to leave and started again", i)
	if err := r.Leave(patience); err != nil {
		// Redis may be away, so that leases cannot be handed back; they end by themselves.
		held, herr := heldBy(c.fleet.dir, i)
		if herr != nil {
			return herr
		}
		c.wasted += held
		c.note("replica %d, which held %d messages at most, left with %v", i, held, err)
	}
	c.again(i, 0)
	return nil
}

func (c *chaos) freeze() error {
	c.note("Redis hangs for 5 s")
	m := c.servers.master()
	m.freeze()
	stage.Pause(5 * time.Second)
	m.thaw()
	return nil
}

func (c *chaos) flush() error {
	c.note("Redis loses everything (FLUSHALL)")
	return c.servers.flush()
}

func (c *chaos) killRedis() error {
	c.note("kill -9 of Redis, which comes back empty after 1 s")
	m := c.servers.master()
	m.kill()
	stage.Pause(time.Second)
	return m.start()
}

func (c *chaos) failover() error {
	c.note("kill -9 of the master; Sentinel makes the other one the master")
	return c.servers.failover()
}
