package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadWatched(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/", strings.NewReader("body"))
	b, ok, err := readWatched(r)
	require.NoError(t, err)
	assert.True(t, ok)
	assert.Equal(t, "body", string(b))
	again, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	assert.Equal(t, "body", string(again))

	r = httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("body"))) // chunked
	_, ok, err = readWatched(r)
	assert.NoError(t, err)
	assert.False(t, ok)

	r = httptest.NewRequest("POST", "/", strings.NewReader("short"))
	r.ContentLength = 10
	_, ok, err = readWatched(r)
	assert.Error(t, err)
	assert.False(t, ok)
	again, err = io.ReadAll(r.Body)
	assert.Error(t, err, "the upstream sees a body that ends too early, as it would have without us")
	assert.Equal(t, "short", string(again))

	r = httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", maxWatchedBody+1)))
	_, ok, err = readWatched(r)
	assert.NoError(t, err)
	assert.False(t, ok)
}

// The forms in which MLflow's server was seen to take a body.
func TestDecode(t *testing.T) {
	t.Parallel()
	const plain = `{"run_id":"é😀","status":"FINISHED"}`
	wide := func(order []byte, big bool) []byte {
		out := append([]byte(nil), order...)
		for _, u := range utf16.Encode([]rune(plain)) {
			if big {
				out = append(out, byte(u>>8), byte(u))
			} else {
				out = append(out, byte(u), byte(u>>8))
			}
		}
		return out
	}
	var utf32 []byte
	for _, r := range plain {
		utf32 = append(utf32, byte(r), byte(r>>8), byte(r>>16), 0)
	}
	double, err := json.Marshal(plain)
	require.NoError(t, err)
	for name, b := range map[string][]byte{
		"plain": []byte(plain), "BOM": append([]byte("\xEF\xBB\xBF"), plain...), "double-encoded": double, "UTF-32": utf32,
		"UTF-16 big": wide(nil, true), "UTF-16 little": wide(nil, false), "UTF-16 with BOM": wide([]byte{0xFF, 0xFE}, false), "big with BOM": wide([]byte{0xFE, 0xFF}, true),
		"duplicate keys": []byte(`{"run_id":"x","run_id":"é😀","status":1,"status":"FINISHED"}`),
	} {
		m, err := decode(b)
		require.NoError(t, err, name)
		assert.Equal(t, "é😀", runID(m), name)
		s, _ := finalStatus(m)
		assert.Equal(t, "FINISHED", s, name)
	}
	for _, bad := range []string{"", "null", "[]", "1", `"x"`, "{", `{"a":NaN}`, "\x00", "\xFF\xFE"} {
		_, err := decode([]byte(bad))
		assert.Error(t, err, bad)
	}
	m, err := decode([]byte(`{"Run_ID":"x","RUN_ID":"y"}`))
	require.NoError(t, err)
	assert.Empty(t, runID(m), "keys are exact")
}

func TestFinalStatus(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"status":"FINISHED"}`: "FINISHED", `{"status":3}`: "FINISHED", `{"status":"3"}`: "FINISHED", `{"status":"FAILED"}`: "FAILED", `{"status":4}`: "FAILED",
		`{"status":"KILLED"}`: "KILLED", `{"status":"5"}`: "KILLED", `{"status":"RUNNING"}`: "RUNNING", `{"status":1}`: "RUNNING",
		`{"status":"finished"}`: "", `{"status":"Killed"}`: "", `{"status":null}`: "", `{"status":[3]}`: "", `{"status":2}`: "",
	} {
		m, err := decode([]byte(body))
		require.NoError(t, err)
		s, present := finalStatus(m)
		assert.Equal(t, want, s, body)
		assert.True(t, present)
	}
	_, present := finalStatus(map[string]json.RawMessage{})
	assert.False(t, present)
}

// Whatever a client sends, reading it does no harm, and it means the same in every encoding in which the server reads it.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"run_id":"x","status":3}`))
	f.Add([]byte("\xFF\xFE{\x00}\x00"))
	f.Add([]byte(`"{\"run_id\":\"x\"}"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			if m != nil {
				t.Fatal("an error, and an object")
			}
			return
		}
		id := runID(m)
		status, present := finalStatus(m)
		if status != "" && !present || !slices.Contains([]string{"", "RUNNING", "FINISHED", "FAILED", "KILLED"}, status) {
			t.Fatalf("status %q", status)
		}
		text := toUTF8(b)
		if !utf8.Valid(text) || len(text) < 2 || text[0] == 0 || text[1] == 0 {
			return
		}
		var wide []byte
		for _, u := range utf16.Encode([]rune(string(text))) {
			wide = append(wide, byte(u), byte(u>>8))
		}
		for _, encoded := range [][]byte{append([]byte{0xEF, 0xBB, 0xBF}, text...), append([]byte{0xFF, 0xFE}, wide...)} {
			again, err := decode(encoded)
			if err != nil {
				t.Fatalf("%q: %v", encoded, err)
			}
			other, _ := finalStatus(again)
			if runID(again) != id || other != status {
				t.Fatalf("%q is %q, %q, not %q, %q", encoded, runID(again), other, id, status)
			}
		}
	})
}

// Whatever a server answers, its client gets those bytes, and metering does not stumble.
func FuzzAnswer(f *testing.F) {
	faults := &faultHandler{}
	b := newBench(f, func(c *Config) { c.Logger = slog.New(faults) })
	local := netip.MustParseAddrPort("127.0.0.1:1")
	f.Add(true, false, []byte(`{"run":{"info":{"run_id":"a","status":"RUNNING"},"data":{"tags":[{"key":"mlflow.parentRunId","value":"a"}]}}}`))
	f.Add(false, true, []byte(`{"run_info":{"run_id":"a","status":"FINISHED"}}`))
	f.Fuzz(func(t *testing.T, create, compressed bool, body []byte) {
		x := &exchange{kind: kindUpdate, conn: &connection{local: local, remote: local}, resumes: true}
		if create {
			x.kind = kindCreate
		}
		res := &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(bytes.NewReader(body))}
		if compressed {
			res.Header.Set("Content-Encoding", "gzip")
		}
		b.proxy.after(x, res)
		if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("the client gets %q (%v)", got, err)
		}
		b.proxy.over(x)
		if fault := faults.seen.Load(); fault != nil {
			t.Fatal(*fault)
		}
		b.proxy.mu.Lock()
		ids := slices.Collect(maps.Keys(b.proxy.runs))
		b.proxy.mu.Unlock()
		for _, id := range ids {
			b.proxy.drop(id)
		}
	})
}

// faultHandler keeps a fault in metering that is logged.
type faultHandler struct{ seen atomic.Pointer[string] }

// Enabled is slog.Handler's.
func (h *faultHandler) Enabled(_ context.Context, l slog.Level) bool { return l == slog.LevelError }

// Handle is slog.Handler's.
func (h *faultHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += "\n" + a.String(); return true })
	h.seen.Store(&text)
	return nil
}

// WithAttrs is slog.Handler's.
func (h *faultHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup is slog.Handler's.
func (h *faultHandler) WithGroup(string) slog.Handler { return h }

// An answer that breaks off, is no JSON, or is too long is passed on as it is.
func TestAnswersThatCannotBeRead(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, answer := range []string{"", "{", "[]", `{"run":{"info":{"run_id":7}}}`, strings.Repeat("x", 2*maxWatchedBody)} {
		b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, _ string, _ []byte) bool {
			_, _ = w.Write([]byte(answer))
			return true
		}
		_, got := b.post("create", "{}")
		assert.Equal(t, answer, got)
	}
	assert.Zero(t, b.open())
}
