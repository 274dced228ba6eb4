package meter

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOneRunAloneGetsItsMachinesWholeEnergy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.run(100, 100) // one CPU for a second: 20 W idle and 30 W
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

func TestANeighbourNeverAddsToARun(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(200, 50, "neighbour")
	m.run(100, 100)
	m.run(200, 300)
	m.sleep()
	assert.InDelta(t, (20+4*30)/4.0, cpuOf(s), 1e-9, "its CPU time's power and a quarter of the idle power")
	assert.Less(t, cpuOf(s), 50.0)
	m.conserved(s)
}

func TestTimeBeforeTheRunIsNotTheRuns(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	m.fork(101, 100, "old child")
	m.run(100, 500)
	m.run(101, 500)
	m.sleep()
	s := m.begin("a", "", p)
	m.sleep()
	assert.Zero(t, cpuOf(s))
	m.exit(101) // its five seconds move to its parent now, but were used before
	m.sleep()
	assert.Zero(t, cpuOf(s))
	m.conserved(s)
}

func TestShortLivedChildrenAreNotLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(101, 100, "worker")
	m.run(101, 40)
	m.sleep()
	m.run(101, 10) // its last moments
	m.exit(101)
	m.fork(102, 100, "never seen")
	m.run(102, 30)
	m.exit(102)
	m.sleep()
	assert.InDelta(t, 2*20+0.8*30, cpuOf(s), 1e-9)
	m.conserved(s)
}

func TestAProcessLeftBehindStaysInItsTree(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(101, 100, "launcher")
	m.fork(102, 101, "worker")
	m.sleep()
	m.exit(101) // 102 is init's now
	m.sleep()
	m.run(102, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

func TestAReusedPidIsAnotherProcess(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(101, 100, "worker")
	m.sleep()
	m.exit(101)
	m.fork(101, 1, "somebody else")
	m.run(101, 100)
	m.sleep()
	assert.Zero(t, cpuOf(s))
	m.conserved(s)
}

func TestChildrenWhoseTimeIsLostAreCountedWhileTheyLive(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.procs[100].ignoresChildren = true
	m.fork(101, 100, "worker")
	m.run(101, 100)
	m.sleep()
	m.exit(101)
	m.sleep()
	m.run(100, 100)
	m.sleep()
	assert.InDelta(t, 100, cpuOf(s), 1e-9)
	m.conserved(s)
}

func TestRunsOfOneProcess(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	a := m.begin("a", "", p)
	b := m.begin("b", "", p)
	child1 := m.begin("child1", "a", p)
	child2 := m.begin("child2", "a", p)
	m.run(100, 100)
	m.sleep()
	assert.InDelta(t, 25, cpuOf(a), 1e-9, "unrelated runs share equally; the parent keeps the whole of its part")
	assert.InDelta(t, 25, cpuOf(b), 1e-9)
	assert.InDelta(t, 12.5, cpuOf(child1), 1e-9)
	assert.InDelta(t, 12.5, cpuOf(child2), 1e-9)
	m.conserved(a, b)
	child1.Close()
	m.run(100, 100)
	m.sleep()
	assert.InDelta(t, 37.5, cpuOf(child2), 1e-9)
	m.conserved(a, b)
}

func TestAProcessBelowTwoRunsCountsForTheNearer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	outer := m.begin("outer", "", m.fork(100, 50, "python"))
	inner := m.begin("inner", "", m.fork(101, 100, "python"))
	nested := m.begin("nested", "outer", m.fork(102, 100, "python"))
	m.run(101, 50)
	m.run(102, 50)
	m.sleep()
	assert.InDelta(t, 25, cpuOf(inner), 1e-9)
	assert.InDelta(t, 25, cpuOf(nested), 1e-9)
	assert.InDelta(t, 25, cpuOf(outer), 1e-9, "of the two only the nested one is inside it")
	m.conserved(outer, inner)
}

// The workers of a Spark-like driver are nobody's descendants, open nested runs of their own, and may come before the
// run that they are inside of logs a thing: the parent has what they use, once, and the sum is what the sensors read.
func TestNestedRunsOfForeignProcessesAreTheirParents(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	driver := m.begin("driver", "", m.fork(100, 50, "python", "driver.py"))
	first := m.begin("first", "driver", m.fork(200, 1, "python", "worker.py"))
	second := m.begin("second", "driver", m.fork(300, 1, "python", "worker.py"))
	inner := m.begin("inner", "second", m.fork(301, 300, "python"))
	m.fork(400, 1, "neighbour")
	m.run(100, 10)
	m.run(200, 50)
	m.run(300, 20)
	m.run(301, 10)
	m.run(400, 10) // the five of them work for a second in all
	m.sleep()
	assert.InDelta(t, 25, cpuOf(first), 1e-9)
	assert.InDelta(t, 15, cpuOf(second), 1e-9, "with what is nested in it")
	assert.InDelta(t, 5, cpuOf(inner), 1e-9)
	assert.InDelta(t, 5+25+15, cpuOf(driver), 1e-9)
	m.conserved(driver)

	first.Close()
	second.Close() // before what is nested in it
	m.run(301, 100)
	m.sleep()
	assert.InDelta(t, 5+25+15+50, cpuOf(driver), 1e-9, "which is the driver's still")
	m.conserved(driver)
}

func TestAWorkerJoins(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "launcher"))
	worker := m.fork(200, 1, "python")
	m.run(200, 100)
	m.sleep()
	assert.Zero(t, cpuOf(s))
	s.Join(worker)
	s.Join(worker)
	m.run(200, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

func TestTheShellScriptTakesTheCurlsPlace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.fork(99, 50, "sh", "train.sh")
	curl := m.fork(100, 99, "curl")
	s := m.begin("a", "", curl)
	m.exit(100)
	m.fork(101, 99, "python", "train.py") // it begins before anybody could see that curl ended
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 100, cpuOf(s), 1e-9)
	m.conserved(s)
}

func TestALoginShellTakesNobodysPlace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	curl := m.fork(100, 50, "curl")
	s := m.begin("a", "", curl)
	m.exit(100)
	m.fork(101, 50, "something else")
	m.run(101, 100)
	m.sleep()
	assert.Zero(t, cpuOf(s))
	m.conserved(s)
}

func TestStandsIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		stat stat
		args []string
		want bool
	}{
		{"script", stat{pid: 9, parent: 5}, []string{"/bin/sh", "train.sh"}, true},
		{"script in a terminal", stat{pid: 9, parent: 5, tty: 1}, []string{"bash", "train.sh"}, true},
		{"command", stat{pid: 9, parent: 5, tty: 1}, []string{"bash", "-c", "x"}, true},
		{"script on standard input", stat{pid: 9, parent: 5}, []string{"bash"}, true},
		{"typed into", stat{pid: 9, parent: 5, tty: 1}, []string{"bash"}, false},
		{"login shell", stat{pid: 9, parent: 5}, []string{"-bash"}, false},
		{"login shell by flag", stat{pid: 9, parent: 5}, []string{"bash", "-l"}, false},
		{"typed into, in VS Code", stat{pid: 9, parent: 5, tty: 1}, []string{"/bin/bash", "--init-file", "/opt/code/shellIntegration-bash.sh"}, false},
		{"typed into, in PyCharm", stat{pid: 9, parent: 5, tty: 1}, []string{"/bin/bash", "--rcfile", "/opt/pycharm/jb-bash.bash", "-i"}, false},
		{"typed into, by fish in VS Code", stat{pid: 9, parent: 5, tty: 1}, []string{"fish", "--init-command", "source x.fish"}, false},
		{"typed into, with an option", stat{pid: 9, parent: 5, tty: 1}, []string{"bash", "-o", "vi"}, false},
		{"script with an option", stat{pid: 9, parent: 5, tty: 1}, []string{"bash", "-o", "pipefail", "train.sh"}, true},
		{"launcher", stat{pid: 9, parent: 5}, []string{"python3", "launch.py"}, true},
		{"init", stat{pid: 1}, []string{"/sbin/init"}, false},
		{"container's idle first process", stat{pid: 1}, []string{"sleep", "infinity"}, false},
		{"container's script", stat{pid: 1}, []string{"sh", "-c", "x"}, true},
		{"kernel thread", stat{pid: 2}, nil, false},
		{"sshd", stat{pid: 9, parent: 1}, []string{"sshd: somebody"}, false},
		{"sshd since 9.8", stat{pid: 9, parent: 8}, []string{"sshd-session: somebody@pts/0"}, false},
		{"screen", stat{pid: 9, parent: 1}, []string{"SCREEN", "-S", "x"}, false},
		{"batch system", stat{pid: 9, parent: 1}, []string{"/opt/pbs/sbin/pbs_mom"}, false},
	} {
		assert.Equal(t, c.want, standsIn(c.stat, c.args), c.name)
	}
}

func TestMachineScopeSharesWhatNoTreeClaims(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	a, err := m.meter.Begin("a", "", ScopeMachine, Process{})
	require.NoError(t, err)
	b, err := m.meter.Begin("b", "", ScopeMachine, Process{})
	require.NoError(t, err)
	c := m.begin("c", "", m.fork(100, 50, "python"))
	m.run(100, 100)
	m.busy += 100
	m.flush()
	m.sleep()
	assert.InDelta(t, 40, cpuOf(c), 1e-9)
	assert.InDelta(t, 20, cpuOf(a), 1e-9)
	assert.InDelta(t, 20, cpuOf(b), 1e-9)
	m.conserved(a, b, c)
}

func TestGPUGoesToWhoKeepsItBusy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	a := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(101, 100, "worker")
	b := m.begin("b", "", m.fork(200, 50, "python"))
	m.gpu.readings = []GPUReading{
		{Device: "0", Energy: 100, Processes: []GPUProcess{{PID: 100}, {PID: 101}}},
		{Device: "1", Energy: 60, Processes: []GPUProcess{{PID: 101, Busy: 0.5, Memory: 1}, {PID: 200, Busy: 0.25}, {PID: 999, Busy: 0.25, Memory: 9}}},
		{Device: "3", Energy: 80, Processes: []GPUProcess{{PID: 200, Memory: 3}, {PID: 999, Memory: 1}}},
		{Device: "2", Energy: 7},
	}
	m.sleep()
	ra, rb := a.Record(), b.Record()
	assert.InDelta(t, 100+30, ra.Energy()[GPU].Joules(), 1e-9)
	assert.InDelta(t, 15+60, rb.Energy()[GPU].Joules(), 1e-9, "by work where there is some, else by memory")
	assert.InDelta(t, 7+15+20, m.meter.Totals().Rest[GPU].Joules(), 1e-9)
	m.conserved(a, b)
}

func TestMemoryGoesByResidentMemory(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	m.procs[100].pages = 1_000_000_000 / 4096 // a quarter of the 4e9 bytes that are used
	m.flush()
	s := m.begin("a", "", p)
	m.sleep()
	r := s.Record()
	assert.InDelta(t, 4*1e9/4.096e9, r.Energy()[RAM].Joules(), 1e-3)
	m.conserved(s)
}

func TestStopContinueAndClose(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.run(100, 100)
	m.now = m.now.Add(time.Second)
	r := s.Stop()
	assert.InDelta(t, 50, r.Energy()[CPU].Joules(), 1e-9)
	m.run(100, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9, "stopped")
	m.conserved(s)
	s.Continue()
	assert.InDelta(t, 100, cpuOf(s), 1e-9, "the server said that the run goes on: nothing is lost")
	m.conserved(s)
	s.Stop()
	m.run(100, 100)
	m.sleep()
	s.Close()
	s.Close()
	assert.InDelta(t, 100, cpuOf(s), 1e-9)
	m.conserved(s)
	assert.Empty(t, m.meter.sessions)
	m.sleep()
	assert.Empty(t, m.meter.trees.tracked, "nothing is kept of a run that ended")
}

func TestPhases(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.run(100, 100)
	m.now = m.now.Add(time.Second)
	began := s.Switch(Training)
	m.run(100, 200)
	m.sleep()
	s.Carve(began, s.Switch(Training), Inference)
	m.run(100, 100)
	m.sleep()
	r := s.Record()
	assert.InDelta(t, 100, cpuIn(r, Training), 1e-9)
	assert.InDelta(t, 80, cpuIn(r, Inference), 1e-9)
	assert.Equal(t, 3*time.Second, r.Duration())
}

func TestSlicesAreCutAtTheShortestIntensityPeriod(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	for range 12 * 60 {
		m.now = m.now.Add(time.Second)
		m.meter.Sample()
	}
	r := s.Record()
	require.Len(t, r.Segments, 1)
	require.Len(t, r.Segments[0].Slices, 3, "12:01 to 12:13 in slots of five minutes")
	assert.Equal(t, 12*time.Minute, r.Duration())
}

func TestASensorThatFailsIsNotHidden(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.cpu.err = ErrNoData
	m.sleep()
	m.cpu.err = nil
	m.run(100, 100)
	m.sleep()
	r := s.Record()
	assert.Equal(t, time.Second, r.Gaps[CPU].For)
	assert.InDelta(t, 50, r.Energy()[CPU].Joules(), 1e-9)
	m.conserved(s)
}

func TestTheOpenerIsGone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, err := m.meter.Begin("a", "", ScopeProcess, Process{PID: 4711, Start: 1})
	assert.ErrorIs(t, err, ErrNoPeer)
}

// A worker whose parent came and went between two readings is init's by the time it is seen; the process group that a
// shell gave to the job still tells whose it is.
func TestAnOrphanIsAdoptedByItsProcessGroup(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(101, 1, "worker")
	m.procs[101].group = 100
	m.fork(102, 1, "somebody else's")
	m.procs[102].group = 102
	m.run(101, 50)
	m.run(102, 50)
	m.sleep()
	assert.InDelta(t, 25, cpuOf(s), 1e-9)
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 75, cpuOf(s), 1e-9)
	m.conserved(s)
}

// After a fork the same pages are resident in both processes: they count once.
func TestSharedPagesCountOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	m.fork(101, 100, "worker")
	for _, pid := range []int{100, 101} {
		m.procs[pid].pages = 1 << 30 / 4096
		m.write(fmt.Sprintf("%d/smaps_rollup", pid), "00400000-7ffe ---p 00000000 00:00 0    [rollup]\nRss: 1048576 kB\nPss:              524288 kB\nPss_Anon: 1 kB\n")
	}
	m.flush()
	s := m.begin("a", "", p)
	ram := func() float64 {
		before := s.Record()
		m.sleep()
		after := s.Record()
		return (after.Energy()[RAM] - before.Energy()[RAM]).Joules()
	}
	used := 4e6 * 1024 / (1 << 30)
	assert.InDelta(t, 4*2/used, ram(), 1e-6)
	m.meter.apportion(newProcfs(m.root))
	assert.InDelta(t, 4*1.5/used, ram(), 1e-6, "one process at a time")
	m.meter.apportion(newProcfs(m.root))
	assert.InDelta(t, 4/used, ram(), 1e-6)

	m.now = m.now.Add(time.Minute)
	m.write("100/smaps_rollup", "")
	m.meter.Sample()
	m.meter.apportion(newProcfs(m.root))
	assert.InDelta(t, 4/used, ram(), 1e-6, "what cannot be found out stays as it was")
	m.conserved(s)
}

// A container's own numbers of processes are not the driver's: whose the device's energy is cannot be told, and that is
// said.
func TestUsersOfAGPUThatAreNotSeen(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.gpu.readings = []GPUReading{{Device: "0", Energy: 100, Processes: []GPUProcess{{PID: 4711, Busy: 1}}}, {Device: "1", Energy: 10}}
	m.sleep()
	assert.Equal(t, 1.0, s.Record().Coverage(GPU), "on the host, it ended, or is another user's that is hidden")
	m.meter.trees.contained = true
	m.sleep()
	r := s.Record()
	assert.Zero(t, r.Energy()[GPU])
	assert.InDelta(t, 0.75, r.Coverage(GPU), 1e-9)
	assert.Contains(t, r.Gaps[GPU].Why, "--pid host")
	// NVIDIA's 560 lists the container's own number, but has the host's in what it says of the work.
	m.gpu.readings[0].Processes = []GPUProcess{{PID: 100, Memory: 1}, {PID: 4711, Busy: 1}}
	m.gpu.readings[1].Err = assert.AnError
	m.sleep()
	r = s.Record()
	assert.InDelta(t, 0.5, r.Coverage(GPU), 1e-9, "neither of the two")
	assert.Contains(t, r.Gaps[GPU].Why, assert.AnError.Error())
	assert.Contains(t, r.Gaps[GPU].Why, "--pid host")
	m.conserved(s)
}

// Where several generations end between two readings, who they leave behind stays in the tree, whichever is looked at
// first.
func TestGenerationsThatEndTogetherLeaveNobodyBehind(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	for pid := 101; pid <= 108; pid++ {
		m.fork(pid, pid-1, "sh")
	}
	m.sleep()
	for pid := 100; pid <= 107; pid++ {
		m.exit(pid)
	}
	m.sleep()
	m.run(108, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

// A run's process that was below another run's process counts for its own run also when that one ended, and for the
// other again once its own run is over.
func TestARunsProcessOutlivesTheOneAboveIt(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	outer := m.begin("outer", "", m.fork(100, 50, "python"))
	inner := m.begin("inner", "", m.fork(101, 100, "python"))
	m.sleep()
	m.exit(100)
	m.sleep()
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(inner), 1e-9)
	assert.Zero(t, cpuOf(outer))
	inner.Close()
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(outer), 1e-9)
	m.conserved(inner, outer)
}

// The script that called the script that called curl takes its place in turn, and is what a restart has to look for.
func TestStandInsFollowOneAnother(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	all := m.fork(98, 50, "sh", "all.sh")
	m.fork(99, 98, "sh", "create.sh")
	s := m.begin("a", "", m.fork(100, 99, "curl"))
	m.sleep()
	m.exit(100)
	m.sleep()
	m.exit(99)
	m.fork(101, 98, "python", "train.py")
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	assert.Equal(t, all, s.Opener())
	m.conserved(s)
}

// So many forks that pids may have come round do not make those new that were there before: what one used before the
// run is not the run's.
func TestManyForksMakeNoProcessNew(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	m.fork(101, 1, "left behind before the run")
	m.procs[101].group = 100
	m.run(101, 100_000)
	m.sleep()
	s := m.begin("a", "", p)
	m.forks += reuseAfter + 1
	m.busy += 100
	m.flush()
	m.sleep()
	assert.Zero(t, cpuOf(s))
	m.conserved(s)
}

// A process is no older than its parent: where it is, its parent ended, and the pid is another's by now.
func TestAParentsPidIsReused(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.fork(60, 1, "-bash")
	m.fork(99, 60, "sh", "train.sh")
	a := m.begin("a", "", m.fork(100, 99, "python"))
	m.sleep()
	m.exit(60)
	m.sleep()
	b := m.begin("b", "", m.fork(60, 50, "python"))
	m.fork(101, 99, "beside a's process")
	m.run(101, 100)
	m.sleep()
	assert.Zero(t, cpuOf(b), "the script was another process's child")
	m.conserved(a, b)
}

// Orphans go to init, or to a nearer process that takes them: a container's first, seen from the host, or systemd's of
// the user. What others of the same job begin is not the run's.
func TestAnOrphanIsAdoptedFromAnyReaper(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	in := func(group, pid, parent int) Process {
		p := m.fork(pid, parent, "python")
		m.procs[pid].group = group
		m.flush()
		return p
	}
	in(60, 60, 1)
	p := in(100, 100, 60)
	in(100, 101, 60) // the next in the same pipe
	s := m.begin("a", "", p)
	in(100, 102, 60) // its parent came and went
	in(103, 103, 60)
	in(100, 104, 101)
	for pid := 102; pid <= 104; pid++ {
		m.run(pid, 50)
	}
	m.sleep()
	assert.InDelta(t, (20+1.5*30)/3, cpuOf(s), 1e-9)
	m.conserved(s)
}

// gVisor's /proc/stat says that there were no forks at all: then every listing may find something.
func TestWithoutAForkCounterChildrenAreFound(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	uncounted := func() { m.write("stat", fmt.Sprintf("cpu  %d 0 0 1000 7 0 0 99 0 0\nprocesses 0\n", m.busy)) }
	uncounted()
	m.sleep()
	m.fork(101, 100, "worker")
	m.run(101, 100)
	uncounted()
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

// What a device did for a process that ended since the reading before is its run's all the same.
func TestADevicesUserThatEnded(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(101, 100, "sh")
	m.fork(102, 101, "worker")
	m.sleep()
	m.exit(102)
	m.exit(101)
	m.gpu.readings = []GPUReading{{Device: "0", Energy: 100, Processes: []GPUProcess{{PID: 102, Busy: 1}}}}
	m.sleep()
	r := s.Record()
	assert.InDelta(t, 100, r.Energy()[GPU].Joules(), 1e-9)
	m.conserved(s)
}

// What came after a stop can be given a phase of its own, before the stop is taken back or after.
func TestAPhaseAfterAStop(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		m := newMachine(t)
		s := m.begin("a", "", m.fork(100, 50, "python"))
		s.Stop()
		began := s.Switch(Training)
		m.run(100, 100)
		m.sleep()
		ended := s.Switch(Training)
		if before {
			s.Carve(began, ended, Inference)
		}
		s.Continue()
		if !before {
			s.Carve(began, ended, Inference)
		}
		m.run(100, 100)
		m.sleep()
		r := s.Record()
		assert.InDelta(t, 50, cpuIn(r, Inference), 1e-9)
		assert.InDelta(t, 50, cpuIn(r, Training), 1e-9)
		m.conserved(s)
	}
}

// A process that ended takes its place up until its parent waits for it, which may be at the very end: it works no more,
// and its parent stands in for it all the same.
func TestAProcessThatNobodyWaitedForHasEnded(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.fork(99, 50, "python", "sweep.py")
	s := m.begin("a", "", m.fork(100, 99, "python", "begin.py"))
	m.sleep()
	m.procs[100].zombie = true
	m.flush()
	m.sleep()
	m.fork(101, 99, "python", "train.py")
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.exit(100)
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 100, cpuOf(s), 1e-9)
	m.conserved(s)
}

// In a script, curl runs in a subshell that ends with it: what the script does between that and the next reading is the
// run's, though neither of the two is there any more.
func TestAScriptsWorkRightAfterASubshellEnded(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.fork(98, 50, "sh", "train.sh")
	m.fork(99, 98, "sh", "train.sh") // $(...)
	s := m.begin("a", "", m.fork(100, 99, "curl"))
	m.exit(100)
	m.exit(99)
	m.fork(101, 98, "awk")
	m.run(101, 100)
	m.exit(101)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

// A run that is put into one that began later brings along what the machine used since it began: the other would be more
// than its machine; TestLaws found it.
func TestARunInOneThatBeganLaterIsAPartOfItsMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	nested := m.begin("nested", "", m.fork(101, 50, "python", "fold.py"))
	m.run(101, 50)
	m.sleep()
	around := m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	require.True(t, nested.Nest("run"))
	r := around.Record()
	assert.Equal(t, nested.Record().Machine, r.Machine)
	assert.LessOrEqual(t, r.Energy().Total(), r.Machine)
	assert.Positive(t, r.Energy().Total())
}
