package meter

import (
	"slices"
	"time"
)

// Resolution is the shortest time over which the sensors are read: /proc/stat counts CPU time in steps of 10 ms and
// NVML's energy counter moves about every 100 ms, so that over less they tell more of their steps than of the energy.
// A process's own CPU clock is exact to the nanosecond: what runs use between two readings goes by that.
const Resolution = 200 * time.Millisecond

// lately is the time whose power is taken for the power of now.
const lately = time.Second

// interval is what the machine did and used over an interval that the sensors were read for.
type interval struct {
	elapsed    time.Duration
	busy, used time.Duration // CPU time of the machine, and of the runs
	energy     Energies
	devices    []GPUReading
}

// recent are the latest readings, which cover lately or all the time since something was missed.
type recent []interval

// keep adds a reading, and forgets those that are not needed any more.
func (r *recent) keep(latest interval) {
	*r = append(*r, latest)
	var covered time.Duration
	for i := len(*r) - 1; i > 0; i-- {
		if covered += (*r)[i].elapsed; covered >= lately {
			*r = slices.Delete(*r, 0, i)
			return
		}
	}
}

// sum returns the readings as one, with the devices as they were in the latest.
func (r recent) sum() interval {
	var s interval
	for _, one := range r {
		s.elapsed += one.elapsed
		s.busy += one.busy
		s.used += one.used
		s.energy.Add(one.energy)
	}
	if len(r) > 0 {
		s.devices = r[len(r)-1].devices
	}
	return s
}

// ahead gives the sessions what they used since start without reading the sensors: their CPU time times what a second
// of it took lately, and of memory and devices the latest power. It reports whether enough is known for that. What is
// given is booked as lent, and taken off the reading that comes.
func (m *Meter) ahead(start, now time.Time) bool {
	late := m.recent.sum()
	if late.elapsed < Resolution || late.busy <= 0 {
		return false
	}
	used := m.trees.used()
	since := now.Sub(start)
	part := since.Seconds() / late.elapsed.Seconds()
	busy := used + time.Duration(float64(max(0, late.busy-late.used))*part)
	e := late.energy
	e[CPU] *= Energy(float64(busy) / float64(late.busy))
	e[RAM] *= Energy(part)
	e[GPU] = 0
	last := m.recent[len(m.recent)-1]
	devices := slices.Clone(last.devices)
	for i := range devices {
		devices[i].Energy *= Energy(since.Seconds() / last.elapsed.Seconds())
		e[GPU] += devices[i].Energy
	}
	load := Load{Elapsed: since, Busy: busy, MemoryUsed: m.memoryUsed}
	given := e
	for c, left := range m.share(e, load, devices, func(s *Session, part Energies) { m.give(s, start, now, part) }) {
		given[c] -= left
	}
	m.lentBusy += busy
	m.lentUsed += used
	m.lent.Add(given)
	m.totals.Sensors.Add(given)
	return true
}

// settle books a reading of the sensors of which given went to runs: what was lent before comes off it. Where more was
// lent than was read in the end, the difference is lent still, so that no total ever falls.
func (m *Meter) settle(read, given Energies) {
	for c := range read {
		owed := m.lent[c] + given[c]
		if read[c] >= owed {
			m.totals.Sensors[c] += read[c] - m.lent[c]
			m.totals.Rest[c] += read[c] - owed
			m.lent[c] = 0
			continue
		}
		m.totals.Sensors[c] += given[c]
		m.lent[c] = owed - read[c]
	}
	m.lentBusy, m.lentUsed = 0, 0
}
