package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// A journal makes the embedded store's writes durable in a directory of its own:
//
//	store.lock        held while a process uses the directory
//	store.state       snapshot; its first command says which journal goes on from it
//	store.journal.N   the writes since, one frame a group commit; its first command names N and the store
//
// A file that is missing, or of another store, is never taken for one that was never there: the store does not open. What
// was not read is not removed.
//
// Append only collects; Wait returns once everything appended before is on disk. The first to wait writes for
// all that wait with it.
type journal struct {
	dir  string
	lock *os.File
	id   string // of the store; the snapshot and each journal bear it. Empty: written by a release before ids

	mu      sync.Mutex
	cond    *sync.Cond
	gen     int64
	file    *os.File
	size    int64  // bytes in file
	base    int64  // bytes in the snapshot
	pending []byte // commands not yet written
	next    int64  // number of the last append
	synced  int64  // number of the last append on disk
	writing bool
	err     error // why the disk is behind; sticky until a snapshot succeeds
}

const (
	lockName    = "store.lock"
	stateName   = "store.state"
	journalName = "store.journal."
	markCommand = "PUSHGUARD.SNAPSHOT" // first command of a snapshot: format, generation
	journalMark = "PUSHGUARD.JOURNAL"  // first command of a journal, second of a snapshot: the store's id, generation
	diskFormat  = "1"
)

// openJournal locks dir and replays what it holds through do.
func openJournal(dir string, do func(args []string) error, warn func(string, ...any)) (j *journal, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j = &journal{dir: dir}
	j.cond = sync.NewCond(&j.mu)
	_, unused := os.Stat(filepath.Join(dir, lockName))
	if j.lock, err = lockFile(filepath.Join(dir, lockName)); err != nil {
		return nil, err
	}
	lock := j.lock
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	state, err := os.ReadFile(filepath.Join(dir, stateName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := j.readState(state, do); err != nil {
			return nil, err
		}
	}
	old, fresh, err := j.others(state != nil)
	if err != nil {
		return nil, err
	}
	path := j.journalPath(j.gen)
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	marked, first := false, true
	sound, err := readFrames(data, func(args []string) error {
		if first && args[0] == journalMark {
			first, marked = false, true
			return j.readMark(args)
		}
		first = false
		return do(args)
	})
	if err == nil && !marked && j.id != "" {
		err = errors.New("it does not begin as the snapshot says it does")
	}
	if err != nil {
		return nil, j.damaged(path, err)
	}
	if len(data) == 0 && j.id == "" && state == nil && (!fresh || unused == nil) {
		warn("the embedded store's directory was in use before and has no counts in it: all begin at nothing. If pushguard has "+
			"sent anything today, restore the directory or tell it today's use (pushguard usage set)", "file", path)
	}
	if sound < len(data) {
		warn("the embedded store's journal ends in a write that a crash cut off; that write was never confirmed and is dropped",
			"file", path, "bytes", len(data)-sound)
		if err := j.file.Truncate(int64(sound)); err != nil {
			return nil, err
		}
	}
	if _, err := j.file.Seek(int64(sound), 0); err != nil {
		return nil, err
	}
	j.size = int64(sound)
	if sound == 0 && j.id == "" {
		j.id = rand.Text()[:12]
		n, err := j.file.Write(j.mark(j.gen))
		if err != nil {
			return nil, err
		}
		j.size = int64(n)
	}
	if err := errors.Join(j.file.Sync(), syncDir(dir)); err != nil {
		return nil, err
	}
	for _, name := range old {
		os.Remove(name)
	}
	return j, nil
}

// mark is the frame that a journal begins with.
func (j *journal) mark(gen int64) []byte {
	return appendFrame(nil, appendCommand(nil, []string{journalMark, j.id, strconv.FormatInt(gen, 10)}))
}

func (j *journal) readMark(args []string) error {
	if len(args) != 3 {
		return errCorrupt
	}
	if j.id == "" {
		j.id = args[1]
	}
	if args[1] != j.id || args[2] != strconv.FormatInt(j.gen, 10) {
		return fmt.Errorf("it is of another store or time (%s, %s; expected %s, %d)", args[1], args[2], j.id, j.gen)
	}
	return nil
}

// others looks at the journals that are there. fresh says that there is none. old are those that may go once all is read:
// the one before the snapshot, which holds all of it, and an empty one that a snapshot was never finished for. Any other is
// a sign that a file is missing.
func (j *journal) others(snapshot bool) (old []string, fresh bool, err error) {
	names, err := filepath.Glob(filepath.Join(globEscape(j.dir), journalName+"*"))
	if err != nil {
		return nil, false, err
	}
	current := false
	for _, name := range names {
		gen, err := strconv.ParseInt(strings.TrimPrefix(filepath.Base(name), journalName), 10, 64)
		info, serr := os.Stat(name)
		if err != nil || serr != nil {
			continue // no name of ours
		}
		switch {
		case gen == j.gen:
			current = true
		case snapshot && gen == j.gen-1:
			old = append(old, name)
		case gen == j.gen+1 && (info.Size() == 0 || j.onlyMark(name)):
			old = append(old, name)
		case snapshot && gen < j.gen:
			continue // older than anything that is needed; left where it is
		default:
			what := filepath.Join(j.dir, stateName)
			return nil, false, j.damaged(name, fmt.Errorf("it goes on from a snapshot that is not here: %s is missing or older", what))
		}
	}
	if snapshot && !current {
		return nil, false, j.damaged(j.journalPath(j.gen), errors.New("it is missing, and the snapshot beside it says that it goes on there"))
	}
	return old, len(names) == 0, nil
}

// onlyMark reports whether a journal has nothing but its first frame, or a torn part of it.
func (j *journal) onlyMark(path string) bool {
	data, err := os.ReadFile(path)
	n := 0
	if err == nil {
		_, err = readFrames(data, func(args []string) error { n++; return nil })
	}
	return err == nil && n <= 1
}

func (j *journal) readState(data []byte, do func([]string) error) error {
	path := filepath.Join(j.dir, stateName)
	first, second := true, true
	sound, err := readFrames(data, func(args []string) error {
		if !first {
			if second && args[0] == journalMark {
				second = false
				return j.readMark(args)
			}
			second = false
			return do(args)
		}
		first = false
		if args[0] != markCommand || len(args) != 3 {
			return errCorrupt
		}
		if args[1] != diskFormat {
			return fmt.Errorf("%w (its disk format is %s)", ErrNewer, args[1])
		}
		gen, err := strconv.ParseInt(args[2], 10, 64)
		j.gen = gen
		return err
	})
	if errors.Is(err, ErrNewer) {
		return err
	}
	if err == nil && (sound < len(data) || first) {
		err = errors.New("it ends too early") // it was renamed into place whole, so no crash of ours did that
	}
	if err != nil {
		return j.damaged(path, err)
	}
	j.base = int64(len(data))
	return nil
}

func (j *journal) damaged(path string, err error) error {
	return fmt.Errorf("%s: %w. The disk, a person or another program changed it. Restore %s from a backup; or move the directory away to begin with empty counts, "+
		"then tell pushguard today's use from Pusher's dashboard (pushguard usage set)", path, err, j.dir)
}

func (j *journal) journalPath(gen int64) string {
	return filepath.Join(j.dir, journalName+strconv.FormatInt(gen, 10))
}

// append collects one write. It is called in the order in which the writes happen.
func (j *journal) append(args []string) {
	j.mu.Lock()
	j.pending = appendCommand(j.pending, args)
	j.next++
	j.mu.Unlock()
}

// wait returns when all that was appended before is on disk.
func (j *journal) wait() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	upTo := j.next
	for j.synced < upTo && j.err == nil {
		if j.writing {
			j.cond.Wait()
			continue
		}
		j.flushLocked()
	}
	return j.err
}

// flushLocked writes what is pending as one frame; j.mu is free while the disk works.
func (j *journal) flushLocked() {
	body, last, file := j.pending, j.next, j.file
	j.pending, j.writing = nil, true
	j.mu.Unlock()
	frame := appendFrame(nil, body)
	_, err := file.Write(frame)
	if err == nil {
		err = file.Sync()
	}
	j.mu.Lock()
	j.writing = false
	if err != nil {
		j.err = fmt.Errorf("the embedded store cannot write %s: %w", file.Name(), err)
	} else {
		j.synced = last
		j.size += int64(len(frame))
	}
	j.cond.Broadcast()
}

// large says that the journal has outgrown its snapshot.
func (j *journal) large() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size > max(compactAt, 4*j.base)
}

const compactAt = 4 << 20

// failed is why the disk is behind, nil if it is not.
func (j *journal) failed() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// A snapshot in the making: between cut and install nothing is written to the old journal.
type cut struct {
	before []byte // commands that the snapshot holds but the old journal does not
	last   int64
}

// cut is called at the very moment the snapshot is taken; install must follow.
func (j *journal) cut() cut {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.writing {
		j.cond.Wait()
	}
	c := cut{j.pending, j.next}
	j.pending, j.writing = nil, true
	return c
}

// install puts the snapshot taken at c in force. On failure the old snapshot and journal go on as before.
func (j *journal) install(c cut, commands [][]string) error {
	file, size, err := j.writeState(j.gen+1, commands)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.undoLocked(c)
		return err
	}
	j.writing = false
	j.cond.Broadcast()
	j.file.Close()
	before := j.journalPath(j.gen)
	j.gen, j.file, j.size, j.base = j.gen+1, file, 0, size
	j.synced, j.err = c.last, nil
	os.Remove(before)
	return nil
}

// undo ends a cut that leads to no snapshot.
func (j *journal) undo(c cut) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.undoLocked(c)
}

func (j *journal) undoLocked(c cut) {
	j.pending = append(c.before, j.pending...)
	j.writing = false
	j.cond.Broadcast()
}

// writeState makes the new journal first and then renames the snapshot that names it into place, so that
// at every moment the directory holds one complete pair.
func (j *journal) writeState(gen int64, commands [][]string) (file *os.File, size int64, err error) {
	var data, body []byte
	if j.id == "" {
		j.id = rand.Text()[:12]
	}
	body = appendCommand(body, []string{markCommand, diskFormat, strconv.FormatInt(gen, 10)})
	body = appendCommand(body, []string{journalMark, j.id, strconv.FormatInt(gen, 10)})
	for _, c := range commands {
		if body = appendCommand(body, c); len(body) > 1<<20 {
			data = appendFrame(data, body)
			body = body[:0]
		}
	}
	data = appendFrame(data, body)
	if file, err = os.OpenFile(j.journalPath(gen), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, 0, err
	}
	tmp := filepath.Join(j.dir, stateName+".tmp")
	_, err = file.Write(j.mark(gen))
	err = errors.Join(err, file.Sync(), writeSynced(tmp, data), syncDir(j.dir))
	if err == nil {
		err = os.Rename(tmp, filepath.Join(j.dir, stateName))
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, int64(len(data)), nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// close writes what is left and unlocks the directory.
func (j *journal) close() error {
	err := j.wait()
	return errors.Join(err, j.file.Close(), j.lock.Close())
}

// syncDir makes renames and new files in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
