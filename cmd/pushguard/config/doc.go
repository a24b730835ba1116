// Package config is pushguard's one file: its types, documented field by
// field, and a strict reader for it.
//
// The reader promises three things. Every mistake of a file is reported at
// once, in the order of the file, each with line, column, the line itself and
// what to do. A secret, and anything else that a reference like ${NAME} or
// ${file:/path} brought in, never shows in an error, in String, in Diff or in
// a log. And a Config that Load returns has been checked whole: whoever uses it
// need not ask again whether a key is there twice or a percentage makes sense.
//
// The doc comments of the types become the descriptions of the JSON Schema
// that `pushguard check --schema` prints:
//
//go:generate go test -run IsCurrent . -update
package config
