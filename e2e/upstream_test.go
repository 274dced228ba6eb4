package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// between stands between the proxy and the real server: it notes the order in which requests were answered, can hold
// one back, and can go away and come back, as a server does that is restarted.
type between struct {
	t       *testing.T
	address string
	handler http.Handler
	server  *http.Server

	mu     sync.Mutex
	events []event
	hold   func(event) <-chan struct{} // what to wait for before a request is passed on; nil: nothing
	refuse func(event) int             // the status that a request is answered with instead; 0, or nil: the server's
	cut    func(event) bool            // whose answers are reset in their middle; nil: nobody's
}

// event is the arrival of a request at the server, or its answer.
type event struct {
	path, body string
	answered   bool
}

func (e event) isFigures() bool {
	return strings.HasSuffix(e.path, "/runs/log-batch") && strings.Contains(e.body, `"emissions/energy_kwh"`)
}

func (e event) isFinish() bool {
	return strings.HasSuffix(e.path, "/runs/update") && strings.Contains(e.body, "FINISHED")
}

func startBetween(t *testing.T) *between {
	t.Helper()
	_, upstream, _ := setup(t)
	onward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) }}
	b := &between{t: t}
	b.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		arrived := event{path: r.URL.Path, body: string(body)}
		b.mu.Lock()
		b.events = append(b.events, arrived)
		var wait <-chan struct{}
		if b.hold != nil {
			wait = b.hold(arrived)
		}
		status, cut := 0, b.cut != nil && b.cut(arrived)
		if b.refuse != nil {
			status = b.refuse(arrived)
		}
		b.mu.Unlock()
		if wait != nil {
			<-wait
		}
		switch {
		case status != 0:
			w.WriteHeader(status)
			return
		case cut:
			reset(w, r, onward)
			return
		}
		onward.ServeHTTP(w, r)
		arrived.answered = true
		b.mu.Lock()
		b.events = append(b.events, arrived)
		b.mu.Unlock()
	})
	b.listen("127.0.0.1:0")
	t.Cleanup(b.goAway)
	return b
}

// reset lets the server carry a request out, and breaks the connection when half of the answer is sent.
func reset(w http.ResponseWriter, r *http.Request, onward http.Handler) {
	answer := httptest.NewRecorder()
	onward.ServeHTTP(answer, r)
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	body := answer.Body.Bytes()
	fmt.Fprintf(conn, "HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", answer.Code, len(body), body[:len(body)/2])
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func (b *between) listen(address string) {
	b.t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(b.t, err)
	b.address = l.Addr().String()
	b.server = &http.Server{Handler: b.handler}
	go func(s *http.Server) { _ = s.Serve(l) }(b.server)
}

func (b *between) url() string { return "http://" + b.address }

func (b *between) goAway() { _ = b.server.Close() }

func (b *between) comeBack() { b.listen(b.address) }

// indexes returns where, in the order of things, the events are for which is holds.
func (b *between) indexes(is func(event) bool) []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []int
	for i, e := range b.events {
		if is(e) {
			found = append(found, i)
		}
	}
	return found
}

// Whoever sees that a run is FINISHED sees its figures: the server had answered for them before the update reached it.
func TestFiguresComeBeforeTheStatus(t *testing.T) {
	t.Parallel()
	b := startBetween(t)
	p := startProxyAt(t, nil, "--upstream", b.url(), "--log-interval", "0")
	figures(t, of(t, p.run("plain")["run"]))
	written := b.indexes(func(e event) bool { return e.isFigures() && e.answered })
	finished := b.indexes(func(e event) bool { return e.isFinish() && !e.answered })
	require.Len(t, written, 1)
	require.Len(t, finished, 1)
	assert.Less(t, written[0], finished[0])
}

// A server that is restarted in the middle of a run costs the run nothing: clients see 502 in MLflow's form and try
// again, orchestrators see that we are not ready, and metering goes on.
func TestTheUpstreamGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	b := startBetween(t)
	p := startProxyAt(t, nil, "--upstream", b.url())
	id, finish := p.hold()
	b.goAway()

	code, body := call(t, http.MethodGet, p.url+"/api/2.0/mlflow/runs/get?run_id="+id, "")
	assert.Equal(t, http.StatusBadGateway, code)
	var answer struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &answer), body)
	assert.NotEmpty(t, answer.Code)
	assert.Contains(t, answer.Message, b.address, "it says which server")
	code, body = call(t, http.MethodGet, p.admin+"/readyz", "")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, body, "upstream")
	code, _ = call(t, http.MethodGet, p.admin+"/healthz", "")
	assert.Equal(t, http.StatusOK, code, "the proxy itself is alive")
	code, _, errs := command(t, nil, "healthcheck", "--admin-listen", strings.TrimPrefix(p.admin, "http://"))
	assert.Equal(t, 1, code)
	assert.Contains(t, errs, "upstream")
	assert.Contains(t, strings.Join(p.lines(), "\n"), "upstream does not answer")
	assert.Positive(t, p.metric("emissions_upstream_errors_total"))
	assert.EqualValues(t, 1, p.metric("emissions_running_sessions"))

	b.comeBack()
	eventually(t, "ready again", func() bool {
		code, _ := call(t, http.MethodGet, p.admin+"/readyz", "")
		return code == http.StatusOK
	})
	finish()
	r := of(t, id)
	assert.Equal(t, "FINISHED", r.Status)
	figures(t, r)
}
