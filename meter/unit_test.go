package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Only one rank ever talks to MLflow, and stands for all of its launcher: two busy ranks are twice one.
func TestARankStandsForItsLauncher(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		launcher []string
		variable []string
	}{
		"torchrun":  {[]string{"python3", "/usr/bin/torchrun", "train.py"}, []string{"LOCAL_WORLD_SIZE=2", "LOCAL_RANK=0"}},
		"deepspeed": {[]string{"python3", "-m", "deepspeed.launcher.launch"}, []string{"LOCAL_SIZE=2", "LOCAL_RANK=0"}},
		"mpirun":    {[]string{"mpirun", "-n", "2"}, []string{"OMPI_COMM_WORLD_LOCAL_SIZE=2", "OMPI_COMM_WORLD_LOCAL_RANK=0"}},
		"mpiexec":   {[]string{"mpiexec.hydra"}, []string{"MPI_LOCALNRANKS=2", "MPI_LOCALRANKID=0"}},
		"horovod":   {[]string{"python3", "horovodrun"}, []string{"HOROVOD_LOCAL_SIZE=2", "HOROVOD_LOCAL_RANK=0"}},
		"srun":      {[]string{"slurmstepd: [7.0]"}, []string{"SLURM_STEP_ID=0", "SLURM_NODEID=1", "SLURM_STEP_TASKS_PER_NODE=1,2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			launcher := m.fork(100, 50, c.launcher...)
			m.fork(101, 100, "numactl", "python3", "train.py")
			m.in(101, "/", c.variable...)
			rank := m.fork(102, 101, "python3", "train.py")
			m.in(102, "/", c.variable...)
			m.fork(103, 100, "python3", "train.py")
			m.in(103, "/", c.variable...)
			s := m.begin("a", "", rank)
			assert.Equal(t, launcher, s.Opener())
			assert.Equal(t, UnitLauncher, s.Record().Unit)
			m.run(102, 100)
			m.sleep()
			one := cpuOf(s)
			m.run(102, 100)
			m.run(103, 100)
			m.busy += 200 // and a neighbour as busy as both, who pays half of the idle power
			m.flush()
			m.sleep()
			two := cpuOf(s) - one
			assert.InDelta(t, 20+30, one, 1e-9)
			assert.InDelta(t, 10+60, two, 1e-9)
			m.exit(102) // a rank ends, and the launcher goes on
			m.run(103, 100)
			m.sleep()
			assert.InDelta(t, one+two+50, cpuOf(s), 1e-9)
			m.conserved(s)
		})
	}
}

func TestNoRanks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		above []string
		env   []string
	}{
		"the only rank":             {[]string{"python3", "torchrun"}, []string{"LOCAL_WORLD_SIZE=1", "LOCAL_RANK=0"}},
		"somebody's own variable":   {[]string{"sh", "train.sh"}, []string{"LOCAL_SIZE=4"}},
		"garbage":                   {[]string{"sh", "train.sh"}, []string{"LOCAL_WORLD_SIZE=many", "LOCAL_RANK=0"}},
		"one task on this node":     {[]string{"slurmstepd: [7.0]"}, []string{"SLURM_STEP_ID=0", "SLURM_NODEID=0", "SLURM_STEP_TASKS_PER_NODE=1(x2)"}},
		"Slurm's list is cut short": {[]string{"slurmstepd: [7.0]"}, []string{"SLURM_STEP_ID=0", "SLURM_STEP_TASKS_PER_NODE=4(x"}},
		"a batch script of Slurm":   {[]string{"slurmstepd: [7.batch]"}, []string{"SLURM_JOB_ID=7", "SLURM_TASKS_PER_NODE=4"}},
		"started from a terminal":   {[]string{"-bash"}, []string{"LOCAL_WORLD_SIZE=2", "LOCAL_RANK=0"}},
	} {
		m := newMachine(t)
		m.fork(100, 1, c.above...)
		p := m.fork(101, 100, "python3", "train.py")
		m.in(101, "/", c.env...)
		s := m.begin("a", "", p)
		assert.Equal(t, p, s.Opener(), name)
		assert.Equal(t, UnitProcess, s.Record().Unit, name)
	}
}

// A rank that logs to a run that somebody else created brings all of its launcher's ranks.
func TestARankThatJoinsBringsTheOthers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(90, 50, "python3", "submit.py"))
	m.fork(100, 50, "python3", "torchrun")
	rank := m.fork(101, 100, "python3", "train.py")
	m.in(101, "/", "LOCAL_WORLD_SIZE=2", "LOCAL_RANK=0")
	m.fork(102, 100, "python3", "train.py")
	s.Join(rank)
	m.run(102, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

// A notebook's kernel is a tree of its own: the server that started it never takes its place, nor does the other kernel
// pay for it.
func TestNotebooksAreTreesOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, server := range [][]string{
		{"/usr/bin/python3", "/usr/local/bin/jupyter-lab", "--port=8888"},
		{"python3.12", "-m", "jupyter", "notebook"},
		{"/opt/python", "-X", "dev", "-m", "jupyterlab"},
		{"/usr/bin/node", "/usr/lib/code-server"},
	} {
		m := newMachine(t)
		m.fork(100, 50, server...)
		a := m.begin("a", "", m.fork(101, 100, "python3", "-m", "ipykernel_launcher"))
		b := m.begin("b", "", m.fork(102, 100, "python3", "-m", "ipykernel_launcher"))
		m.run(101, 100)
		m.sleep()
		assert.InDelta(t, 50, cpuOf(a), 1e-9)
		assert.Zero(t, cpuOf(b))
		m.exit(101)
		m.run(100, 100)
		m.run(102, 100)
		m.sleep()
		assert.InDelta(t, 50, cpuOf(a), 1e-9, "the server does not take the ended kernel's place")
		assert.InDelta(t, 10+30, cpuOf(b), 1e-9)
		m.conserved(a, b)
	}
}

func TestProgramName(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"":            nil,
		"bash":        {"/bin/bash", "x.sh"},
		"sshd":        {"sshd: somebody [priv]"},
		"jupyter-lab": {"python3", "-W", "ignore", "/opt/bin/jupyter-lab"},
		"train":       {"python3.11", "-u", "/home/x/train.py", "-m", "y"},
		"torch.run":   {"python", "-m", "torch.run"},
		"python3":     {"python3", "-c", "x"},
		"python":      {"python"},
	} {
		assert.Equal(t, want, programName(args))
	}
}

// --unit cgroup: all of a container's processes are the run's, those that were there, those that come, and those that
// enter the container only after they were made.
func TestCgroupAsTheUnit(t *testing.T) {
	t.Parallel()
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	m := newMachine(t)
	m.meter.unit = UnitCgroup
	p := m.fork(100, 1, "python3", "train.py")
	m.in(100, "/system.slice/docker-"+id+".scope/app")
	m.fork(101, 1, "data", "loader")
	m.in(101, "/system.slice/docker-"+id+".scope/loader")
	m.fork(102, 1, "another container")
	m.in(102, "/system.slice/docker-"+id[1:]+"0.scope")
	s := m.begin("a", "", p)
	assert.Equal(t, UnitCgroup, s.Record().Unit)
	m.run(101, 50)
	m.fork(103, 1, "docker exec")
	m.in(103, "/system.slice/containerd.service")
	m.run(103, 50)
	m.sleep()
	assert.InDelta(t, 25, cpuOf(s), 1e-9)
	m.in(103, "/system.slice/docker-"+id+".scope/app")
	m.fork(104, 1, "docker exec")
	m.in(104, "/system.slice/docker-"+id+".scope")
	m.sleep()
	m.run(102, 100)
	m.run(103, 50)
	m.run(104, 50)
	m.sleep()
	assert.InDelta(t, 25+80/2, cpuOf(s), 1e-9, "without what 103 used before it entered")
	m.conserved(s)
}

func TestCgroupUnit(t *testing.T) {
	t.Parallel()
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for path, want := range map[string]string{
		"":                       "",
		"/":                      "/",
		"/user.slice/session-3":  "/user.slice/session-3",
		"/docker/" + id:          "/docker/" + id,
		"/docker/" + id + "/sub": "/docker/" + id,
		"/kubepods.slice/cri-containerd-" + id + ".scope":              "/kubepods.slice/cri-containerd-" + id + ".scope",
		"/kubepods.slice/crio-" + id + ".scope/container":              "/kubepods.slice/crio-" + id + ".scope",
		"/slurm/uid_1000/job_42/step_0/task_1":                         "/slurm/uid_1000/job_42",
		"/system.slice/slurmstepd.scope/job_42/step_batch/user/task_0": "/system.slice/slurmstepd.scope/job_42",
	} {
		assert.Equal(t, want, cgroupUnit(path))
	}
	assert.True(t, inCgroup("/a/b", "/a"))
	assert.True(t, inCgroup("/a", "/a"))
	assert.True(t, inCgroup("/a", "/"))
	assert.False(t, inCgroup("/ab", "/a"))
}

func TestSlurmTasks(t *testing.T) {
	t.Parallel()
	for node, want := range []int{4, 4, 3, 0} {
		assert.Equal(t, want, slurmTasks("4(x2),3", node))
	}
	for _, bad := range []string{"", "x", "4(x99999999999999999999)", "-1", "4,,4"} {
		assert.Zero(t, slurmTasks(bad, 5), bad)
	}
}

// What was not seen is said, with the share of the time that was.
func TestGapsAreNotHidden(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python3"))
	for range 10 {
		m.sleep()
	}
	r := s.Record()
	assert.Equal(t, 1.0, r.Coverage(CPU))
	m.run(100, 100)
	m.now = m.now.Add(20 * time.Second)
	m.meter.Sample()
	r = s.Record()
	assert.InDelta(t, 10.0/30, r.Coverage(CPU), 1e-9)
	assert.Equal(t, "no reading for 20 s", r.Gaps[RAM].Why)
	assert.InDelta(t, 20*20+30, cpuOf(s), 1e-9, "the counters went on")

	boot := 30 * time.Second
	m.meter.boot = func() time.Duration { return boot }
	m.meter.lastBoot = boot
	m.now, boot = m.now.Add(time.Second), boot+3600*time.Second+time.Second
	before := cpuOf(s)
	m.run(100, 100)
	m.meter.Sample()
	r = s.Record()
	assert.Equal(t, before, cpuOf(s), "what the counters show of the sleep is nobody's")
	assert.Equal(t, time.Hour, r.Asleep)
	assert.Equal(t, 31*time.Second, r.Duration(), "it was not metered while the machine slept")
	assert.Contains(t, r.Gaps[CPU].Why, "suspended for 3600 s")
	assert.InDelta(t, 10.0/3631, r.Coverage(GPU), 1e-9)
	m.conserved(s)
}

// One of four devices that cannot be read is a quarter of what there was to see.
func TestOneOfFourDevicesIsLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python3"))
	mine := []GPUProcess{{PID: 100}}
	m.gpu.readings = []GPUReading{{Device: "0", Energy: 1, Processes: mine}, {Device: "1", Energy: 2, Processes: mine},
		{Device: "2", Energy: 4, Processes: mine}, {Device: "GPU-3", Err: assert.AnError}}
	m.sleep()
	m.sleep()
	r := s.Record()
	assert.InDelta(t, 0.75, r.Coverage(GPU), 1e-9)
	assert.Contains(t, r.Gaps[GPU].Why, "GPU-3: "+assert.AnError.Error())
	assert.Equal(t, 1.0, r.Coverage(CPU))
	assert.InDelta(t, 14, r.Energy()[GPU].Joules(), 1e-9)
	m.conserved(s)
}

// fakeWall draws what the components use and half as much again, and 10 W.
type fakeWall struct{ err error }

func (fakeWall) Method() string { return "acpi" }
func (fakeWall) Bounds() Bounds { return Bounds{Low: 0.95, High: 1.05} }
func (f fakeWall) Read(e Energy, l Load) (Energy, error) {
	return 1.5*e + Power(10).Over(l.Elapsed), f.err
}

// What the whole machine draws is shared as the components' energy is, and all adds up to it.
func TestPowerAtTheWall(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.wall = fakeWall{}
	p := m.fork(100, 50, "python3")
	m.procs[100].pages = 1_000_000_000 / 4096
	s := m.begin("a", "", p)
	m.gpu.readings = []GPUReading{{Device: "0", Energy: 26, Processes: []GPUProcess{{PID: 100}}}}
	m.run(100, 100)
	m.sleep()
	components := 20.0 + 30 + 4 + 26
	factor := (1.5*components + 10) / components
	r := s.Record()
	assert.InDelta(t, 50*factor, r.Energy()[CPU].Joules(), 1e-9)
	assert.InDelta(t, 26*factor, r.Energy()[GPU].Joules(), 1e-9)
	assert.InDelta(t, 1.5*components+10, m.meter.Totals().Sensors.Total().Joules(), 1e-9)
	m.conserved(s)
	name, b, ok := m.meter.Method(Machine)
	require.True(t, ok)
	assert.Equal(t, "acpi", name)
	_, of, _ := m.meter.Method(CPU)
	assert.Equal(t, b, of)

	m.meter.wall = fakeWall{err: assert.AnError}
	m.gpu.readings = nil
	m.sleep()
	r = s.Record()
	assert.InDelta(t, 0.5, r.Coverage(CPU), 1e-9, "what was read is less than what was drawn")
	m.conserved(s)
}

func TestLine(t *testing.T) {
	t.Parallel()
	assert.False(t, Line{}.known())
	assert.False(t, Line{Slope: 1}.known())
	assert.True(t, Line{Offset: 57}.known())
	e, err := wallLine{Line{Slope: 1.12, Offset: 57}}.Read(100, Load{Elapsed: 2 * time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 112+114, e.Joules(), 1e-9)
	e, err = wallLine{Line{Offset: 57}}.Read(100, Load{Elapsed: 2 * time.Second})
	require.NoError(t, err)
	assert.InDelta(t, 100+114, e.Joules(), 1e-9)
}

// A script outside the control group brings nothing else that it runs into a run whose unit is the group.
func TestNobodyStandsInForACgroup(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.unit = UnitCgroup
	m.fork(99, 50, "sh", "all.sh")
	m.in(99, "/user.slice")
	p := m.fork(100, 99, "python3", "train.py")
	m.in(100, "/system.slice/run-1.scope")
	s := m.begin("a", "", p)
	m.sleep()
	m.exit(100)
	m.fork(101, 99, "something else")
	m.in(101, "/user.slice")
	m.run(101, 100)
	m.sleep()
	assert.Zero(t, cpuOf(s))
	m.conserved(s)
}

// What the machine drew while one component could not be read is not put on the others: they are brought up as before.
func TestPowerAtTheWallWithoutAComponent(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.wall = fakeWall{}
	p := m.fork(100, 50, "python3")
	m.procs[100].pages = 1_024_000_000 / 4096 // a quarter of what is in use
	s := m.begin("a", "", p)
	m.run(100, 100)
	m.sleep()
	before := s.Record()
	m.cpu.err = assert.AnError
	m.sleep()
	r := s.Record()
	assert.InDelta(t, before.Energy()[RAM].Joules(), (r.Energy()[RAM] - before.Energy()[RAM]).Joules(), 1e-9)
	assert.InDelta(t, 0.5, r.Coverage(CPU), 1e-9)
	assert.Equal(t, 1.0, r.Coverage(RAM))
	m.conserved(s)
}

// A process that enters a container takes tens of milliseconds for it after it was made, in which there may be many
// readings.
func TestAProcessEntersACgroupAfterSomeReadings(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.unit = UnitCgroup
	p := m.fork(100, 1, "python3", "train.py")
	m.in(100, "/system.slice/run-1.scope")
	s := m.begin("a", "", p)
	m.fork(101, 1, "docker exec")
	m.in(101, "/system.slice/containerd.service")
	for pid := 200; pid < 210; pid++ {
		m.fork(pid, 1, "whatever")
		m.now = m.now.Add(10 * time.Millisecond)
		m.meter.Sample()
	}
	m.in(101, "/system.slice/run-1.scope")
	m.sleep()
	m.run(101, 100)
	m.sleep()
	assert.InDelta(t, 50, cpuOf(s), 1e-9)
	m.conserved(s)
}

// A proxy that is started anew takes a run up by the process that Opener names: it must be one that lives.
func TestOpenerIsWhoTookItsPlace(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	script := m.fork(100, 50, "sh", "train.sh")
	curl := m.fork(101, 100, "curl")
	s := m.begin("a", "", curl)
	assert.Equal(t, curl, s.Opener())
	m.exit(101)
	m.sleep()
	assert.Equal(t, script, s.Opener())
	again, err := m.meter.Begin("b", "", ScopeProcess, s.Opener())
	require.NoError(t, err)
	assert.Equal(t, script, again.Opener())
}
