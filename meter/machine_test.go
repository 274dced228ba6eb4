package meter

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// machine is a simulated machine: a /proc tree that tests change, a clock, and sensors whose power is known.
type machine struct {
	t     failer
	root  string
	now   time.Time
	since time.Time // of the machine's boot
	meter *Meter
	cpu   *fakeSensor
	ram   *fakeSensor
	gpu   *fakeGPU
	procs map[int]*fakeProcess
	busy  int // ticks that no process is charged with
	forks int
	shown map[string]string // what the files of /proc hold, so that only those that changed are written
}

// failer is what a machine reports a broken law to: a test, or one random history of it.
type failer interface {
	require.TestingT
	Helper()
}

type fakeProcess struct {
	pid, parent     int
	start           int
	own, children   int // ticks
	pages           int
	args            []string
	env             []string
	cgroup          string
	tty             int
	group           int  // its process group; 0 for none that matters
	zombie          bool // it ended, and its parent has not waited for it
	ignoresChildren bool // SIGCHLD is ignored: the time of children is lost
}

// fakeSensor reads a constant power, and one more for each busy CPU.
type fakeSensor struct {
	idle, perCPU Power
	err          error
}

func (f *fakeSensor) Method() string { return "fake" }
func (f *fakeSensor) Bounds() Bounds { return Bounds{Low: 0.9, High: 1.1} }
func (f *fakeSensor) Read(l Load) (Energy, error) {
	return f.idle.Over(l.Elapsed) + f.perCPU.Over(l.Busy), f.err
}

type fakeGPU struct{ readings []GPUReading }

func (f *fakeGPU) Method() string                  { return "fake" }
func (f *fakeGPU) Bounds() Bounds                  { return Bounds{Low: 0.9, High: 1.1} }
func (f *fakeGPU) Close()                          {}
func (f *fakeGPU) Read(Load) ([]GPUReading, error) { return f.readings, nil }

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{
		t: t, root: memoryDir(t), now: time.Date(2026, 11, 24, 12, 1, 0, 0, time.UTC),
		cpu: &fakeSensor{idle: 20, perCPU: 30}, ram: &fakeSensor{idle: 4}, gpu: &fakeGPU{},
		procs: map[int]*fakeProcess{}, shown: map[string]string{},
	}
	m.since = m.now.Add(-1000 * time.Second)
	m.write("sys/kernel/random/boot_id", "dabbc8e8-f548-4a51-8f54-01d2b8de491e\n")
	m.write("meminfo", "MemTotal: 8000000 kB\nMemFree: 4000000 kB\nMemAvailable: 4000000 kB\nBuffers: 0 kB\nCached: 0 kB\n")
	m.fork(1, 0, "/sbin/init")
	m.fork(50, 1, "-bash")
	m.meter = m.open()
	return m
}

// open makes a meter of the machine, as a program that begins does.
func (m *machine) open() *Meter {
	meter := &Meter{unit: UnitProcess,
		procfs: m.root, interval: time.Second, now: func() time.Time { return m.now }, log: slog.New(slog.DiscardHandler),
		boot: func() time.Duration { return m.now.Sub(m.since) },
		cpu:  m.cpu, ram: m.ram, gpus: []GPUSensor{m.gpu},
	}
	meter.begin()
	return meter
}

func (m *machine) write(name, content string) {
	if m.shown[name] == content {
		return
	}
	m.shown[name] = content
	path := filepath.Join(m.root, name)
	require.NoError(m.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(m.t, os.WriteFile(path, []byte(content), 0o644))
}

// flush writes /proc as the processes are now.
func (m *machine) flush() {
	m.write("stat", fmt.Sprintf("cpu  %d 0 0 1000 7 0 0 99 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nprocesses %d\n", m.busy, m.forks))
	for _, p := range m.procs {
		m.write(filepath.Join(strconv.Itoa(p.pid), "stat"), fmt.Sprintf(
			"%d (a b) c) %s %d %d 1 %d -1 0 0 0 0 0 %d 0 %d 0 20 0 1 0 %d 100000 %d 18446744073709551615 0 0 0\n",
			p.pid, map[bool]string{false: "S", true: "Z"}[p.zombie], p.parent, p.group, p.tty, p.own, p.children, p.start, p.pages))
		m.write(filepath.Join(strconv.Itoa(p.pid), "cmdline"), strings.Join(p.args, "\x00")+"\x00")
		m.write(filepath.Join(strconv.Itoa(p.pid), "environ"), strings.Join(p.env, "\x00")+"\x00")
		m.write(filepath.Join(strconv.Itoa(p.pid), "cgroup"), "0::"+p.cgroup+"\n")
	}
}

func (m *machine) fork(pid, parent int, args ...string) Process {
	m.forks++
	m.procs[pid] = &fakeProcess{pid: pid, parent: parent, start: int(m.now.Sub(m.since) / tick), args: args, pages: 1000}
	m.flush()
	return Process{PID: pid, Start: uint64(m.procs[pid].start)}
}

// in gives a process variables and a control group.
func (m *machine) in(pid int, cgroup string, env ...string) {
	m.procs[pid].cgroup, m.procs[pid].env = cgroup, env
	m.flush()
}

// run lets processes use CPU time, in ticks.
func (m *machine) run(pid, ticks int) {
	m.procs[pid].own += ticks
	m.busy += ticks
	m.flush()
}

// exit ends a process: its parent gets its time, and its children get init for a parent.
func (m *machine) exit(pid int) {
	p := m.procs[pid]
	if parent := m.procs[p.parent]; parent != nil && !parent.ignoresChildren {
		parent.children += p.own + p.children
	}
	for _, c := range m.procs {
		if c.parent == pid {
			c.parent = 1
		}
	}
	delete(m.procs, pid)
	maps.DeleteFunc(m.shown, func(name, _ string) bool { return strings.HasPrefix(name, strconv.Itoa(pid)+"/") })
	require.NoError(m.t, os.RemoveAll(filepath.Join(m.root, strconv.Itoa(pid))))
	m.flush()
}

// sleep lets a second pass and reads the sensors.
func (m *machine) sleep() {
	m.now = m.now.Add(time.Second)
	m.meter.Sample()
}

func (m *machine) begin(id, parent string, p Process) *Session {
	m.t.Helper()
	s, err := m.meter.Begin(id, parent, ScopeProcess, p)
	require.NoError(m.t, err)
	return s
}

// cpuOf is a session's CPU energy in joules.
func cpuOf(s *Session) float64 {
	r := s.Record()
	return r.Energy()[CPU].Joules()
}

// cpuIn is a record's CPU energy in a phase, in joules.
func cpuIn(r Record, p Phase) (joules float64) {
	for _, g := range r.Segments {
		if g.Phase == p {
			joules += g.Energy()[CPU].Joules()
		}
	}
	return joules
}

// conserved checks the law: the runs that are inside no other, the rest and what is pending are what the sensors read.
func (m *machine) conserved(runs ...*Session) {
	m.t.Helper()
	t := m.meter.Totals()
	for c := range t.Sensors {
		sum := t.Runs[c] + t.Rest[c] + t.Pending[c]
		require.InDelta(m.t, t.Sensors[c].Joules(), sum.Joules(), 1e-9*max(1, t.Sensors[c].Joules()))
		if runs != nil {
			var e Energy
			for _, s := range runs {
				r := s.Record()
				e += r.Energy()[c]
			}
			require.InDelta(m.t, t.Runs[c].Joules(), e.Joules(), 1e-9*max(1, e.Joules()))
		}
	}
}
