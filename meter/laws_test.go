package meter

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Over random histories of processes and runs: the sum law holds at every reading, energy never falls, a nested run is
// never more than what it is inside of.
func TestLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t)
		next := 100
		alive := []int{50}
		var open []*Session
		before := map[*Session]Energy{}
		pick := func(from []int) int { return rapid.SampledFrom(from).Draw(rt, "pid") }
		for range rapid.IntRange(5, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1:
				m.fork(next, pick(alive), "python", "x.py")
				alive = append(alive, next)
				next++
			case 2:
				if pid := pick(alive); pid != 50 {
					m.exit(pid)
					for i, p := range alive {
						if p == pid {
							alive = append(alive[:i], alive[i+1:]...)
							break
						}
					}
				}
			case 3:
				pid := pick(alive)
				parent := ""
				if len(open) > 0 && rapid.Bool().Draw(rt, "nested") {
					parent = rapid.SampledFrom(open).Draw(rt, "parent").id
				}
				s, err := m.meter.Begin(fmt.Sprint("run", next), parent, ScopeProcess, Process{PID: pid, Start: uint64(m.procs[pid].start)})
				next++
				require.NoError(rt, err)
				open = append(open, s)
			case 4:
				if len(open) > 0 {
					i := rapid.IntRange(0, len(open)-1).Draw(rt, "session")
					if rapid.Bool().Draw(rt, "stop first") {
						open[i].Stop()
						m.sleep()
					}
					if rapid.Bool().Draw(rt, "goes on") {
						open[i].Continue()
					} else {
						open[i].Close()
						open = append(open[:i], open[i+1:]...)
					}
				}
			case 5:
				m.busy += rapid.IntRange(0, 100).Draw(rt, "others")
				m.flush()
			default:
				m.run(pick(alive), rapid.IntRange(0, 150).Draw(rt, "ticks"))
			}
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 2000).Draw(rt, "ms")) * time.Millisecond)
			m.meter.Sample()
			m.conserved()
			for _, s := range open {
				r := s.Record()
				e := r.Energy().Total()
				require.GreaterOrEqual(rt, e+1e-9, before[s])
				before[s] = e
			}
		}
	})
}

// A nested run's energy is never more than that of the run it is inside of, while both go on.
func TestNestedIsNeverMoreThanItsParent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t)
		m.fork(100, 50, "python", "x.py")
		m.fork(101, 100, "python", "y.py")
		m.fork(200, 1, "python", "z.py")
		of := func(label string) Process {
			pid := rapid.SampledFrom([]int{100, 101, 200}).Draw(rt, label)
			return Process{PID: pid, Start: uint64(m.procs[pid].start)}
		}
		parent := m.begin("parent", "", of("parent"))
		child := m.begin("child", "parent", of("child"))
		for range 5 {
			for _, pid := range []int{100, 101, 200} {
				m.run(pid, rapid.IntRange(0, 100).Draw(rt, "ticks"))
			}
			m.sleep()
			p, c := parent.Record(), child.Record()
			for k := range p.Energy() {
				require.LessOrEqual(rt, c.Energy()[k], p.Energy()[k]+1e-9)
			}
			m.conserved(parent)
		}
	})
}
