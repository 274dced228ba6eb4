package proxy

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"mlflow-emissions-proxy/meter"
)

// due is what serving a run's model used and predicted, and the run does not have yet.
type due struct {
	used    totals
	rows    float64
	partial string // why not all of it was measured
	// tried is what emissions/inference_g is if a batch with it has arrived of which that is not known; 0 for none.
	tried float64
}

func (d due) plus(o due) due {
	d.used, d.rows = d.used.plus(o.used), d.rows+o.rows
	d.partial, d.tried = cmp.Or(d.partial, o.partial), cmp.Or(o.tried, d.tried)
	return d
}

// takeIn adds what was used and predicted for a run. Callers hold s.mu.
func (s *Serving) takeIn(run string, d due) { s.due[run] = s.due[run].plus(d) }

// take takes out what is due to a run.
func (s *Serving) take(run string) due {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.due[run]
	delete(s.due, run)
	return d
}

// write adds to the runs what is due to them. A run that goes on gets it when it is over: who trains it writes the same
// metrics. Callers hold s.writing.
func (s *Serving) write(ctx context.Context) {
	s.mu.Lock()
	ids := make([]string, 0, len(s.due))
	for id := range s.due {
		ids = append(ids, id)
	}
	for id := range s.unsure {
		if _, both := s.due[id]; !both {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	for _, id := range ids {
		if s.proxy.find(id) != nil {
			continue
		}
		r, err := s.served(ctx, id)
		if err != nil {
			s.complain("predictions are metered, and their run is not given them", "run", id, "error", err)
			continue
		}
		s.give(r)
	}
}

// give adds to a run what is due to it, and writes its figures. What the server was not heard to take is written with the
// next: it is the run's totals that are written, so that nothing is added twice.
func (s *Serving) give(r *run) {
	p := s.proxy
	d, record := s.take(r.id), r.latest() // which the meter may keep waiting, and with Proxy.mu all requests
	p.mu.Lock()
	if p.runs[r.id] != nil { // it was resumed just now, from what it had
		p.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.takeIn(r.id, d)
		return
	}
	r.base = r.base.plus(d.used)
	r.served += d.rows
	if r.partial == "" && d.partial != "" {
		r.partial = "while it was served: " + d.partial
	}
	d.tried = r.base.plus(p.reckon(record)).inference.Grams()
	p.mu.Unlock()
	p.complete(r, s.cfg.Caller)
	p.mu.Lock()
	owed := r.owed
	p.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if owed {
		s.unsure[r.id] = s.unsure[r.id].plus(d)
	} else {
		delete(s.unsure, r.id)
	}
}

// served returns an ended run as it stands, to go on from. It is kept among those that ended lately, so that what else comes
// late for it goes on from the same figures.
func (s *Serving) served(ctx context.Context, id string) (*run, error) {
	p := s.proxy
	if r, ok := p.ended(id); ok {
		p.finished.SetDefault(id, r)
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	now, err := p.client.Run(ctx, s.cfg.Caller, id)
	if err != nil {
		return nil, err
	}
	if isTrue(now.Tags[tagSkip]) {
		s.take(id)
		return nil, errors.New("it is to be left alone, by its tag emissions.skip")
	}
	r := newRun(id)
	r.base = earlier(now)
	r.final = meter.Record{Scope: p.cfg.Scope}
	r.parent = now.Tags[tagParent]
	r.recall(now)
	r.partial = strings.TrimPrefix(strings.TrimPrefix(now.Tags[tagStatus], statusMeasured), statusPartial) // as it stands
	if r.base.duration == 0 {
		r.base.untrained, r.partial = true, notTrainedHere
	}
	if _, _, ok := r.inferences(now); r.base.inferred && !ok {
		r.uncounted = true
	}
	s.mu.Lock()
	if d := s.due[id]; d.tried > 0 && d.tried == now.Metrics[metricInference].Value {
		delete(s.due, id) // it was taken after all
	}
	s.mu.Unlock()
	p.finished.SetDefault(id, r)
	return r, nil
}
