package meter

import (
	"time"
)

// share divides a reading of the sensors among the sessions and returns the rest, which is nobody's. What it gives to
// sessions that are inside no other, and the rest, add up to the reading.
//
// CPU energy goes by CPU time, memory's by resident memory, a device's by the time that it worked for each process.
// Idle power is thereby carried by those who use the machine, and a neighbour never adds to a run: it takes a part of
// the idle power over.
func (m *Meter) share(e Energies, load Load, devices []GPUReading, give func(*Session, Energies)) (rest Energies) {
	type part struct {
		cpu    time.Duration
		memory uint64
		gpu    Energy
		worked bool // a device did, for it
	}
	parts := map[*process]*part{}
	at := func(root *process) *part {
		if parts[root] == nil {
			parts[root] = &part{}
		}
		return parts[root]
	}
	var cpu time.Duration
	var memory uint64
	for pid, p := range m.trees.tracked {
		root := m.trees.root(pid)
		if root == nil {
			continue
		}
		at(root).cpu += p.used
		own := uint64(float64(p.memory) * p.proportion)
		at(root).memory += own
		cpu += p.used
		memory += own
	}
	for _, d := range devices {
		for i, weight := range d.weights() {
			if root := m.trees.user(d.Processes[i].PID); root != nil {
				at(root).gpu += d.Energy * Energy(weight)
				at(root).worked = at(root).worked || d.Processes[i].Busy > 0.02
			}
		}
	}
	// The machine's counter has coarser ticks than a process's clock, and pages shared after a fork are resident in
	// both processes: the trees may add up to a little more than the machine.
	busy, used := max(load.Busy, cpu), max(load.MemoryUsed, memory)

	rest = e
	for root, p := range parts {
		var got Energies
		if busy > 0 {
			got[CPU] = e[CPU] * Energy(float64(p.cpu)/float64(busy))
		}
		if used > 0 {
			got[RAM] = e[RAM] * Energy(float64(p.memory)/float64(used))
		}
		got[GPU] = p.gpu
		for c := range rest {
			rest[c] -= got[c]
		}
		if p.cpu > load.Elapsed/50 || p.worked {
			m.active(root.sessions)
		}
		split(root.sessions, got, give)
	}
	for c := range rest { // rounding must not leave less than nothing
		rest[c] = max(0, rest[c])
	}
	var machine []*Session
	for _, s := range m.sessions {
		if s.record.Scope == ScopeMachine {
			machine = append(machine, s)
		}
	}
	if len(machine) > 0 {
		split(machine, rest, give)
		rest = Energies{}
	}
	return rest
}

// weights returns each process's part of a device's energy; they add up to 1, unless there is no process. The device's
// idle power is carried by those who keep it busy. While nobody does, those who hold memory on it keep it from sleeping.
func (d GPUReading) weights() []float64 {
	for _, of := range []func(GPUProcess) float64{
		func(p GPUProcess) float64 { return p.Busy },
		func(p GPUProcess) float64 { return float64(p.Memory) },
		func(GPUProcess) float64 { return 1 },
	} {
		weights, sum := make([]float64, len(d.Processes)), 0.0
		for i, p := range d.Processes {
			weights[i] = max(0, of(p))
			sum += weights[i]
		}
		if sum > 0 {
			for i := range weights {
				weights[i] /= sum
			}
			return weights
		}
	}
	return nil
}

// split divides energy among sessions of the same process: equally among those that are not inside another of them,
// and of each one's part again equally among those directly inside it. give is called for the innermost only; what
// they get is also that of all they are inside of.
func split(sessions []*Session, e Energies, give func(*Session, Energies)) {
	inside := map[*Session][]*Session{} // by the nearest session around it that is one of these, nil for none
	for _, s := range sessions {
		around := s.parent
		for around != nil && !contains(sessions, around) {
			around = around.parent
		}
		inside[around] = append(inside[around], s)
	}
	var down func(around *Session, e Energies)
	down = func(around *Session, e Energies) {
		for _, s := range inside[around] {
			part := e
			for c := range part {
				part[c] /= Energy(len(inside[around]))
			}
			if len(inside[s]) == 0 {
				give(s, part)
			} else {
				down(s, part)
			}
		}
	}
	down(nil, e)
}

func contains(sessions []*Session, s *Session) bool {
	for _, o := range sessions {
		if o == s {
			return true
		}
	}
	return false
}

// active notes that sessions' processes do something, and with them what they are inside of.
func (m *Meter) active(sessions []*Session) {
	for _, s := range sessions {
		for ; s != nil; s = s.parent {
			s.active = m.last
		}
	}
}

// give credits energy used in [start, end) to a session and to all that it is inside of.
func (m *Meter) give(s *Session, start, end time.Time, e Energies) {
	top := s
	for ; s != nil; s = s.parent {
		s.current().add(start, end, e)
		s.given.Add(e)
		top = s
	}
	if top.held != nil {
		top.pending.Add(e)
	} else {
		m.totals.Runs.Add(e)
	}
}
