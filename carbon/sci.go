package carbon

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Embodied is the carbon of making a machine, of which a run carries a share by time: the M of the Software Carbon
// Intensity (ISO/IEC 21031:2024), M = TE x TS x RS.
type Embodied struct {
	Total    Mass          // TE, of the whole machine
	Lifespan time.Duration // over which it is spread
	Method   string        // where the total comes from
}

// Cloud Carbon Footprint's coefficients, from Dell's life-cycle assessment of the PowerEdge R740: a rack server with one
// CPU, and what each further part adds. Memory counts beyond the 16 GB that the base has.
const (
	serverMass  = 1_000_000 // g
	cpuMass     = 100_000
	gpuMass     = 150_000
	memoryMass  = 533_000.0 / 384 // g per GB
	baseMemory  = 16              // GB
	serverYears = 4.0
)

// ParseServer returns the carbon of making a server of a known class, spread over four years: "rack", a rack server with one
// CPU, or what it has, as in "2cpu,8gpu,1024gb". The error names the flag.
func ParseServer(class string) (Embodied, error) {
	has := map[string]float64{"cpu": 1, "gpu": 0, "gb": baseMemory}
	if class != "rack" {
		given := map[string]bool{}
		for _, part := range strings.Split(class, ",") {
			what := strings.TrimLeft(part, "0123456789.")
			n, err := strconv.ParseFloat(strings.TrimSuffix(part, what), 64)
			if _, known := has[what]; err != nil || !known || given[what] || n > 1e6 || what == "cpu" && n < 1 {
				return Embodied{}, fmt.Errorf("--embodied-server: %q is not allowed, only rack or what the server has, for example 2cpu,8gpu,1024gb", class)
			}
			has[what], given[what] = n, true
		}
	}
	g := serverMass + cpuMass*(has["cpu"]-1) + gpuMass*has["gpu"] + memoryMass*max(0, has["gb"]-baseMemory)
	return Embodied{Total: Mass(g), Lifespan: years(serverYears),
		Method: fmt.Sprintf("Cloud Carbon Footprint, rack server with %v CPU, %v GPU, %v GB", has["cpu"], has["gpu"], has["gb"])}, nil
}

// year is the mean one of the Gregorian calendar.
const year = 365.2425 * 24 * float64(time.Hour)

func years(n float64) time.Duration { return time.Duration(n * year) }

// EmbodiedGiven returns what the user says: kg of CO2e for the machine, over a lifespan in years. The error names the flag.
func EmbodiedGiven(kg, lifespanYears float64) (Embodied, error) {
	if !(kg >= 0) || math.IsInf(kg, 0) {
		return Embodied{}, fmt.Errorf("--embodied-kg: %v is not allowed, only kg of CO2e of at least 0", kg)
	}
	if !(lifespanYears > 0 && lifespanYears <= 100) {
		return Embodied{}, fmt.Errorf("--lifespan-years: %v is not allowed, only years above 0 and up to 100", lifespanYears)
	}
	return Embodied{Total: Mass(kg * 1000), Lifespan: years(lifespanYears), Method: "set by --embodied-kg"}, nil
}

// Share returns what a run carries that had a share of the machine, from 0 to 1, for a time.
func (e Embodied) Share(d time.Duration, share float64) Mass {
	if e.Lifespan <= 0 {
		return 0
	}
	return Mass(e.Total.Grams() * (d.Seconds() / e.Lifespan.Seconds()) * min(max(share, 0), 1))
}

// Describe names the method of the embodied part, for a tag.
func (e Embodied) Describe() string {
	return strings.TrimSpace(fmt.Sprintf("%.0f kg over %.3g years (%s)", e.Total.Grams()/1000, e.Lifespan.Seconds()/(year/float64(time.Second)), e.Method))
}
