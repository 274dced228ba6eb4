package meter

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Unit says what of the machine is taken for a run's.
type Unit string

// The units, named as in the tag emissions.unit.
const (
	UnitProcess  Unit = "process"  // the tree of the process that opened the run
	UnitLauncher Unit = "launcher" // that of the launcher whose rank the process is
	UnitCgroup   Unit = "cgroup"   // all in the process's container, Slurm job or other control group
)

// claim makes a process, or what it stands for, a session's. It reports whether any of it was there.
func (m *Meter) claim(s *Session, p Process) bool {
	s.record.Unit = UnitProcess
	if m.unit == UnitCgroup {
		if group := cgroupUnit(m.sys.cgroup(p.PID)); group != "" {
			s.record.Unit, s.cgroup = UnitCgroup, group
			m.trees.attachCgroup(s, slices.Collect(maps.Keys(m.trees.known)), false)
		}
	} else if l, ok := m.launcher(p); ok {
		s.record.Unit, p = UnitLauncher, l
	}
	s.opener.Store(&p)
	s.above = m.trees.ancestors(p.PID)
	if !m.trees.attach(s, p) && !m.replace(s) {
		return false
	}
	m.standIn(s)
	return true
}

// join makes a further process, or the launcher whose rank it is, a session's.
func (m *Meter) join(s *Session, p Process) {
	if l, ok := m.launcher(p); ok && m.unit == UnitProcess {
		p = l
	}
	m.trees.attach(s, p)
}

// replace puts the nearest living ancestor of a session's opening process in its place, once that one ended.
func (m *Meter) replace(s *Session) bool {
	s.orphan = true
	for _, a := range s.above {
		if m.trees.alive(a) && m.trees.attach(s, a) {
			s.opener.Store(&a)
			return true
		}
	}
	return false
}

// standIn returns the process that would take the opener's place now. It is tracked beforehand, so that nothing that
// begins below it is missed when the opener ends.
func (m *Meter) standIn(s *Session) *process {
	for _, a := range s.above {
		if p := m.trees.track(a.PID, false); p != nil && p.start == a.Start {
			return p
		}
	}
	return nil
}

// follow brings the process trees up to date.
func (m *Meter) follow(forks uint64) {
	if len(m.sessions) == 0 {
		clear(m.trees.tracked)
		return
	}
	if err := m.trees.discover(forks); err != nil {
		m.log.Warn("cannot list processes", "error", err)
	}
	for _, s := range m.sessions {
		if s.cgroup != "" {
			m.trees.attachCgroup(s, m.trees.fresh, true)
			m.trees.attachCgroup(s, m.trees.recent, false) // it may have entered the group after it was made
		}
	}
	m.trees.refresh()
	keep := map[int]bool{}
	for _, s := range m.sessions {
		if s.record.Scope != ScopeProcess || s.orphan {
			continue
		}
		if p := m.trees.tracked[s.Opener().PID]; p == nil || p.start != s.Opener().Start {
			m.replace(s)
			continue
		}
		if p := m.standIn(s); p != nil {
			keep[p.pid] = true
		}
	}
	m.trees.prune(keep)
}

var (
	slurmJob    = regexp.MustCompile(`^job_\d+$`)
	containerID = regexp.MustCompile(`(^|[-:])[0-9a-f]{64}(\.scope)?$`)
)

// cgroupUnit cuts a control group's path below the container or the Slurm job that it is part of; one that is of
// neither is itself the unit.
func cgroupUnit(path string) string {
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i > 0; i-- {
		if slurmJob.MatchString(parts[i]) || containerID.MatchString(parts[i]) {
			return strings.Join(parts[:i+1], "/")
		}
	}
	return path
}

// inCgroup says whether a control group is, or is inside of, another.
func inCgroup(path, of string) bool {
	return path == of || strings.HasPrefix(path, strings.TrimSuffix(of, "/")+"/")
}
