package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/stretchr/testify/require"
)

// silicon is a CPU with its memory: it draws power by a law of its own, shows it (or not) in counters, and keeps the
// true energy of each owner. A Meter reads it.
type silicon struct {
	name    string
	sysfs   string
	power   func(busy float64) float64 // W of the CPU with so many threads busy; power(0) is idle
	weights [simOwners]float64         // dynamic power of an owner's CPU time, against the others'
	zones   []*simZone                 // RAPL's; none where there is no RAPL
	meter   *Meter
	runs    map[simOwner]*Session

	counting bool // the runs are open
	// truth is by definition: the dynamic power at each moment goes to those who work at that moment, and the idle power
	// of each second to those who worked in that second, both by CPU time.
	cpu       [simOwners]float64
	cpuAtOnce [simOwners]float64 // the same, but the idle power of each 10 ms goes to those who work in these
	machine   float64            // the CPU's, whoever used it, since the Meter began
	ram       [simOwners]float64 // DRAM's power goes by resident memory, as every process shows it
	ramUnique [simOwners]float64 // the same, with what several processes share counted once

	second     [simOwners]float64 // CPU seconds in the current second
	secondIdle float64            // J of idle power in the current second
}

type simZone struct {
	dir, name string
	part      float64 // of the CPU's or the DRAM's energy
	dram      bool
	energy    float64 // J, with noise
	offset    uint64  // uJ at the beginning
	wrapAt    uint64  // uJ
	wrapped   bool
	power     float64 // W in the last step
	shown     uint64  // uJ, before the wrap
}

// dramPower is 4 modules of 16 GiB: 1.5 W each, and more the more the CPUs work.
func dramPower(busy float64) float64 { return 6 + 0.25*busy }

func (c *silicon) step(s *simulated, l simLoad) {
	dt, busy := simStep.Seconds(), l.busy()
	idle := c.power(0)
	weighted := 0.0
	for o, cpus := range l.cpus {
		weighted += cpus * c.weights[o]
	}
	dynamic := (c.power(busy) - idle) * weighted / busy
	dram := dramPower(busy)
	for _, z := range c.zones {
		z.power = z.part * (idle + dynamic)
		if z.dram {
			z.power = z.part * dram
		}
		z.energy += z.power * dt * (1 + 0.02*s.rng.NormFloat64())
	}
	c.machine += (idle + dynamic) * dt
	if !c.counting {
		return
	}
	c.secondIdle += idle * dt
	used := float64(l.used)
	for o := range l.cpus {
		own := dynamic * dt * l.cpus[o] * c.weights[o] / weighted
		c.cpu[o] += own
		c.cpuAtOnce[o] += own + idle*dt*l.cpus[o]/busy
		c.second[o] += l.cpus[o] * dt
		c.ram[o] += dram * dt * float64(l.resident[o]) / used
		c.ramUnique[o] += dram * dt * float64(l.unique[o]) / used
	}
	if s.now%time.Second == 0 {
		sum := 0.0
		for _, cpus := range c.second {
			sum += cpus
		}
		for o, cpus := range c.second {
			c.cpu[o] += c.secondIdle * cpus / sum
		}
		c.second, c.secondIdle = [simOwners]float64{}, 0
	}
}

// flush shows the counters: in units of 2^-14 J, as of up to a millisecond ago, beginning anew at their range.
func (c *silicon) flush(s *simulated) {
	for _, z := range c.zones {
		const unit = 1.0 / (1 << 14)
		joules := z.energy - z.power*0.001*s.rng.Float64()
		z.shown = max(z.shown, uint64(max(0, float64(int64(joules/unit))*unit*1e6)))
		counter := z.offset + z.shown
		z.wrapped = counter >= z.wrapAt
		s.write(filepath.Join(c.sysfs, "class", "powercap", z.dir, "energy_uj"), fmt.Sprintln(counter%z.wrapAt))
	}
}

// cpuinfo is what /proc/cpuinfo shows of a CPU.
type cpuinfo struct {
	vendor, name            string
	family, model, stepping int
	sockets                 int
}

// install adds a silicon to the machine, with a Meter that finds that CPU.
func (s *simulated) install(c *silicon, info cpuinfo, now func() time.Time) {
	c.sysfs = memoryDir(s.t)
	c.runs = map[simOwner]*Session{}
	for _, z := range c.zones {
		dir := filepath.Join(c.sysfs, "class", "powercap", z.dir)
		require.NoError(s.t, os.MkdirAll(dir, 0o755))
		s.write(filepath.Join(dir, "name"), z.name+"\n")
		s.write(filepath.Join(dir, "max_energy_range_uj"), fmt.Sprintln(z.wrapAt))
	}
	text := ""
	for i := range simThreads {
		text += fmt.Sprintf("processor\t: %d\nvendor_id\t: %s\ncpu family\t: %d\nmodel\t\t: %d\nmodel name\t: %s\nstepping\t: %d\nphysical id\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\nflags\t\t: fpu sse2\n\n",
			i, info.vendor, info.family, info.model, info.name, info.stepping, i*info.sockets/simThreads, i/2, simThreads/2/info.sockets)
	}
	s.write(filepath.Join(s.procfs, "cpuinfo"), text)
	s.silicon = append(s.silicon, c)
	s.flush()
	c.meter = New(Config{Procfs: s.procfs, Sysfs: c.sysfs, Now: now})
	s.t.Cleanup(c.meter.Close)
}
