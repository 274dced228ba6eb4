package proxy

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

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
