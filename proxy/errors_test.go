package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The proxy's own answers are in MLflow's form, so that clients print what is wrong.
func TestErrorsAreInMLflowsForm(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	var failures atomic.Int32
	front := forwardToURL(t, nobody, func(c *forwardConfig) { c.OnUpstreamError = func(error) { failures.Add(1) } })
	res := do(t, "GET", front+"/api/2.0/mlflow/runs/get?run_id=secret", nil, nil)
	assert.Equal(t, http.StatusBadGateway, res.StatusCode)
	var e struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&e))
	assert.Equal(t, "TEMPORARILY_UNAVAILABLE", e.Code)
	assert.Contains(t, e.Message, "--upstream")
	assert.NotContains(t, e.Message, "secret")
	assert.EqualValues(t, 1, failures.Load())

	front = forwardToURL(t, nobody, func(c *forwardConfig) { c.Transport = failingTransport{} })
	res = do(t, "GET", front, nil, nil)
	assert.Equal(t, http.StatusGatewayTimeout, res.StatusCode)
	assert.Contains(t, raw(t, front, "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\nConnection: close\r\n\r\n"), "HTTP/1.1 400")
}

type failingTransport struct{}

func (failingTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "read", Err: errTimeout{errors.New("i/o timeout")}}
}

type errTimeout struct{ error }

func (errTimeout) Timeout() bool { return true }

// A body that is no HTTP, or that breaks off, is the client's fault: the upstream is not blamed for it.
func TestABadBodyIsTheClientsFault(t *testing.T) {
	t.Parallel()
	var failures atomic.Int32
	front, _ := forwardTo(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		func(c *forwardConfig) { c.OnUpstreamError = func(error) { failures.Add(1) } })
	answer := raw(t, front, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n")
	assert.Contains(t, answer, "HTTP/1.1 400")
	assert.Contains(t, answer, "BAD_REQUEST")
	assert.Zero(t, failures.Load())
}

// A fault in metering is logged with all that can help to find it, and nothing of whose request it was.
func TestAFaultInMeteringShowsNoCredential(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log strings.Builder
	b := newBench(t, func(c *Config) {
		c.Supply = nil // breaks what works grams out
		c.Logger = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(p)
		}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	id := b.create("")
	code, _ := b.send("/api/2.0/mlflow/runs/update?token=S3CR3T", `{"run_id":"`+id+`","status":"FINISHED"}`,
		http.Header{"Authorization": {"Bearer S3CR3T"}, "Cookie": {"a=S3CR3T"}, "X-Databricks-Org-Id": {"S3CR3T"}})
	assert.Equal(t, 200, code)
	assert.Equal(t, "FINISHED", b.mlflow.of(id).status)
	mu.Lock()
	defer mu.Unlock()
	assert.Contains(t, log.String(), "fault in metering")
	assert.NotContains(t, log.String(), "S3CR3T")
}

type writerFunc func([]byte) (int, error)

// Write is io.Writer's.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
