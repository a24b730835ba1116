package guard

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// The pace of watching. Files are compared even where the system tells of no
// change, as on network mounts.
const (
	settle    = 200 * time.Millisecond // a burst of events is one change
	lookEvery = 10 * time.Second
)

// Follow reloads the config on signals and on changes of the files that it was read from, until the guard is stopped
// or the returned function is called.
func (g *Guard) Follow(signals <-chan os.Signal, load func(context.Context) (*config.Loaded, error), loaded *config.Loaded) (stop func()) {
	ctx, stop := context.WithCancel(g.runCtx)
	g.running.Go(func() { g.watch(ctx, signals, load, loaded) })
	return stop
}

// watch reloads on a signal, when a file that the config was made of changes,
// and every secret_poll if it refers to remote sources. It returns when ctx
// ends.
//
// It watches directories and not files: editors and Kubernetes replace a file,
// or the link to its directory, and a watch on the file would stay with the old
// one.
func (g *Guard) watch(ctx context.Context, signals <-chan os.Signal, load func(context.Context) (*config.Loaded, error), loaded *config.Loaded) {
	w := &fileWatch{dirs: map[string]bool{}}
	var err error
	if w.notify, err = fsnotify.NewWatcher(); err != nil {
		g.log.Warn("changes of files are only looked for", "every", lookEvery, "err", err)
	} else {
		defer w.notify.Close()
	}
	w.follow(loaded)

	look := time.NewTicker(lookEvery)
	defer look.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	poll := time.NewTimer(time.Hour)
	poll.Stop()
	again := func() {
		if every := g.fleet.Load().cfg.SecretPoll; every > 0 && w.remote {
			poll.Reset(every)
		}
	}
	again()
	quiet.Reset(settle) // what changed since it was loaded, before anybody watched
	reload := func(why string) {
		w.follow(g.sayReload(ctx, load, why))
		again()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			reload("SIGHUP")
		case <-w.events():
			quiet.Reset(settle)
		case <-w.errors():
			quiet.Reset(settle) // events may have been lost
		case <-quiet.C:
			if w.changed() {
				reload("a changed file")
			}
		case <-look.C:
			if w.changed() {
				reload("a changed file")
			}
		case <-poll.C:
			reload("secret_poll")
		}
	}
}

// fileWatch knows which files a config was made of.
type fileWatch struct {
	notify *fsnotify.Watcher // nil: the system cannot tell
	files  map[string]string // with their fingerprints as loaded
	dirs   map[string]bool
	remote bool
}

// follow takes the files of the last load. Those of a failed one count too:
// what mends it will change there.
func (w *fileWatch) follow(loaded *config.Loaded) {
	w.files, w.remote = loaded.Files, w.remote || loaded.Remote
	if loaded.Config != nil {
		w.remote = loaded.Remote
	}
	if w.notify == nil {
		return
	}
	want := map[string]bool{}
	for f := range w.files {
		want[filepath.Dir(f)] = true
	}
	for dir := range want {
		if !w.dirs[dir] && w.notify.Add(dir) == nil { // one that is missing is looked for by the clock
			w.dirs[dir] = true
		}
	}
	for dir := range w.dirs {
		if !want[dir] {
			_ = w.notify.Remove(dir)
			delete(w.dirs, dir)
		}
	}
}

func (w *fileWatch) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *fileWatch) errors() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}

// changed says whether a file is another one than when it was last loaded.
func (w *fileWatch) changed() bool {
	for f, was := range w.files {
		if config.Fingerprint(f) != was {
			return true
		}
	}
	return false
}
