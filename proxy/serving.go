package proxy

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// ServingConfig says which model's scoring server to stand in front of.
type ServingConfig struct {
	URL       *url.URL         // its base URL
	Addresses []netip.AddrPort // where on this machine it listens, the likeliest first
	Run       string           // the run that its model came from; empty: the one that the model names
	Caller    mlflow.Caller    // with whose credentials figures are written; nobody scores with MLflow's
}

// Serving stands in front of a model's scoring server on this machine. It forwards everything untouched, counts the
// rows that predictions are made for, meters the server while it makes them, and adds both to the run that the model came
// from. What the server uses while it has nothing to do is nobody's: divided among few predictions, it would make each
// as dear as one likes.
type Serving struct {
	proxy   *Proxy
	cfg     ServingConfig
	log     *slog.Logger
	forward *forwarder

	flying atomic.Int64  // scoring requests that are not answered yet
	ended  atomic.Int64  // when the latest one was, in ns since 1970
	rows   atomic.Int64  // rows predicted since the latest harvest
	awake  atomic.Bool   // wake was told, and the server has not come to rest since
	wake   chan struct{} // a request came while the server was at rest

	writing slotLock // held while the run is written

	mu      sync.Mutex // over what follows; the meter may keep its holder waiting, so no request takes it
	server  meter.Process
	session *meter.Session // nil while there is no server, or its run is not known
	run     string
	works   bool
	due     map[string]due // by run
	unsure  map[string]due // what was given to a run in memory, and is not known to be written
	said    string         // the latest complaint, which is not repeated
}

// NewServing returns what stands in front of a scoring server.
func (p *Proxy) NewServing(cfg ServingConfig) *Serving {
	s := &Serving{proxy: p, cfg: cfg, log: p.log, wake: make(chan struct{}, 1), writing: newSlotLock(), due: map[string]due{}, unsure: map[string]due{}}
	s.forward = newForwarder(forwardConfig{
		Upstream:       cfg.URL,
		Server:         "scoring server",
		Flag:           "--serving",
		ModifyResponse: s.answered,
		Logger:         p.log,
	})
	return s
}

// Server returns the server of the listener that clients score at.
func (s *Serving) Server() *http.Server {
	server := newServer(newHosts(s, s.proxy.cfg.AllowedHosts, s.log), usualLimits)
	server.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	return server
}

// isScoring says whether a request asks for predictions.
func isScoring(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/invocations")
}

// scoring is one request for predictions.
type scoring struct {
	answered bool // with predictions

	mu     sync.Mutex // the transport may read the rest of a body while the answer is passed on already
	asked  rowCounter // nil where the request does not tell
	answer rowCounter // nil where it need not tell
}

type scoringKey struct{}

// ServeHTTP forwards a request, and counts what it is answered with.
func (s *Serving) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isScoring(r) {
		s.forward.ServeHTTP(w, r)
		return
	}
	x := &scoring{asked: newRowCounter(r.Header.Get("Content-Type"))}
	if x.asked != nil {
		r.Body = counted{r.Body, &x.mu, x.asked}
	}
	s.flying.Add(1)
	if s.awake.CompareAndSwap(false, true) {
		select {
		case s.wake <- struct{}{}:
		default: // one that was not taken yet does for this, too
		}
	}
	defer s.over(x) // also where the forwarder aborts the connection by a panic
	s.forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), scoringKey{}, x)))
}

// answered is ReverseProxy.ModifyResponse.
func (s *Serving) answered(res *http.Response) error {
	x, ok := res.Request.Context().Value(scoringKey{}).(*scoring)
	if !ok || res.StatusCode < 200 || res.StatusCode > 299 {
		return nil
	}
	x.answered = true
	if x.asked == nil {
		x.answer = newAnswerCounter()
		res.Body = counted{res.Body, &x.mu, x.answer}
	}
	return nil
}

// over counts what a request was answered with.
func (s *Serving) over(x *scoring) {
	if x.answered {
		s.rows.Add(x.rows())
	}
	s.ended.Store(time.Now().UnixNano())
	s.flying.Add(-1)
}

// rows returns for how many rows predictions were made: as the request says, else the answer. Where neither does, it
// was one.
func (x *scoring) rows() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range []rowCounter{x.asked, x.answer} {
		if c == nil {
			continue
		}
		if n, ok := c.rows(); ok {
			return n
		}
	}
	return 1
}

// counted is a body that is counted as it passes by.
type counted struct {
	io.ReadCloser
	mu *sync.Mutex
	by rowCounter
}

// Read is io.Reader's.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.by.Write(p[:n])
	return n, err
}

// lookEvery is how often it is seen to whether the scoring server is there, and still the same.
const lookEvery = 5 * time.Second

// harvestEvery is how often what was used is added up where --log-interval does not say so more often: a session's record
// grows with each time that the server comes to rest.
const harvestEvery = time.Minute

// Run meters the server until ctx is done.
func (s *Serving) Run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	pause := min(harvestEvery, cmp.Or(s.proxy.cfg.LogInterval, harvestEvery))
	harvest := time.NewTicker(pause)
	defer harvest.Stop()
	nextLog := time.Now().Add(s.proxy.cfg.LogInterval)
	rest := time.NewTimer(0)
	defer rest.Stop()
	s.look()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			s.begins()
			rest.Reset(meter.Resolution)
		case <-rest.C:
			if again := s.rests(); again > 0 {
				rest.Reset(again)
			}
		case <-look.C:
			s.look()
		case now := <-harvest.C:
			s.harvest()
			if s.proxy.cfg.LogInterval > 0 && !now.Before(nextLog) {
				nextLog = now.Add(s.proxy.cfg.LogInterval)
				if s.writing.tryLock() { // who writes still takes until the next time
					s.proxy.background(func() { defer s.writing.unlock(); s.write(ctx) })
				}
			}
		}
	}
}

// Stop gives the run what has not been written yet. It is called when no more requests come in, and before Proxy.Drain,
// which waits for it.
func (s *Serving) Stop(ctx context.Context) {
	s.harvest()
	s.mu.Lock()
	if s.session != nil {
		s.session.Close()
	}
	s.server, s.session = meter.Process{}, nil
	s.mu.Unlock()
	s.proxy.background(func() {
		if s.writing.lock(ctx) == nil {
			defer s.writing.unlock()
			s.write(ctx)
		}
	})
}

// idle is the phase in which what the server uses is nobody's. It has no name of its own: no record of it is kept.
const idle = meter.Training

// begins notes that the server works from now on.
func (s *Serving) begins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.works && s.session != nil {
		s.session.Switch(meter.Inference)
	}
	s.works = true
}

// rests notes that the server has come to rest, unless it works still, or did so a moment ago: what happens within the
// sensors' resolution cannot be told apart. It returns when to ask again; 0 for not until it works again.
func (s *Serving) rests() time.Duration {
	s.awake.Store(false)
	left := meter.Resolution - time.Since(time.Unix(0, s.ended.Load()))
	if s.flying.Load() > 0 {
		left = meter.Resolution
	}
	if left > 0 {
		if s.awake.CompareAndSwap(false, true) {
			return left
		}
		return 0 // somebody else was faster, and wakes us
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.works && s.session != nil {
		s.session.Switch(idle)
	}
	s.works = false
	return 0
}

// complain says what hinders metering, once.
func (s *Serving) complain(message string, args ...any) {
	s.mu.Lock()
	said := s.said
	s.said = fmt.Sprint(append([]any{message}, args...)...)
	same := said == s.said
	s.mu.Unlock()
	if !same {
		s.log.Warn(message, args...)
	}
}
