package proxy

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests of one hazard each are in files of its name: each fails without the line in forward.go that it guards.

// forwardTo starts a forwarder in front of a handler and returns the base URL of each.
func forwardTo(t *testing.T, upstream http.HandlerFunc, change func(*forwardConfig)) (front, back string) {
	t.Helper()
	s := httptest.NewServer(upstream)
	t.Cleanup(s.Close)
	return forwardToURL(t, s.URL, change), s.URL
}

func forwardToURL(t *testing.T, upstream string, change func(*forwardConfig)) string {
	t.Helper()
	u, err := url.Parse(upstream)
	require.NoError(t, err)
	cfg := forwardConfig{Upstream: u, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	front := httptest.NewUnstartedServer(nil)
	front.Config = newServer(newForwarder(cfg), usualLimits)
	front.Start()
	t.Cleanup(front.Close)
	return front.URL
}

// raw sends bytes and returns the whole answer up to the end of the connection.
func raw(t *testing.T, base, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// rawUpstream is an upstream of bytes: it hands each request's head to answer and writes what that returns.
func rawUpstream(t *testing.T, answer func(n int, head string) (reply string, hangUp bool)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for n := 0; ; {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			first := n
			n += 100
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for i := first; ; i++ {
					var head strings.Builder
					var length int64
					for !strings.HasSuffix(head.String(), "\r\n\r\n") {
						line, err := in.ReadString('\n')
						if err != nil {
							return
						}
						head.WriteString(line)
						if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
							length, _ = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
						}
					}
					// A connection closed with something unread is reset, which is another fault than an idle one's end.
					_, _ = io.CopyN(io.Discard, in, length)
					reply, hangUp := answer(i, head.String())
					_, _ = io.WriteString(conn, reply)
					if hangUp {
						return
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func do(t *testing.T, method, target string, header http.Header, body io.Reader) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, target, body)
	require.NoError(t, err)
	for k, v := range header {
		req.Header[k] = v
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	transport := &http.Transport{DisableCompression: true}
	res, err := transport.RoundTrip(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close(); transport.CloseIdleConnections() })
	return res
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(b)
}
