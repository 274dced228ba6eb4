package proxy

import (
	"context"
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
	r := p.another(id)
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
		p.mu.Lock()
		goesOn, wentOn, active, rests, caller := p.runs[r.id] == r && r.late, r.wentOn, r.asked, r.rests, r.caller
		p.mu.Unlock()
		if !goesOn {
			return
		}
		if r.session.Opener() == predictor {
			stayed++
		} else if stayed > 1 || predictor == trainer || wentOn {
			alive = false
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
