package proxy

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func itoa(n int) string { return strconv.Itoa(n) }

const emptyAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

// uvicorn closes an idle connection after 5 s, gunicorn after 2 s: one that we keep longer answers 502 to a POST that
// is sent just then.
func TestIdleConnectionsAreClosedBeforeTheServerDoes(t *testing.T) {
	t.Parallel()
	assert.Less(t, newTransport().IdleConnTimeout, 2*time.Second)
	closed := make(chan struct{}, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	front := forwardToURL(t, s.URL, nil)
	do(t, "POST", front, nil, strings.NewReader("{}"))
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the idle connection is kept")
	}
}

// An update that meets a dead connection is sent again; a create is not, since two runs could come of it.
func TestOnlyTheUpdateIsReplayed(t *testing.T) {
	t.Parallel()
	var updates, creates atomic.Int32
	var ready atomic.Bool
	up := rawUpstream(t, func(n int, head string) (string, bool) {
		switch {
		case strings.Contains(head, "/update"):
			updates.Add(1)
		case strings.Contains(head, "/create"):
			creates.Add(1)
		}
		// The second request on the first connection is not answered: the server has just closed.
		if ready.Load() && n == 1 {
			return "", true
		}
		return emptyAnswer, false
	})
	f := newBench(t, func(c *Config) {
		u := *c.Upstream
		u.Host = strings.TrimPrefix(up, "http://")
		c.Upstream = &u
	})
	res := do(t, "GET", f.url+"/first", nil, nil)
	text(t, res)
	ready.Store(true)
	code, _ := f.post("update", `{"run_id":"x","run_name":"y"}`)
	assert.Equal(t, 200, code)
	assert.EqualValues(t, 2, updates.Load())
}

func TestACreateIsNotReplayed(t *testing.T) {
	t.Parallel()
	var creates atomic.Int32
	up := rawUpstream(t, func(n int, head string) (string, bool) {
		if strings.Contains(head, "/create") {
			creates.Add(1)
			return "", true
		}
		return emptyAnswer, false
	})
	f := newBench(t, func(c *Config) {
		u := *c.Upstream
		u.Host = strings.TrimPrefix(up, "http://")
		c.Upstream = &u
	})
	text(t, do(t, "GET", f.url+"/first", nil, nil))
	code, answer := f.post("create", `{"experiment_id":"0"}`)
	assert.Equal(t, 502, code)
	assert.Contains(t, answer, "TEMPORARILY_UNAVAILABLE")
	assert.EqualValues(t, 1, creates.Load())
}

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

func TestTLSUpstream(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization") + r.Host))
	}))
	t.Cleanup(s.Close)
	transport := newTransport()
	transport.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	front := forwardToURL(t, s.URL, func(c *forwardConfig) { c.Transport = transport })
	assert.Equal(t, "Bearer x"+strings.TrimPrefix(s.URL, "https://"), text(t, do(t, "GET", front, http.Header{"Authorization": {"Bearer x"}}, nil)))
}
