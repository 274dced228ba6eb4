package proxy

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// limits bound what clients may hold open. All are for idleness, never for a whole request: an artifact may take hours.
type limits struct {
	header      time.Duration // for a request's header, and a TLS handshake
	headerBytes int           // above which the answer is 431
	// idle is longer than clients keep an idle connection, so that it is they who close it: a connection that we close at
	// the moment in which a client sends would be an error for it.
	idle time.Duration
	// stall is how long a body may make no progress at all, in either direction.
	stall time.Duration
}

// usualLimits take four times the header that uvicorn takes.
var usualLimits = limits{header: 30 * time.Second, headerBytes: 256 << 10, idle: 5 * time.Minute, stall: 10 * time.Minute}

// newServer returns a server for the main listener. It speaks HTTP/1 only, as MLflow's servers do: what HTTP/2 changes
// (the text of a status, the case of header names, one connection for many processes behind it) would be ours alone.
func newServer(h http.Handler, l limits) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:                      strict{h, l.stall},
		Protocols:                    protocols,
		ReadHeaderTimeout:            l.header,
		IdleTimeout:                  l.idle,
		MaxHeaderBytes:               l.headerBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is the upstream's, too
	}
}

// strict refuses what Go's server lets through, and bounds how long a body may stall.
type strict struct {
	next  http.Handler
	stall time.Duration
}

// ServeHTTP serves one request.
func (s strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 1 { // the preface of HTTP/2, which Go's server hands on as if it were a request
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusHTTPVersionNotSupported, "BAD_REQUEST", "mlflow-emissions-proxy: only HTTP/1 is spoken here")
		return
	}
	if r.Body == nil || r.Body == http.NoBody {
		s.next.ServeHTTP(w, r)
		return
	}
	if len(r.TransferEncoding) > 0 {
		// Go's server has dropped a Content-Length that stood beside it, unseen. Whoever stands before us may have gone by
		// that length, and take what follows for the next request of somebody else: RFC 9112, 6.1 has the connection closed.
		w.Header().Set("Connection", "close")
	}
	u := &upload{ResponseWriter: w, body: r.Body, control: http.NewResponseController(w), stall: s.stall}
	// Without this, Go's server throws the rest of the body away as soon as the answer begins.
	_ = u.control.EnableFullDuplex()
	r.Body = u
	defer u.over()
	s.next.ServeHTTP(u, r)
	if !u.isRead() && clientsFault(u) == nil {
		// The server would wait for the rest without a deadline. The client has its answer first.
		_ = u.control.Flush()
		u.deadline(time.Now().Add(s.stall))
		_ = u.body.Close()
	}
}

// upload is a request's body, which ends with an error once nothing has come for too long, and the writer of its answer.
type upload struct {
	http.ResponseWriter
	body    io.ReadCloser
	control *http.ResponseController
	stall   time.Duration

	mu      sync.Mutex // a transport may go on reading after its answer has come
	ended   bool       // all of it was read
	fault   error      // why no more of it could be read
	isOver  bool       // the request is answered: the deadline is the server's again
	answers bool
}

func (u *upload) deadline(t time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.isOver {
		_ = u.control.SetReadDeadline(t) // a server that does not know deadlines goes on without
	}
}

func (u *upload) isRead() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ended
}

func (u *upload) over() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.isOver = true
}

// Read is io.Reader's.
func (u *upload) Read(p []byte) (int, error) {
	u.deadline(time.Now().Add(u.stall))
	n, err := u.body.Read(p)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		u.deadline(time.Time{}) // from now on the server reads to learn that the client hung up
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == io.EOF {
		u.ended = true
	} else {
		u.fault = err
	}
	return n, err
}

// Close is io.Closer's.
func (u *upload) Close() error { return u.body.Close() }

// WriteHeader is http.ResponseWriter's. An answer that comes before the end of the body is the connection's last: what is
// left of the body could be taken for a request.
func (u *upload) WriteHeader(status int) {
	if status >= 200 && !u.answers {
		u.answers = true
		if !u.isRead() {
			u.Header().Set("Connection", "close")
		}
	}
	u.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (u *upload) Write(p []byte) (int, error) {
	if !u.answers {
		u.WriteHeader(http.StatusOK)
	}
	return u.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (u *upload) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// clientsFault returns why the body of a request could not be read, if that is so: it is not the upstream's fault then.
func clientsFault(w http.ResponseWriter) error {
	u, ok := w.(*upload)
	if !ok {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fault
}

// living is a listener whose connections do not wait for ever for a client that takes nothing of its answer.
type living struct {
	net.Listener
	stall time.Duration
}

// Accept is net.Listener's.
func (l living) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		return livingConn{tcp, l.stall}, nil
	}
	return c, err
}

type livingConn struct {
	*net.TCPConn
	stall time.Duration
}

// Write is io.Writer's.
func (c livingConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.stall))
	return c.TCPConn.Write(p)
}
