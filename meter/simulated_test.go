package meter

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// simulated is a machine of 24 threads that works in steps of 10 ms, and whose kernel keeps its accounts in nanoseconds
// and shows them in whole ticks, as Linux does. What runs on it is the same whatever CPU it has, so that one history
// serves every silicon.
type simulated struct {
	t       *testing.T
	rng     *rand.Rand
	procfs  string
	now     time.Duration // since boot
	procs   map[int]*simProcess
	nextPID int
	forks   int
	agenda  map[time.Duration][]func()

	user, nice, system, irq time.Duration // of the whole machine
	silicon                 []*silicon
}

const (
	simStep    = 10 * time.Millisecond
	simThreads = 24
	simGiB     = 1 << 30 / 4096 // in pages
)

// simOwner is whose energy a process's is: by birth, whatever the kernel makes of its parent later.
type simOwner int

const (
	simNobody simOwner = iota
	simRunA            // a training run
	simRunB            // another run, beside it
	simOwners
)

func (o simOwner) String() string { return [...]string{"nobody", "A", "B"}[o] }

type simProcess struct {
	pid, parent  int
	start        time.Duration
	name         string
	owner        simOwner
	nice         bool
	demand       func(time.Duration) float64 // CPUs that it would use, by the time since it began
	kernel       float64                     // part of its time in the kernel
	resident     int                         // pages
	shared       int                         // pages of resident that are its parent's, too
	user, system time.Duration
	cuser, csys  time.Duration // of children that were waited for
	dirty        bool          // /proc shows less than is
}

func newSimulated(t *testing.T, seed uint64) *simulated {
	t.Helper()
	s := &simulated{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), procfs: memoryDir(t), now: 1000 * time.Second,
		procs: map[int]*simProcess{}, nextPID: 300, agenda: map[time.Duration][]func(){},
	}
	for _, p := range []*simProcess{{pid: 1, name: "systemd"}, {pid: 2, name: "kthreadd"}, {pid: 50, parent: 1, name: "bash"}} {
		p.demand, p.dirty = func(time.Duration) float64 { return 0.002 }, true
		s.procs[p.pid] = p
	}
	return s
}

// memoryDir is a folder that is kept in memory where the system has one: a history writes some 100,000 files.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "meter")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *simulated) write(path, content string) {
	require.NoError(s.t, os.WriteFile(path, []byte(content), 0o644))
}

// at puts an event on the agenda.
func (s *simulated) at(after time.Duration, do func()) {
	when := s.now + after.Truncate(simStep)
	s.agenda[when] = append(s.agenda[when], do)
}

// fork begins a process. Pids are used again, as those of a small pid_max are.
func (s *simulated) fork(parent *simProcess, name string, demand func(time.Duration) float64) *simProcess {
	for s.procs[s.nextPID] != nil {
		s.nextPID++
	}
	p := &simProcess{pid: s.nextPID, parent: parent.pid, start: s.now, name: name, owner: parent.owner, demand: demand,
		kernel: 0.1, resident: simGiB / 64, dirty: true}
	if s.nextPID++; s.nextPID > 600 {
		s.nextPID = 300
	}
	s.procs[p.pid] = p
	s.forks++
	require.NoError(s.t, os.Mkdir(filepath.Join(s.procfs, strconv.Itoa(p.pid)), 0o755))
	s.write(filepath.Join(s.procfs, strconv.Itoa(p.pid), "cmdline"), name+"\x00x\x00")
	return p
}

// exit ends a process, which its parent waits for at once. Its children are init's from now on.
func (s *simulated) exit(p *simProcess) {
	parent := s.procs[p.parent]
	parent.cuser, parent.csys, parent.dirty = parent.cuser+p.user+p.cuser, parent.csys+p.system+p.csys, true
	for _, c := range s.procs {
		if c.parent == p.pid {
			c.parent, c.dirty = 1, true
		}
	}
	delete(s.procs, p.pid)
	require.NoError(s.t, os.RemoveAll(filepath.Join(s.procfs, strconv.Itoa(p.pid))))
}

// short begins a process that works on one CPU and ends after so long.
func (s *simulated) short(parent *simProcess, name string, d time.Duration) *simProcess {
	p := s.fork(parent, name, func(time.Duration) float64 { return 1 })
	s.at(max(d, simStep), func() { s.exit(p) })
	return p
}

// uniform is a random time.
func (s *simulated) uniform(low, high time.Duration) time.Duration {
	return low + time.Duration(s.rng.Int64N(int64(high-low)))
}

// inOrder lists the processes by pid, so that a history is the same for the same seed.
func (s *simulated) inOrder() []*simProcess {
	return slices.SortedFunc(maps.Values(s.procs), func(a, b *simProcess) int { return cmp.Compare(a.pid, b.pid) })
}

// step lets 10 ms pass: the processes get the CPU time they ask for, as far as there is any, and each silicon draws the
// power that it takes.
func (s *simulated) step() {
	for _, do := range s.agenda[s.now] {
		do()
	}
	delete(s.agenda, s.now)
	procs := s.inOrder()
	wants, all := make([]float64, len(procs)), 0.04 // interrupts, which are no process's
	for i, p := range procs {
		wants[i] = p.demand(s.now-p.start) * (0.9 + 0.2*s.rng.Float64())
		all += wants[i]
	}
	scale := min(1, simThreads/all)
	load := simLoad{used: s.memoryUsed()}
	s.irq += time.Duration(0.04 * scale * float64(simStep))
	load.cpus[simNobody] += 0.04 * scale
	for i, p := range procs {
		load.resident[p.owner] += p.resident
		load.unique[p.owner] += p.resident - p.shared
		if wants[i] == 0 {
			continue
		}
		cpus := wants[i] * scale
		system := time.Duration(cpus * p.kernel * float64(simStep))
		user := time.Duration(cpus*float64(simStep)) - system
		p.user, p.system, p.dirty = p.user+user, p.system+system, true
		s.system += system
		if p.nice {
			s.nice += user
		} else {
			s.user += user
		}
		load.cpus[p.owner] += cpus
	}
	s.now += simStep
	for _, c := range s.silicon {
		c.step(s, load)
	}
}

// flush shows in /proc and /sys what is now.
func (s *simulated) flush() {
	ticks := func(d time.Duration) int64 { return int64(d / tick) }
	cpus := ""
	for i := range simThreads {
		cpus += fmt.Sprintf("cpu%d 0 0 0 0 0 0 0 0 0 0\n", i)
	}
	s.write(filepath.Join(s.procfs, "stat"), fmt.Sprintf("cpu  %d %d %d %d 77 %d 0 %d 0 0\n%sintr 1\nprocesses %d\n",
		ticks(s.user), ticks(s.nice), ticks(s.system), ticks(s.now)*simThreads, ticks(s.irq), ticks(s.now)/3, cpus, s.forks))
	used := s.memoryUsed()
	s.write(filepath.Join(s.procfs, "meminfo"), fmt.Sprintf("MemTotal: %d kB\nMemFree: %d kB\nMemAvailable: %d kB\nBuffers: 0 kB\nCached: 0 kB\n",
		simInstalled*4, (simInstalled-used)*4, (simInstalled-used)*4))
	for pid, p := range s.procs {
		if !p.dirty {
			continue
		}
		p.dirty = false
		require.NoError(s.t, os.MkdirAll(filepath.Join(s.procfs, strconv.Itoa(pid)), 0o755))
		s.write(filepath.Join(s.procfs, strconv.Itoa(pid), "stat"), fmt.Sprintf(
			"%d (%s) S %d %d %d 0 -1 4194304 9 9 0 0 %d %d %d %d 20 0 1 0 %d 1000000 %d 18446744073709551615 0 0 0\n",
			pid, p.name, p.parent, pid, pid, ticks(p.user), ticks(p.system), ticks(p.cuser), ticks(p.csys), ticks(p.start), p.resident))
	}
	for _, c := range s.silicon {
		c.flush(s)
	}
}

const simInstalled = 64 * simGiB // pages

// memoryUsed is in pages: the kernel's and every process's, what several share counted once.
func (s *simulated) memoryUsed() int {
	used := 2 * simGiB
	for _, p := range s.procs {
		used += p.resident - p.shared
	}
	return used
}

// simLoad is what the machine does in a step.
type simLoad struct {
	cpus             [simOwners]float64 // busy CPUs by owner
	resident, unique [simOwners]int     // pages by owner: as every process shows them, and each page once
	used             int                // pages of the whole machine
}

func (l simLoad) busy() float64 {
	sum := 0.0
	for _, c := range l.cpus {
		sum += c
	}
	return sum
}

// silicon is a CPU with its memory: it draws power by a law of its own, shows it (or not) in counters, and keeps the
// true energy of each owner. A Meter reads it.
type silicon struct {
	name    string
	sysfs   string
	power   func(busy float64) float64 // W of the CPU with so many threads busy; power(0) is idle
	weights [simOwners]float64         // dynamic power of an owner's CPU time, against the others'
	zones   []*simZone                 // RAPL's; none where there is no RAPL
	meter   *Meter
	runs    map[simOwner]*Session

	counting bool // the runs are open
	// truth is by definition: the dynamic power at each moment goes to those who work at that moment, and the idle power
	// of each second to those who worked in that second, both by CPU time.
	cpu       [simOwners]float64
	cpuAtOnce [simOwners]float64 // the same, but the idle power of each 10 ms goes to those who work in these
	machine   float64            // the CPU's, whoever used it, since the Meter began
	ram       [simOwners]float64 // DRAM's power goes by resident memory, as every process shows it
	ramUnique [simOwners]float64 // the same, with what several processes share counted once

	second     [simOwners]float64 // CPU seconds in the current second
	secondIdle float64            // J of idle power in the current second
}

type simZone struct {
	dir, name string
	part      float64 // of the CPU's or the DRAM's energy
	dram      bool
	energy    float64 // J, with noise
	offset    uint64  // uJ at the beginning
	wrapAt    uint64  // uJ
	wrapped   bool
	power     float64 // W in the last step
	shown     uint64  // uJ, before the wrap
}

// dramPower is 4 modules of 16 GiB: 1.5 W each, and more the more the CPUs work.
func dramPower(busy float64) float64 { return 6 + 0.25*busy }

func (c *silicon) step(s *simulated, l simLoad) {
	dt, busy := simStep.Seconds(), l.busy()
	idle := c.power(0)
	weighted := 0.0
	for o, cpus := range l.cpus {
		weighted += cpus * c.weights[o]
	}
	dynamic := (c.power(busy) - idle) * weighted / busy
	dram := dramPower(busy)
	for _, z := range c.zones {
		z.power = z.part * (idle + dynamic)
		if z.dram {
			z.power = z.part * dram
		}
		z.energy += z.power * dt * (1 + 0.02*s.rng.NormFloat64())
	}
	c.machine += (idle + dynamic) * dt
	if !c.counting {
		return
	}
	c.secondIdle += idle * dt
	used := float64(l.used)
	for o := range l.cpus {
		own := dynamic * dt * l.cpus[o] * c.weights[o] / weighted
		c.cpu[o] += own
		c.cpuAtOnce[o] += own + idle*dt*l.cpus[o]/busy
		c.second[o] += l.cpus[o] * dt
		c.ram[o] += dram * dt * float64(l.resident[o]) / used
		c.ramUnique[o] += dram * dt * float64(l.unique[o]) / used
	}
	if s.now%time.Second == 0 {
		sum := 0.0
		for _, cpus := range c.second {
			sum += cpus
		}
		for o, cpus := range c.second {
			c.cpu[o] += c.secondIdle * cpus / sum
		}
		c.second, c.secondIdle = [simOwners]float64{}, 0
	}
}

// flush shows the counters: in units of 2^-14 J, as of up to a millisecond ago, beginning anew at their range.
func (c *silicon) flush(s *simulated) {
	for _, z := range c.zones {
		const unit = 1.0 / (1 << 14)
		joules := z.energy - z.power*0.001*s.rng.Float64()
		z.shown = max(z.shown, uint64(max(0, float64(int64(joules/unit))*unit*1e6)))
		counter := z.offset + z.shown
		z.wrapped = counter >= z.wrapAt
		s.write(filepath.Join(c.sysfs, "class", "powercap", z.dir, "energy_uj"), fmt.Sprintln(counter%z.wrapAt))
	}
}

// cpuinfo is what /proc/cpuinfo shows of a CPU.
type cpuinfo struct {
	vendor, name            string
	family, model, stepping int
	sockets                 int
}

// install adds a silicon to the machine, with a Meter that finds that CPU.
func (s *simulated) install(c *silicon, info cpuinfo, now func() time.Time) {
	c.sysfs = memoryDir(s.t)
	c.runs = map[simOwner]*Session{}
	for _, z := range c.zones {
		dir := filepath.Join(c.sysfs, "class", "powercap", z.dir)
		require.NoError(s.t, os.MkdirAll(dir, 0o755))
		s.write(filepath.Join(dir, "name"), z.name+"\n")
		s.write(filepath.Join(dir, "max_energy_range_uj"), fmt.Sprintln(z.wrapAt))
	}
	text := ""
	for i := range simThreads {
		text += fmt.Sprintf("processor\t: %d\nvendor_id\t: %s\ncpu family\t: %d\nmodel\t\t: %d\nmodel name\t: %s\nstepping\t: %d\nphysical id\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\nflags\t\t: fpu sse2\n\n",
			i, info.vendor, info.family, info.model, info.name, info.stepping, i*info.sockets/simThreads, i/2, simThreads/2/info.sockets)
	}
	s.write(filepath.Join(s.procfs, "cpuinfo"), text)
	s.silicon = append(s.silicon, c)
	s.flush()
	var err error
	c.meter, err = New(Config{Procfs: s.procfs, Sysfs: c.sysfs, Now: now})
	require.NoError(s.t, err)
	s.t.Cleanup(c.meter.Close)
}
