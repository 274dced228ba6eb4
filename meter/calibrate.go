package meter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"
)

// Point is what a machine drew at one load, on average: by its components' sensors, and at the wall.
type Point struct {
	Busy             int // CPUs that were kept busy
	Components, Wall Power
}

// Calibrate keeps none, a quarter, half, three quarters and all of the CPUs busy, each for as long as hold says, and
// returns what the machine drew. Where it has no power meter of its own, ask is called with what the components drew in
// a step, while the load still is on, and returns what the wall meter shows. settle is how long to wait at each load
// before it counts; begin is called with the number of CPUs when a step begins.
func (m *Meter) Calibrate(ctx context.Context, settle, hold time.Duration, begin func(busy int), ask func(Point) (Power, error)) ([]Point, error) {
	var points []Point
	for quarter := range 5 {
		busy := runtime.NumCPU() * quarter / 4
		if n := len(points); n > 0 && points[n-1].Busy == busy { // fewer than four CPUs
			continue
		}
		begin(busy)
		p, err := m.step(ctx, busy, settle, hold, ask)
		if err != nil {
			return points, err
		}
		points = append(points, p)
	}
	return points, nil
}

// step keeps CPUs busy and takes the mean power of the machine meanwhile.
func (m *Meter) step(ctx context.Context, busy int, settle, hold time.Duration, ask func(Point) (Power, error)) (Point, error) {
	p := Point{Busy: busy}
	ctx, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	for range busy {
		load.Go(func() {
			for x := 1.0; ctx.Err() == nil; {
				for range 100_000 {
					x = math.Sqrt(x + 1)
				}
			}
		})
	}
	if err := m.sampleFor(ctx, settle); err != nil {
		return p, err
	}
	components, wall, began := m.readings()
	if err := m.sampleFor(ctx, hold); err != nil {
		return p, err
	}
	componentsAfter, wallAfter, ended := m.readings()
	seconds := ended.Sub(began).Seconds()
	if seconds <= 0 || componentsAfter <= components {
		return p, errors.New("the components' sensors read nothing; doctor without --calibrate says why")
	}
	p.Components = Power((componentsAfter - components).Joules() / seconds)
	var err error
	if m.wall != nil {
		p.Wall = Power((wallAfter - wall).Joules() / seconds)
	} else {
		p.Wall, err = ask(p)
	}
	return p, err
}

// sampleFor reads the sensors as often as ever for a while, so that no counter wraps unseen.
func (m *Meter) sampleFor(ctx context.Context, d time.Duration) error {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(m.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			m.Sample()
		case <-end.C:
			m.Sample()
			return nil
		}
	}
}

// readings returns the energy since the meter began, by the components' sensors and at the wall, and of when it is.
func (m *Meter) readings() (components, wall Energy, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.components, m.totals.Sensors.Total(), m.lastRead
}

// FitLine returns the line that comes nearest to the points (least squares), and how far it is from them: the mean and
// the largest error, as shares of the wall's power. No machine draws less than nothing while its components rest, so
// the offset is at least 0. Errors say which readings do not make a line.
func FitLine(points []Point) (l Line, mean, largest float64, err error) {
	n := float64(len(points))
	if n < 2 {
		return Line{}, 0, 0, errors.New("a line takes readings at two loads at least")
	}
	var x, y, xx, xy float64
	least, most := points[0].Components, points[0].Components
	for _, p := range points {
		c, w := p.Components.Watts(), p.Wall.Watts()
		if !(w > 0) || math.IsInf(w, 0) {
			return Line{}, 0, 0, fmt.Errorf("%v W is no reading of a machine that runs", w)
		}
		least, most = min(least, p.Components), max(most, p.Components)
		x, y, xx, xy = x+c, y+w, xx+c*c, xy+c*w
	}
	if most < 1.05*least {
		return Line{}, 0, 0, errors.New("the components drew nearly the same at every load: is something else running?")
	}
	l.Slope = (n*xy - x*y) / (n*xx - x*x)
	l.Offset = Power((y - l.Slope*x) / n)
	if l.Offset < 0 {
		l.Slope, l.Offset = xy/xx, 0
	}
	if !(l.Slope > 0) || math.IsInf(l.Slope, 0) {
		return Line{}, 0, 0, errors.New("the wall's readings do not rise with the load: is the meter on this machine's cable, and did it have time to settle?")
	}
	for _, p := range points {
		off := math.Abs(p.Components.Watts()*l.Slope+l.Offset.Watts()-p.Wall.Watts()) / p.Wall.Watts()
		mean, largest = mean+off/n, max(largest, off)
	}
	return l, mean, largest, nil
}
