package meter

import (
	"fmt"
	"testing"
	"time"

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
				m.procs[pid] = &fakeProcess{pid: pid, parent: parent, start: m.forks, args: args, pages: 1000, own: 100}
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
