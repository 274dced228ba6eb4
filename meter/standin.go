package meter

import (
	"path/filepath"
	"slices"
	"strings"
)

// ancestors notes the processes above one that may stand in for it when it ends, nearest first.
func (t *processes) ancestors(pid int) []Process {
	var above []Process
	s, err := t.sys.stat(pid)
	for i := 0; i < 64 && err == nil && s.parent > 0; i++ {
		if s, err = t.sys.stat(s.parent); err != nil {
			break
		}
		if !standsIn(s, t.sys.arguments(s.pid)) {
			break
		}
		above = append(above, Process{PID: s.pid, Start: s.start})
	}
	return above
}

// alive reports whether that very process still is there.
func (t *processes) alive(id Process) bool {
	s, err := t.sys.stat(id.PID)
	return err == nil && s.start == id.Start && !s.zombie
}

// Confine lets nobody but a shell that runs a script stand in for the session's process: of what comes after a run's end,
// what began the process is not a part, unless it began it for that very request, as scripts begin curl.
func (s *Session) Confine() {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	s.above = slices.DeleteFunc(s.above, func(p Process) bool {
		return !slices.Contains(shells, programName(s.meter.sys.arguments(p.PID)))
	})
}

// managers are programs that start work for others: their tree is everybody's, and climbing ends below them.
var managers = []string{
	// of the system, of containers and of clusters
	"systemd", "init", "launchd", "tini", "dumb-init", "docker-init", "catatonit", "runit", "runsvdir", "s6-svscan", "supervisord",
	"containerd-shim", "containerd-shim-runc-v2", "conmon", "crond", "cron", "atd", "sshd", "sshd-session", "login", "su", "sudo", "kubelet", "slurmd", "slurmstepd",
	"pbs_mom", "sge_execd", "sge_shepherd", "condor_startd", "condor_starter", "sbatchd",
	// terminals, editors and notebook servers
	"tmux", "screen", "SCREEN", "gnome-terminal-server", "konsole", "xterm", "code", "code-server", "node", "emacs",
	"jupyter", "jupyter-lab", "jupyter-labhub", "jupyter-notebook", "jupyter-server", "jupyterhub", "jupyterhub-singleuser",
	"jupyterlab", "jupyter_server", "notebook",
	// workflow systems and runners of jobs
	"airflow", "celery", "prefect", "dagster", "dagster-daemon", "luigid", "ray", "raylet", "dask-scheduler",
	"gitlab-runner", "Runner.Worker", "buildkite-agent",
}

// idlers are what a container's first process runs when it only keeps the container up.
var idlers = []string{"sleep", "pause", "tail", "cat"}

var shells = []string{"sh", "bash", "dash", "zsh", "ash", "ksh", "fish", "busybox"}

// shellOptions are followed by a word that is no script: terminals in editors give the shell that they open a file of
// their own.
var shellOptions = []string{"--init-file", "--rcfile", "--init-command", "-o", "+o", "-O", "+O"}

// standsIn says whether a process may take the place of a run's process that ended: a shell script or a launcher
// may; init, a container's idle first process, a login shell and a shell that someone types into may not.
func standsIn(s stat, args []string) bool {
	if len(args) == 0 || strings.TrimSpace(args[0]) == "" {
		return false
	}
	if strings.HasPrefix(args[0], "-") { // how login(1) and sshd(8) start a shell
		return false
	}
	name := programName(args)
	if slices.Contains(managers, name) {
		return false
	}
	isShell := slices.Contains(shells, name)
	if isShell {
		script := false
		for i := 1; i < len(args); i++ {
			switch a := args[i]; {
			case a == "-l" || a == "--login":
				return false
			case slices.Contains(shellOptions, a):
				i++
			case a == "-c" || !strings.HasPrefix(a, "-"):
				script = true
			}
		}
		if s.tty != 0 && !script {
			return false
		}
	}
	if s.pid == 1 { // a container's first process: only one that plainly runs a script is the run's own
		return isShell || strings.HasPrefix(filepath.Base(args[0]), "python")
	}
	return !(s.parent == 0 && slices.Contains(idlers, name))
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
