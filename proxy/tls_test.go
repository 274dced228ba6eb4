package proxy

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

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
