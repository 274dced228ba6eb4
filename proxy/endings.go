package proxy

import (
	"context"
	"fmt"
	"time"

	"mlflow-emissions-proxy/meter"
)

// lookAfter is how often it is looked whether runs are still there. One whose processes are not there twice in a row is
// over: a parent may have ended just when its child began.
const lookAfter = 3 * time.Second

// lookAfterRuns ends the metering of runs that nobody ends until ctx is done: of those whose processes are gone, and of
// those without a process of which nothing has been heard for long. Their status in MLflow stays the client's business.
func (p *Proxy) lookAfterRuns(ctx context.Context) {
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	gone := map[*run]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		runs := make([]*run, 0, len(p.runs))
		for _, r := range p.runs {
			if !r.late && r.ending == 0 { // else somebody sees to it already
				runs = append(runs, r)
			}
		}
		p.mu.Unlock()
		before := gone
		gone = map[*run]bool{}
		for _, r := range runs {
			switch alive := r.session != nil && r.session.Alive(); {
			case !alive && r.session != nil && before[r]:
				p.background(func() { p.leave(r, "its process is gone", time.Time{}) })
			case !alive && r.session != nil:
				gone[r] = true
			case r.session == nil || r.session.Scope() == meter.ScopeMachine:
				if heard := p.heardOf(r); p.cfg.MaxIdle > 0 && time.Since(heard) > p.cfg.MaxIdle {
					p.background(func() {
						p.leave(r, fmt.Sprintf("nothing was heard of it for %s", p.cfg.MaxIdle), heard)
					})
				}
			}
		}
	}
}

// heardOf returns when the latest request about a run came, or about one that is nested in it.
func (p *Proxy) heardOf(r *run) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	heard := r.asked
	for _, o := range p.runs {
		for i, around := 0, o; around != nil && i < len(p.runs); i, around = i+1, p.runs[around.parent] {
			if around == r && o.asked.After(heard) {
				heard = o.asked
			}
		}
	}
	return heard
}

// leave ends the metering of a run that its client has not ended, as of a time that is past unless that is zero, and
// writes what it used until then. Whoever logs to it later takes it up again.
func (p *Proxy) leave(r *run, why string, at time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), orphanTimeout)
	defer cancel()
	if r.write.lock(ctx) != nil {
		return // the next look tries again
	}
	defer r.write.unlock()
	p.mu.Lock()
	goesOn := p.runs[r.id] == r && r.ending == 0
	if goesOn {
		r.left = why
	}
	caller := r.caller
	p.mu.Unlock()
	if !goesOn {
		return
	}
	if r.session != nil && !at.IsZero() {
		r.session.CloseAt(at)
	}
	p.writeFigures(ctx, r, p.own(caller))
	p.log.Warn("a run is metered no longer, though nobody ended it", "run", r.id, "reason", why)
	p.close(r, "left")
}

// isLeft says whether a run that is over was not ended by its client.
func (p *Proxy) isLeft(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.left != ""
}

// takenUp says of a run that somebody went on with for how long it was not metered, where its process may have gone on
// meanwhile.
func (p *Proxy) takenUp(r, old *run) {
	if !p.isLeft(old) || old.session.Scope() != meter.ScopeMachine {
		return
	}
	record := old.session.Record()
	missing := time.Since(record.Segments[len(record.Segments)-1].End)
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.partial == "" {
		r.partial = fmt.Sprintf("%s, and for %.0f s it was not metered", old.left, missing.Seconds())
	}
}

// endedAfterAll makes a run whose metering had ended one that ended as others do: its client, or somebody on MLflow's
// pages, has said so.
func (p *Proxy) endedAfterAll(old *run, x *exchange) {
	if !x.ui {
		p.takenUp(old, old)
	}
	p.mu.Lock()
	old.left = ""
	p.mu.Unlock()
	p.background(func() { p.complete(old, x.caller) })
}
