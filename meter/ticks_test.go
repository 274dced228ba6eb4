package meter

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Every tick of a run's processes is counted, and once: where no idle power is to be shared, each run has exactly the
// energy of the CPU time that its processes, by birth, have used since it began. Children work, work on after they were
// left behind, and end; short-lived ones are never seen alive; pids come round again.
//
// Two things cannot be seen, and are not in these histories: the last moments of a process that was left behind, whose
// time goes to init, and one that is left behind before the reading after its birth.
func TestEveryTickIsCountedOnce(t *testing.T) {
	t.Parallel()
	type step struct{ Kind, Process, Ticks, Short int }
	steps := rapid.Custom(func(rt *rapid.T) step {
		return step{rapid.IntRange(0, 7).Draw(rt, "kind"), rapid.IntRange(0, 50).Draw(rt, "process"),
			rapid.IntRange(0, 200).Draw(rt, "ticks"), rapid.IntRange(0, 3).Draw(rt, "short-lived")}
	})
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(newMachine(t), rt)
		h.cpu.idle = 0
		run := map[int]int{} // which run a process is, by pid
		var sessions [2]*Session
		var want [2]int // ticks
		for i := range sessions {
			pid := h.begin(50, "python", "x.py")
			run[pid] = i
			h.machine.run(pid, 1000) // before the run
			h.sleep()
			sessions[i] = h.machine.begin(fmt.Sprint(i), "", h.process(pid))
		}
		roots := slices.Clone(h.alive)
		for _, s := range rapid.SliceOfN(steps, 20, 80).Draw(rt, "steps") {
			pid := h.alive[s.Process%len(h.alive)]
			p := h.procs[pid]
			switch {
			case s.Kind <= 1:
				run[h.begin(pid, "python")] = run[pid]
			case s.Kind == 2 && !slices.Contains(roots, pid):
				if p.parent != 1 {
					h.machine.run(pid, s.Ticks) // its last moments
					want[run[pid]] += s.Ticks
				}
				h.exit(pid)
				h.alive = slices.DeleteFunc(h.alive, func(o int) bool { return o == pid })
				h.ended = append(h.ended, pid)
			case s.Kind == 3 && s.Process%4 == 0:
				h.play(event{Kind: "pids wrap"})
			default:
				h.machine.run(pid, s.Ticks)
				want[run[pid]] += s.Ticks
			}
			for i := range s.Short {
				parent := roots[i%2]
				child := h.begin(parent, "sh")
				h.machine.run(child, s.Ticks)
				want[i%2] += s.Ticks
				h.exit(child)
				h.alive = slices.DeleteFunc(h.alive, func(o int) bool { return o == child })
				h.ended = append(h.ended, child)
			}
			h.play(event{Kind: "interrupts", A: 0, B: s.Ticks})
			h.sleep()
			for i, session := range sessions {
				require.InDelta(rt, h.cpu.perCPU.Watts()*float64(want[i])/100, cpuOf(session), 1e-6, "run %d", i)
			}
		}
	})
}
