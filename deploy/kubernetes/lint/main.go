// Lint reads manifests as an API server with strict field validation does: each
// document into its own type, where an unknown, repeated or ill-typed field is an
// error. It is a module of its own, so that Kubernetes' types stay out of
// pushguard's.
//
//	cd deploy/kubernetes/lint && go run . ../pushguard.yaml
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: lint FILE…")
		os.Exit(2)
	}
	code := 0
	for _, name := range os.Args[1:] {
		if err := lint(name); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			code = 1
		}
	}
	os.Exit(code)
}

func lint(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	docs := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer docs.Close()
	buf := make([]byte, len(text)+1)
	var errs []error
	for n := 1; ; n++ {
		size, err := docs.Read(buf)
		if err == io.EOF {
			return errors.Join(errs...)
		} else if err != nil {
			return err
		}
		object, kind, err := strict.Decode(buf[:size], nil, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", n, err))
			continue
		}
		var _ runtime.Object = object
		fmt.Printf("ok  %s\n", kind)
	}
}
