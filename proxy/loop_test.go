package proxy

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A proxy whose upstream leads back to it, here through another proxy, must not send a request round until there are no
// more ports, even if the client asks for the mark to be taken off.
func TestALoopIsAnswered(t *testing.T) {
	t.Parallel()
	var front string
	between := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		u, err := url.Parse(front)
		if err == nil {
			r.SetURL(u)
		}
	}}
	back, _ := forwardTo(t, between.ServeHTTP, nil)
	b := newBench(t, func(c *Config) {
		u, err := url.Parse(back)
		require.NoError(t, err)
		c.Upstream = u
	})
	front = b.url
	for _, header := range []http.Header{nil, {"Connection": {passedHeader}}} {
		res := do(t, "GET", b.url+"/api/2.0/mlflow/runs/get?run_id=x", header, nil)
		assert.Equal(t, http.StatusLoopDetected, res.StatusCode)
		body := text(t, res)
		assert.Contains(t, body, `"error_code":"INVALID_STATE"`)
		assert.Contains(t, body, "--upstream")
	}
	code, body := b.post("create", `{"experiment_id":"0"}`)
	assert.Equal(t, http.StatusLoopDetected, code, body)
	assert.Zero(t, b.open())
	assert.False(t, b.proxy.upstreamAnswers(t.Context()), "and it is not ready")
}

// Two proxies one behind the other, as a sidecar and a central one, are no loop.
func TestAChainIsNoLoop(t *testing.T) {
	t.Parallel()
	central := newBench(t, nil)
	sidecar := newBench(t, func(c *Config) {
		u, err := url.Parse(central.url)
		require.NoError(t, err)
		c.Upstream = u
	})
	code, _ := sidecar.post("create", `{"experiment_id":"0"}`)
	assert.Equal(t, 200, code)
}

// A tunnel over HTTP/2 would carry requests that nobody watches. The preface of HTTP/2, which Go's server hands to its
// handler, and an upgrade to it reach no upstream.
func TestHTTP2InClearIsNotSpoken(t *testing.T) {
	t.Parallel()
	heads := make(chan string, 10)
	up := rawUpstream(t, func(_ int, head string) (string, bool) {
		heads <- head
		return emptyAnswer, false
	})
	b := newBench(t, func(c *Config) {
		u, err := url.Parse(up)
		require.NoError(t, err)
		c.Upstream = u
	})
	answer := raw(t, b.url, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	assert.Contains(t, answer, "HTTP/1.1 505")
	assert.Empty(t, heads)
	answer = raw(t, b.url, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n")
	assert.Contains(t, answer, "HTTP/1.1 200")
	head := strings.ToLower(<-heads)
	assert.NotContains(t, head, "upgrade")
	assert.NotContains(t, head, "http2-settings")
	// A WebSocket's is passed on, for the server to answer.
	go raw(t, b.url, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	select {
	case head = <-heads:
		assert.Contains(t, head, "Upgrade: websocket")
	case <-time.After(10 * time.Second):
		t.Fatal("the upgrade to WebSocket is not passed on")
	}
}

// The proxy is no way to somewhere else: a target that names another host, as to a forward proxy, is still the upstream's.
func TestAnotherHostsTargetIsTheUpstreams(t *testing.T) {
	t.Parallel()
	elsewhere := rawUpstream(t, func(int, string) (string, bool) {
		t.Error("a request came to another host")
		return emptyAnswer, true
	})
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("ours " + r.RequestURI)) }, nil)
	answer := raw(t, front, "GET "+elsewhere+"/a%2Fb?c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	assert.Contains(t, answer, "ours /a%2Fb?c")
	assert.Contains(t, raw(t, front, "CONNECT "+strings.TrimPrefix(elsewhere, "http://")+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "HTTP/1.1 400")
}
