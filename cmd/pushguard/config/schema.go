package config

import (
	"bytes"
	_ "embed"
)

//go:embed schema.json
var schema []byte

// SchemaURL is the $id of Schema.
const SchemaURL = "https://raw.githubusercontent.com/pushguard/pushguard/main/docs/pushguard.schema.json"

// Schema is the JSON Schema (2020-12) of the file, for editors. It is made
// from the types and their comments by the test that holds it to them, so that
// the binary need not carry the maker. What it accepts the loader may still
// refuse; what it refuses, the loader would not read as meant.
func Schema() []byte { return bytes.Clone(schema) }
