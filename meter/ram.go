package meter

// ramModel reckons memory's power by its use: measured DRAM replaces it where there is any.
type ramModel struct{}

// wattsPerGiB is Cloud Carbon Footprint's: the mean of two makers' figures for their modules. A module of "8 GB" holds
// 8 GiB, and so do the clouds' instances that the figure is used for.
const wattsPerGiB Power = 0.392

func (ramModel) Method() string { return "model:resident" }
func (ramModel) Bounds() Bounds { return archBounds }

// Read is Sensor's.
func (ramModel) Read(l Load) (Energy, error) {
	return Power(float64(l.MemoryUsed) / (1 << 30) * wattsPerGiB.Watts()).Over(l.Elapsed), nil
}
