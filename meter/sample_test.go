package meter

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// BenchmarkSample is what a reading costs with so many runs, each of a process with two children, on a machine with so
// many processes in all. Every process has used CPU time and every run has a shell script above it. "forks" has a new
// process somewhere at each reading, so that all are listed. The files are in memory, which is a little cheaper than the
// kernel's own /proc.
func BenchmarkSample(b *testing.B) {
	for _, c := range []struct {
		runs, processes int
		forks           bool
	}{
		{1, 0, false}, {100, 0, false}, {1000, 0, false}, {1, 2000, false}, {1, 2000, true}, {100, 2000, true}, {1000, 4000, true},
	} {
		b.Run(fmt.Sprintf("runs=%d/processes=%d/forks=%v", c.runs, max(c.processes, 4*c.runs+2), c.forks), func(b *testing.B) {
			m := newMachine(b)
			pid := 100
			add := func(parent int, args ...string) int {
				pid++
				m.forks++
				m.procs[pid] = &fakeProcess{pid: pid, parent: parent, start: int(m.now.Sub(m.since) / tick), args: args, pages: 1000, own: 100}
				return pid
			}
			var openers []int
			for range c.runs {
				p := add(add(50, "sh", "train.sh"), "python", "train.py")
				add(p, "worker")
				add(p, "worker")
				openers = append(openers, p)
			}
			for len(m.procs) < c.processes {
				add(1, "daemon")
			}
			m.flush()
			for i, p := range openers {
				_, err := m.meter.Begin(fmt.Sprint(i), "", ScopeProcess, Process{PID: p, Start: uint64(m.procs[p].start)})
				require.NoError(b, err)
			}
			m.sleep()
			b.ReportAllocs()
			for b.Loop() {
				if c.forks {
					m.forks++
					m.write("stat", fmt.Sprintf("cpu  %d 0 0 1000\nprocesses %d\n", m.forks, m.forks))
				}
				m.now = m.now.Add(time.Second)
				m.meter.Sample()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/sample")
		})
	}
}

// waitingSensor takes as long for its first reading as it takes others to ask for one.
type waitingSensor struct {
	fakeSensor
	reads int
	asked func() bool
}

func (w *waitingSensor) Read(l Load) (Energy, error) {
	if w.reads++; w.reads == 1 {
		for deadline := time.Now().Add(2 * time.Second); !w.asked() && time.Now().Before(deadline); {
			runtime.Gosched()
		}
	}
	return w.fakeSensor.Read(l)
}

// Many runs that end at the same moment wait for one reading, not for one each.
func TestOneReadingServesAllWhoWaitForIt(t *testing.T) {
	t.Parallel()
	const runs = 50
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	var sessions []*Session
	for i := range runs {
		sessions = append(sessions, m.begin(fmt.Sprint(i), "", p))
	}
	var asked atomic.Int64
	began := m.now
	m.meter.now = func() time.Time { return began.Add(time.Duration(asked.Add(1)) * 10 * time.Millisecond) }
	m.meter.boot = func() time.Duration { return 0 }
	sensor := &waitingSensor{asked: func() bool { return asked.Load() > runs }}
	m.meter.cpu = sensor
	var all sync.WaitGroup
	for _, s := range sessions {
		all.Go(func() { s.Stop() })
	}
	all.Wait()
	assert.LessOrEqual(t, sensor.reads, 2)
	m.conserved(sessions...)
}

// closingGPU is a device that must not be read while it is closed.
type closingGPU struct {
	fakeGPU
	open bool
}

func (g *closingGPU) Read(Load) ([]GPUReading, error) {
	return []GPUReading{{Device: fmt.Sprint(g.open)}}, nil
}
func (g *closingGPU) Close() { g.open = false }

// Figures that are written late may ask for a reading while the program ends.
func TestCloseWaitsForAReading(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.gpus = []GPUSensor{&closingGPU{open: true}}
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.now = m.now.Add(time.Second)
	var both sync.WaitGroup
	both.Go(func() { s.Stop() })
	both.Go(m.meter.Close)
	both.Wait()
}
