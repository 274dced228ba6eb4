package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hasty are limits that a test need not wait for.
var hasty = limits{header: 300 * time.Millisecond, headerBytes: 256 << 10, idle: 300 * time.Millisecond, stall: 300 * time.Millisecond}

// forwardWith is a forwarder with these limits.
func forwardWith(t *testing.T, l limits, upstream http.HandlerFunc) string {
	t.Helper()
	back := httptest.NewServer(upstream)
	t.Cleanup(back.Close)
	b := newBench(t, func(c *Config) {
		u, err := url.Parse(back.URL)
		require.NoError(t, err)
		c.Upstream = u
	})
	front := httptest.NewUnstartedServer(nil)
	front.Config = newServer(b.proxy, l)
	front.Listener = living{front.Listener, l.stall}
	front.Start()
	t.Cleanup(front.Close)
	return front.URL
}

func dial(t *testing.T, base string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

// Slowloris: who holds connections open with headers that never end, with none, or with bodies that stop coming, must not
// hold them for ever.
func TestAConnectionIsNotHeldForNothing(t *testing.T) {
	t.Parallel()
	front := forwardWith(t, hasty, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" { // answers without having read
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for name, c := range map[string]struct{ sent, answer string }{
		"nothing":          {"", ""},
		"half a header":    {"POST / HTTP/1.1\r\nHost: x\r\nX-A: ", ""},
		"idle":             {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"},
		"half a body":      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 408"},
		"half a chunk":     {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", "HTTP/1.1 408"},
		"half an update":   {"POST /api/2.0/mlflow/runs/update HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 408"},
		"a body not asked": {"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 403"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, front)
			_, err := io.WriteString(conn, c.sent)
			require.NoError(t, err)
			answer, err := io.ReadAll(conn)
			assert.NoError(t, err, "the connection is closed")
			assert.Contains(t, string(answer), c.answer)
		})
	}
}

// An answer that comes before the end of the body is the connection's last: what is left of the body must not be taken for
// a request, and the client must get its answer without having sent it.
func TestAnEarlyAnswerEndsTheConnection(t *testing.T) {
	t.Parallel()
	early, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = early.Close() })
	go func() { // answers by the header alone
		for {
			conn, err := early.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(conn)
			if line, _ := in.ReadString('\n'); !strings.HasPrefix(line, "PUT /early ") {
				t.Errorf("a request came through: %q", line)
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			_, _ = io.Copy(io.Discard, in)
		}
	}()
	conn := dial(t, forwardToURL(t, "http://"+early.Addr().String(), nil))
	const rest = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	_, err = io.WriteString(conn, "PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(4+len(rest))+"\r\n\r\nhalf")
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusForbidden, res.StatusCode)
	assert.True(t, res.Close, "the client is told")
	assert.Equal(t, "no", text(t, res))
	_, _ = io.WriteString(conn, rest)
	left, _ := io.ReadAll(in)
	assert.Empty(t, left)
}

// A slow upload that lives, longer than any of the limits, is not cut; and its connection is good for the next request.
func TestASlowUploadIsNotCut(t *testing.T) {
	t.Parallel()
	front := forwardWith(t, hasty, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "got %d %v", n, err)
	})
	conn := dial(t, front)
	in := bufio.NewReader(conn)
	for range 2 {
		_, err := io.WriteString(conn, "PUT /api/2.0/mlflow-artifacts/artifacts/x HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
		require.NoError(t, err)
		for range 20 { // a second in all
			time.Sleep(50 * time.Millisecond)
			_, err := io.WriteString(conn, "x")
			require.NoError(t, err)
		}
		res, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		assert.Equal(t, "got 20 <nil>", text(t, res))
	}
}

// An answer that takes longer than the limits to come, or that comes slowly, is not cut; and a client that hangs up
// meanwhile is still noticed.
func TestASlowAnswerIsNotCut(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	front := forwardWith(t, hasty, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/gone" {
			<-r.Context().Done()
			close(gone)
			return
		}
		time.Sleep(2 * hasty.stall)
		_, _ = io.WriteString(w, "a")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(2 * hasty.stall)
		_, _ = io.WriteString(w, "b")
	})
	for _, body := range []io.Reader{nil, strings.NewReader("body")} {
		assert.Equal(t, "ab", text(t, do(t, "POST", front, nil, body)))
	}
	conn := dial(t, front)
	_, err := io.WriteString(conn, "POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	require.NoError(t, err)
	time.Sleep(2 * hasty.stall) // the body's deadline, had it been left set, would have ended the request by now
	select {
	case <-gone:
		t.Fatal("the request was cancelled though its client is there")
	default:
	}
	require.NoError(t, conn.Close())
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream goes on for nobody")
	}
}

// A client that reads nothing of a large answer must not keep it, and the upstream's connection, for ever.
func TestAnAnswerThatNobodyReadsIsGivenUp(t *testing.T) {
	t.Parallel()
	over := make(chan error, 1)
	front := forwardWith(t, hasty, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				over <- err
				return
			}
		}
	})
	conn := dial(t, front)
	_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Fatal("the upstream still sends")
	}
}

// A header without an end is answered by 431 and costs no memory; one of the size that servers take is passed on.
func TestHugeHeaders(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, len(r.Header.Get("Authorization"))) }, nil)
	assert.Equal(t, "60000", text(t, do(t, "GET", front, http.Header{"Authorization": {strings.Repeat("a", 60_000)}}, nil)))
	for _, header := range []string{"X-A: " + strings.Repeat("a", 1<<20), strings.Repeat("X-A: a\r\n", 1<<17), "X-" + strings.Repeat("a", 1<<20) + ": a"} {
		conn := dial(t, front)
		go func() { _, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n") }()
		line, err := bufio.NewReader(conn).ReadString('\n')
		require.NoError(t, err)
		assert.Contains(t, line, "431")
	}
	conn := dial(t, front)
	go func() { _, _ = io.WriteString(conn, "GET /"+strings.Repeat("a", 1<<20)+" HTTP/1.1\r\nHost: x\r\n\r\n") }()
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, "431")
}

// A body that has no end is streamed, not kept, on watched calls, too: it is the server's to refuse.
func TestEndlessBodiesAreNotKept(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	front := forwardWith(t, usualLimits, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, name := range []string{"create", "update", "log-batch"} {
		body := &counting{}
		res := do(t, "POST", front+"/api/2.0/mlflow/runs/"+name, nil, io.LimitReader(body, size))
		assert.Equal(t, fmt.Sprint(size), text(t, res), name)
	}
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(size), "all that three bodies of 100 MB had allocated, in a process of many tests")
}

// counting is a body of spaces without an end.
type counting struct{}

// Read is io.Reader's.
func (counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// A body above what MLflow takes as a batch is not watched, and passes whole. The answer still tells that a run ended.
func TestALargeUpdateEndsItsRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	code, answer := b.post("update", `{"run_id":"`+id+`","status":"FINISHED","pad":"`+strings.Repeat("x", 2*maxWatchedBody)+`"}`)
	assert.Equal(t, 200, code)
	assert.Contains(t, answer, "FINISHED")
	require.Eventually(t, func() bool { return b.open() == 0 && b.mlflow.of(id).metrics[metricEmissions] > 0 }, 10*time.Second, 10*time.Millisecond)
	b.post("log-batch", `{"run_id":"`+id+`","metrics":[],"pad":"`+strings.Repeat("x", 2*maxWatchedBody)+`"}`)
	assert.Len(t, b.mlflow.of(id).batches, 2, "the client's own came through")
}

// An ended run is kept for what comes late, and no longer: then nothing is left of it. How much it is meanwhile is seen with -v.
func TestEndedRunsLeaveNothing(t *testing.T) { // not parallel: it measures the heap
	b := newBench(t, nil)
	heap := func() float64 {
		var m runtime.MemStats
		http.DefaultClient.CloseIdleConnections()
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	round := func() {
		for range 300 {
			code, answer := b.post("create", `{"experiment_id":"0"}`)
			require.Equal(t, 200, code)
			_, id, _ := strings.Cut(answer, `"run_id":"`)
			id, _, _ = strings.Cut(id, `"`)
			b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
		}
		b.mlflow.mu.Lock()
		b.mlflow.calls = nil
		for id := range b.mlflow.runs { // else their number would name them anew
			b.mlflow.runs[id] = &fakeRun{}
		}
		b.mlflow.mu.Unlock()
	}
	round()
	b.proxy.finished.Flush()
	before := heap()
	round()
	kept := heap()
	b.proxy.finished.Flush()
	after := heap()
	t.Logf("%.1f KiB for a run that is kept, %.1f KiB after that", (kept-before)/300/1024, (after-before)/300/1024)
	assert.Zero(t, b.open())
	assert.Less(t, (after-before)/300, 1500.0, "bytes for each run, those of the fake server included")
}
