//go:build !linux

package store

import "errors"

// A Page is memory that survives its process; there is none here.
type Page struct{ Mem []byte }

// Page fails: without it a killed process' lease counts as spent.
func (r *Record) Page(string, int) (*Page, error) {
	return nil, errors.New("memory that survives a kill is kept on Linux only")
}

// Pages are none.
func (r *Record) Pages() map[string]*Page { return nil }

// Remove does nothing.
func (p *Page) Remove() {}

// Boot is not known.
func Boot() string { return "" }
