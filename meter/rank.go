package meter

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

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
