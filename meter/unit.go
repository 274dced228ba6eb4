package meter

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	s.opener = p
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
		if p := m.trees.tracked[s.opener.PID]; p == nil || p.start != s.opener.Start {
			m.replace(s)
			continue
		}
		if p := m.standIn(s); p != nil {
			keep[p.pid] = true
		}
	}
	m.trees.prune(keep)
}

// localRanks are the variables by which launchers tell each of their processes how many they started on this machine.
var localRanks = []string{
	"LOCAL_WORLD_SIZE",           // torchrun, and what builds on it: accelerate, Lightning, Ray Train
	"LOCAL_SIZE",                 // DeepSpeed
	"OMPI_COMM_WORLD_LOCAL_SIZE", // Open MPI's mpirun
	"MPI_LOCALNRANKS",            // MPICH's and Intel MPI's Hydra
	"MV2_COMM_WORLD_LOCAL_SIZE",  // MVAPICH2
	"HOROVOD_LOCAL_SIZE",         // horovodrun
}

// starters are daemons that stand for a launcher on one machine, or for one step of a Slurm job.
var starters = []string{"slurmstepd", "orted", "prted", "hydra_pmi_proxy", "pmi_proxy"}

// launcher finds the launcher whose rank a process is: the nearest ancestor that does not have the rank's variable
// itself. ok is false where the process is no rank, or the only one on this machine, and where what started the ranks is
// everybody's (a terminal's shell, init).
func (m *Meter) launcher(p Process) (l Process, ok bool) {
	variable := rankVariable(m.sys, p.PID)
	if variable == "" {
		return Process{}, false
	}
	s, err := m.sys.stat(p.PID)
	for i := 0; i < 64 && err == nil && s.parent > 0; i++ {
		if s, err = m.sys.stat(s.parent); err != nil {
			break
		}
		args := m.sys.arguments(s.pid)
		if slices.Contains(starters, programName(args)) {
			return Process{PID: s.pid, Start: s.start}, true
		}
		environment, err := m.sys.environment(s.pid)
		if err == nil && variableOf(environment, variable) != "" {
			continue // between the launcher and the rank: numactl, a shell
		}
		return Process{PID: s.pid, Start: s.start}, standsIn(s, args)
	}
	return Process{}, false
}

// rankVariable returns the variable that says that a process is one of several ranks on this machine; empty where
// none does. An environment that cannot be read is another user's, whose connections cannot be looked up either.
func rankVariable(sys system, pid int) string {
	environment, err := sys.environment(pid)
	if err != nil {
		return ""
	}
	for _, name := range localRanks {
		if n, err := strconv.Atoi(variableOf(environment, name)); err == nil && n > 1 && isRank(environment) {
			return name
		}
	}
	// srun says how many tasks each node has as "4(x2),3", and which node this is.
	if variableOf(environment, "SLURM_STEP_ID") != "" {
		node, _ := strconv.Atoi(variableOf(environment, "SLURM_NODEID"))
		if slurmTasks(variableOf(environment, "SLURM_STEP_TASKS_PER_NODE"), node) > 1 {
			return "SLURM_STEP_ID"
		}
	}
	return ""
}

// isRank says whether one of the variables is the process's number among the local ranks: each launcher sets one, and
// others' variables may bear so plain a name as LOCAL_SIZE.
func isRank(environment []string) bool {
	return slices.ContainsFunc(environment, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasSuffix(name, "LOCAL_RANK") || name == "MPI_LOCALRANKID"
	})
}

func variableOf(environment []string, name string) string {
	for _, v := range environment {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

var slurmGroup = regexp.MustCompile(`^(\d+)(?:\(x(\d+)\))?$`)

// slurmTasks reads from Slurm's list of tasks per node, "4(x2),3", how many the node has; 0 where that cannot be told.
func slurmTasks(list string, node int) int {
	for group := range strings.SplitSeq(list, ",") {
		m := slurmGroup.FindStringSubmatch(group)
		if m == nil {
			return 0
		}
		tasks, err := strconv.Atoi(m[1])
		if err != nil {
			return 0
		}
		nodes := 1
		if m[2] != "" {
			if nodes, err = strconv.Atoi(m[2]); err != nil {
				return 0
			}
		}
		if node < nodes {
			return tasks
		}
		node -= nodes
	}
	return 0
}

// programName is the name of a program by its command line; of a script that an interpreter runs, the script's.
func programName(args []string) string {
	if len(args) == 0 || strings.TrimSpace(args[0]) == "" {
		return ""
	}
	// Some daemons write what they do into it: "slurmstepd: [7.0]".
	name := strings.TrimSuffix(filepath.Base(strings.Fields(args[0])[0]), ":")
	if !strings.HasPrefix(name, "python") {
		return name
	}
	for i := 1; i < len(args); i++ {
		switch {
		case args[i] == "-m" && i+1 < len(args):
			return args[i+1]
		case args[i] == "-c":
			return name
		case args[i] == "-W" || args[i] == "-X":
			i++
		case !strings.HasPrefix(args[i], "-"):
			return strings.TrimSuffix(filepath.Base(args[i]), ".py")
		}
	}
	return name
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
