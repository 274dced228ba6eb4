package proxy

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A path or query that url.URL cannot hold, or that a router would clean, must reach the server as it was sent.
func TestPathAndQueryPassByteForByte(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.RequestURI)) }, nil)
	prefixed, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.RequestURI)) },
		func(c *forwardConfig) { c.Upstream = c.Upstream.JoinPath("base/path/") })
	for _, target := range []string{
		"/", "/a%2Fb", "/runs/%75pdate", "/a//b", "//a/b", "/a/../b", "/a/./b", "/a|b", "/%7Ba%7D", `/a"b`, "/a^b", "/a;b?c;d", "/a?b=%zz&c;d=e", "/a?", "/a?b?c",
		"/a%20b+c", "/%C3%A9", "/é", "/a'b(c)*!$&,=:@", "/a#b",
	} {
		for base, prefix := range map[string]string{front: "", prefixed: "/base/path"} {
			answer := raw(t, base, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			assert.Equal(t, prefix+target, body, answer)
		}
	}
	up := rawUpstream(t, func(_ int, head string) (string, bool) {
		line, _, _ := strings.Cut(head, "\r\n")
		return "HTTP/1.1 200 OK\r\nContent-Length: " + itoa(len(line)) + "\r\n\r\n" + line, false
	})
	answer := raw(t, forwardToURL(t, up, nil), "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	assert.Contains(t, answer, "\r\n\r\nOPTIONS * HTTP/1.1")
}

func TestMatch(t *testing.T) { // not parallel: it counts allocations
	for _, c := range []struct {
		method, path string
		kind         kind
		ui           bool
	}{
		{"POST", "/api/2.0/mlflow/runs/create", kindCreate, false},
		{"POST", "/api/2.0/preview/mlflow/runs/update", kindUpdate, false},
		{"POST", "/ajax-api/2.0/mlflow/runs/log-metric", kindLogMetric, true},
		{"POST", "/static/ajax-api/2.0/preview/mlflow/runs/delete", kindDelete, true},
		{"POST", "/mlflow/v1.0/subscriptions/s/resourceGroups/r/api/2.0/mlflow/runs/log-batch", kindLogBatch, false},
		{"POST", "/api/2.0/mlflow/runs/restore", kindRestore, false},
		{"POST", "/api/2.0/mlflow/runs/set-tag", kindSetTag, false},
		{"POST", "/api/2.0/mlflow/runs/log-inputs", kindLogInputs, false},
		{"POST", "/prefix/api/3.0/mlflow/traces", kindTrace, false},
		{"POST", "/ajax-api/3.0/mlflow/traces", kindTrace, true},
		{"POST", "/prefix/v1/traces", kindSpans, false},
		{"POST", "/api/2.0/mlflow/traces", kindOther, false},
		{"POST", "/api/3.0/mlflow/runs/traces", kindOther, false},
		{"POST", "/api/2.0/mlflow/runs/traces", kindOther, false},
		{"POST", "/api/2.0/mlflow/runs/spans", kindOther, false},
		{"POST", "/v1/metrics", kindOther, false},
		{"GET", "/v1/traces", kindOther, false},
		{"GET", "/api/2.0/mlflow/runs/create", kindOther, false},
		{"POST", "/api/2.0/mlflow/runs/create/", kindOther, false},
		{"POST", "/api/2.0/mlflow/runs/other", kindOther, false},
		{"POST", "/api/2.0/mlflow/runs/", kindOther, false},
		{"POST", "/api/3.0/mlflow/runs/create", kindOther, false},
		{"POST", "/xapi/2.0/mlflow/runs/create", kindOther, false},
		{"POST", "api/2.0/mlflow/runs/create", kindOther, false},
		{"POST", "/api/2.0/mlflow/experiments/create", kindOther, false},
		{"POST", "", kindOther, false},
		{"POST", "*", kindOther, false},
	} {
		k, ui := match(c.method, c.path)
		assert.Equal(t, c.kind, k, c.path)
		assert.Equal(t, c.ui, ui, c.path)
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() { match("POST", "/prefix/ajax-api/2.0/preview/mlflow/runs/log-batch") }))
}

// slowMatch says what match should of the calls about runs, by a pattern that people can read.
var slowMatch = regexp.MustCompile(`(?s)\A.*/(api|ajax-api)/2\.0(?:/preview)?/mlflow/runs/(create|update|delete|restore|log-metric|log-batch|set-tag|log-inputs)\z`)

func FuzzMatch(f *testing.F) {
	f.Add("/api/2.0/mlflow/runs/create")
	f.Fuzz(func(t *testing.T, path string) {
		k, ui := match("POST", path)
		if found := slowMatch.FindStringSubmatch(path); found != nil {
			if k.String() != found[2] || ui != (found[1] == "ajax-api") {
				t.Fatalf("%q is %s, ui %v", path, k, ui)
			}
		} else if k >= kindCreate && k <= kindLogInputs {
			t.Fatalf("%q is %s", path, k)
		}
		if k, _ := match("GET", path); k != kindOther {
			t.Fatalf("GET %q is %s", path, k)
		}
	})
}
