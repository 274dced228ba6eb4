package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

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
