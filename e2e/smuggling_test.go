package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// relay passes bytes on to a server and keeps what was sent.
type relay struct {
	address string
	mu      sync.Mutex
	sent    strings.Builder
}

func startRelay(t *testing.T, server string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	r := &relay{address: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, upstream); _ = client.Close() }()
			go func() { _, _ = io.Copy(io.MultiWriter(r, upstream), client); _ = upstream.Close() }()
		}
	}()
	return r
}

// Write is io.Writer's.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent.Write(p)
}

// take returns what was sent since it was last called.
func (r *relay) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.sent.Reset()
	return r.sent.String()
}

// requests counts what a server takes for requests.
func requests(sent string) (n int) {
	in := bufio.NewReader(strings.NewReader(sent))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return n
		}
		_, _ = io.Copy(io.Discard, r.Body)
		n++
	}
}

// Where two servers in a row do not agree where a request ends, what one takes for a body is a request for the other: with
// somebody else's credentials, and past everything that watches. Whatever is sent, at most one request comes through.
func TestRequestsAreNotSmuggled(t *testing.T) {
	t.Parallel()
	_, upstream, _ := setup(t)
	line := startRelay(t, upstream.Host)
	p := startProxyAt(t, nil, "--upstream", "http://"+line.address)
	const first = "POST " + api + "experiments/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for i, c := range []struct {
		name    string
		request string // SMUGGLED stands for a request, LENGTH for its length, CHUNK for that in hexadecimal
		refused bool   // with 400 or 501; else it is answered as one request
	}{
		{"no trick", first + "Connection: close\r\nContent-Length: 2\r\n\r\n{}", false},
		{"CL before TE", first + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED", false},
		{"TE before CL", first + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nSMUGGLED", false},
		{"CL over all, and TE", first + "Content-Length: LENGTH\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED", false},
		{"CL short, TE over all", first + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nCHUNK\r\nSMUGGLED\r\n0\r\n\r\n", false},
		{"two CLs", first + "Content-Length: 0\r\nContent-Length: LENGTH\r\n\r\nSMUGGLED", true},
		{"two CLs in one", first + "Content-Length: 0, LENGTH\r\n\r\nSMUGGLED", true},
		{"CL with a sign", first + "Content-Length: +0\r\n\r\nSMUGGLED", true},
		{"negative CL", first + "Content-Length: -1\r\n\r\nSMUGGLED", true},
		{"CL in hexadecimal", first + "Content-Length: 0x0\r\n\r\nSMUGGLED", true},
		{"empty CL", first + "Content-Length: \r\n\r\nSMUGGLED", true},
		{"CL too large for a number", first + "Content-Length: 18446744073709551616\r\n\r\nSMUGGLED", true},
		{"space before colon of CL", first + "Content-Length : LENGTH\r\n\r\nSMUGGLED", true},
		{"space before colon of TE", first + "Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"tab before colon", first + "Transfer-Encoding\t: chunked\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"obs-fold", first + "Connection: close\r\nX-A: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", false},
		{"unknown TE", first + "Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"TE twice", first + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nSMUGGLED", true},
		{"TE a list", first + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nSMUGGLED", true},
		{"TE quoted", first + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nSMUGGLED", true},
		{"TE with a vertical tab", first + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nSMUGGLED", true},
		{"obs-fold of TE", first + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nSMUGGLED", false},
		{"obs-fold of CL", first + "Content-Length: 1\r\n 0\r\n\r\nSMUGGLED", true},
		{"bare LF after TE", first + "X-A: a\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nSMUGGLED", false},
		{"bare CR in a value", first + "X-A: a\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"NUL in a value", first + "X-A: a\x00b\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"NUL in a name", first + "X\x00A: a\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"NUL in the target", "GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\nSMUGGLED", true},
		{"no colon", first + "Content-Length\r\n\r\nSMUGGLED", true},
		{"two Hosts", first + "Host: other\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
		{"no Host", "GET /health HTTP/1.1\r\n\r\nSMUGGLED", true},
		{"a second version", "GET /health HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\nSMUGGLED", true},
		{"another version", "GET /health HTTP/1.2x\r\nHost: localhost\r\n\r\nSMUGGLED", true},
		{"HTTP/2 in words", "GET /health HTTP/2.0\r\nHost: localhost\r\n\r\nSMUGGLED", true},
		{"chunk extension", first + "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0;c\r\n\r\nSMUGGLED", false},
		{"chunk extension with LF", first + "Transfer-Encoding: chunked\r\n\r\n2;\n{}\r\n0\r\n\r\nSMUGGLED", true},
		{"bare LF in chunks", first + "Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\nSMUGGLED", true},
		{"chunk with a sign", first + "Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\nSMUGGLED", true},
		{"chunk in 0x", first + "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\nSMUGGLED", true},
		{"chunk too long for a number", first + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\nSMUGGLED", true},
		{"chunk without its end", first + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}SMUGGLED", true},
		{"CL in a trailer", first + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: LENGTH\r\n\r\nSMUGGLED", true},
		{"h2c", first + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED", false},
		{"h2c, prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nSMUGGLED", true},
		{"CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: 0\r\n\r\nSMUGGLED", true},
	} {
		experiment := fmt.Sprintf("smuggled-%d", i)
		body := `{"name":"` + experiment + `"}`
		smuggled := fmt.Sprintf("POST %sexperiments/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", api, len(body), body)
		sent := strings.NewReplacer("SMUGGLED", smuggled, "LENGTH", fmt.Sprint(len(smuggled)), "CHUNK", fmt.Sprintf("%x", len(smuggled))).Replace(c.request)
		line.take()
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, _ = io.WriteString(conn, sent)
		answer, err := io.ReadAll(conn)
		assert.NoError(t, err, "%s: the connection is closed", c.name)
		_ = conn.Close()
		through := line.take()
		assert.LessOrEqual(t, requests(through), 1, "%s: %q", c.name, through)
		assert.NotContains(t, through, "\n ", "%s: no line is folded", c.name)
		code, _ := call(t, http.MethodGet, upstream.String()+api+"experiments/get-by-name?experiment_name="+experiment, "")
		assert.Equal(t, 404, code, "%s: the smuggled request came through", c.name)
		status := string(answer[:min(len(answer), len("HTTP/1.1 xxx"))])
		if c.refused {
			assert.Contains(t, []string{"HTTP/1.1 400", "HTTP/1.1 501", "HTTP/1.1 505"}, status, c.name)
		} else {
			assert.Equal(t, 1, requests(through), "%s: %q", c.name, through)
		}
	}
}
