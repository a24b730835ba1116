package ops

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed assets
var embedded embed.FS

// assets are the dashboard's files, read and compressed once. They hold nothing
// secret and are served to everybody.
type assets struct {
	files   map[string]asset // by path below assets/
	version string           // changes when any of them does
	signIn  *template.Template
}

type asset struct {
	kind       string
	body, gzip []byte
	tag        string
}

func loadAssets() *assets {
	out := &assets{files: map[string]asset{}}
	all := sha256.New()
	err := fs.WalkDir(embedded, "assets", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := embedded.ReadFile(p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		all.Write(sum[:])
		a := asset{kind: mime.TypeByExtension(path.Ext(p)), body: body, tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
		switch path.Ext(p) {
		case ".js":
			a.kind = "text/javascript; charset=utf-8"
		case ".LICENSE":
			a.kind = "text/plain; charset=utf-8"
		case ".svg":
			a.kind = "image/svg+xml"
		}
		var z bytes.Buffer
		zw, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
		_, _ = zw.Write(body)
		_ = zw.Close()
		if z.Len() < len(body) {
			a.gzip = z.Bytes()
		}
		out.files[strings.TrimPrefix(p, "assets/")] = a
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("ops: the embedded assets cannot be read: %v", err))
	}
	out.version = hex.EncodeToString(all.Sum(nil)[:6])
	out.signIn = template.Must(template.New("sign-in").Parse(string(out.files["sign-in.html"].body)))
	return out
}

// csp allows what the dashboard is made of and nothing else: no inline script or
// style, no other host.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"

func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		// Not no-referrer: with it a browser sends the sign-in form as from "null",
		// which looks like another site.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Content-Security-Policy", csp)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := s.assets.files[r.PathValue("path")]
	if !ok || strings.HasSuffix(r.PathValue("path"), ".html") {
		fail(w, http.StatusNotFound, "there is no "+r.URL.Path)
		return
	}
	s.serve(w, r, a)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, a asset) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache") // kept, but asked about each time
	h.Set("ETag", a.tag)
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.kind)
	body := a.body
	if a.gzip != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.gzip
	}
	_, _ = w.Write(body)
}

func (s *Server) signInPage(w http.ResponseWriter, status int, why string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = s.assets.signIn.Execute(w, map[string]any{"Why": sentence(why), "Token": s.hasToken(), "Replica": s.cfg.Replica})
}

// sentence gives a reason its capital and its full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.TrimRight(s, ". ")
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		s = string(s[0]-'a'+'A') + s[1:]
	}
	return s + "."
}

// index is the dashboard at /, and what is said about any path that is not
// there.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		fail(w, http.StatusNotFound, "there is no "+printable(r.URL.Path)+" on the admin port; see / for the dashboard, /api/v1/status, /metrics, /readyz, /healthz")
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") && r.Header.Get("Accept") != "" && r.Header.Get("Sec-Fetch-Mode") == "" {
		// curl: a page of script is of no use to it.
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("pushguard " + s.cfg.Version + "\n\n/               in a browser: the dashboard\n/api/v1/status  what is going on, as JSON; in a terminal: pushguard status\n/metrics        Prometheus\n/readyz         each condition of readiness, named\n/healthz        alive\n"))
		return
	}
	s.serve(w, r, s.assets.files["index.html"])
}

// zipped compresses an answer that is worth it.
func zipped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Vary", "Accept-Encoding")
		zw, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		defer zw.Close()
		next.ServeHTTP(zippedWriter{w, zw}, r)
	})
}

type zippedWriter struct {
	http.ResponseWriter
	zw *gzip.Writer
}

func (w zippedWriter) Write(b []byte) (int, error) { return w.zw.Write(b) }
