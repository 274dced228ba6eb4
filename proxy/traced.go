package proxy

import (
	"maps"
	"slices"
)

// tracedCount counts a run's predictions by its traces. It stays small however many there are.
type tracedCount struct {
	by          map[string]float64 // by who told of them
	seen        recent
	evaluations []span      // when mlflow.models.evaluate predicted, and counted that itself
	undecided   []undecided // counted since what may turn out to be an evaluation began
}

// undecided is a prediction that was counted, and must not be if an evaluation counts it as well.
type undecided struct {
	span
	source string
}

// manyTraces is how many of the latest traces are remembered, once or twice so many: a client that got no answer sends a
// trace again within minutes.
const manyTraces = 1 << 16

// recent remembers the latest ids.
type recent struct{ young, old map[string]struct{} }

// add reports whether an id is new.
func (r *recent) add(id string) bool {
	_, young := r.young[id]
	_, old := r.old[id]
	if young || old {
		return false
	}
	if r.young == nil || len(r.young) >= manyTraces {
		r.young, r.old = map[string]struct{}{}, r.young
	}
	r.young[id] = struct{}{}
	return true
}

func newTracedCount() tracedCount { return tracedCount{by: map[string]float64{}} }

// add counts root spans that did not come before. maybe says that an evaluation may be going on. It returns the new ones.
func (c *tracedCount) add(source string, spans []span, maybe bool) (fresh []span) {
	for _, s := range spans {
		if !c.seen.add(s.trace) {
			continue
		}
		fresh = append(fresh, s)
		if slices.ContainsFunc(c.evaluations, s.within) {
			continue
		}
		c.by[source]++
		if maybe && len(c.undecided) < manyTraces {
			c.undecided = append(c.undecided, undecided{s, source})
		}
	}
	return fresh
}

// evaluated takes out what an evaluation has counted: a model that is traced while it is evaluated predicts no more for that.
func (c *tracedCount) evaluated(when span) {
	c.evaluations = append(c.evaluations, when)
	for _, s := range c.undecided {
		if s.within(when) {
			c.by[s.source]--
		}
	}
	c.undecided = nil
}

// sources lists who told of predictions.
func (c *tracedCount) sources() []string { return slices.Sorted(maps.Keys(c.by)) }

// within says whether most of a span is in another. Traces tell time in milliseconds.
func (s span) within(other span) bool {
	middle := s.start.Add(s.end.Sub(s.start) / 2)
	return middle.After(other.start) && middle.Before(other.end)
}
