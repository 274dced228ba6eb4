package proxy

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// upstreamIdleTimeout is shorter than MLflow's servers keep an idle connection (uvicorn 5 s, gunicorn 2 s), so that
	// no request is sent on one that the server is just closing.
	upstreamIdleTimeout = 1500 * time.Millisecond
	maxIdleUpstream     = 256
)

// newTransport returns the transport to the upstream, for forwarding and for our own calls. config says whom to trust, and
// who we are; nil: as the system does, and nobody.
func newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:       config,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		IdleConnTimeout:       upstreamIdleTimeout,
		MaxIdleConns:          maxIdleUpstream,
		MaxIdleConnsPerHost:   maxIdleUpstream,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // what the client asks for is what it gets
		ForceAttemptHTTP2:     true,
	}
}

type forwardConfig struct {
	Upstream        *url.URL // base, with its path prefix
	Server, Flag    string   // what it is and which flag names it, for when it is not there; empty: the MLflow server
	UpstreamHost    string   // Host to send; empty: the upstream's own
	Transport       http.RoundTripper
	ModifyResponse  func(*http.Response) error
	Logger          *slog.Logger
	OnUpstreamError func(error)
}

// forwarder sends everything to the upstream untouched.
type forwarder struct {
	cfg    forwardConfig
	prefix string // the upstream's path, without a slash at its end
	proxy  *httputil.ReverseProxy
}

func newForwarder(cfg forwardConfig) *forwarder {
	f := &forwarder{cfg: cfg}
	if path := strings.Trim(cfg.Upstream.EscapedPath(), "/"); path != "" {
		f.prefix = "/" + path
	}
	if f.cfg.Transport == nil {
		f.cfg.Transport = newTransport(nil)
	}
	f.proxy = &httputil.ReverseProxy{
		Rewrite:        f.rewrite,
		Transport:      f.cfg.Transport,
		ModifyResponse: f.modify,
		ErrorHandler:   f.fail,
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return f
}

// ServeHTTP forwards one request.
func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		w.Header().Set("Connection", "close") // what follows is meant for somebody else
		refuse(w, http.StatusBadRequest, "BAD_REQUEST", "CONNECT is not for a tracking server")
		return
	}
	// Without this, Go's server guesses a type for an answer that has none.
	w.Header()["Content-Type"] = nil
	f.proxy.ServeHTTP(w, r)
}

// rewrite makes the upstream's request of the client's.
func (f *forwarder) rewrite(pr *httputil.ProxyRequest) {
	out, in := pr.Out, pr.In
	out.URL.Scheme, out.URL.Host = f.cfg.Upstream.Scheme, f.cfg.Upstream.Host
	// The server sees the very bytes of the path and the query that the client sent: both would else be cleaned of what
	// url.URL cannot hold.
	if path, _, _ := strings.Cut(in.RequestURI, "?"); strings.HasPrefix(path, "/") && !strings.HasPrefix(f.prefix+path, "//") {
		out.URL.Opaque = f.prefix + path
	} else if in.RequestURI == "*" {
		out.URL.Opaque = "*"
	} else if f.prefix != "" {
		out.URL.Path, out.URL.RawPath = strings.TrimSuffix(f.cfg.Upstream.Path, "/")+in.URL.Path, f.prefix+in.URL.EscapedPath()
	}
	out.URL.RawQuery, out.URL.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery
	// Trailers come after the body, into the map of the request that was read; a copy of it would stay empty.
	out.Trailer = in.Trailer

	// ReverseProxy passes every upgrade on. One to HTTP/2 would be a tunnel whose requests nobody watches; as a server may,
	// we overlook it.
	if upgrade := out.Header.Get("Upgrade"); upgrade != "" && !strings.EqualFold(upgrade, "websocket") {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}

	out.Host = f.cfg.UpstreamHost // empty: the upstream's own, which it accepts wherever it did without a proxy
	if origin := in.Header.Get("Origin"); origin != "" && sameHost(origin, in.Host) {
		out.Header.Del("Origin") // from MLflow's own pages, through us; a foreign one is the server's to refuse
	}
	// ReverseProxy has dropped what the client said of itself; this says who it is. MLflow lets only local clients do some things.
	pr.SetXForwarded()
}

// sameHost says whether an Origin is that of pages loaded from this host.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// modify lets an answer's Location name us where it names the upstream, and shows the answer to those who watch.
func (f *forwarder) modify(res *http.Response) error {
	if location := res.Header.Get("Location"); location != "" {
		// The outgoing request says in these how the client calls us.
		out := res.Request.Header
		res.Header.Set("Location", f.location(location, out.Get("X-Forwarded-Proto"), out.Get("X-Forwarded-Host")))
	}
	if f.cfg.ModifyResponse != nil {
		return f.cfg.ModifyResponse(res)
	}
	return nil
}

// location rewrites a Location that names the upstream to the scheme and host that the client used.
func (f *forwarder) location(location, scheme, host string) string {
	u, err := url.Parse(location)
	if err != nil {
		return location
	}
	named := u.Host != ""
	if named && u.Host != f.cfg.Upstream.Host && u.Host != f.cfg.UpstreamHost {
		return location // somewhere else
	}
	path, under := strings.CutPrefix(u.EscapedPath(), f.prefix)
	if !under || path != "" && path[0] != '/' {
		return location
	}
	query := ""
	if u.RawQuery != "" || u.ForceQuery {
		query = "?" + u.RawQuery
	}
	if u.Fragment != "" {
		query += "#" + u.EscapedFragment()
	}
	if !named {
		if f.prefix == "" || path == "" {
			return location
		}
		return path + query
	}
	if host == "" { // HTTP/1.0: the client did not say how it calls us
		return cmp.Or(path, "/") + query
	}
	return scheme + "://" + host + path + query
}

// fail answers for an upstream that did not.
func (f *forwarder) fail(w http.ResponseWriter, r *http.Request, err error) {
	if fault := clientsFault(w); fault != nil {
		badBody(w, fault)
		return
	}
	if r.Context().Err() != nil { // the client is gone: nobody reads an answer
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if f.cfg.OnUpstreamError != nil {
		f.cfg.OnUpstreamError(err)
	}
	f.cfg.Logger.Error("upstream does not answer", "method", r.Method, "path", r.URL.Path, "error", err)
	server := cmp.Or(f.cfg.Server, "MLflow server")
	if isTimeout(err) {
		refuse(w, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED", "mlflow-emissions-proxy: the "+server+" at "+f.cfg.Upstream.Host+" did not answer in time")
		return
	}
	refuse(w, http.StatusBadGateway, "TEMPORARILY_UNAVAILABLE", "mlflow-emissions-proxy: the "+server+" at "+f.cfg.Upstream.Host+
		" cannot be reached; is it running, and is "+cmp.Or(f.cfg.Flag, "--upstream")+" right?")
}

// buffers keeps the buffers through which bodies are copied.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get is httputil.BufferPool's.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return new([bufferSize]byte)[:]
}

// Put is httputil.BufferPool's.
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
