package carbon

import (
	"slices"
	"time"
)

// series is intensity over time as a provider told it: figures in order of time, which do not overlap.
type series struct{ factors []Factor }

// put adds a figure. Where there is one already the new one takes its place, as a measurement does that comes late and
// corrects a forecast.
func (s *series) put(f Factor) {
	if !f.Start.Before(f.End) {
		return
	}
	first, _ := slices.BinarySearchFunc(s.factors, f.Start, func(o Factor, t time.Time) int {
		if o.End.After(t) {
			return 1
		}
		return -1
	}) // the first that ends after f begins
	last := first
	var around []Factor // what is left of those that f overlaps
	for ; last < len(s.factors) && s.factors[last].Start.Before(f.End); last++ {
		old := s.factors[last]
		if old.Start.Before(f.Start) {
			left := old
			left.End = f.Start
			around = append(around, left)
		}
		if old.End.After(f.End) {
			right := old
			right.Start = f.End
			around = append(around, right)
		}
	}
	at := 0
	if len(around) > 0 && around[0].Start.Before(f.Start) {
		at = 1
	}
	s.factors = slices.Replace(s.factors, first, last, slices.Insert(around, at, f)...)
}

// find returns the figure of a time; before is the one before it and after the one after it where there is none.
func (s *series) find(t time.Time) (at, before, after *Factor) {
	i, _ := slices.BinarySearchFunc(s.factors, t, func(o Factor, t time.Time) int {
		if o.End.After(t) {
			return 1
		}
		return -1
	})
	if i < len(s.factors) {
		if f := &s.factors[i]; !f.Start.After(t) {
			return f, nil, nil
		}
		after = &s.factors[i]
	}
	if i > 0 {
		before = &s.factors[i-1]
	}
	return nil, before, after
}

// forget drops what ended before t.
func (s *series) forget(t time.Time) {
	n := 0
	for n < len(s.factors) && !s.factors[n].End.After(t) {
		n++
	}
	s.factors = slices.Delete(s.factors, 0, n)
}
