package proxy

import (
	"context"
	"slices"
	"time"

	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// lateIdle is how long predictions after a run's end are waited for, once its process rests: notebooks stay open for days.
const lateIdle = 5 * time.Minute

// restAfter is how long a process must do nothing to be taken as resting: some samples.
const restAfter = 3 * time.Second

// notTrainedHere is said of a run whose predictions are metered, and whose training was not.
const notTrainedHere = "its training was not metered here"

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

// predictsLate meters predictions after a run's end: the energy of the process that says so is the run's from now on, and
// changes nothing of what its training emitted.
func (p *Proxy) predictsLate(x *exchange, id string) {
	if x.foreign || x.ui { // a browser predicts nothing
		return
	}
	old, _ := p.ended(id)
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	now, err := p.client.Run(ctx, x.caller, id)
	if err != nil || !isFinal(now.Status) {
		return
	}
	session, why := p.open(x, id, now.Tags[tagParent])
	if session == nil {
		p.log.Warn("predictions after the run's end cannot be metered", "run", id, "reason", why)
		if old != nil {
			p.mu.Lock()
			old.partial = "predictions after its end: " + why
			p.mu.Unlock()
			p.complete(old, x.caller)
		}
		return
	}
	r := newRun(id)
	if last := p.latest(id); last != nil {
		r.write = last.write
	}
	r.session, r.caller, r.asked, r.late, r.byTag, r.lateBy = session, x.caller, time.Now(), true, meter.Inference, x.conn
	session.Confine()
	session.Carve(time.Time{}, session.Switch(meter.Inference), meter.Inference)
	if old != nil {
		p.follow(r, old)
	} else {
		r.base = earlier(now)
		r.recall(now)
		if r.base.duration == 0 {
			r.base.untrained, r.partial = true, notTrainedHere
		}
	}
	p.schedule(r)
	p.mu.Lock()
	known := p.runs[id]
	if known == nil {
		p.runs[id] = r
	}
	p.mu.Unlock()
	if known != nil { // said twice at once
		session.Close()
		return
	}
	p.finished.Delete(id)
	p.supersede(r)
	p.changed()
	p.log.Info("run predicts after its end", "run", id, "scope", session.Scope())
	trainer := meter.Process{}
	if old != nil && old.session != nil {
		trainer = old.session.Opener()
	}
	go p.guard(func() { p.watchLate(r, trainer) })
}

// follow makes r go on from where an ended session of the same run stood.
func (p *Proxy) follow(r, old *run) {
	record := old.latest()
	p.mu.Lock()
	defer p.mu.Unlock()
	r.base = old.base.plus(p.reckon(record))
	r.parent, r.count, r.ours, r.clients, r.wanted = old.parent, old.count, old.ours, old.clients, old.wanted
	r.step, r.stamp = old.step, old.stamp
	r.inherit(old.status(record))
}

// watchLate ends the metering of predictions after a run's end when its process is gone, or has rested for long. What it
// uses while it rests counts only if it goes on. A shell's script may stand in for a process that was there only to say
// that the predictions begin: not for the one that trained, nor for one that went on after it had said so. Who counts what
// it predicted over the connection on which it said so did go on, however short it was.
func (p *Proxy) watchLate(r *run, trainer meter.Process) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	predictor, stayed := r.session.Opener(), 0
	for {
		select {
		case <-p.draining.Done():
			return
		case <-tick.C:
		}
		alive := r.session.Alive()
		if r.session.Opener() == predictor {
			stayed++
		} else if stayed > 1 || predictor == trainer || p.wentOn(r) {
			alive = false
		}
		p.mu.Lock()
		goesOn, active, rests, caller := p.runs[r.id] == r && r.late, r.asked, r.rests, r.caller
		p.mu.Unlock()
		if !goesOn {
			return
		}
		if worked := r.session.Active(); worked.After(active) {
			active = worked
		}
		switch idle := time.Since(active); {
		case !alive || idle > lateIdle:
			p.endLate(r, caller)
			return
		case idle > restAfter && !rests:
			p.rest(r, true)
		case idle <= restAfter && rests:
			p.rest(r, false)
		}
	}
}

// wake takes back that a run rests: a client's request about it says that it did not, where it shares the machine. What
// a process does is seen by itself.
func (p *Proxy) wake(r *run) {
	p.mu.Lock()
	rests := r.rests
	p.mu.Unlock()
	if rests && r.session.Scope() == meter.ScopeMachine {
		p.rest(r, false)
	}
}

// wentOn says whether the process that said that the predictions begin has logged to the run since then.
func (p *Proxy) wentOn(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.wentOn
}

// rest fixes what a run has used as of now, or takes that back.
func (p *Proxy) rest(r *run, rests bool) {
	if rests {
		r.session.Stop()
	} else {
		r.session.Continue()
	}
	p.mu.Lock()
	r.rests = rests
	p.mu.Unlock()
}

// endLate ends the metering of predictions after a run's end, and writes what they used.
func (p *Proxy) endLate(r *run, caller mlflow.Caller) {
	ctx, cancel := context.WithTimeout(context.Background(), orphanTimeout)
	defer cancel()
	if r.write.lock(ctx) != nil {
		return
	}
	p.mu.Lock()
	goesOn := p.runs[r.id] == r && r.late && r.ending == 0
	p.mu.Unlock()
	if goesOn {
		p.writeFigures(ctx, r, caller)
	}
	r.write.unlock()
	if goesOn {
		p.close(r, "predicted")
	}
}

// supersede ends predictions after a run's end whose process has gone on to a run of its own.
func (p *Proxy) supersede(by *run) {
	opener := by.session.Opener()
	p.mu.Lock()
	var over []*run
	for _, r := range p.runs {
		if r != by && r.late && r.session.Opener() == opener && opener != (meter.Process{}) {
			over = append(over, r)
		}
	}
	p.mu.Unlock()
	for _, r := range over {
		r.session.Stop()
		p.mu.Lock()
		caller := r.caller
		r.rests = true
		p.mu.Unlock()
		p.background(func() { p.endLate(r, caller) })
	}
}
