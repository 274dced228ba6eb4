package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A redirect that names the upstream would send clients past the proxy, or to a name that they cannot reach.
func TestLocationThatNamesTheUpstreamNamesUs(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "/base"} {
		var back string
		front, back := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", strings.ReplaceAll(r.Header.Get("Want"), "UPSTREAM", back))
			w.WriteHeader(http.StatusFound)
		}, func(c *forwardConfig) { c.Upstream = c.Upstream.JoinPath(prefix) })
		for sent, want := range map[string]string{
			back + prefix + "/a?b=c#d":   "http://proxy.example/a?b=c#d",
			back + prefix:                "http://proxy.example",
			prefix + "/a%2Fb":            "/a%2Fb",
			"http://elsewhere.example/x": "http://elsewhere.example/x",
			"relative":                   "relative",
			"http://%zz":                 "http://%zz",
			back + "/elsewhere" + prefix: map[string]string{"": "http://proxy.example/elsewhere", "/base": back + "/elsewhere/base"}[prefix],
		} {
			res := do(t, "GET", front, http.Header{"Host": {"proxy.example"}, "Want": {sent}}, nil)
			assert.Equal(t, want, res.Header.Get("Location"), sent)
		}
	}
}

// A client of HTTP/1.0 need not say how it calls us: a Location without a name is one that it can follow.
func TestLocationForAClientThatNamesNoHost(t *testing.T) {
	t.Parallel()
	var back string
	front, back := forwardTo(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", back+"/a?b=c")
		w.WriteHeader(http.StatusFound)
	}, nil)
	assert.Contains(t, raw(t, front, "GET / HTTP/1.0\r\n\r\n"), "\r\nLocation: /a?b=c\r\n")
}
