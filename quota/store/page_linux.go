package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A Page is memory that is also a file: what a process wrote there is still there when the process was killed, but not
// when the machine lost power (see Boot). It belongs to whoever holds the Record that it was opened on.
type Page struct {
	Mem  []byte
	path string
}

// Page maps the record's page of a name, zeroed, with room for size bytes. The disk space is taken at once, so that a
// full disk is an error here and no crash later.
func (r *Record) Page(name string, size int) (*Page, error) {
	path := r.base + ".page-" + name
	os.Remove(path) // a page of the same name may still be mapped
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		os.Remove(path)
		return nil, err
	}
	return mapPage(f, path, size)
}

// Pages are those that an earlier process of the record left, by name.
func (r *Record) Pages() map[string]*Page {
	all := map[string]*Page{}
	names, _ := filepath.Glob(globEscape(r.base) + ".page-*")
	for _, path := range names {
		f, err := os.OpenFile(path, os.O_RDWR, 0o600)
		if err != nil {
			continue
		}
		if st, err := f.Stat(); err == nil && st.Size() > 0 && st.Size() < 64<<20 {
			if p, err := mapPage(f, path, int(st.Size())); err == nil {
				all[strings.TrimPrefix(path, r.base+".page-")] = p
			}
		}
		f.Close()
	}
	return all
}

func mapPage(f *os.File, path string, size int) (*Page, error) {
	mem, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Page{Mem: mem, path: path}, nil
}

// Remove deletes the file. The memory stays, for whoever still writes to it.
func (p *Page) Remove() { os.Remove(p.path) }

// Boot names this run of the machine. A page of another run may have lost its newest writes. Empty: not known, and no
// page may be trusted.
func Boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
