package store

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
)

// embedded is a Redis inside this process, reached over in-memory pipes (no port is opened), whose writes go
// to a journal before any operation returns. What it runs are the same scripts as on a real server.
//
// Every write happens inside a script: scripts run one at a time, so the journal's order is the true order.
type embedded struct {
	mr      *miniredis.Miniredis
	rdb     *redis.Client
	j       *journal // nil: memory only
	log     *slog.Logger
	cuts    chan cut   // the hook's answer to a snapshot script
	snap    sync.Mutex // one snapshot at a time
	retryAt atomic.Int64
	aged    atomic.Int64 // Unix ns to which keys were aged
	closed  atomic.Bool
	yielded atomic.Int64 // when the hook last yielded, since start
}

// start is what the hook counts from.
var start = time.Now()

// scriptTurn is how long a script runs before it lets others run. Go takes the processor from a goroutine only
// after 10 ms, and a heartbeat's script is done before that: who publishes met its whole length four times a second.
const scriptTurn = 200 * time.Microsecond

// memoryCommands change nothing that is kept.
var memoryCommands = map[string]bool{
	"EVAL": true, "EVALSHA": true, "SCRIPT": true, "HELLO": true, "AUTH": true, "CLIENT": true, "SELECT": true,
	"PING": true, "INFO": true, "MULTI": true, "EXEC": true, "DISCARD": true, "QUIT": true, "ECHO": true, "COMMAND": true,
}

func openEmbedded(ctx context.Context, o Options) (*Store, error) {
	e := &embedded{mr: miniredis.NewMiniRedis(), log: o.Log, cuts: make(chan cut, 1)}
	e.aged.Store(time.Now().UnixNano())
	opt := (&redis.UniversalOptions{Addrs: []string{"embedded"}}).Simple()
	u := &redis.UniversalOptions{}
	common(u, o.Timeout)
	opt.MaxRetries, opt.ContextTimeoutEnabled, opt.DisableIdentity = u.MaxRetries, true, true
	opt.MaintNotificationsConfig, opt.PoolSize = u.MaintNotificationsConfig, u.PoolSize
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = u.DialTimeout, u.ReadTimeout, u.WriteTimeout
	opt.Dialer = func(context.Context, string, string) (net.Conn, error) { return e.mr.Dial() }
	e.rdb = redis.NewClient(opt)
	s := &Store{kind: "embedded", rdb: e.rdb, emb: e, timeout: o.Timeout, log: o.Log}
	fail := func(err error) (*Store, error) {
		e.rdb.Close()
		e.mr.Close()
		return nil, fmt.Errorf("embedded store: %w", err)
	}
	if err := e.rdb.Ping(ctx).Err(); err != nil {
		return fail(err)
	}
	if o.Dir == "" {
		e.mr.Server().SetPreHook(func(*server.Peer, string, ...string) bool {
			e.giveWay(time.Since(start))
			return false
		})
		return s, nil
	}
	// Straight into the server: a pipeline over an in-memory pipe would block on its own answers. A command that
	// is refused was refused the first time too, and changed nothing.
	peer := server.NewPeer(bufio.NewWriter(io.Discard))
	var err error
	e.j, err = openJournal(o.Dir, func(args []string) error {
		e.mr.Server().Dispatch(peer, args)
		return nil
	}, o.Log.Warn)
	if err != nil {
		return fail(err)
	}
	e.mr.Server().SetPreHook(e.hook)
	return s, nil
}

// giveWay lets others run once in a scriptTurn.
func (e *embedded) giveWay(now time.Duration) {
	if last := e.yielded.Load(); int64(now)-last > int64(scriptTurn) && e.yielded.CompareAndSwap(last, int64(now)) {
		runtime.Gosched()
	}
}

// hook sees every command before it runs, those of scripts included, in the order in which they run.
func (e *embedded) hook(p *server.Peer, cmd string, args ...string) bool {
	e.giveWay(time.Since(start))
	if cmd == markCommand {
		e.cuts <- e.j.cut()
		p.WriteInline("OK")
		return true
	}
	if !memoryCommands[cmd] && !e.mr.Server().IsReadOnlyCommand(cmd) {
		e.j.append(append([]string{cmd}, args...))
	}
	return false
}

// ageEvery is how often keys grow older. They live for hours and days, so a second less for a new one does no harm;
// and miniredis looks at every key to age one, which with each command would be the dearest part of a script.
const ageEvery = time.Second

// age lets expire what has lived long enough.
func (e *embedded) age(now time.Time) {
	at := e.aged.Load()
	if by := now.UnixNano() - at; by >= int64(ageEvery) && e.aged.CompareAndSwap(at, now.UnixNano()) {
		e.mr.FastForward(time.Duration(by))
	}
}

// begin refuses work while the disk is behind memory, after another try to catch up.
func (e *embedded) begin() error {
	if e.closed.Load() {
		return ErrClosed
	}
	now := time.Now()
	e.age(now)
	err := e.failed()
	if err == nil {
		return nil
	}
	if at := e.retryAt.Load(); now.UnixNano() < at || !e.retryAt.CompareAndSwap(at, now.Add(time.Second).UnixNano()) {
		return err
	}
	return e.snapshot()
}

// commit returns when everything written so far is on disk.
func (e *embedded) commit(context.Context) error {
	if e.j == nil {
		return nil
	}
	if err := e.j.wait(); err != nil {
		return err
	}
	if e.j.large() && e.snap.TryLock() {
		go func() {
			defer e.snap.Unlock()
			if err := e.snapshotLocked(); err != nil {
				e.log.Warn("the embedded store could not compact its journal; it goes on with the old one", "err", err)
			}
		}()
	}
	return nil
}

func (e *embedded) failed() error {
	if e.j == nil {
		return nil
	}
	return e.j.failed()
}

func (e *embedded) snapshot() error {
	e.snap.Lock()
	defer e.snap.Unlock()
	return e.snapshotLocked()
}

//go:embed lua/dump.lua
var luaDump string

// snapshotLocked writes the whole state of one moment and begins a new journal.
func (e *embedded) snapshotLocked() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	select {
	case <-e.cuts: // of a try that broke off
	default:
	}
	res, err := e.rdb.WithTimeout(30*time.Second).Eval(ctx, luaDump, nil).Slice()
	if err != nil {
		select {
		case c := <-e.cuts:
			e.j.undo(c)
		default:
		}
		return fmt.Errorf("snapshot: %w", err)
	}
	c := <-e.cuts
	commands := make([][]string, 0, len(res))
	for _, one := range res {
		words, _ := one.([]any)
		cmd := make([]string, len(words))
		for i, w := range words {
			cmd[i], _ = w.(string)
		}
		commands = append(commands, cmd)
	}
	return e.j.install(c, commands)
}

func (e *embedded) close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.mr.Close()
	if e.j == nil {
		return nil
	}
	e.snap.Lock() // a compaction in flight ends first
	defer e.snap.Unlock()
	return e.j.close()
}
