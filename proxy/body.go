package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxWatchedBody is the size up to which the bodies of watched calls are read: MLflow refuses larger batches.
const maxWatchedBody = 1 << 20

// readWatched reads the body of a watched call, and puts it back so that it is forwarded byte for byte with its
// Content-Length. ok is false, and the body untouched, where its length is unknown or too large. A client that ends
// before its body does is an error; what came is put back, so that the upstream sees the same.
func readWatched(r *http.Request) (body []byte, ok bool, err error) {
	if r.ContentLength < 0 || r.ContentLength > maxWatchedBody {
		return nil, false, nil
	}
	if r.ContentLength == 0 {
		return []byte{}, true, nil
	}
	body = make([]byte, r.ContentLength)
	n, err := io.ReadFull(r.Body, body)
	if err != nil {
		r.Body = readCloser{io.MultiReader(bytes.NewReader(body[:n]), failing{err}), r.Body}
		return nil, false, err
	}
	// The end is left for the forwarder to read: trailers are complete only then.
	r.Body = readCloser{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	return body, true, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// failing is a reader that ends as the client's body did.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// makeReplayable lets the transport send a request again if a kept-alive connection turns out to be dead: the body can
// be had again, and the empty header, which is not sent, says that sending it twice does no harm. Only an update is
// so; a replayed create could make two runs.
func makeReplayable(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	if _, clients := r.Header["Idempotency-Key"]; !clients {
		r.Header["Idempotency-Key"] = []string{}
	}
}

// decode reads a JSON object as MLflow's server does, which is Python's json.loads on bytes: UTF-8, UTF-16 or UTF-32 with
// or without a byte order mark, and an object inside a string.
func decode(b []byte) (map[string]json.RawMessage, error) {
	b = toUTF8(b)
	for range 2 {
		var m map[string]json.RawMessage
		err := json.Unmarshal(b, &m)
		if err == nil {
			if m == nil {
				return nil, errors.New("no object")
			}
			return m, nil
		}
		var inner string
		if json.Unmarshal(b, &inner) != nil {
			return nil, err
		}
		b = []byte(inner)
	}
	return nil, errors.New("encoded more than twice")
}

// toUTF8 finds the encoding by the byte order mark, else by where the zeros are: JSON begins with two ASCII characters.
func toUTF8(b []byte) []byte {
	var wide, big bool // wide: 32 bits
	switch zero := func(i int) bool { return len(b) > i && b[i] == 0 }; {
	case bytes.HasPrefix(b, []byte{0xEF, 0xBB, 0xBF}):
		return b[3:]
	case bytes.HasPrefix(b, []byte{0, 0, 0xFE, 0xFF}):
		b, wide, big = b[4:], true, true
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE, 0, 0}):
		b, wide = b[4:], true
	case bytes.HasPrefix(b, []byte{0xFE, 0xFF}):
		b, big = b[2:], true
	case bytes.HasPrefix(b, []byte{0xFF, 0xFE}):
		b = b[2:]
	case zero(0) && zero(1):
		wide, big = true, true
	case zero(0):
		big = true
	case zero(1) && zero(2) && zero(3):
		wide = true
	case zero(1):
	default:
		return b
	}
	size := 2
	if wide {
		size = 4
	}
	var units []rune
	for i := 0; i+size <= len(b); i += size {
		var u rune
		for j := range size {
			k := i + j
			if !big {
				k = i + size - 1 - j
			}
			u = u<<8 | rune(b[k])
		}
		units = append(units, u)
	}
	var out []byte
	for i := 0; i < len(units); i++ {
		u := units[i]
		if !wide && utf16.IsSurrogate(u) && i+1 < len(units) {
			u = utf16.DecodeRune(u, units[i+1])
			i++
		}
		out = utf8.AppendRune(out, u)
	}
	return out
}

// field returns the first of the named members that is there, as a string: R sends numbers as strings, and the server
// takes either.
func field(m map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		raw, ok := m[name]
		if !ok {
			continue
		}
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
		var n json.Number
		if json.Unmarshal(raw, &n) == nil {
			return n.String()
		}
	}
	return ""
}

// statuses are MLflow's RunStatus, by name and by number.
var statuses = map[string]string{
	"RUNNING": "RUNNING", "1": "RUNNING",
	"FINISHED": "FINISHED", "3": "FINISHED",
	"FAILED": "FAILED", "4": "FAILED",
	"KILLED": "KILLED", "5": "KILLED",
}

// finalStatus returns the status that an update asks for, if it is of a form that the server is known to take: other
// forms are left for its answer to tell. present says that there was one at all; without, an update only renames.
func finalStatus(m map[string]json.RawMessage) (status string, present bool) {
	_, present = m["status"]
	return statuses[field(m, "status")], present
}

// readAnswer reads a short JSON answer and puts it back, so that the client gets the same bytes. What is compressed
// is decompressed for us only. ok is false, and the body untouched or complete, where it cannot be read.
func readAnswer(res *http.Response) (decoded []byte, ok bool) {
	if res.ContentLength > maxWatchedBody {
		return nil, false
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxWatchedBody+1))
	rest := io.Reader(res.Body)
	if err != nil {
		rest = failing{err}
	}
	res.Body = readCloser{io.MultiReader(bytes.NewReader(raw), rest), res.Body}
	if err != nil || len(raw) > maxWatchedBody {
		return nil, false
	}
	switch strings.ToLower(res.Header.Get("Content-Encoding")) {
	case "", "identity":
		return raw, true
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, false
		}
		decoded, err := io.ReadAll(io.LimitReader(z, maxWatchedBody))
		return decoded, err == nil
	}
	return nil, false
}
