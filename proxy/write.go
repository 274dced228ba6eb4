package proxy

import (
	"context"
	"slices"
	"strings"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// writeFigures fixes what the run has used and writes it before ctx is done. A failure is logged and kept for a later
// try: the client's update goes on. Callers hold r.write.
func (p *Proxy) writeFigures(ctx context.Context, r *run, caller mlflow.Caller) {
	batch, err := p.batch(ctx, r, caller)
	if err == nil {
		err = p.client.LogBatch(ctx, caller, batch)
	}
	p.count(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	r.done, r.pending, r.failed = true, nil, err
	switch {
	case err == nil:
		r.caller = caller // else it is not known whether who asks may do so at all
		p.unpost(r.id)
	case refused(err):
		p.log.Error("figures could not be written", "run", r.id, "error", err)
	default:
		p.log.Warn("figures could not be written yet", "run", r.id, "error", err)
		r.pending = batch
	}
}

// batch works the run's figures out and encodes them once: retries send the same bytes, which MLflow then drops as
// duplicates.
func (p *Proxy) batch(ctx context.Context, r *run, caller mlflow.Caller) ([]byte, error) {
	p.mu.Lock()
	why, rests := r.whyNot(), r.rests
	p.mu.Unlock()
	if why != "" {
		return mlflow.Batch(r.id, nil, append([]mlflow.Tag{{Key: tagStatus, Value: why}}, p.origin()...))
	}
	at := time.Now()
	fixed := r.session.Stop
	if rests { // it is fixed already
		fixed = r.session.Record
	}
	record := fixed()
	// Half of the time at most: the figures matter more than what they are compared with.
	deadline, _ := ctx.Deadline()
	reading, cancel := context.WithDeadline(ctx, at.Add(deadline.Sub(at)/2))
	defer cancel()
	run, err := p.readForFigures(reading, caller, r.id)
	now := &run
	if err != nil {
		p.log.Warn("cannot read the run; its ratios are left out", "run", r.id, "error", err)
		now = nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now != nil {
		r.noticeClients(run)
	}
	r.unread = now == nil
	f := p.figuresOf(r, record, now, at)
	p.forParent(r, now)
	for k, v := range f.values {
		r.wrote(k, v)
	}
	return mlflow.Batch(r.id, f.metrics, f.tags)
}

// wrote remembers what we write under a name that the client could use, too. An attempt may fail without our knowing
// whether the server took it, so all are kept until one is known to be there.
func (r *run) wrote(key string, v float64) { r.ours[key] = append(r.ours[key], v) }

func (p *Proxy) count(err error) {
	if err != nil {
		p.metrics.failed.Inc()
	} else {
		p.metrics.written.Inc()
	}
}

// stepAt returns the step and the time, in ms since 1970, of what is written now. Neither goes back, whatever the clock
// does: of a metric's values MLflow shows the one of the largest step, and of those the latest. Callers hold Proxy.mu.
func (r *run) stepAt(metered time.Duration, now time.Time) (step, stamp int64) {
	r.step, r.stamp = max(r.step, int64(metered.Seconds())), max(r.stamp+1, now.UnixMilli())
	return r.step, r.stamp
}

// isClients says whether the client logs a metric of this name itself.
func (r *run) isClients(key string) bool { return r.clients[key] }

// clientsOwn lists those names, as far as we would write them.
func (p *Proxy) clientsOwn(r *run) string {
	var own []string
	for _, key := range ratios {
		if r.clients[key] && p.isWritten(key) {
			own = append(own, key)
		}
	}
	return strings.Join(own, ", ")
}

// keepClients takes over which of the names are the client's own, by the tag that says so.
func (r *run) keepClients(tags map[string]string) {
	for _, key := range clientsMetrics(tags) {
		if slices.Contains(ratios, key) {
			r.clients[key] = true
		}
	}
}

// noticeClients finds metrics under our names that we did not write: they are the client's.
func (r *run) noticeClients(now mlflow.Run) {
	for _, key := range ratios {
		m, there := now.Metrics[key]
		if there && !slices.Contains(r.ours[key], m.Value) {
			r.clients[key] = true
		}
	}
}

// recall takes over what earlier sessions of a resumed run wrote.
func (r *run) recall(now mlflow.Run) {
	r.keepClients(now.Tags)
	if now.Tags[tagVersion] != "" {
		for _, key := range ratios {
			if m, ok := now.Metrics[key]; ok && !r.clients[key] {
				r.wrote(key, m.Value)
				r.step, r.stamp = max(r.step, m.Step), max(r.stamp, m.Timestamp)
			}
		}
	}
	r.count.recall(now)
	if now.Tags[tagVersion] != "" && now.Tags[tagStatus] == "" && r.partial == "" {
		r.partial = beforeResumed + "the proxy ended while the run went on"
	}
	r.inherit(now.Tags[tagStatus])
}

// inherit takes over what was not measured of a run before.
func (r *run) inherit(status string) {
	if status == "" || status == statusMeasured || r.partial != "" {
		return
	}
	r.partial = strings.TrimPrefix(status, statusPartial)
	if !strings.HasPrefix(r.partial, beforeResumed) && !strings.HasPrefix(r.partial, sinceResumed) {
		r.partial = beforeResumed + r.partial
	}
}
