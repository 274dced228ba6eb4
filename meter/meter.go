// Package meter tells how much energy runs use on this machine: it reads the machine's sensors, finds out which
// processes are a run's, and gives every run its share. It knows nothing of grams, of HTTP or of MLflow.
//
// A reader who follows one run reads session.go, then meter.go and share.go, then processes.go.
package meter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/mem"
)

// Config says what a Meter reads.
type Config struct {
	Procfs, Sysfs string           // roots of the sensor files; empty: /proc and /sys
	Interval      time.Duration    // how often Run reads the sensors; 0: one second
	Now           func() time.Time // clock; nil: time.Now
	Logger        *slog.Logger     // nil: slog.Default
	OnSample      func(time.Duration)
}

// Meter reads the machine's sensors, for all sessions together. Its methods may be called from any goroutine.
type Meter struct {
	procfs   string
	interval time.Duration
	now      func() time.Time
	log      *slog.Logger
	onSample func(time.Duration)
	hostProc context.Context // tells gopsutil where /proc is

	cpu, ram Sensor
	gpu      GPUSensor
	findings []Finding

	mu       sync.Mutex // over all that follows, the sensors, and the sessions' fields
	fs       procfs
	trees    processes
	sessions []*Session
	last     time.Time     // of the reading before
	busy     time.Duration // counter at the reading before
	failing  [components]bool
	totals   Totals
}

// Totals is what the sensors read since the meter began. Sensors = Runs + Rest + Pending, always.
type Totals struct {
	Sensors Energies
	Runs    Energies // of all runs that are inside no other
	Rest    Energies // nobody's
	Pending Energies // used by runs that are about to end
}

// New opens the sensors that this machine has.
func New(cfg Config) (*Meter, error) {
	m := &Meter{
		procfs:   cmp.Or(cfg.Procfs, "/proc"),
		interval: cmp.Or(cfg.Interval, time.Second),
		now:      cfg.Now,
		log:      cfg.Logger,
		onSample: cfg.OnSample,
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.Default()
	}
	m.cpu, m.ram, m.gpu, m.findings = choose(m.procfs, cmp.Or(cfg.Sysfs, "/sys"))
	m.begin()
	return m, nil
}

// begin takes the first reading, from which all others count.
func (m *Meter) begin() {
	m.hostProc = context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: m.procfs})
	m.fs = procfs{root: m.procfs}
	m.trees = processes{fs: procfs{root: m.procfs}, tracked: map[int]*process{}}
	m.last = m.now()
	var forks uint64
	m.busy, forks, _ = m.fs.machine()
	_ = m.trees.discover(forks) // so that the first run need not wait for it
	load := Load{MemoryUsed: m.memoryUsed()}
	for _, s := range []Sensor{m.cpu, m.ram} {
		if s != nil {
			_, _ = s.Read(load)
		}
	}
	if m.gpu != nil {
		_, _ = m.gpu.Read(load)
	}
}

// Findings lists the sensors of this machine: which are used, and why the others are not.
func (m *Meter) Findings() []Finding { return slices.Clone(m.findings) }

// Method describes how a component is read; ok is false where it is not read at all.
func (m *Meter) Method(c Component) (name string, b Bounds, ok bool) {
	switch {
	case c == CPU && m.cpu != nil:
		return m.cpu.Method(), m.cpu.Bounds(), true
	case c == RAM && m.ram != nil:
		return m.ram.Method(), m.ram.Bounds(), true
	case c == GPU && m.gpu != nil:
		return m.gpu.Method(), m.gpu.Bounds(), true
	}
	return "", Bounds{}, false
}

// WhyNot says in a few words why a component is not read; empty where it is.
func (m *Meter) WhyNot(c Component) string {
	if _, _, ok := m.Method(c); ok {
		return ""
	}
	for _, f := range m.findings {
		if f.Component == c {
			return f.Detail
		}
	}
	return "no sensor"
}

// Totals returns the energy since the meter began, up to the latest reading.
func (m *Meter) Totals() Totals {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.totals
	for _, s := range m.sessions {
		t.Pending.Add(s.pending)
	}
	return t
}

// Run reads the sensors until ctx is done.
func (m *Meter) Run(ctx context.Context) error {
	tick := time.NewTicker(m.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.Sample()
		}
	}
}

// Close releases the sensors.
func (m *Meter) Close() {
	if m.gpu != nil {
		m.gpu.Close()
	}
}

// Sample reads the sensors now.
func (m *Meter) Sample() {
	began := time.Now()
	m.mu.Lock()
	m.sample()
	m.mu.Unlock()
	if m.onSample != nil {
		m.onSample(time.Since(began))
	}
}

// Begin starts to meter a run. parent is the run that it is nested in, if that is being metered too. With
// ScopeProcess, p is the process that opened it; ErrNoPeer is returned if it is gone already.
func (m *Meter) Begin(id, parent string, scope Scope, p Process) (*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sample()
	s := &Session{meter: m, id: id, opener: p, record: Record{
		Scope:    scope,
		Segments: []Segment{{Phase: Training, Start: m.last, End: m.last}},
	}}
	if i := slices.IndexFunc(m.sessions, func(o *Session) bool { return o.id == parent && o.id != id }); i >= 0 {
		s.parent = m.sessions[i]
	}
	if scope == ScopeProcess {
		if len(m.sessions) == 0 { // nobody needed the list of processes until now
			if _, forks, err := m.fs.machine(); err == nil {
				_ = m.trees.discover(forks)
			}
		}
		s.above = m.trees.ancestors(p.PID)
		if !m.attach(s, p) && !m.replace(s) {
			m.trees.detach(s)
			return nil, fmt.Errorf("process %d ended: %w", p.PID, ErrNoPeer)
		}
		m.standIn(s)
	}
	m.sessions = append(m.sessions, s)
	return s, nil
}

// attach makes p a root of the session's trees.
func (m *Meter) attach(s *Session, p Process) bool { return m.trees.attach(s, p) }

// end forgets a session. What it had held back is nobody's, and runs nested in it are now inside its own parent.
func (m *Meter) end(s *Session) {
	m.sessions = slices.DeleteFunc(m.sessions, func(o *Session) bool { return o == s })
	for _, o := range m.sessions {
		if o.parent == s {
			o.parent = s.parent
		}
	}
	m.trees.detach(s)
	m.totals.Rest.Add(s.pending)
	s.pending, s.held = Energies{}, nil
}

// replace puts the nearest living ancestor of a session's opening process in its place, once that one ended.
func (m *Meter) replace(s *Session) bool {
	s.orphan = true
	for _, a := range s.above {
		if m.trees.alive(a) && m.attach(s, a) {
			return true
		}
	}
	return false
}

// standIn returns the process that would take the opener's place now. It is tracked beforehand, so that nothing that
// begins below it is missed when the opener ends.
func (m *Meter) standIn(s *Session) *process {
	for _, a := range s.above {
		if p := m.trees.track(a.PID, false); p != nil && p.start == a.Start {
			return p
		}
	}
	return nil
}

// follow brings the process trees up to date.
func (m *Meter) follow(forks uint64) {
	if len(m.sessions) == 0 {
		clear(m.trees.tracked)
		return
	}
	if err := m.trees.discover(forks); err != nil {
		m.log.Warn("cannot list processes", "error", err)
	}
	m.trees.refresh()
	keep := map[int]bool{}
	for _, s := range m.sessions {
		if s.record.Scope != ScopeProcess || s.orphan {
			continue
		}
		if p := m.trees.tracked[s.opener.PID]; p == nil || p.start != s.opener.Start {
			m.replace(s)
			continue
		}
		if p := m.standIn(s); p != nil {
			keep[p.pid] = true
		}
	}
	m.trees.prune(keep)
}

// minInterval is the shortest time between two readings: many runs may end at the same moment, and the counters do
// not tick faster.
const minInterval = time.Millisecond

// sample reads the sensors and gives every session its share of the time since the reading before. Callers hold mu.
func (m *Meter) sample() {
	now := m.now()
	elapsed := now.Sub(m.last)
	if elapsed < minInterval {
		return
	}
	start := m.last
	m.last = now
	load := Load{Elapsed: elapsed, MemoryUsed: m.memoryUsed()}
	busy, forks, err := m.fs.machine()
	if err == nil {
		load.Busy = max(0, busy-m.busy)
		m.busy = busy
	}
	m.follow(forks)

	var e Energies
	var unread [components]bool
	for _, r := range []struct {
		c Component
		s Sensor
	}{{CPU, m.cpu}, {RAM, m.ram}} {
		if r.s == nil {
			continue
		}
		var readErr error
		if e[r.c], readErr = r.s.Read(load); readErr != nil {
			e[r.c], unread[r.c] = 0, true
		}
		m.report(r.c, readErr)
	}
	if err != nil { // without the machine's CPU time there is neither a model nor a share
		unread[CPU] = true
		m.report(CPU, err)
	}
	var devices []GPUReading
	if m.gpu != nil {
		var gpuErr error
		devices, gpuErr = m.gpu.Read(load)
		for _, d := range devices {
			e[GPU] += d.Energy
			gpuErr = errors.Join(gpuErr, d.Err)
		}
		unread[GPU] = gpuErr != nil
		m.report(GPU, gpuErr)
	}

	m.totals.Sensors.Add(e)
	rest := m.share(e, load, devices, func(s *Session, part Energies) { m.give(s, start, now, part) })
	m.totals.Rest.Add(rest)
	for _, s := range m.sessions {
		r := s.current()
		r.Segments[len(r.Segments)-1].End = now // time passes for a run that used nothing, too
		for c, missing := range unread {
			if missing {
				r.Unread[c] += elapsed
			}
		}
	}
}

// report logs when a sensor begins to fail, and when it is back: not at each reading.
func (m *Meter) report(c Component, err error) {
	if failing := err != nil; failing != m.failing[c] {
		m.failing[c] = failing
		if failing {
			m.log.Warn("sensor fails; its energy is not counted until it is back", "component", c.String(), "error", err)
		} else {
			m.log.Info("sensor is back", "component", c.String())
		}
	}
}

// memoryUsed returns the bytes of memory in use on the machine, 0 where that cannot be read.
func (m *Meter) memoryUsed() uint64 {
	v, err := mem.VirtualMemoryWithContext(m.hostProc)
	if err != nil || v.Available > v.Total {
		return 0
	}
	return v.Total - v.Available
}

// InPod says whether this process runs in a Kubernetes pod, where the machine is a node full of others' work.
func InPod() bool {
	_, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount")
	return os.Getenv("KUBERNETES_SERVICE_HOST") != "" || !errors.Is(err, os.ErrNotExist) && err == nil
}
