package proxy

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func itoa(n int) string { return strconv.Itoa(n) }

const emptyAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

// uvicorn closes an idle connection after 5 s, gunicorn after 2 s: one that we keep longer answers 502 to a POST that
// is sent just then.
func TestIdleConnectionsAreClosedBeforeTheServerDoes(t *testing.T) {
	t.Parallel()
	assert.Less(t, newTransport(nil).IdleConnTimeout, 2*time.Second)
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

// What makes an update replayable must not cost the client a header of its own.
func TestAClientsIdempotencyKeyPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var keys []string
	b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, _ string, _ []byte) bool {
		keys = append(keys, r.Header.Values("Idempotency-Key")...)
		return false
	}
	b.send("/api/2.0/mlflow/runs/update", `{"run_id":"x","run_name":"y"}`, http.Header{"Idempotency-Key": {"mine"}})
	b.send("/api/2.0/mlflow/runs/update", `{"run_id":"x","run_name":"y"}`, nil)
	assert.Equal(t, []string{"mine"}, keys)
}
