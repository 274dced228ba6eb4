package proxy

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
