package meter

import (
	"slices"
	"time"
)

// manySegments is how many a record may have before its older half is joined: a prediction in it makes two.
const manySegments = 4096

// compact joins the older half of many segments to one for each phase, so that a record stays small and quick to copy
// however often its phase changed. What they held stays as it is: energy by slot, and metered time. Their time can be
// carved no more.
func (r *Record) compact() {
	if len(r.Segments) < manySegments {
		return
	}
	older := r.Segments[:manySegments/2]
	var joined []Segment
	for _, g := range older {
		i := slices.IndexFunc(joined, func(j Segment) bool { return j.Phase == g.Phase })
		if i < 0 {
			i = len(joined)
			joined = append(joined, Segment{Phase: g.Phase, Start: older[0].Start, End: older[len(older)-1].End})
		}
		j := &joined[i]
		j.Joined += g.Duration()
		for _, s := range g.Slices {
			j.put(s)
		}
	}
	r.Segments = slices.Concat(joined, r.Segments[len(older):])
}

// sameSlot says whether energy used from either moment on is kept in the same slot.
func sameSlot(a, b time.Time) bool { return a.Truncate(slot).Equal(b.Truncate(slot)) }
