package proxy

import (
	"context"
	"sync"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// Run does what no request asks for until ctx is done: it logs what running runs have emitted, ends those that nobody
// ends, and keeps all of them in the store, if there is one.
func (p *Proxy) Run(ctx context.Context, store *Store) error {
	var all sync.WaitGroup
	all.Go(func() { p.lookAfterRuns(ctx) })
	if store != nil {
		all.Go(func() { p.keepAll(ctx, store) })
	}
	if p.cfg.LogInterval > 0 {
		all.Go(func() { p.logAll(ctx) })
	}
	all.Wait()
	return nil
}

// logAll logs emissions_g of running runs every LogInterval until ctx is done, so that MLflow's pages show a curve.
func (p *Proxy) logAll(ctx context.Context) {
	// Often enough that a run's turn comes in time, and no oftener: each tick wakes the program up.
	tick := time.NewTicker(max(min(p.cfg.LogInterval, time.Second), p.cfg.LogInterval/10))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, r := range p.due(now) {
				p.background(func() { p.logLive(ctx, r) })
			}
		}
	}
}

// due returns the runs whose emissions_g is to be logged now.
func (p *Proxy) due(now time.Time) []*run {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []*run
	for _, r := range p.runs {
		if r.session != nil && !now.Before(r.nextLog) {
			r.nextLog = now.Add(p.cfg.LogInterval)
			due = append(due, r)
		}
	}
	return due
}

// logLive logs what a running run has emitted so far. It gives way to an update that ends the run.
func (p *Proxy) logLive(ctx context.Context, r *run) {
	select {
	case p.couriers <- struct{}{}:
		defer func() { <-p.couriers }()
	case <-ctx.Done():
		return
	}
	if !r.write.tryLock() {
		return
	}
	defer r.write.unlock()
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	p.mu.Lock()
	r.cancelLive = cancel
	open, caller := p.runs[r.id] == r && r.ending == 0 && !r.isClients(metricEmissions), r.caller
	p.mu.Unlock()
	caller = p.own(caller)
	if !open {
		return
	}
	record := r.session.Record()
	if !p.knows(r, record) {
		return
	}
	t := r.base.plus(p.reckon(record))
	m := mlflow.Metric{Key: metricEmissions, Value: t.emissions().Grams()}
	p.mu.Lock()
	m.Step, m.Timestamp = r.stepAt(t.duration, time.Now())
	r.wrote(m.Key, m.Value)
	p.mu.Unlock()
	batch, err := mlflow.Batch(r.id, []mlflow.Metric{m}, p.origin()) // which says, even after a crash, that it is ours
	if err != nil {
		return
	}
	err = p.client.LogBatch(ctx, caller, batch)
	p.count(err)
	if err != nil {
		p.log.Debug("live figure could not be logged", "run", r.id, "error", err)
		return
	}
	p.mu.Lock()
	r.ours[m.Key] = []float64{m.Value} // by its step it is what the server shows from now on
	p.mu.Unlock()
}

// Drain says not ready from now on, logs what the runs that go on have used so far, and waits for all that is still
// being written, at most until ctx is done. It is called when no more requests come in.
func (p *Proxy) Drain(ctx context.Context) {
	p.NotReady()
	p.mu.Lock()
	runs := make([]*run, 0, len(p.runs))
	for _, r := range p.runs {
		runs = append(runs, r)
	}
	var letters []*letter
	for _, l := range p.letters {
		l.timer.Stop()
		letters = append(letters, l)
	}
	p.mu.Unlock()
	for _, r := range runs {
		p.background(func() {
			p.mu.Lock()
			was := r.partial
			if was == "" { // as long as no other proxy takes it up
				r.partial = "the proxy was stopped while the run went on"
			}
			caller := r.caller
			p.mu.Unlock()
			defer func() {
				p.mu.Lock()
				r.partial = was
				p.mu.Unlock()
			}()
			if r.write.lock(ctx) == nil {
				defer r.write.unlock()
				p.writeFigures(ctx, r, p.own(caller))
			}
		})
	}
	for _, l := range letters {
		p.background(func() { p.deliver(l) }) // once more
	}
	done := make(chan struct{})
	go func() { p.writers.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		p.log.Error("some figures were not written in time")
	}
}

// NotReady makes /readyz say 503, so that no new clients are sent here.
func (p *Proxy) NotReady() { p.drain() }

// slotLock is a mutex that can be waited for with a deadline.
type slotLock chan struct{}

func newSlotLock() slotLock { return make(slotLock, 1) }

func (l slotLock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l slotLock) tryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l slotLock) unlock() { <-l }
