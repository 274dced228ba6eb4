package meter

import "time"

// Energy is an amount of energy in joules.
type Energy float64

// joulesPerKWh is exact: 1 kWh = 1000 W x 3600 s.
const joulesPerKWh = 3.6e6

// Joules returns e in J.
func (e Energy) Joules() float64 { return float64(e) }

// KWh returns e in kWh.
func (e Energy) KWh() float64 { return float64(e) / joulesPerKWh }

// Power is a rate of energy in watts.
type Power float64

// Watts returns p in W.
func (p Power) Watts() float64 { return float64(p) }

// Over returns the energy that p amounts to in d.
func (p Power) Over(d time.Duration) Energy { return Energy(float64(p) * d.Seconds()) }

// Component is a part of the machine whose energy is read on its own.
type Component int

// The components, in the order of Energies.
const (
	CPU Component = iota
	GPU
	RAM
	components
)

// What findings are about besides components; neither is an index of Energies.
const (
	Machine   = components + iota // as a whole, at the wall
	Processes                     // and whose they are
)

// String returns the component's name as it stands in metric and tag names: "cpu", "gpu", "ram";
// "wall" for Machine, "processes" for Processes.
func (c Component) String() string { return [...]string{"cpu", "gpu", "ram", "wall", "processes"}[c] }

// Energies is energy by component, indexed by CPU, GPU and RAM.
type Energies [components]Energy

// Total returns the sum over the components.
func (e Energies) Total() Energy { return e[CPU] + e[GPU] + e[RAM] }

// Add adds o to e, component by component.
func (e *Energies) Add(o Energies) {
	for c := range e {
		e[c] += o[c]
	}
}

// Factors are numbers to multiply energies with, by component.
type Factors [components]float64

// Times returns e, each component times its factor.
func (e Energies) Times(f Factors) Energies {
	for c := range e {
		e[c] *= Energy(f[c])
	}
	return e
}

// FromKWh returns the energy of so many kWh.
func FromKWh(kWh float64) Energy { return Energy(kWh * joulesPerKWh) }
