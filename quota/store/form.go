package store

import "encoding/json"

// Pack is the form in which a value is stored. Fields are only ever added to a
// stored type, so that releases can read each other's.
func Pack(v any) ([]byte, error) { return json.Marshal(v) }

// Unpack is the inverse of Pack.
func Unpack(b []byte, v any) error { return json.Unmarshal(b, v) }
