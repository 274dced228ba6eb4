package proxy

import (
	"context"
	"slices"
	"time"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// ended returns a run that was measured and ended within the late window, or whose figures are not in yet.
func (p *Proxy) ended(id string) (*run, bool) {
	r := p.latest(id)
	if r == nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.whyNot() != "" { // it waits to say so, and has no figures that could be completed
		return nil, false
	}
	return r, true
}

// latest returns a run that ended, measured or not, as long as it is known or something is still to be written into it.
func (p *Proxy) latest(id string) *run {
	if r, ok := p.finished.Get(id); ok {
		return r.(*run)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.letters[id]; l != nil {
		return l.run
	}
	return nil
}

// loggedLate looks at what is logged to a run that is not metered now, since it ended: an accuracy or a count completes
// its ratios, and the tag that it predicts from now on begins a segment.
func (p *Proxy) loggedLate(x *exchange, id string, l entries) {
	for _, t := range l.tags {
		if t.Key == tagPhase && phaseOf(t.Value) == meter.Inference {
			p.predictsLate(x, id)
			return
		}
	}
	r, ok := p.ended(id)
	if !ok || x.foreign {
		return
	}
	p.heard(r, l.tags)
	if p.isLeft(r) && len(l.metrics) > 0 && !x.ui { // for the server it goes on
		p.resume(x, id)
		return
	}
	matters := slices.ContainsFunc(l.metrics, func(m mlflow.Metric) bool { return p.matters(r, m.Key) }) ||
		slices.ContainsFunc(l.tags, func(t mlflow.Tag) bool { return t.Key == tagInferences || t.Key == tagAccuracyMetric })
	if matters {
		p.complete(r, x.caller)
	}
}

// matters says whether a metric that comes late may change a run's ratios.
func (p *Proxy) matters(r *run, key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return mayBeAccuracy(key) || slices.Contains(ratios, key) || slices.Contains(r.wanted, key)
}

// complete writes what has changed of an ended run's figures by what came late.
func (p *Proxy) complete(r *run, caller mlflow.Caller) {
	ctx, cancel := context.WithTimeout(context.Background(), orphanTimeout) // nobody waits for it for as long
	defer cancel()
	if err := r.write.lock(ctx); err != nil { // something else is written into it, to a server that is slow
		if now, waiting := p.ended(r.id); waiting && now == r {
			p.post(r, nil, caller, err)
		}
		return
	}
	defer r.write.unlock()
	if now, waiting := p.ended(r.id); !waiting || now != r {
		return
	}
	p.mu.Lock()
	r.owed, r.completing = true, false
	p.mu.Unlock()
	err := p.writeLate(ctx, r, caller)
	if err != nil {
		p.log.Warn("what came late could not be written", "run", r.id, "error", err)
		if !refused(err) {
			p.post(r, nil, caller, err)
			return
		}
	}
	p.mu.Lock()
	r.owed = false
	p.mu.Unlock()
}

// writeLate does complete's work. Callers hold r.write.
func (p *Proxy) writeLate(ctx context.Context, r *run, caller mlflow.Caller) error {
	if p.find(r.id) != nil { // it goes on: its figures will have all in them
		return nil
	}
	var now mlflow.Run
	err := p.as(caller, func(c mlflow.Caller) (err error) {
		now, err = p.readForFigures(ctx, c, r.id)
		return err
	})
	if err != nil {
		return err
	}
	if now.Tags[tagRecomputed] != "" { // by the user's wish, with another intensity than ours
		p.finished.Delete(r.id)
		return nil
	}
	record := r.latest()
	p.mu.Lock()
	r.unread = false
	r.noticeClients(now)
	f := p.figuresOf(r, record, &now, time.Now())
	f.leaveOut(now)
	for k, v := range f.values {
		r.wrote(k, v)
	}
	p.mu.Unlock()
	if len(f.metrics)+len(f.tags) == 0 {
		return nil
	}
	batch, err := mlflow.Batch(r.id, f.metrics, f.tags)
	if err != nil {
		return err
	}
	err = p.as(caller, func(c mlflow.Caller) error { return p.client.LogBatch(ctx, c, batch) })
	p.count(err)
	return err
}

// latest returns what an ended run used. One that is only served has no session here.
func (r *run) latest() meter.Record {
	if r.session == nil {
		return r.final
	}
	return r.session.Record()
}

// leaveOut drops what stands in the run as it is.
func (f *figures) leaveOut(now mlflow.Run) {
	f.metrics = slices.DeleteFunc(f.metrics, func(m mlflow.Metric) bool {
		there, ok := now.Metrics[m.Key]
		return ok && there.Value == m.Value
	})
	f.tags = slices.DeleteFunc(f.tags, func(t mlflow.Tag) bool {
		there, ok := now.Tags[t.Key]
		return ok && there == t.Value
	})
}
