package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf16"

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

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"run_id":"x","status":3}`))
	f.Add([]byte("\xFF\xFE{\x00}\x00"))
	f.Add([]byte(`"{\"run_id\":\"x\"}"`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if m, err := decode(b); err == nil {
			runID(m)
			finalStatus(m)
		}
	})
}

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
