package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A process that cannot be read for once, as where the proxy has run out of files, has not ended: the run keeps it, and
// what it used meanwhile is counted later.
func TestAProcessThatCannotBeReadHasNotEnded(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.cpu.idle = 0
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.sleep()
	m.procs[100].own += 100
	m.busy += 100
	m.flush()
	m.write("stat", "garbage\n")
	m.write("100/stat", "garbage\n")
	m.sleep()
	m.flush()
	m.sleep()
	m.run(100, 100)
	m.sleep()
	assert.InDelta(t, 60, cpuOf(s), 1e-9)
	m.conserved(s)
}

// Without the machine's CPU time there is no share: a run must not get its neighbours' energy in its place.
func TestWithoutTheMachinesCPUTimeNothingIsShared(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.fork(200, 50, "neighbour")
	m.run(100, 100)
	m.run(200, 300)
	m.write("stat", "garbage\n")
	m.sleep()
	r := s.Record()
	assert.Zero(t, r.Energy()[CPU])
	assert.Equal(t, time.Second, r.Gaps[CPU].For)
	m.conserved(s)
}

// Nor is there a share of memory's energy without the machine's memory in use.
func TestWithoutTheMachinesMemoryNothingIsShared(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.write("meminfo", "garbage\n")
	m.sleep()
	r := s.Record()
	assert.Zero(t, r.Energy()[RAM])
	assert.Equal(t, time.Second, r.Gaps[RAM].For)
	m.conserved(s)
}

// slowSystem takes two seconds to say how much memory is in use, as it may while the machine swaps.
type slowSystem struct {
	system
	m *machine
}

func (s slowSystem) memoryUsed() (uint64, error) {
	s.m.now = s.m.now.Add(2 * time.Second)
	return s.system.memoryUsed()
}

// A reading that takes long is no suspended machine.
func TestASlowReadingIsNoSuspension(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.meter.sys = slowSystem{m.meter.sys, m}
	m.run(100, 100)
	m.sleep()
	r := s.Record()
	assert.Zero(t, r.Asleep)
	assert.Equal(t, 1.0, r.Coverage(CPU))
	assert.Positive(t, r.Energy()[CPU].Joules())
}
