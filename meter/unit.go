package meter

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
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
			m.trees.attachCgroup([]*Session{s}, slices.Collect(maps.Keys(m.trees.known)), false)
		}
	} else if l, ok := m.launcher(p); ok {
		s.record.Unit, p = UnitLauncher, l
	}
	s.opener.Store(&p)
	s.above = m.trees.ancestors(p.PID)
	if !m.trees.attach(s, p) && !m.replace(s) {
		return false
	}
	m.standIns(s)
	return true
}

// join makes a further process, or the launcher whose rank it is, a session's.
func (m *Meter) join(s *Session, p Process) {
	if m.unit == UnitProcess { // a control group has its launcher in it
		if l, ok := m.launcher(p); ok {
			p = l
		}
	}
	m.trees.attach(s, p)
}

// replace puts the nearest living ancestor of a session's opening process in its place, once that one ended.
func (m *Meter) replace(s *Session) bool {
	for i, a := range s.above {
		if m.trees.alive(a) && m.trees.attach(s, a) {
			s.opener.Store(&a)
			s.above = s.above[i+1:]
			return true
		}
	}
	return false
}

// standIns returns the processes of which one will take the opener's place, the nearest that lives then. They are tracked
// beforehand, so that nothing that begins below them is missed when the opener ends: in a script, curl's parent may be a
// subshell that ends with it.
func (m *Meter) standIns(s *Session) (living []*process) {
	for _, a := range s.above {
		if p := m.trees.track(a.PID, false); p != nil && p.start == a.Start && !p.zombie {
			living = append(living, p)
		}
	}
	return living
}

// follow brings the process trees up to date.
func (m *Meter) follow(forks uint64) {
	if len(m.sessions) == 0 {
		clear(m.trees.tracked)
		clear(m.trees.ended)
		return
	}
	if err := m.trees.discover(forks); err != nil {
		m.log.Warn("cannot list processes", "error", err)
	}
	m.enter()
	m.trees.refresh()
	keep := map[int]bool{}
	for _, s := range m.sessions {
		if s.record.Scope != ScopeProcess || s.cgroup != "" { // a control group needs no process to stand for it
			continue
		}
		o := s.Opener()
		if p := m.trees.tracked[o.PID]; p == nil || p.start != o.Start || p.zombie {
			m.replace(s)
		}
		for _, p := range m.standIns(s) {
			keep[p.pid] = true
		}
	}
	m.trees.prune(keep)
}

// enterWithin is how long after it was made a process is looked at again: container runtimes make it first and move it
// into its control group then.
const enterWithin = 2 * time.Second

// enter tracks the processes that came into the sessions' control groups.
func (m *Meter) enter() {
	groups := slices.DeleteFunc(slices.Clone(m.sessions), func(s *Session) bool { return s.cgroup == "" })
	if len(groups) == 0 {
		clear(m.young)
		return
	}
	m.trees.attachCgroup(groups, m.trees.fresh, true)
	m.trees.attachCgroup(groups, slices.Collect(maps.Keys(m.young)), false)
	maps.DeleteFunc(m.young, func(_ int, seen time.Time) bool { return m.last.Sub(seen) > enterWithin })
	for _, pid := range m.trees.fresh {
		m.young[pid] = m.last
	}
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
