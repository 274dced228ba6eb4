// Package carbon turns energy into grams of CO2-equivalent: where the electricity comes from, its carbon intensity over time,
// and the data centre's overhead. It knows nothing of runs.
//
// A reader who follows one figure reads supply.go, then place.go and locate.go (where), feed.go (when) and
// electricitymaps.go, watttime.go and gb.go (from whom).
package carbon

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
