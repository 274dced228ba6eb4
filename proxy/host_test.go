package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// MLflow answers 403 for a Host that it was not told of; its own works wherever direct access did.
func TestHostIsTheUpstreamsOwn(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Host)) }
	front, back := forwardTo(t, echo, nil)
	assert.Equal(t, strings.TrimPrefix(back, "http://"), text(t, do(t, "GET", front, http.Header{"Host": {"proxy.example"}}, nil)))
	front, _ = forwardTo(t, echo, func(c *forwardConfig) { c.UpstreamHost = "mlflow.internal" })
	assert.Equal(t, "mlflow.internal", text(t, do(t, "GET", front, nil, nil)))
}

// MLflow answers 403 for a foreign Origin even where it is the proxy's own name, and then its pages break; a truly
// foreign one must still be refused by the server.
func TestOriginIsDroppedOnlyWhereItIsOurOwn(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Header.Get("Origin"))) }, nil)
	for origin, want := range map[string]string{
		"http://proxy.example:5001":  "",
		"https://PROXY.example:5001": "",
		"http://evil.example":        "http://evil.example",
		"http://proxy.example":       "http://proxy.example",
		"null":                       "null",
		"":                           "",
	} {
		got := text(t, do(t, "POST", front, http.Header{"Host": {"proxy.example:5001"}, "Origin": {origin}}, nil))
		assert.Equal(t, want, got, origin)
	}
}

// The assistant of MLflow is for local clients only, told by X-Forwarded-For where a proxy is in front: a client must
// not be able to say that it is local, and a proxy must not make everybody local by sending none.
func TestForwardedHeadersAreOurOwn(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(strings.Join(r.Header.Values("X-Forwarded-For"), "+") + " " + r.Header.Get("X-Forwarded-Host") + " " + r.Header.Get("X-Forwarded-Proto") + r.Header.Get("Forwarded")))
	}, nil)
	got := text(t, do(t, "GET", front, http.Header{
		"Host": {"proxy.example"}, "X-Forwarded-For": {"10.0.0.1"}, "X-Forwarded-Host": {"evil"}, "X-Forwarded-Proto": {"ftp"}, "Forwarded": {"for=evil"},
	}, nil))
	assert.Equal(t, "127.0.0.1 proxy.example http", got)
}
