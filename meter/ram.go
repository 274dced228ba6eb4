package meter

import "fmt"

// newRAMModel reckons memory's power by its use: measured DRAM replaces it where there is any.
func newRAMModel() Sensor { return ramModel{} }

type ramModel struct{}

// wattsPerGiB is Cloud Carbon Footprint's (its methodology, "Memory"): the mean of Crucial's 0.375 W and Micron's
// 0.4083 W per GB of their modules. A module's capacity is binary, its "8 GB" are 8 GiB, and so are the clouds'
// instances' that the figure is used for.
const wattsPerGiB Power = 0.392

// ramBounds: makers' figures differ little, but modules differ by speed, ranks and how busy they are, and a module that
// is mostly empty draws nearly as much as a full one.
var ramBounds = Bounds{Low: 0.5, High: 2}

func (ramModel) Method() string { return "model:resident" }
func (ramModel) Bounds() Bounds { return ramBounds }

// Detail is what doctor shows.
func (ramModel) Detail() string { return fmt.Sprintf("%.3f W per GiB in use", wattsPerGiB) }

// Read is Sensor's.
func (ramModel) Read(l Load) (Energy, error) {
	return Power(float64(l.MemoryUsed) / (1 << 30) * wattsPerGiB.Watts()).Over(l.Elapsed), nil
}
