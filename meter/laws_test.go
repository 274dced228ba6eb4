package meter

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Over random histories of processes, runs, devices and failures, at every reading: what the runs have, the rest and
// what is pending are what the sensors read; no energy is negative, falls, or leaves its method's bounds; a nested run
// has never more than the run it is inside of, and a stopped one's record stands.
func TestLaws(t *testing.T) {
	t.Parallel()
	events := events()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(newMachine(t), rt)
		for _, e := range rapid.SliceOfN(events, 40, 150).Draw(rt, "events") {
			h.play(e)
			h.check()
		}
	})
}

func (h *history) check() {
	var roots []*Session
	for _, r := range h.runs {
		if r.within == nil {
			roots = append(roots, r.Session)
		}
	}
	if h.cutOff { // what a nested run had before its parent ended is in both
		roots = nil
	}
	h.conserved(roots...)
	for _, r := range h.runs {
		record := r.Record()
		e := record.Energy()
		for c := range components {
			_, b, ok := h.meter.Method(c)
			require.True(h.rt, ok)
			require.LessOrEqual(h.rt, b.Low*e[c].Joules(), e[c].Joules()+1e-9)
			require.GreaterOrEqual(h.rt, b.High*e[c].Joules(), e[c].Joules()-1e-9)
			require.GreaterOrEqual(h.rt, e[c]+1e-9, r.last[c], "%s falls", c)
			require.LessOrEqual(h.rt, record.Gaps[c].For, record.Duration())
		}
		require.LessOrEqual(h.rt, e.Total().Joules(), record.Machine.Joules()+1e-6, "a run is a part of its machine")
		r.last = e
		for i, g := range record.Segments {
			require.False(h.rt, g.End.Before(g.Start))
			require.True(h.rt, i == 0 || record.Segments[i-1].End.Equal(g.Start), "segments leave no time out")
			for _, s := range g.Slices {
				require.False(h.rt, s.End.Before(s.Start))
				for c, j := range s.Energy {
					require.GreaterOrEqual(h.rt, j.Joules(), 0.0, "%s of a slice", Component(c))
				}
			}
		}
		if r.stop != nil {
			for c, j := range r.stop.Energy() {
				require.InDelta(h.rt, j.Joules(), e[c].Joules(), 1e-9*max(1, j.Joules()), "the record of a run that is stopped or closed stands, however it is carved")
			}
			require.Equal(h.rt, r.stop.Duration(), record.Duration())
		}
		if r.within != nil && r.open && r.stop == nil && r.within.stop == nil {
			around := r.within.Record()
			for c, j := range around.Energy() {
				require.LessOrEqual(h.rt, e[c].Joules(), j.Joules()+1e-9, "%s of a nested run", Component(c))
			}
		}
	}
}

// A neighbour never adds to a run: the same history, played beside processes that fork, work, hold memory and use the
// same devices, gives every run at most the energy that it has without them. The sensors read what the neighbours use,
// too. What a run is given ahead of a reading goes by the power of the second before, in which a machine without
// neighbours may have rested: here, each time is long enough for a reading.
func TestANeighbourNeverAdds(t *testing.T) {
	t.Parallel()
	type step struct {
		Event      event
		Neighbours []worker
		Ticks      int // that each of them works
	}
	events, workers := events(), workers()
	steps := rapid.Custom(func(rt *rapid.T) step {
		return step{events.Draw(rt, "event"), rapid.SliceOfN(workers, 0, 2).Draw(rt, "neighbours"), rapid.IntRange(0, 300).Draw(rt, "ticks")}
	})
	rapid.Check(t, func(rt *rapid.T) {
		memory := rapid.Bool().Draw(rt, "memory is modelled")
		var alone []Energies
		all := rapid.SliceOfN(steps, 20, 60).Draw(rt, "steps")
		for _, crowded := range []bool{false, true} {
			h := newHistory(newMachine(t), rt)
			if memory {
				h.meter.ram = newRAMModel()
			}
			for _, s := range all {
				if s.Event.Kind == "begin" && s.Event.B%5 == 0 {
					s.Event.B++ // a run whose scope is the machine has its neighbours' energy
				}
				if s.Event.Wait > 0 {
					s.Event.Wait = max(s.Event.Wait, Resolution)
				}
				if crowded {
					h.crowd(s.Neighbours, s.Ticks)
				}
				h.play(s.Event)
				h.conserved()
			}
			if !crowded {
				alone = h.energies()
				continue
			}
			for i, e := range h.energies() {
				for c := range e {
					require.LessOrEqual(rt, e[c].Joules(), alone[i][c].Joules()+1e-9*max(1, alone[i][c].Joules()), "%s of %s", Component(c), h.runs[i].id)
				}
			}
		}
	})
}

// Equal processes get equal energy: twins that do the same at the same time, whatever else the machine does.
func TestEqualProcessesGetEqualEnergy(t *testing.T) {
	t.Parallel()
	type step struct {
		Event          event // of the others
		Ticks, Child   int   // that each twin works, and a child of its that comes and goes
		Pages          int
		Busy           float64
		Memory         uint64
		SeparateDevice bool
	}
	events, workers := events(), workers()
	steps := rapid.Custom(func(rt *rapid.T) step {
		w := workers.Draw(rt, "on a device")
		return step{events.Draw(rt, "event"), rapid.IntRange(0, 200).Draw(rt, "ticks"), rapid.IntRange(0, 90).Draw(rt, "child's ticks"),
			rapid.IntRange(0, 10_000).Draw(rt, "pages"), w.Busy, w.Memory, rapid.Bool().Draw(rt, "a device each")}
	})
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(newMachine(t), rt)
		twins := [2]int{500, 501}
		var runs [2]*Session
		for _, pid := range twins {
			h.fork(pid, 50, "python")
		}
		for i, pid := range twins {
			runs[i] = h.machine.begin(fmt.Sprint("twin", i), "", h.process(pid))
		}
		for _, s := range rapid.SliceOfN(steps, 15, 40).Draw(rt, "steps") {
			var readings []GPUReading
			shared := GPUReading{Device: "shared", Energy: 10}
			for i, pid := range twins {
				h.fork(510+i, pid, "child")
				h.machine.run(510+i, s.Child)
				h.exit(510 + i)
				h.machine.run(pid, s.Ticks)
				h.procs[pid].pages = s.Pages
				p := GPUProcess{PID: pid, Busy: s.Busy, Memory: s.Memory}
				if !s.SeparateDevice {
					shared.add(p)
					continue
				}
				own := GPUReading{Device: fmt.Sprint(i), Energy: 10}
				own.add(p)
				readings = append(readings, own)
			}
			h.gpu.readings = append(readings, shared)
			h.flush()
			s.Event.Devices = nil
			if s.Event.Kind == "device" {
				s.Event.Kind = "work"
			}
			h.play(s.Event)
			a, b := runs[0].Record(), runs[1].Record()
			for c, j := range a.Energy() {
				require.InDelta(rt, j.Joules(), b.Energy()[c].Joules(), 1e-9*max(1, j.Joules()), "%s", Component(c))
			}
			h.conserved()
		}
	})
}
