// Package meter tells how much energy runs use on this machine: it reads the machine's sensors, finds out which
// processes are a run's, and gives every run its share. It knows nothing of grams, of HTTP or of MLflow.
//
// A reader who follows one run reads session.go, then meter.go, unit.go and sample.go, then share.go and processes.go.
package meter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says what a Meter reads.
type Config struct {
	Procfs, Sysfs string           // roots of the sensor files; empty: /proc and /sys
	Interval      time.Duration    // how often Run reads the sensors; 0: one second
	Unit          Unit             // what of the machine is a run's; empty: its processes
	Psys          bool             // read the platform's RAPL zone instead of packages and memory
	Wall          Line             // from the components' power to the wall's; the zero Line: unknown
	Now           func() time.Time // clock; nil: time.Now
	Logger        *slog.Logger     // nil: slog.Default
	OnSample      func(time.Duration)
}

// Meter reads the machine's sensors, for all sessions together. Its methods may be called from any goroutine.
type Meter struct {
	procfs   string
	interval time.Duration
	unit     Unit
	now      func() time.Time
	boot     func() time.Duration // time since boot, the time in which the machine was suspended included
	awake    func() time.Duration // the same without it
	log      *slog.Logger
	onSample func(time.Duration)

	cpu, ram Sensor
	gpus     []GPUSensor
	wall     WallSensor // nil: what the components' sensors read is all that is known
	findings []Finding

	mu       sync.Mutex // over all that follows, the sensors, and the sessions' fields
	sys      system
	trees    processes
	sessions []*Session
	young    map[int]time.Time // processes that may still enter a session's control group, and when they were first seen
	last     time.Time         // of the sample before
	lastRead time.Time         // of the reading before: not each sample reads the sensors, see ahead
	lastBoot time.Duration     // boot's at the reading before
	busy     time.Duration     // counter at the reading before
	down     *downtime         // while Resume takes the first reading
	failing  map[Component]bool
	totals   Totals

	recent     recent
	memoryUsed uint64        // bytes, at the reading before
	lent       Energies      // given to runs ahead of a reading
	lentBusy   time.Duration // the machine's CPU time that went with it
	lentUsed   time.Duration // the runs' part of that

	nextProportion time.Time // when apportion may go on

	factor     Energy // from the components' sensors to the wall, at the last reading of them all; 0 before the first
	components Energy // what the components' sensors read since the meter began, before it is brought up to the wall
}

// Totals is what the sensors read since the meter began. Sensors = Runs + Rest + Pending, always.
type Totals struct {
	Sensors Energies // with what runs were given ahead of the next reading
	Runs    Energies // of all runs that are inside no other
	Rest    Energies // nobody's
	Pending Energies // used by runs that are about to end
}

// New opens the sensors that this machine has. There may be none: Findings says why.
func New(cfg Config) *Meter {
	m := &Meter{
		procfs:   cmp.Or(cfg.Procfs, "/proc"),
		interval: cmp.Or(cfg.Interval, time.Second),
		unit:     cmp.Or(cfg.Unit, UnitProcess),
		now:      cfg.Now,
		log:      cfg.Logger,
		onSample: cfg.OnSample,
	}
	if m.now == nil {
		m.now, m.boot, m.awake = time.Now, bootTime, awakeTime
	}
	if m.log == nil {
		m.log = slog.Default()
	}
	chosen := choose(m.procfs, cmp.Or(cfg.Sysfs, "/sys"), cfg.Psys, cfg.Wall)
	m.cpu, m.ram, m.wall, m.findings = chosen.cpu, chosen.ram, chosen.wall, chosen.findings
	for _, g := range chosen.gpus {
		m.gpus = append(m.gpus, &hastyGPU{GPUSensor: g, patience: gpuPatience})
	}
	m.begin()
	return m
}

// begin takes the first reading, from which all others count.
func (m *Meter) begin() {
	m.failing = map[Component]bool{}
	m.young = map[int]time.Time{}
	if m.sys == nil {
		m.sys = openSystem(m.procfs)
	}
	m.trees = processes{sys: m.sys, contained: contained(m.procfs), tracked: map[int]*process{}}
	m.last = m.now()
	m.lastRead = m.last
	if m.boot == nil { // a test's clock is never suspended
		began := m.last
		m.boot = func() time.Duration { return m.now().Sub(began) }
	}
	if m.awake == nil {
		m.awake = m.boot
	}
	m.lastBoot = m.boot()
	var forks uint64
	m.busy, forks, _ = m.sys.machine()
	_ = m.trees.discover(forks) // so that the first run need not wait for it
	load := Load{}
	load.MemoryUsed, _ = m.sys.memoryUsed()
	m.memoryUsed = load.MemoryUsed
	for _, s := range []Sensor{m.cpu, m.ram} {
		if s != nil {
			_, _ = s.Read(load)
		}
	}
	for _, g := range m.gpus {
		_, _ = g.Read(load)
	}
	if m.wall != nil {
		_, _ = m.wall.Read(0, load)
	}
}

// Findings lists the sensors of this machine: which are used, and why the others are not.
func (m *Meter) Findings() []Finding { return slices.Clone(m.findings) }

// Method describes how a component is read; ok is false where it is not read at all. Where the whole machine's power
// is known at the wall, the bounds are those of that, since all components are brought up to it.
func (m *Meter) Method(c Component) (name string, b Bounds, ok bool) {
	var names []string
	add := func(name string, with Bounds) {
		if len(names) == 0 {
			b = with
		}
		names, b = append(names, name), Bounds{Low: min(b.Low, with.Low), High: max(b.High, with.High)}
	}
	switch {
	case c == CPU && m.cpu != nil:
		add(m.cpu.Method(), m.cpu.Bounds())
	case c == RAM && m.ram != nil:
		add(m.ram.Method(), m.ram.Bounds())
	case c == GPU:
		for _, g := range m.gpus {
			add(g.Method(), g.Bounds())
		}
	case c == Machine && m.wall != nil:
		add(m.wall.Method(), m.wall.Bounds())
	}
	if len(names) == 0 {
		return "", Bounds{}, false
	}
	if m.wall != nil {
		b = m.wall.Bounds()
	}
	return strings.Join(names, "+"), b, true
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
	go m.apportionAll(ctx) // it may wait for long for another process, and is not waited for
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

// Sample reads the sensors now.
func (m *Meter) Sample() {
	began := time.Now()
	m.lock()
	m.mu.Unlock()
	if m.onSample != nil {
		m.onSample(time.Since(began))
	}
}

// Close releases the sensors.
func (m *Meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.gpus {
		g.Close()
	}
}

// Begin starts to meter a run. parent is the run that it is nested in, if that is being metered too. With
// ScopeProcess, p is the process that opened it; ErrNoPeer is returned if it is gone already.
func (m *Meter) Begin(id, parent string, scope Scope, p Process) (*Session, error) {
	m.lock()
	defer m.mu.Unlock()
	s := &Session{meter: m, id: id, record: Record{
		Scope:    scope,
		Segments: []Segment{{Phase: Training, Start: m.last, End: m.last}},
	}}
	if i := slices.IndexFunc(m.sessions, func(o *Session) bool { return o.id == parent && o.id != id }); i >= 0 {
		s.parent, s.nested = m.sessions[i], true
	}
	if scope == ScopeProcess {
		if len(m.sessions) == 0 { // nobody needed the list of processes until now
			if _, forks, err := m.sys.machine(); err == nil {
				_ = m.trees.discover(forks)
			}
		}
		if !m.claim(s, p) {
			m.trees.detach(s)
			return nil, fmt.Errorf("process %d ended: %w", p.PID, ErrNoPeer)
		}
	}
	m.sessions = append(m.sessions, s)
	return s, nil
}

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

// InPod says whether this process runs in a Kubernetes pod, where the machine is a node full of others' work.
func InPod() bool {
	_, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount")
	return os.Getenv("KUBERNETES_SERVICE_HOST") != "" || !errors.Is(err, os.ErrNotExist) && err == nil
}
