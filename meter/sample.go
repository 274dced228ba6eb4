package meter

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// minInterval is the shortest time between two readings: many runs may end at the same moment, and the counters do
// not tick faster.
const minInterval = time.Millisecond

// gapAfter is the time without a reading from which on it is said that one was missed: a busy machine may hold the
// sampler up for a moment.
func (m *Meter) gapAfter() time.Duration { return 5*m.interval + 5*time.Second }

// lock locks mu, with a reading that is no older than the call. Many runs may begin or end at the same moment: one
// reading serves all who waited for it.
func (m *Meter) lock() {
	asked := m.now()
	m.mu.Lock()
	if m.last.Before(asked) {
		m.sample()
	}
}

// sample gives every session its share of the time since the sample before. It reads the sensors for that, unless the
// last reading is so short ago that they would tell less than is known already.
func (m *Meter) sample() {
	now := m.now()
	since := now.Sub(m.last) // by the monotonic clock, which stands still while the machine is suspended
	if since < minInterval {
		return
	}
	boot := m.boot() // at once, so that a reading that takes long passes for no suspension
	elapsed := now.Sub(m.lastRead)
	asleep := boot - m.lastBoot - elapsed
	start, sensed := m.last, m.totals.Sensors.Total()
	busy, forks, unread := m.sys.machine()
	if unread == nil {
		m.follow(forks)
	}
	m.last = now
	var why gaps
	if asleep > time.Second || elapsed >= Resolution || len(m.sessions) == 0 || !m.ahead(start, now) {
		why = m.reading(start, now, elapsed, asleep, busy, unread)
		m.lastRead, m.lastBoot = now, boot
	}
	for _, s := range m.sessions {
		r := s.current()
		r.Segments[len(r.Segments)-1].End = now // time passes for a run that used nothing, too
		if m.down != nil {
			r.miss(m.down.missed(m, s, since, why))
		} else {
			r.miss(why)
		}
		r.Machine += m.totals.Sensors.Total() - sensed
		s.past.add(start, now, s.given)
		s.given = Energies{}
	}
}

// reading reads the sensors, for the time elapsed since the reading before, and gives every session its share of what
// has passed of that since start. It returns what could not be read.
func (m *Meter) reading(start, now time.Time, elapsed, asleep, busy time.Duration, unread error) gaps {
	load := Load{Elapsed: elapsed, Gap: elapsed > m.gapAfter()}
	var why gaps
	var unknown [components]error // without what the whole machine used there is neither a model nor a share
	load.MemoryUsed, unknown[RAM] = m.sys.memoryUsed()
	m.memoryUsed = load.MemoryUsed
	if load.Gap && m.down == nil {
		why.all(elapsed, fmt.Sprintf("no reading for %.0f s", elapsed.Seconds()))
	}
	if asleep > time.Second {
		load.Gap = true
		why.all(elapsed+asleep, fmt.Sprintf("the machine was suspended for %.0f s", asleep.Seconds()))
		why.asleep = asleep
	}
	if unknown[CPU] = unread; unread == nil {
		load.Busy = max(0, busy-m.busy)
		m.busy = busy
	} // else the next reading has the CPU time of both intervals, the machine's and the processes' alike
	if m.down != nil {
		m.down.reckon(m, &load, &why)
	}
	load.Tracked = m.trees.pids()
	used := m.trees.used()
	if model, ok := m.cpu.(*cpuModel); ok {
		load.Busy = model.within(load.Busy, m.lentUsed+used, elapsed)
	}

	e, devices := m.read(load, unknown, &why)
	if m.down != nil {
		m.down.devices(m, devices, load, &why)
	}
	this := interval{elapsed: elapsed, used: m.lentUsed + used, busy: max(load.Busy, m.lentUsed+used), energy: e, devices: devices}
	// Of what was read, only the part since start is shared now; the rest was, ahead of this reading.
	since, part := load, now.Sub(start).Seconds()/elapsed.Seconds()
	shared, parts := e, slices.Clone(devices)
	if load.Busy > 0 {
		since.Busy = max(used, load.Busy-m.lentBusy)
		shared[CPU] *= Energy(min(1, since.Busy.Seconds()/max(load.Busy, since.Busy).Seconds()))
	}
	shared[RAM] *= Energy(part)
	shared[GPU] *= Energy(part)
	for i := range parts {
		parts[i].Energy *= Energy(part)
	}
	rest := shared
	if why.asleep == 0 { // counters may go on while the machine is suspended, and that is no run's
		rest = m.share(shared, since, parts, func(s *Session, part Energies) { m.give(s, start, now, part) })
	}
	given := shared
	for c := range given {
		given[c] -= rest[c]
	}
	m.settle(e, given)
	if why == (gaps{}) {
		m.recent.keep(this)
	} else {
		m.recent = nil
	}
	return why.scaled(part)
}

// read returns what the machine used in an interval, by component and by device, and notes in why what could not be
// read. unknown says of which components that is so without a reading.
func (m *Meter) read(load Load, unknown [components]error, why *gaps) (e Energies, devices []GPUReading) {
	complete := true
	for _, r := range []struct {
		c Component
		s Sensor
	}{{CPU, m.cpu}, {RAM, m.ram}} {
		if r.s == nil {
			continue
		}
		joules, err := r.s.Read(load)
		if err == nil {
			err = unknown[r.c]
		}
		if err == nil {
			e[r.c] = joules
		} else {
			complete = false
			why.add(r.c, load.Elapsed, err)
		}
		m.report(r.c, err)
	}
	var failed []error
	known, lost, unseen := 0, 0, 0.0
	for _, g := range m.gpus {
		readings, err := g.Read(load)
		if err != nil {
			failed, known, lost = append(failed, err), known+1, lost+1
		}
		for _, d := range readings {
			known++
			if d.Err != nil {
				failed, lost = append(failed, fmt.Errorf("%s: %w", d.Device, d.Err)), lost+1
				continue
			}
			e[GPU] += d.Energy
			devices = append(devices, d)
			unseen += m.trees.unseen(d)
		}
	}
	err := errors.Join(failed...)
	if unseen > 0 {
		failed = append(failed, errUnseen)
	}
	if missed := float64(lost) + unseen; missed > 0 { // one of four devices is a quarter of the time
		share := min(1, missed/float64(known))
		why.add(GPU, time.Duration(float64(load.Elapsed)*share), errors.Join(failed...))
	}
	if len(m.gpus) > 0 {
		m.report(GPU, err)
	}
	return m.atTheWall(e, devices, load, complete && lost == 0, why)
}

// errUnseen says that nobody knows whose a device's energy is.
var errUnseen = errors.New("the processes on the GPU cannot be seen from this container; run the proxy with the host's pid namespace (docker run --pid host)")

// atTheWall brings what the components' sensors read up to what the whole machine drew, each in proportion: power
// supply, fans and board serve those who use the machine. Where not all could be read, what is missing must not be put on
// those that were: they are brought up as they were before.
func (m *Meter) atTheWall(e Energies, devices []GPUReading, load Load, complete bool, why *gaps) (Energies, []GPUReading) {
	total := e.Total()
	m.components += total
	if m.wall == nil || total <= 0 {
		return e, devices
	}
	wall, err := m.wall.Read(total, load)
	m.report(Machine, err)
	if err != nil {
		why.all(load.Elapsed, "power at the wall: "+reason(err))
		return e, devices
	}
	if complete {
		m.factor = wall / total
	} else if m.factor == 0 {
		why.all(load.Elapsed, "power at the wall: not all components could be read")
		return e, devices
	}
	factor := m.factor
	for c := range e {
		e[c] *= factor
	}
	for i := range devices {
		devices[i].Energy *= factor
	}
	return e, devices
}

// report logs when a sensor begins to fail, and when it is back: not at each reading.
func (m *Meter) report(c Component, err error) {
	if failing := err != nil; failing != m.failing[c] {
		m.failing[c] = failing
		if failing {
			m.log.Warn("sensor fails; its energy is not counted until it is back", "component", c.String(), "error", err)
		} else {
			m.log.Info("sensor is back", "component", c.String())
		}
	}
}

// Gap is time for which a component was not read, or not read as often as it should be.
type Gap struct {
	For time.Duration
	Why string // the latest reason
}

// gaps are those of one interval.
type gaps struct {
	of     [components]Gap
	asleep time.Duration // for which the machine was suspended: metered time has none of it
}

func (g *gaps) add(c Component, d time.Duration, err error) {
	// A gap counts once, by its longest part.
	if d >= g.of[c].For {
		g.of[c] = Gap{For: d, Why: reason(err)}
	}
}

// scaled returns the gaps of a part of the interval, which the machine slept through at its end.
func (g gaps) scaled(part float64) gaps {
	for c := range g.of {
		if awake := g.of[c].For - g.asleep; awake > 0 {
			g.of[c].For = time.Duration(part*float64(awake)) + g.asleep
		}
	}
	return g
}

func (g *gaps) all(d time.Duration, why string) {
	for c := range g.of {
		g.add(Component(c), d, errors.New(why))
	}
}
