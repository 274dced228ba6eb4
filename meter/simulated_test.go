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
