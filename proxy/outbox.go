package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// letter is what is to be written into a run that is over, and could not be yet. It is guarded by Proxy.mu.
type letter struct {
	run    *run          // whose lock on writing it takes
	batch  []byte        // the same bytes at each try; nil once they are in
	late   bool          // what came late for the ratios is to be worked out when they are in
	caller mlflow.Caller // the latest that the server let do something with the run
	posts  int           // how often something was put into it
	trying bool          // a courier has it
	tries  int
	timer  *time.Timer
	last   time.Time // when it was tried last
	next   time.Time // when it is tried next
	until  time.Time // before which the server does not want to be asked again
}

// How long a letter waits for its next try: twice as long each time, give or take half of it, so that those of many runs
// do not come at once when a server is back.
const (
	firstPause = time.Second
	maxPause   = 5 * time.Minute
)

// deliveryTimeout is for one try: a server that is slow is waited for, since nobody else waits.
const deliveryTimeout = 2 * time.Minute

// post keeps a batch until it is in the run; a nil one is to work out what came late. There is one letter for each run:
// later figures have the earlier ones in them.
func (p *Proxy) post(r *run, batch []byte, caller mlflow.Caller, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.letters[r.id]
	if l == nil {
		l = &letter{}
		p.letters[r.id] = l
		l.timer = time.AfterFunc(time.Hour, func() { p.background(func() { p.deliver(l) }) })
	}
	l.run, l.caller, l.tries = r, caller, 0
	l.posts++
	if batch != nil {
		l.batch, l.late = batch, r.unread
	} else {
		l.late = true
	}
	p.wait(l, err)
	p.changed()
}

// wait sets a letter's next try after one that failed. Callers hold mu.
func (p *Proxy) wait(l *letter, err error) {
	pause := maxPause
	if l.tries < 9 { // 2^9 s are more than that already
		pause = min(maxPause, firstPause<<l.tries)
	}
	l.tries++
	l.last = time.Now()
	var refusal *mlflow.APIError
	if errors.As(err, &refusal) && refusal.RetryAfter > 0 {
		l.until = time.Now().Add(refusal.RetryAfter)
	}
	p.tryAt(l, time.Now().Add(pause/2+rand.N(pause)))
}

// tryAt sets when a letter is tried next, or later if the server wants that. Callers hold mu.
func (p *Proxy) tryAt(l *letter, at time.Time) {
	if l.next = at; l.until.After(at) {
		l.next = l.until
	}
	if p.draining.Err() == nil { // else it goes to the state folder
		l.timer.Reset(time.Until(l.next))
	}
}

// unpost forgets a run's letter: later figures are in. Callers hold mu.
func (p *Proxy) unpost(id string) {
	if l := p.letters[id]; l != nil {
		l.timer.Stop()
		delete(p.letters, id)
		p.changed()
	}
}

// deliver tries to write a letter, unless that is being done already: of the couriers there are few.
func (p *Proxy) deliver(l *letter) {
	p.mu.Lock()
	already := l.trying
	l.trying = true
	p.mu.Unlock()
	if already {
		return
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		l.trying = false
		if p.letters[l.run.id] == l {
			p.tryAt(l, l.next)
		}
	}()
	p.couriers <- struct{}{}
	defer func() { <-p.couriers }()
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	p.mu.Lock()
	write := l.run.write
	p.mu.Unlock()
	if err := write.lock(ctx); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.wait(l, err)
		return
	}
	defer write.unlock()
	p.mu.Lock()
	r, batch, caller, late, posts, waits := l.run, l.batch, l.caller, l.late, l.posts, p.letters[l.run.id] == l
	p.mu.Unlock()
	if !waits {
		return
	}
	var err error
	if batch != nil {
		err = p.as(caller, func(c mlflow.Caller) error { return p.client.LogBatch(ctx, c, batch) })
		p.count(err)
	}
	if err == nil && late {
		p.mu.Lock()
		if l.posts == posts {
			l.batch = nil
		}
		p.mu.Unlock()
		err = p.writeLate(ctx, r, caller)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.letters[r.id] != l || l.posts != posts: // later figures were put into it meanwhile, and have their own time
	case err == nil:
		p.log.Info("figures are written now", "run", r.id)
		r.owed = false
		p.unpost(r.id)
	case refused(err):
		p.log.Error("figures could not be written, and are given up", "run", r.id, "error", err)
		r.owed = false
		p.unpost(r.id)
	default:
		p.log.Debug("figures could not be written yet", "run", r.id, "try", l.tries, "error", err)
		p.wait(l, err)
	}
}

// lend gives a run's figures the credentials of a request about it that the server has let pass. What waited for them is
// tried at once, but not more often than at first, however many requests come.
func (p *Proxy) lend(id string, caller mlflow.Caller) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.runs[id]; r != nil {
		r.caller, r.asked = caller, time.Now()
	}
	if l := p.letters[id]; l != nil {
		l.caller = caller
		p.tryAt(l, l.last.Add(firstPause))
	}
}

// as makes a call of our own as a run's caller, and as the proxy itself where the server does not know that one.
func (p *Proxy) as(caller mlflow.Caller, call func(mlflow.Caller) error) error {
	err := call(p.own(caller))
	if unknownCaller(err) && caller.HasCredentials() && p.cfg.Token != "" {
		return call(p.own(caller.Anonymous()))
	}
	return err
}

// own returns who makes calls about a run that no client waits for: its latest caller, or the proxy itself where the
// credentials of that one are not known any more.
func (p *Proxy) own(caller mlflow.Caller) mlflow.Caller {
	if p.cfg.Token == "" || caller.HasCredentials() {
		return caller
	}
	token, err := p.cfg.Token.Token()
	if err != nil {
		p.log.Warn("the proxy has no token of its own now", "error", err)
		return caller
	}
	return caller.WithToken(token)
}

// unknownCaller says that the server asks for other credentials.
func unknownCaller(err error) bool {
	var e *mlflow.APIError
	return errors.As(err, &e) && (e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden)
}

// refused says whether the server will never take a batch. Other credentials may come, and a path that a gateway does not
// know may be there once the server is back: MLflow says of what it does not have itself which error it is.
func refused(err error) bool {
	var e *mlflow.APIError
	if !errors.As(err, &e) || e.StatusCode < 400 || e.StatusCode > 499 || unknownCaller(err) {
		return false
	}
	switch e.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	case http.StatusNotFound:
		return e.Code != ""
	}
	return true
}
