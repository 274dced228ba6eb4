package proxy

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Server-sent events must come when they are sent, not when a buffer is full.
func TestEventsAreFlushedAtOnce(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	front, _ := forwardTo(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			w.(http.Flusher).Flush()
			<-next
		}
	}, nil)
	res := do(t, "GET", front, nil, nil)
	lines := bufio.NewReader(res.Body)
	for range 3 {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "data: x\n", line)
		_, _ = lines.ReadString('\n')
		next <- struct{}{} // the next event is sent only now
	}
}

// Large bodies stream both ways, at the same time: Go's server would drop what has not come when the answer begins.
func TestLargeBodiesStream(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	}, nil)
	sent := sha256.New()
	res := do(t, "PUT", front, nil, io.TeeReader(io.LimitReader(rand.Reader, 20<<20), sent))
	got := sha256.New()
	n, err := io.Copy(got, res.Body)
	require.NoError(t, err)
	assert.EqualValues(t, 20<<20, n)
	assert.Equal(t, hex.EncodeToString(sent.Sum(nil)), hex.EncodeToString(got.Sum(nil)))
}

// ReverseProxy copies the map of request trailers before they have come: they would be lost.
func TestTrailersBothWays(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "Got")
		_, _ = io.WriteString(w, "x")
		w.Header().Set("Got", r.Trailer.Get("Sum"))
	}, nil)
	answer := raw(t, front, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n5\r\nhello\r\n0\r\nSum: 42\r\n\r\n")
	assert.Contains(t, answer, "Got: 42")
}

func TestInformationalAnswersPass(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	}, nil)
	answer := raw(t, front, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	assert.True(t, strings.HasPrefix(answer, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"), answer)
	assert.Contains(t, answer, "HTTP/1.1 204")
}

// A client that waits for 100 before it sends a large body gets it, or the refusal without having sent the body.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}, nil)
	for _, c := range []struct{ header, want string }{{"Authorization: x\r\n", "HTTP/1.1 100"}, {"", "HTTP/1.1 401"}} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(front, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, _ = io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"+c.header+"\r\n")
		in := textproto.NewReader(bufio.NewReader(conn))
		line, err := in.ReadLine()
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(line, c.want), line)
		if strings.HasPrefix(line, "HTTP/1.1 100") {
			_, _ = io.WriteString(conn, "hello")
			rest, _ := io.ReadAll(in.R)
			assert.Contains(t, string(rest), "HTTP/1.1 200")
			assert.Contains(t, string(rest), "hello")
		}
	}
}

func TestRangesAndHeadsPass(t *testing.T) {
	t.Parallel()
	front, _ := forwardTo(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x.bin", time.Time{}, strings.NewReader("0123456789"))
	}, nil)
	res := do(t, "GET", front, http.Header{"Range": {"bytes=2-4"}}, nil)
	assert.Equal(t, http.StatusPartialContent, res.StatusCode)
	assert.Equal(t, "234", text(t, res))
	assert.Equal(t, "bytes 2-4/10", res.Header.Get("Content-Range"))
	res = do(t, "HEAD", front, nil, nil)
	assert.EqualValues(t, 10, res.ContentLength)
}

// Go's server guesses a Content-Type where there is none: the upstream's answer had none.
func TestNoContentTypeIsInvented(t *testing.T) {
	t.Parallel()
	up := rawUpstream(t, func(int, string) (string, bool) {
		return "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", false
	})
	res := do(t, "GET", forwardToURL(t, up, nil), nil, nil)
	assert.NotContains(t, res.Header, "Content-Type")
	assert.Equal(t, "<html>", text(t, res))
}

// An answer that breaks off must break off for the client, too, and not look whole.
func TestATruncatedAnswerIsTruncated(t *testing.T) {
	t.Parallel()
	up := rawUpstream(t, func(int, string) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true })
	res, err := http.Get(forwardToURL(t, up, nil))
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	assert.Error(t, err)
}
