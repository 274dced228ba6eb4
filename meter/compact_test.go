package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A run that predicts for weeks, each prediction a segment, keeps a record that is small, and all that was used is in it.
func TestManySegmentsAreJoined(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	r := Record{Segments: []Segment{{Phase: Training, Start: start, End: start}}}
	at := start
	var predicted, used Energy
	var predicting time.Duration
	const predictions = 20_000
	var p past
	for n := range predictions {
		from := at
		at = at.Add(time.Second)
		e := Energies{CPU: Energy(n % 7), RAM: 1}
		used += e.Total()
		r.add(from, at, e)
		p.add(from, at, e)
		to := from.Add(time.Duration(n%900) * time.Millisecond)
		r.carve(from, to, Inference, &p)
		predicted += e.Total() * Energy(to.Sub(from).Seconds())
		predicting += to.Sub(from)
		r.compact()
		require.LessOrEqual(t, len(r.Segments), manySegments+2)
	}
	var inferred Energy
	var inferring time.Duration
	slices := 0
	for i, g := range r.Segments {
		slices += len(g.Slices)
		if g.Phase == Inference {
			inferred += g.Energy().Total()
			inferring += g.Duration()
		}
		if i > 0 {
			assert.False(t, g.End.Before(r.Segments[i-1].End), "in order")
		}
	}
	assert.InDelta(t, used.Joules(), r.Energy().Total().Joules(), 1e-6)
	assert.InDelta(t, predicted.Joules(), inferred.Joules(), 1e-6)
	assert.Equal(t, predictions*time.Second, r.Duration())
	assert.Equal(t, predicting, inferring)
	assert.Less(t, slices, 2*manySegments)

	before := r.clone()
	r.carve(start, start.Add(time.Hour), Inference, &past{}) // too long ago
	assert.Equal(t, before.Energy(), r.Energy())
	assert.Equal(t, before.Duration(), r.Duration())
}
