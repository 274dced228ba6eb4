package report

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/go-chi/chi/v5"
)

//go:embed static
var files embed.FS

// staticFile is a file that the page is made of.
type staticFile struct {
	content []byte
	sum     [sha256.Size]byte
}

// statics are the static files by name.
var statics = func() map[string]staticFile {
	all := map[string]staticFile{}
	entries, err := files.ReadDir("static")
	if err != nil {
		panic(err) // embedded
	}
	for _, e := range entries {
		content, err := files.ReadFile("static/" + e.Name())
		if err != nil {
			panic(err)
		}
		all[e.Name()] = staticFile{content, sha256.Sum256(content)}
	}
	return all
}()

func (f staticFile) version() string { return hex.EncodeToString(f.sum[:6]) }

// integrity is the file's hash as a content security policy has it.
func (f staticFile) integrity() string {
	return "sha256-" + base64.StdEncoding.EncodeToString(f.sum[:])
}

// staticURL is the address of a static file, relative to the page. It changes with the content, so that browsers may keep
// the file for ever.
func staticURL(name string) string { return "static/" + name + "?v=" + statics[name].version() }

// serveStatic answers with a static file.
func serveStatic(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "name")
	f, ok := statics[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	h.Set("ETag", `"`+f.version()+`"`)
	h.Set("Cache-Control", "no-cache") // asks whether it is still the same
	if r.URL.Query().Get("v") == f.version() {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
