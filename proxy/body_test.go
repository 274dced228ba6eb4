package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// MLflow answers 400 to a JSON body without Content-Length, so one that was there must stay, and chunked stay chunked.
func TestContentLengthStays(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write([]byte(strconv.FormatInt(r.ContentLength, 10) + " " + strings.Join(r.TransferEncoding, "") + " " + string(b)))
	}, nil)
	assert.Equal(t, "5  hello", text(t, do(t, "POST", front, nil, strings.NewReader("hello"))))
	assert.Equal(t, "-1 chunked hello", text(t, do(t, "POST", front, nil, io.MultiReader(strings.NewReader("hello")))))
	// A watched call's body has been read by us, and is all there.
	b := newBench(t, nil)
	var length int64
	b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, name string, _ []byte) bool {
		if name == "update" {
			length = r.ContentLength
		}
		return false
	}
	id := b.create("")
	body := `{"run_id":"` + id + `","status":"FINISHED"}`
	b.post("update", body)
	assert.EqualValues(t, len(body), length)
}

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

// An upstream that compresses is understood, and the client gets its very bytes.
func TestGzipAnswerIsReadAndPassedOn(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(`{"run":{"info":{"run_id":"zipped","status":"RUNNING"},"data":{}}}`))
	require.NoError(t, z.Close())
	b := newBench(t, nil)
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, _ string, _ []byte) bool {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zipped.Bytes())
		return true
	}
	res := do(t, "POST", b.url+"/api/2.0/mlflow/runs/create", http.Header{"Accept-Encoding": {"gzip"}}, strings.NewReader("{}"))
	assert.Equal(t, zipped.String(), text(t, res))
	assert.Equal(t, "gzip", res.Header.Get("Content-Encoding"))
	assert.Equal(t, 1, b.open())
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

// What the client asks for is what it gets: nothing is compressed or decompressed on the way.
func TestEncodingIsTheClientsBusiness(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(strings.Join(r.Header.Values("Accept-Encoding"), ",") + "|" + strings.Join(r.Header.Values("User-Agent"), ",")))
	}, nil)
	answer := raw(t, front, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	assert.Contains(t, answer, "\r\n\r\n|", "neither Accept-Encoding nor User-Agent was invented")
}

// An answer in an encoding that we cannot read would hide whether a run began.
func TestWatchedCallsAskForNothingElse(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{"": "", "gzip, deflate, br": "gzip", "br, zstd": "identity", "gzip": "gzip"} {
		h := http.Header{}
		if sent != "" {
			h.Set("Accept-Encoding", sent)
		}
		onlyReadable(h)
		assert.Equal(t, want, h.Get("Accept-Encoding"))
	}
}
