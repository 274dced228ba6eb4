package meter

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFitLine(t *testing.T) {
	t.Parallel()
	at := func(pairs ...[2]float64) (points []Point) {
		for _, p := range pairs {
			points = append(points, Point{Components: Power(p[0]), Wall: Power(p[1])})
		}
		return points
	}
	l, mean, largest, err := FitLine(at([2]float64{10, 68.2}, [2]float64{100, 169}, [2]float64{200, 281}))
	require.NoError(t, err)
	assert.InDelta(t, 1.12, l.Slope, 1e-9)
	assert.InDelta(t, 57, l.Offset.Watts(), 1e-9)
	assert.InDelta(t, 0, mean, 1e-9)
	assert.InDelta(t, 0, largest, 1e-9)

	l, mean, largest, err = FitLine(at([2]float64{10, 60}, [2]float64{20, 80}, [2]float64{30, 60}, [2]float64{40, 80}))
	require.NoError(t, err)
	assert.InDelta(t, 0.4, l.Slope, 1e-9)
	assert.InDelta(t, 60, l.Offset.Watts(), 1e-9)
	assert.Greater(t, largest, mean)
	assert.InDelta(t, (4/60.+12/80.+12/60.+4/80.)/4, mean, 1e-9)

	l, _, _, err = FitLine(at([2]float64{10, 10}, [2]float64{20, 30}))
	require.NoError(t, err)
	assert.Zero(t, l.Offset, "an offset below zero is noise")
	assert.InDelta(t, 1.4, l.Slope, 1e-9)

	for _, bad := range [][]Point{nil, at([2]float64{10, 60}), at([2]float64{10, 60}, [2]float64{20, 50}), at([2]float64{10, 60}, [2]float64{10, 60}),
		at([2]float64{10, 60}, [2]float64{20, 0}), at([2]float64{10, 60}, [2]float64{20, math.NaN()}), at([2]float64{10, 60}, [2]float64{20, math.Inf(1)})} {
		_, _, _, err := FitLine(bad)
		assert.Error(t, err, bad)
	}
}

// rising draws more at each reading: a machine under more and more load, however busy the one is that the test runs on.
type rising struct{ fakeSensor }

func (r *rising) Read(l Load) (Energy, error) {
	r.idle++
	return r.fakeSensor.Read(l)
}

// The steps of load are real; what they draw and the wall's readings are made up, and the line is found again.
func TestCalibrate(t *testing.T) {
	t.Parallel()
	m := New(Config{Logger: slog.New(slog.DiscardHandler), Interval: 10 * time.Millisecond})
	defer m.Close()
	m.wall, m.cpu = nil, &rising{}
	var begun []int
	begin := func(busy int) { begun = append(begun, busy) }
	points, err := m.Calibrate(t.Context(), 0, 50*time.Millisecond, begin, func(p Point) (Power, error) { return 1.25*p.Components + 30, nil })
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(points), 2)
	assert.Len(t, begun, len(points))
	assert.Zero(t, points[0].Busy)
	assert.Greater(t, points[len(points)-1].Components, points[0].Components)
	l, _, largest, err := FitLine(points)
	require.NoError(t, err)
	assert.InDelta(t, 1.25, l.Slope, 1e-6)
	assert.InDelta(t, 30, l.Offset.Watts(), 1e-6)
	assert.InDelta(t, 0, largest, 1e-6)

	m.wall = fakeWall{} // a meter of its own need not be asked for
	points, err = m.Calibrate(t.Context(), 0, 50*time.Millisecond, begin, nil)
	require.NoError(t, err)
	l, _, _, err = FitLine(points)
	require.NoError(t, err)
	assert.InDelta(t, 1.5, l.Slope, 1e-6)
	assert.InDelta(t, 10, l.Offset.Watts(), 1e-6)

	m.wall = nil
	_, err = m.Calibrate(t.Context(), 0, 20*time.Millisecond, begin, func(Point) (Power, error) { return 0, errors.New("no more") })
	assert.ErrorContains(t, err, "no more")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Calibrate(ctx, 0, time.Minute, begin, nil)
	assert.ErrorIs(t, err, context.Canceled)
}
