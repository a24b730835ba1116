package store

import (
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
//	store.journal.N   the writes since, one frame a group commit
//
// Append only collects; Wait returns once everything appended before is on disk. The first to wait writes for
// all that wait with it.
type journal struct {
	dir  string
	lock *os.File

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
	diskFormat  = "1"
)

// openJournal locks dir and replays what it holds through do.
func openJournal(dir string, do func(args []string) error, warn func(string, ...any)) (j *journal, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j = &journal{dir: dir}
	j.cond = sync.NewCond(&j.mu)
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
	path := j.journalPath(j.gen)
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sound, err := readFrames(data, do)
	if err != nil {
		return nil, j.damaged(path, err)
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
	if err := errors.Join(j.file.Sync(), syncDir(dir)); err != nil {
		return nil, err
	}
	j.removeOld()
	return j, nil
}

func (j *journal) readState(data []byte, do func([]string) error) error {
	path := filepath.Join(j.dir, stateName)
	first := true
	sound, err := readFrames(data, func(args []string) error {
		if !first {
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
	return fmt.Errorf("%s: %w. The disk or another program damaged it. Restore %s from a backup; or move it away to begin with empty counts, "+
		"then tell pushguard today's use from Pusher's dashboard (pushguard usage set)", path, err, j.dir)
}

func (j *journal) journalPath(gen int64) string {
	return filepath.Join(j.dir, journalName+strconv.FormatInt(gen, 10))
}

func (j *journal) removeOld() {
	names, _ := filepath.Glob(filepath.Join(j.dir, journalName+"*"))
	for _, name := range names {
		if strings.TrimPrefix(filepath.Base(name), journalName) != strconv.FormatInt(j.gen, 10) {
			os.Remove(name)
		}
	}
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
	j.gen, j.file, j.size, j.base = j.gen+1, file, 0, size
	j.synced, j.err = c.last, nil
	j.removeOld()
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
	body = appendCommand(body, []string{markCommand, diskFormat, strconv.FormatInt(gen, 10)})
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
	err = errors.Join(file.Sync(), writeSynced(tmp, data), syncDir(j.dir))
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
