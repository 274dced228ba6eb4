// Package proxy stands in front of an MLflow tracking server. It forwards everything untouched, watches runs begin and
// end, and writes what they emitted into them.
//
// A reader who follows one run reads runs.go, then phases.go and figures.go, then late.go and afterwards.go for what comes
// after its end, and state.go for what survives a crash; forward.go and its neighbours are about transparency.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/patrickmn/go-cache"
	"github.com/prometheus/client_golang/prometheus"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// Config says what to forward to and how to meter.
type Config struct {
	Upstream        *url.URL          // base URL of the MLflow server
	UpstreamHost    string            // Host to send; empty: the upstream's own
	UpstreamTLS     *tls.Config       // whom to trust as the MLflow server, and who we are; nil: as the system does, and nobody
	Transport       http.RoundTripper // nil: one whose connections idle for less than MLflow's servers keep them
	AllowedHosts    []string          // as MLflow's --allowed-hosts; empty: any but names of the world that lead to loopback
	Meter           *meter.Meter
	Supply          *carbon.Supply
	Embodied        carbon.Embodied // of making this machine; zero: not known, and not counted
	Scope           meter.Scope
	LocalClients    []netip.Prefix   // whose runs are on this machine
	LogInterval     time.Duration    // how often a running run's emissions_g is logged; 0: only at the end
	LateWindow      time.Duration    // how long a run that ended is completed by what comes late; 0: not at all
	MaxIdle         time.Duration    // how long a run without a process goes on without a request about it; 0: for ever
	Token           mlflow.TokenFile // of the proxy itself, for runs whose client is gone; empty for none
	AccuracyMetrics []string         // metric keys to take as accuracy, first match wins; empty: by the usual names
	SDKNames        bool             // also write mlflow-emissions-sdk's names; see sdknames.go
	InPod           bool             // in a Kubernetes pod the machine's energy is not the run's
	Host            string           // name of this machine, for the tag emissions.host
	Version         string           // for the tag emissions.version
	Logger          *slog.Logger     // nil: slog.Default
	// Pages makes what answers under /emissions/, given how to ask the upstream. nil: nothing is answered there.
	Pages func(*mlflow.Client) http.Handler
}

// pagesPath is where the only answers of our own are; all else is the upstream's.
const pagesPath = "/emissions/"

// Limits on what metering may cost a client, and on what is kept.
const (
	// patience is all that a client ever waits for metering, whatever hangs.
	patience = 2 * time.Second
	// writeTimeout is for the figures alone, which are the slowest part of it.
	writeTimeout = patience - 100*time.Millisecond
	// couriers is how many writes go on at once that no client waits for: a server that is slow must not be made slower
	// for its clients, by what it could not take at first of all things.
	couriers = 4
	// orphanTimeout is how long an update is carried on after its client hung up: the server would do it, too.
	orphanTimeout = 30 * time.Second
)

// Proxy is the handler of the main listener. Its methods may be called from any goroutine.
type Proxy struct {
	cfg      Config
	log      *slog.Logger
	forward  *forwarder
	pages    http.Handler
	client   *mlflow.Client
	metrics  *metrics
	mu       sync.Mutex
	runs     map[string]*run
	finished *cache.Cache       // *run by id, of ended runs that wait for what comes late
	words    *cache.Cache       // what experiments say about accuracy, by caller and experiment
	letters  map[string]*letter // by run, what could not be written yet
	couriers chan struct{}      // one in it for each write that no client waits for
	dirty    chan struct{}      // has something in it when what is kept has changed
	writers  sync.WaitGroup     // goroutines that write figures off the clients' path
	draining context.Context
	drain    context.CancelFunc
}

// New makes a proxy. Its metrics are registered with reg.
func New(cfg Config, reg prometheus.Registerer) (*Proxy, error) {
	p := &Proxy{
		cfg: cfg, log: cfg.Logger, runs: map[string]*run{}, words: cache.New(wordWindow, 10*wordWindow), letters: map[string]*letter{},
		couriers: make(chan struct{}, couriers), dirty: make(chan struct{}, 1),
	}
	p.cfg.LateWindow = max(cfg.LateWindow, 1) // in the cache 0 stands for ever
	p.finished = cache.New(p.cfg.LateWindow, max(time.Second, p.cfg.LateWindow/10))
	if p.log == nil {
		p.log = slog.Default()
	}
	p.cfg.Scope = cmp.Or(cfg.Scope, meter.ScopeProcess)
	if p.cfg.Transport == nil {
		p.cfg.Transport = newTransport(cfg.UpstreamTLS)
	}
	var err error
	if p.metrics, err = newMetrics(reg, p); err != nil {
		return nil, err
	}
	p.draining, p.drain = context.WithCancel(context.Background())
	p.client = mlflow.NewClient(cfg.Upstream, cfg.UpstreamHost, p.cfg.Transport)
	if cfg.Pages != nil {
		p.pages = cfg.Pages(p.client)
	}
	p.forward = newForwarder(forwardConfig{
		Upstream:        cfg.Upstream,
		UpstreamHost:    cfg.UpstreamHost,
		Transport:       p.cfg.Transport,
		ModifyResponse:  p.answered,
		Logger:          p.log,
		OnUpstreamError: func(error) { p.metrics.upstreamErrors.Inc() },
	})
	return p, nil
}

// Server returns the server of the main listener.
func (p *Proxy) Server() *http.Server {
	s := newServer(newHosts(newLoop(p), p.cfg.AllowedHosts, p.log), usualLimits)
	s.ConnContext = connContext
	s.ErrorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)
	return s
}

// Serve serves a server of Server's until it is shut down; over TLS where it has a TLSConfig.
func (p *Proxy) Serve(s *http.Server, l net.Listener) error {
	l = living{l, usualLimits.stall}
	serve := s.Serve
	if s.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// exchange is one watched request and its answer.
type exchange struct {
	kind    kind
	ui      bool // from MLflow's own pages
	header  http.Header
	body    []byte
	conn    *connection
	caller  mlflow.Caller
	foreign bool          // another proxy of ours meters this run already
	found   chan struct{} // closed once the look-up of the client's process is over; nil where none was begun
	resumes bool          // a run that had ended is set to RUNNING
	steps   chan struct{} // closed once the latest step of metering is over; nil before the first
	waited  time.Duration // for steps of metering

	ended time.Time // when the run did, by the client's word; zero where that says nothing

	ending *run // the run that a recognised final update is about to end; only steps look at it
}

type exchangeKey struct{}

// ServeHTTP forwards a request, and lets what is watched be seen before and after.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.pages != nil && strings.HasPrefix(r.URL.Path, pagesPath) {
		p.pages.ServeHTTP(w, r)
		return
	}
	kind, ui := match(r.Method, r.URL.Path)
	if kind == kindSpans && r.Header.Get(runHeader) == "" {
		kind = kindOther // MLflow's own client names the run in the trace that it writes as well
	}
	p.metrics.requests[kind].Inc()
	if kind == kindOther {
		defer p.forgetWords(r.URL.Path)
		p.forward.ServeHTTP(w, r)
		return
	}
	x := &exchange{kind: kind, ui: ui, header: r.Header, conn: connectionOf(r), caller: mlflow.CallerOf(r)}
	body, ok, err := readWatched(r)
	switch {
	case isTimeout(err): // the client is there, but will not end what it began
		badBody(w, err)
		return
	case err == nil && ok:
		x.body = body
	}
	ctx := context.WithValue(r.Context(), exchangeKey{}, x)
	if kind == kindUpdate && x.body != nil {
		var cancel context.CancelFunc
		ctx, cancel = outlive(ctx)
		defer cancel()
	}
	r = r.WithContext(ctx)
	p.guard(func() { p.before(x, r) })
	defer p.over(x) // also where the forwarder aborts the connection by a panic
	p.forward.ServeHTTP(w, r)
}

// outlive returns a context that goes on for a while after its parent is cancelled: a server that has read an update
// carries it out although its client hung up meanwhile, and so do we.
func outlive(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		t := time.AfterFunc(orphanTimeout, cancel)
		context.AfterFunc(ctx, func() { t.Stop() })
	})
	return ctx, func() { stop(); cancel() }
}

// answered is ReverseProxy.ModifyResponse. It never fails: the answer is the client's, whatever metering makes of it.
func (p *Proxy) answered(res *http.Response) error {
	x, ok := res.Request.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return nil
	}
	p.guard(func() { p.after(x, res) })
	return nil
}

// guard keeps a fault in metering away from the client.
func (p *Proxy) guard(f func()) {
	defer func() {
		if fault := recover(); fault != nil {
			p.log.Error("fault in metering; the request is not affected", "fault", fault, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// step does what a watched request means for a run's metering, after the steps before it, and waits for it. A sensor's
// driver may hang: the client waits no longer than its patience lasts, and the step goes on by itself.
func (p *Proxy) step(x *exchange, f func()) {
	before, done := x.steps, make(chan struct{})
	x.steps = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		p.guard(f)
	}()
	began := time.Now()
	timer := time.NewTimer(patience - x.waited)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		p.log.Warn("metering takes too long; the request goes on without it", "kind", x.kind.String())
	}
	x.waited += time.Since(began)
}

// background runs f off every client's path; Drain waits for it.
func (p *Proxy) background(f func()) {
	p.writers.Add(1)
	go func() {
		defer p.writers.Done()
		p.guard(f)
	}()
}
