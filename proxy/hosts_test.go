package proxy

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

// A page that lets its own name point to 127.0.0.1 must not read anybody's experiments; a client that calls the proxy by a
// name of this machine or of its own network must not be refused.
func TestARebindingPageIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	self, err := os.Hostname()
	assert.NoError(t, err)
	port := b.url[strings.LastIndexByte(b.url, ':'):]
	for host, allowed := range map[string]bool{
		"localhost" + port: true, "LOCALHOST": true, "localhost.": true, "x.localhost": true, "127.0.0.1" + port: true, "[::1]" + port: true, "[::1]": true, "10.1.2.3": true, "93.184.216.34": true,
		"proxy" + port: true, self + port: true, "host.docker.internal" + port: true, "me.local": true,
		"evil.example" + port: false, "evil.example": false, "192.168.evil.example" + port: false, "10.evil.example": false, "localhost.evil.example": false,
		"127.0.0.1.evil.example": false, "evil.example.": false, "internal.evil.example": false, "evilinternal.example": false,
	} {
		res := do(t, "GET", b.url+"/api/2.0/mlflow/runs/get?run_id=x", http.Header{"Host": {host}}, nil)
		body := text(t, res)
		if allowed {
			assert.NotContains(t, body, "rebinding", host)
			continue
		}
		assert.Equal(t, http.StatusForbidden, res.StatusCode, host)
		assert.Equal(t, "Invalid Host header - possible DNS rebinding attack detected", body, host)
		assert.Equal(t, "text/plain", res.Header.Get("Content-Type"))
	}
	for _, call := range b.mlflow.calls {
		assert.Equal(t, "GET /api/2.0/mlflow/runs/get", call)
	}
	for _, path := range []string{"/health", "/version"} {
		assert.NotContains(t, text(t, do(t, "GET", b.url+path, http.Header{"Host": {"evil.example"}}, nil)), "rebinding", path)
	}
	assert.Contains(t, raw(t, b.url, "GET / HTTP/1.0\r\n\r\n"), "403", "no Host at all, as in MLflow")
}

// Where an address of this machine's network is called by a name, the name is somebody's own: it is not refused unless
// --allowed-hosts says so.
func TestANameThatLeadsToTheNetworkIsNotRefused(t *testing.T) {
	t.Parallel()
	usual := usualHosts()
	r, err := http.NewRequest("GET", "http://mlflow.example/", nil)
	assert.NoError(t, err)
	assert.True(t, usual(r))
}

// The meaning of MLflow's flag, which is Python's fnmatch and an exact match for what has no asterisk. That the two agree is
// shown with the real server in e2e.
func TestAllowedHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patterns string
		allowed  string
		refused  string
	}{
		{"mlflow.example", "mlflow.example", "mlflow.example:5001 MLFLOW.example x.mlflow.example localhost 127.0.0.1"},
		{"mlflow.example:*,localhost", "mlflow.example:5001 mlflow.example: localhost", "mlflow.example localhost:5001"},
		{"*.corp.example", "a.corp.example a.b.corp.example .corp.example", "corp.example a.corp.example:80 acorpxexample"},
		{"*", "anything evil.example", ""},
		{"10.?.*", "10.1.2.3 10.x.y", "10.11.2.3"},
		{"[[]::1]:*", "[::1]:5001", "[::1] ::1:5001"},
		{"h[0-9a]*", "h1 ha.x h0", "hb h-"},
		{"h[!0-9]*", "hx h-", "h1 h"},
		{"h[*", "h[ h[x", "h hx"},
		{"h[]x]*", "h] hx", "hy h"},
		{"h[b-a]*", "", "ha hb h-"},
		{"h[!b-a]*", "ha hb", "h"},
		{`h\*`, `h\ h\x`, "h* hx"},
		{"h[\\]*", `h\ h\x`, "hx"},
		{"h[^a]*", "h^ ha", "hx"},
		{"(a|b)+*", "(a|b)+ (a|b)+x", "a b"},
	} {
		allowed := matchHosts(strings.Split(c.patterns, ","))
		for _, host := range strings.Fields(c.allowed) {
			assert.True(t, allowed(&http.Request{Host: host}), "%s by %s", host, c.patterns)
		}
		for _, host := range strings.Fields(c.refused) {
			assert.False(t, allowed(&http.Request{Host: host}), "%s by %s", host, c.patterns)
		}
	}
	assert.False(t, matchHosts([]string{"a*"})(&http.Request{}))
	assert.True(t, matchHosts([]string{"*"})(&http.Request{}))
}

// Whatever a pattern is, it can be translated.
func FuzzFnmatch(f *testing.F) {
	for _, p := range []string{"*.corp.example", "[[]::1]:*", "h[b-a]*", "[!]", "[", "[]-a]*", "é*"} {
		f.Add(p, "host")
	}
	f.Fuzz(func(t *testing.T, pattern, host string) {
		matched := fnmatch(pattern).MatchString(host)
		if !strings.ContainsAny(pattern, "*?[") && utf8.ValidString(pattern) && utf8.ValidString(host) && matched != (pattern == host) {
			t.Fatalf("%q matches %q: %v", pattern, host, matched)
		}
	})
}
