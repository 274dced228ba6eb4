package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

// A reading that spans an edge of two slots was put into the first of them, so that up to a whole interval's energy was
// multiplied with the intensity of the period before.
func TestEnergyIsCutAtTheEdgesOfSlots(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := time.Date(2026, 11, 25, 11, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "start")))
		r := Record{Segments: []Segment{{Start: at, End: at}}}
		var whole Energies
		watts := rapid.Float64Range(0, 500).Draw(t, "watts")
		for range rapid.IntRange(1, 20).Draw(t, "readings") {
			end := at.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "interval")))
			joules := Energy(watts * end.Sub(at).Seconds())
			e := Energies{CPU: joules, RAM: joules / 3}
			whole.Add(e)
			r.add(at, end, e)
			at = end
		}
		got := r.Energy()
		for c := range whole {
			assert.InDelta(t, whole[c].Joules(), got[c].Joules(), 1e-9*(1+whole[c].Joules()), "nothing is lost")
		}
		var before time.Time
		for _, s := range r.Segments[0].Slices {
			assert.False(t, s.End.After(s.Start.Truncate(slot).Add(slot)), "no slice goes over an edge")
			assert.False(t, s.Start.Before(before), "slices come in order")
			before = s.End
			assert.InDelta(t, watts*s.End.Sub(s.Start).Seconds(), s.Energy[CPU].Joules(), 1e-6, "an even load stays even")
		}
		assert.True(t, r.Segments[0].End.Equal(at))
	})
}

// The clock may be set while an interval lasts; the share of a slot was then beyond 1.
func TestAClockThatIsSetLosesNoEnergy(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		r := Record{Segments: []Segment{{Start: start, End: start}}}
		// A reading one second later by the monotonic clock cannot be made by hand; by the wall's it is an hour off.
		r.add(start, start.Round(0).Add(step), Energies{CPU: 100})
		assert.InDelta(t, 100, r.Energy()[CPU].Joules(), 1e-9)
		for _, s := range r.Segments[0].Slices {
			assert.GreaterOrEqual(t, s.Energy[CPU].Joules(), 0.0)
		}
	}
}
