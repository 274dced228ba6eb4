// Package carbon turns energy into grams of CO2-equivalent: where the electricity comes from, its carbon intensity over time,
// and the data centre's overhead. It knows nothing of runs.
package carbon

import (
	"fmt"
	"math"
	"time"
)

// Intensity is the carbon intensity of electricity in gCO2e/kWh.
type Intensity float64

// GPerKWh returns i in gCO2e/kWh.
func (i Intensity) GPerKWh() float64 { return float64(i) }

// Emitted returns what so many kWh emit.
func (i Intensity) Emitted(kWh float64) Mass { return Mass(float64(i) * kWh) }

// Mass is a mass of CO2-equivalent in grams.
type Mass float64

// Grams returns m in g.
func (m Mass) Grams() float64 { return float64(m) }

// Supply is the electricity that a machine runs on.
type Supply struct {
	place     Place
	intensity Intensity
	source    string
	pue       float64
}

// NewSupply returns the electricity of a place. forced, in gCO2e/kWh, and pue win over what the place has; nil leaves
// them to it. The error names the flag that is out of its range.
func NewSupply(place Place, forced, pue *float64) (*Supply, error) {
	s := &Supply{place: place, intensity: place.Intensity, source: place.Source, pue: 1}
	if forced != nil {
		if !(*forced >= 0) || math.IsInf(*forced, 0) {
			return nil, fmt.Errorf("--carbon-intensity: %v is not allowed, only a number of gCO2e/kWh of at least 0", *forced)
		}
		s.intensity, s.source = Intensity(*forced), "set by --carbon-intensity"
	}
	if place.PUE >= 1 {
		s.pue = place.PUE
	}
	if pue != nil {
		if !(*pue >= 1) || math.IsInf(*pue, 0) {
			return nil, fmt.Errorf("--pue: %v is not allowed, only a number of at least 1", *pue)
		}
		s.pue = *pue
	}
	return s, nil
}

// Place returns where the electricity comes from.
func (s *Supply) Place() Place { return s.place }

// PUE returns the power usage effectiveness: the data centre's energy / the machine's.
func (s *Supply) PUE() float64 { return s.pue }

// Intensity returns the carbon intensity at a time, and where the value comes from.
func (s *Supply) Intensity(time.Time) (Intensity, string) { return s.intensity, s.source }

// Emissions returns what kWh, used by a machine from start to end, emit: times PUE, times the intensity of that time.
func (s *Supply) Emissions(start, _ time.Time, kWh float64) Mass {
	intensity, _ := s.Intensity(start)
	return intensity.Emitted(kWh * s.pue)
}
