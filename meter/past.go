package meter

import (
	"slices"
	"time"
)

// past is what a session used, sample by sample: finely of late, and the more coarsely the longer ago it is, so that it
// stays small however long the session lasts. It tells what was used between two moments that are known only later.
type past struct {
	begin   time.Time
	moments []moment
}

// moment is a stretch of the past that ends at end and begins where the one before it ends.
type moment struct {
	end    time.Time
	energy Energies
	level  uint8 // it is made of so many doublings of samples
}

// perLevel is how many moments of a level are kept before the two oldest are joined. What is some time ago is thereby
// known to an eighth of that time or better; a day at a sample a second makes some 250 moments.
const perLevel = 20

// add appends what was used from start to end.
func (p *past) add(start, end time.Time, e Energies) {
	if p.begin.IsZero() {
		p.begin = start
	}
	p.moments = append(p.moments, moment{end: end, energy: e})
	newest := len(p.moments) // of the level looked at; those of higher levels are before it, and older
	for level := uint8(0); ; level++ {
		oldest := newest
		for oldest > 0 && p.moments[oldest-1].level == level {
			oldest--
		}
		if newest-oldest <= perLevel {
			return
		}
		joined := &p.moments[oldest+1]
		joined.energy.Add(p.moments[oldest].energy)
		joined.level++
		p.moments = slices.Delete(p.moments, oldest, oldest+1)
		newest = oldest + 1
	}
}

// between returns what was used from a to b, taking it as evenly used within each moment.
func (p *past) between(a, b time.Time) (e Energies) {
	start := p.begin
	for _, m := range p.moments {
		from, to := latest(a, start), earliest(b, m.end)
		if whole := m.end.Sub(start); whole > 0 && to.After(from) {
			part := Energy(to.Sub(from).Seconds() / whole.Seconds())
			for c := range e {
				e[c] += m.energy[c] * part
			}
		}
		start = m.end
	}
	return e
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// carve gives the time from one moment to another a phase of its own: segments are cut there, and those between are
// relabelled. What the record holds in all stays as it is, and so does the phase in which it goes on.
func (r *Record) carve(from, to time.Time, phase Phase, p *past) {
	first, _ := slices.BinarySearchFunc(r.Segments, from, func(g Segment, at time.Time) int {
		if g.End.After(at) {
			return 1
		}
		return -1
	})
	end := first
	var carved []Segment
	for ; end < len(r.Segments) && r.Segments[end].Start.Before(to); end++ {
		g := r.Segments[end]
		if g.Phase == phase || g.Joined > 0 {
			carved = append(carved, g)
			continue
		}
		before, rest := g.cut(from, p)
		within, after := rest.cut(to, p)
		within.Phase = phase
		goesOn := end == len(r.Segments)-1
		for _, part := range []Segment{before, within, after} {
			if part.End.After(part.Start) || goesOn && part.Phase != phase && part.Start.Equal(g.End) {
				carved = append(carved, part)
			}
		}
	}
	r.Segments = slices.Replace(r.Segments, first, end, carved...)
}

// cut cuts a segment in two at a moment; one of them is empty where that is not inside of it.
func (g Segment) cut(at time.Time, p *past) (before, after Segment) {
	at = latest(g.Start, earliest(g.End, at))
	before, after = Segment{Phase: g.Phase, Start: g.Start, End: at}, Segment{Phase: g.Phase, Start: at, End: g.End}
	for _, s := range g.Slices {
		switch {
		case !s.End.After(at):
			before.Slices = append(before.Slices, s)
		case !s.Start.Before(at):
			after.Slices = append(after.Slices, s)
		default:
			first, second := s.cut(at, p)
			before.Slices, after.Slices = append(before.Slices, first), append(after.Slices, second)
		}
	}
	return before, after
}

// cut cuts a slice in two: in proportion to what was used before and after, as far as that is known, else to time.
func (s Slice) cut(at time.Time, p *past) (first, second Slice) {
	first, second = Slice{Start: s.Start, End: at}, Slice{Start: at, End: s.End}
	known, whole := p.between(s.Start, at), p.between(s.Start, s.End)
	for c, e := range s.Energy {
		part := Energy(at.Sub(s.Start).Seconds() / s.End.Sub(s.Start).Seconds())
		if whole[c] > 0 {
			part = known[c] / whole[c]
		}
		first.Energy[c] = e * part
		second.Energy[c] = e - first.Energy[c]
	}
	return first, second
}
