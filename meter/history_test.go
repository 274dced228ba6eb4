package meter

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// history plays random events on a simulated machine. What an event does depends only on the events before it, so that
// the same history can be played again beside neighbours.
type history struct {
	*machine
	rt     *rapid.T
	alive  []int // the runs' processes, and others that may become so
	free   []int // pids that can be used again
	ended  []int // pids that the kernel has not come round to yet
	next   int
	runs   []*run
	guests []GPUProcess // neighbours on every device
	cutOff bool         // a run was closed before one that is nested in it
}

// run is a session with what a test must remember of it.
type run struct {
	*Session
	within *run
	open   bool
	last   Energies // at the last look
	stop   *Record  // while it is stopped, or after it was closed
}

// event is a step of a history; what a and b mean is up to the kind.
type event struct {
	Kind    string
	A, B    int
	Wait    time.Duration
	Devices []device
}

// device is a GPU as it is in the interval that ends with an event: its energy is 10 J, and 50 J for each worker that
// keeps it busy.
type device struct {
	Failed  bool
	Workers []worker
}

type worker struct {
	Process int // which of those alive; a stranger if there are none
	Busy    float64
	Memory  uint64
}

// Generators name themselves when they are first used, without a lock: each test makes its own.

func workers() *rapid.Generator[worker] {
	return rapid.Custom(func(t *rapid.T) worker {
		return worker{rapid.IntRange(0, 20).Draw(t, "process"), rapid.SampledFrom([]float64{0, 0, 0.01, 0.3, 1}).Draw(t, "busy"),
			rapid.SampledFrom([]uint64{0, 1 << 20, 3 << 30}).Draw(t, "memory")}
	})
}

func devices() *rapid.Generator[device] {
	workers := workers()
	return rapid.Custom(func(t *rapid.T) device {
		return device{rapid.IntRange(0, 9).Draw(t, "failed") == 9, rapid.SliceOfN(workers, 0, 4).Draw(t, "workers")}
	})
}

func events() *rapid.Generator[event] {
	devices := devices()
	waits := rapid.SampledFrom([]time.Duration{0, time.Millisecond / 2, time.Millisecond, 900 * time.Millisecond, time.Second, time.Second, 2 * time.Second, 7 * time.Minute})
	kinds := rapid.SampledFrom([]string{
		"fork", "fork", "fork", "fork", "script", "exit", "exit", "work", "work", "work", "work", "work", "memory", "interrupts", "deaf", "pids wrap",
		"begin", "begin", "begin", "nest", "join", "stop", "continue", "close", "switch", "carve", "sensor fails", "device", "restart",
	})
	return rapid.Custom(func(t *rapid.T) event {
		e := event{kinds.Draw(t, "kind"), rapid.IntRange(0, 200).Draw(t, "a"), rapid.IntRange(0, 200).Draw(t, "b"), waits.Draw(t, "wait"), nil}
		if e.Kind == "device" {
			e.Devices = rapid.SliceOfN(devices, 0, 3).Draw(t, "devices")
		}
		return e
	})
}

func newHistory(m *machine, rt *rapid.T) *history {
	m.t = rt
	h := &history{machine: m, rt: rt, next: 1000}
	h.meminfo()
	return h
}

// meminfo shows the memory of all processes as used.
func (h *history) meminfo() {
	pages := 100_000
	for _, p := range h.procs {
		pages += p.pages
	}
	h.write("meminfo", fmt.Sprintf("MemTotal: 64000000 kB\nMemFree: %d kB\nMemAvailable: %d kB\nBuffers: 0 kB\nCached: 0 kB\n", 64000000-4*pages, 64000000-4*pages))
}

// pid is a process by an event's number.
func (h *history) pid(n int) (int, bool) {
	if len(h.alive) == 0 {
		return 0, false
	}
	return h.alive[n%len(h.alive)], true
}

func (h *history) process(pid int) Process {
	return Process{PID: pid, Start: uint64(h.procs[pid].start)}
}

// begin forks a process with a pid of its own, or one that was another's long ago.
func (h *history) begin(parent int, args ...string) int {
	pid := h.next
	if len(h.free) > 0 {
		pid, h.free = h.free[0], h.free[1:]
	} else {
		h.next++
	}
	h.fork(pid, parent, args...)
	h.alive = append(h.alive, pid)
	return pid
}

// opened are the runs that go on.
func (h *history) opened() []*run {
	return slices.DeleteFunc(slices.Clone(h.runs), func(r *run) bool { return !r.open })
}

func (h *history) session(n int) *run {
	if open := h.opened(); len(open) > 0 {
		return open[n%len(open)]
	}
	return nil
}

// play does what an event says, lets its time pass, and reads the sensors.
func (h *history) play(e event) {
	pid, some := h.pid(e.A)
	r := h.session(e.A)
	switch e.Kind {
	case "fork", "script":
		parent := 50
		if some && e.B%4 > 0 {
			parent = pid
		}
		args := []string{"python", "x.py"}
		if e.Kind == "script" {
			args = []string{"sh", "train.sh"}
		}
		h.begin(parent, args...)
	case "exit":
		if some {
			h.exit(pid)
			h.alive = slices.DeleteFunc(h.alive, func(p int) bool { return p == pid })
			h.ended = append(h.ended, pid)
		}
	case "work":
		if some {
			h.machine.run(pid, e.B)
		}
	case "memory":
		if some {
			h.procs[pid].pages = e.B * 100
			h.flush()
		}
	case "interrupts":
		h.busy += e.B
		h.flush()
	case "deaf":
		if some {
			h.procs[pid].ignoresChildren = e.B%2 == 0
		}
	case "pids wrap": // in no second are there so many forks that a listing misses a whole round
		for range 4 {
			h.forks += 9000
			h.flush()
			h.sleep()
		}
		h.free, h.ended = append(h.free, h.ended...), nil
	case "begin":
		h.open(e)
	case "nest":
		if around := h.session(e.B); r != nil && r.Nest(around.id) {
			r.within = around
		}
	case "join":
		if some && r != nil {
			r.Join(h.process(h.alive[e.B%len(h.alive)]))
		}
	case "stop":
		if r != nil {
			record := r.Stop()
			r.stop = &record
		}
	case "continue":
		if r != nil {
			r.Continue()
			r.stop = nil
		}
	case "close":
		if r != nil {
			h.close(r, e.B%4 > 0)
		}
	case "switch":
		if r != nil {
			r.Switch([]Phase{Training, Inference}[e.B%2])
		}
	case "carve":
		if r != nil {
			to := h.now.Add(-time.Duration(e.A) * 100 * time.Millisecond)
			r.Carve(to.Add(-time.Duration(e.B)*100*time.Millisecond), to, Inference)
		}
	case "sensor fails":
		for _, s := range []*fakeSensor{h.cpu, h.ram} {
			if s.err = nil; e.A%2 == 0 {
				s.err = ErrNoData
			}
			e.A /= 2
		}
	case "restart":
		h.restart(e)
	case "device":
		h.gpu.readings = nil
		for i, d := range e.Devices {
			h.gpu.readings = append(h.gpu.readings, h.reading(fmt.Sprint(i), d))
		}
	}
	h.meminfo()
	h.now = h.now.Add(e.Wait)
	h.meter.Sample()
}

// restart ends the meter as SIGKILL would, lets processes begin, work and end, and goes on with what was kept.
func (h *history) restart(e event) {
	kept := kill(h.rt, h.meter)
	for i := range e.B % 4 {
		h.play(event{Kind: []string{"fork", "work", "exit", "work"}[(e.A+i)%4], A: e.A + i, B: e.B, Wait: e.Wait / 2})
	}
	h.meter = h.machine.open()
	sessions, err := h.meter.Resume(kept)
	require.NoError(h.rt, err)
	for _, r := range h.opened() {
		require.Contains(h.rt, sessions, r.id)
		r.Session = sessions[r.id]
	}
}

// reading is what the sensor would read of a device.
func (h *history) reading(name string, d device) GPUReading {
	if d.Failed {
		return GPUReading{Device: name, Err: ErrNoData}
	}
	r := GPUReading{Device: name, Energy: 10}
	for _, w := range d.Workers {
		pid, ok := h.pid(w.Process)
		if !ok {
			pid = 99
		}
		r.add(GPUProcess{PID: pid, Busy: w.Busy, Memory: w.Memory})
	}
	for _, g := range h.guests {
		r.add(g)
	}
	return r
}

// crowd lets neighbours begin, work, take memory, use the devices, and end. They are no run's.
func (h *history) crowd(neighbours []worker, ticks int) {
	h.guests = nil
	for _, n := range neighbours {
		pid := 100_000 + n.Process
		switch {
		case h.procs[pid] == nil:
			h.fork(pid, []int{1, 50}[n.Process%2], "neighbour")
		case n.Busy == 1:
			h.exit(pid)
			continue
		}
		h.procs[pid].pages = int(n.Memory / 4096)
		h.machine.run(pid, ticks)
		h.guests = append(h.guests, GPUProcess{PID: pid, Busy: n.Busy, Memory: n.Memory})
	}
}

func (r *GPUReading) add(p GPUProcess) {
	r.Processes = append(r.Processes, p)
	r.Energy += Energy(50 * p.Busy)
}

// open begins a run: of a process, or of the machine; nested in another, or not.
func (h *history) open(e event) {
	r := &run{open: true}
	parent := ""
	if around := h.session(e.B); around != nil && e.B%3 == 0 {
		r.within, parent = around, around.id
	}
	scope, p := ScopeMachine, Process{}
	if e.B%5 > 0 {
		pid, ok := h.pid(e.A)
		if !ok {
			return
		}
		scope, p = ScopeProcess, h.process(pid)
	}
	var err error
	r.Session, err = h.meter.Begin(fmt.Sprint("run", len(h.runs)), parent, scope, p)
	require.NoError(h.rt, err)
	h.runs = append(h.runs, r)
}

// close ends a run, and first those that are nested in it, as MLflow's client does; or else they go on.
func (h *history) close(r *run, nestedFirst bool) {
	for _, o := range h.opened() {
		if o.within != r {
			continue
		}
		if nestedFirst {
			h.close(o, true)
		} else {
			o.within, h.cutOff = r.within, true
		}
	}
	r.Close()
	r.open = false
	record := r.Record()
	r.stop = &record
}

// energies are what each run has in the end.
func (h *history) energies() []Energies {
	var all []Energies
	for _, r := range h.runs {
		record := r.Record()
		all = append(all, record.Energy())
	}
	return all
}
