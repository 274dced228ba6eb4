package meter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Kept is a meter's open sessions as plain data, with all that it takes to go on with them when the program was ended
// in between, however it was: where every counter stood at the last reading. It is of one moment, that of the last sample.
type Kept struct {
	BootID    string        `json:"boot_id"`       // of the machine's boot, during which counters, pids and clocks go on
	At        time.Time     `json:"at"`            // of the last sample; all times in Sessions are to be taken from here
	Awake     time.Duration `json:"awake_ns"`      // since boot, at At, without the time for which the machine was suspended
	Read      time.Duration `json:"read_ns"`       // how long before At the sensors were read
	SinceBoot time.Duration `json:"since_boot_ns"` // at that reading, the time for which the machine was suspended included
	Busy      time.Duration `json:"busy_ns"`       // the machine's CPU time at that reading
	Forks     uint64        `json:"forks"`         // how many processes had been made
	Memory    uint64        `json:"memory_bytes"`  // in use
	Factor    Energy        `json:"factor"`        // from the components' sensors to the wall; 0: not known
	Totals    Totals        `json:"totals"`
	Lent      Energies      `json:"lent_j"` // what runs were given since the reading, and the CPU time that went with it
	LentBusy  time.Duration `json:"lent_busy_ns"`
	LentUsed  time.Duration `json:"lent_used_ns"`

	Counters  map[string]uint64 `json:"counters"` // of the sensors that count, by names of their own
	Sessions  []KeptSession     `json:"sessions"` // in the order in which they began
	Processes []KeptProcess     `json:"processes"`
}

// KeptSession is an open session, or one that is over and whose record is still of use.
type KeptSession struct {
	ID      string    `json:"id"`
	Closed  bool      `json:"closed,omitempty"`
	Parent  string    `json:"parent,omitempty"` // the open session that it is nested in
	Nested  bool      `json:"nested,omitempty"` // it is in one, or was
	Record  Record    `json:"record"`
	Held    *Record   `json:"held,omitempty"` // what came after a stop, which counts only if the session goes on
	Pending Energies  `json:"pending"`        // of a stopped session that is inside no other: what Totals has neither as a run's nor as the rest
	Opener  *Process  `json:"opener,omitempty"`
	Above   []Process `json:"above,omitempty"`
	Cgroup  string    `json:"cgroup,omitempty"`
	Active  time.Time `json:"active"` // when it last did something; zero for never
	Past    KeptPast  `json:"past"`
}

// KeptPast is what a session used, moment by moment.
type KeptPast struct {
	Begin   time.Time    `json:"begin"`
	Moments []KeptMoment `json:"moments"`
}

// KeptMoment is a stretch of the past, which begins where the one before it ends.
type KeptMoment struct {
	End    time.Time `json:"end"`
	Energy Energies  `json:"energy_j"`
	Level  uint8     `json:"level"` // it is made of so many doublings of samples
}

// KeptProcess is a process in the tree of a session, or one that would stand in for a session's own.
type KeptProcess struct {
	Process
	Parent     int           `json:"parent"`
	Reaper     int           `json:"reaper"`
	Own        time.Duration `json:"own_ns"`
	Children   time.Duration `json:"children_ns"`
	Debt       time.Duration `json:"debt_ns"`
	Memory     uint64        `json:"memory_bytes"`
	Proportion float64       `json:"proportion"`
	Sessions   []string      `json:"sessions,omitempty"` // whose root it is
	Above      []string      `json:"above,omitempty"`    // whose it is once it is the root of no other
}

// ErrOtherBoot says that sessions were kept before the machine was last booted, or that it cannot be told whether they
// were: no counter and no process goes on from there.
var ErrOtherBoot = errors.New("the machine was booted in between")

// Keep returns the meter's open sessions, and some that are over, as of the last sample, which it does not wait for. What
// it returns shares nothing with the meter.
func (m *Meter) Keep(over ...*Session) Kept {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.last.Round(0)
	// The wall clock may have been set since a session began: by the times as they are kept, it was not.
	move := func(t time.Time) time.Time { return at.Add(t.Sub(m.last)) }
	k := Kept{
		BootID: m.sys.bootID(), At: at, Awake: m.awake() - m.now().Sub(m.last), Read: m.last.Sub(m.lastRead), SinceBoot: m.lastBoot,
		Busy: m.busy, Forks: m.trees.forks, Memory: m.memoryUsed, Factor: m.factor, Totals: m.totals,
		Lent: m.lent, LentBusy: m.lentBusy, LentUsed: m.lentUsed, Counters: map[string]uint64{},
	}
	for _, s := range m.counting() {
		s.keep(k.Counters)
	}
	over = slices.DeleteFunc(slices.Clone(over), func(s *Session) bool { return !s.closed })
	for _, s := range slices.Concat(m.sessions, over) {
		kept := KeptSession{
			ID: s.id, Closed: s.closed, Nested: s.nested, Record: s.record.moved(move), Pending: s.pending, Opener: s.opener.Load(), Above: slices.Clone(s.above), Cgroup: s.cgroup,
		}
		if !s.active.IsZero() {
			kept.Active = move(s.active)
		}
		if !s.past.begin.IsZero() {
			kept.Past.Begin = move(s.past.begin)
		}
		for _, m := range s.past.moments {
			kept.Past.Moments = append(kept.Past.Moments, KeptMoment{move(m.end), m.energy, m.level})
		}
		if s.parent != nil {
			kept.Parent = s.parent.id
		}
		if s.held != nil {
			held := s.held.moved(move)
			kept.Held = &held
		}
		k.Sessions = append(k.Sessions, kept)
	}
	for _, pid := range slices.Sorted(maps.Keys(m.trees.tracked)) {
		p := m.trees.tracked[pid]
		k.Processes = append(k.Processes, KeptProcess{
			Process: Process{PID: pid, Start: p.start}, Parent: p.parent, Reaper: p.reaper, Own: p.own, Children: p.children,
			Debt: p.debt, Memory: p.memory, Proportion: p.proportion, Sessions: ids(p.sessions), Above: ids(p.above),
		})
	}
	return k
}

func ids(sessions []*Session) (ids []string) {
	for _, s := range sessions {
		ids = append(ids, s.id)
	}
	return ids
}

// Resume goes on with kept sessions, which it returns by their ids. It is called once, before any session begins.
//
// The first reading covers the time since the last one that was kept, as any other reading does: what the counters
// counted meanwhile, by the CPU time that the processes used meanwhile. What cannot be known of it is a gap in the
// sessions' records. If nothing goes on, the error is ErrOtherBoot, and the sessions are closed.
func (m *Meter) Resume(k Kept) (map[string]*Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	down := m.awake() - k.Awake
	same := k.BootID != "" && k.BootID == m.sys.bootID() && k.Awake >= 0 && down >= 0 && k.Read >= 0 && k.SinceBoot >= 0 && m.boot() >= k.SinceBoot
	began := k.At
	if same {
		began = m.now().Add(-down)
	}
	sessions := map[string]*Session{}
	for _, kept := range k.Sessions {
		s := kept.open(m, func(t time.Time) time.Time { return began.Add(t.Sub(k.At)) })
		if s == nil || sessions[s.id] != nil {
			continue
		}
		sessions[s.id] = s
		if s.closed = kept.Closed || !same; s.closed {
			s.held, s.pending = nil, Energies{}
		} else {
			m.sessions = append(m.sessions, s)
		}
	}
	for _, kept := range k.Sessions {
		sessions[kept.ID].nest(sessions[kept.Parent])
	}
	switch {
	case !same:
		return sessions, ErrOtherBoot
	case len(m.sessions) == 0:
		m.totals = k.Totals // in which is what those had that are over
		return sessions, nil
	}
	m.last, m.lastRead, m.lastBoot = began, began.Add(-k.Read), k.SinceBoot
	m.busy, m.factor, m.totals = k.Busy, k.Factor, k.Totals
	m.lent, m.lentBusy, m.lentUsed = k.Lent, k.LentBusy, k.LentUsed
	m.trees.resume(k, sessions)
	for _, s := range m.sessions {
		if s.cgroup != "" { // processes may have come into it from elsewhere, who knows when
			m.trees.attachCgroup([]*Session{s}, slices.Collect(maps.Keys(m.trees.known)), false)
		}
	}
	for _, s := range m.counting() {
		s.resume(k.Counters, down+k.Read)
	}
	m.down = &downtime{memory: k.Memory, processes: map[int]uint64{}}
	for _, p := range k.Processes {
		m.down.processes[p.PID] = p.Memory
	}
	m.sample()
	m.down = nil
	return sessions, nil
}

// open makes a session of a kept one; nil where that is none.
func (k KeptSession) open(m *Meter, move func(time.Time) time.Time) *Session {
	if k.ID == "" || len(k.Record.Segments) == 0 || k.Held != nil && len(k.Held.Segments) == 0 {
		return nil
	}
	s := &Session{meter: m, id: k.ID, nested: k.Nested, record: k.Record.moved(move), pending: k.Pending, above: k.Above, cgroup: k.Cgroup}
	if k.Held != nil {
		held := k.Held.moved(move)
		s.held = &held
	}
	s.opener.Store(k.Opener)
	if !k.Active.IsZero() {
		s.active = move(k.Active)
	}
	if !k.Past.Begin.IsZero() {
		s.past.begin = move(k.Past.Begin)
	}
	for _, o := range k.Past.Moments {
		s.past.moments = append(s.past.moments, moment{end: move(o.End), energy: o.Energy, level: o.Level})
	}
	return s
}

// nest puts a session into another, as far as both go on and are not in each other already.
func (s *Session) nest(parent *Session) {
	if s == nil || s.closed || s.parent != nil || parent == nil || parent.closed || parent.inside(s) {
		return
	}
	s.parent = parent
}

// moved returns a copy that shares nothing with r, with all times moved.
func (r Record) moved(move func(time.Time) time.Time) Record {
	r = r.clone()
	for i := range r.Segments {
		g := &r.Segments[i]
		g.Start, g.End = move(g.Start), move(g.End)
		for j := range g.Slices {
			g.Slices[j].Start, g.Slices[j].End = move(g.Slices[j].Start), move(g.Slices[j].End)
		}
	}
	return r
}

// resume goes on with kept processes. Those that began since are found by the next discover, since they are not known.
func (t *processes) resume(k Kept, sessions map[string]*Session) {
	open := func(ids []string) (open []*Session) {
		for _, id := range ids {
			if s := sessions[id]; s != nil {
				open = append(open, s)
			}
		}
		return open
	}
	t.forks = k.Forks
	maps.DeleteFunc(t.known, func(_ int, l listed) bool { return t.sys.began(l.start)+tick > k.SinceBoot })
	for _, p := range k.Processes {
		t.tracked[p.PID] = &process{
			pid: p.PID, parent: p.Parent, reaper: p.Reaper, start: p.Start, own: p.Own, children: p.Children, debt: p.Debt,
			memory: p.Memory, proportion: p.Proportion, sessions: open(p.Sessions), above: open(p.Above),
		}
	}
}

// downtime is an interval that begins with another program's last reading and ends with our first: what is known only
// of its ends.
type downtime struct {
	memory    uint64         // in use at its beginning
	processes map[int]uint64 // memory of each process then
}

// reckon takes the mean of both ends where nothing was counted in between, and notes what that cannot tell of a time
// that is longer than any between two readings.
func (d *downtime) reckon(m *Meter, load *Load, why *gaps) {
	load.MemoryUsed = (load.MemoryUsed + d.memory) / 2
	for pid, p := range m.trees.tracked { // refresh reads it anew
		p.memory = (p.memory + d.processes[pid]) / 2
	}
	if load.Gap && m.ram != nil {
		why.add(RAM, load.Elapsed, fmt.Errorf("%s: of the memory in use only both ends are known", d.words(load.Elapsed)))
	}
}

// devices notes whether it is known whose the devices' energy is: it is if one tree only used each of them at the end,
// and no process of the runs ended before.
func (d *downtime) devices(m *Meter, devices []GPUReading, load Load, why *gaps) {
	known := len(m.trees.ended) == 0
	for _, r := range devices {
		for _, p := range r.Processes {
			known = known && m.trees.root(p.PID) == m.trees.root(r.Processes[0].PID)
		}
	}
	if load.Gap && !known && len(devices) > 0 {
		why.add(GPU, load.Elapsed, fmt.Errorf("%s: who used the GPU is not known", d.words(load.Elapsed)))
	}
}

func (d *downtime) words(elapsed time.Duration) string {
	return fmt.Sprintf("no reading for %.0f s, in which the proxy was restarted", elapsed.Seconds())
}

// missed adds to an interval's gaps what was lost of a session alone: what a process used until it ended is known from
// who waited for it, and from nobody where that is no process of a tree.
func (d *downtime) missed(m *Meter, s *Session, elapsed time.Duration, why gaps) gaps {
	for _, p := range m.trees.ended {
		if m.trees.tracked[p.heir(m.trees.ended)] == nil && m.within(p, s) {
			why.all(elapsed, d.words(elapsed)+": a process of it ended, and what it used until then is not known")
			return why
		}
	}
	return why
}

// within says whether a process's energy is a session's: its own, or that of one inside of it.
func (m *Meter) within(p *process, s *Session) bool {
	root := m.trees.user(p.pid)
	if root == nil {
		return false
	}
	for _, of := range root.sessions {
		for ; of != nil; of = of.parent {
			if of == s {
				return true
			}
		}
	}
	return false
}

// Alive says whether any process of a session's tree is still there, or one that would stand in for it. It reads the
// sensors only where none is, so that none that has just begun is missed. With ScopeMachine a session is alive until it
// is closed.
func (s *Session) Alive() bool {
	m := s.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.closed || s.record.Scope != ScopeProcess {
		return !s.closed
	}
	if m.alive(s) {
		return true
	}
	m.sample()
	return m.alive(s)
}

func (m *Meter) alive(s *Session) bool {
	if s.cgroup == "" && (m.trees.alive(s.Opener()) || slices.ContainsFunc(s.above, m.trees.alive)) {
		return true
	}
	for _, p := range m.trees.tracked {
		if m.within(p, s) && m.trees.alive(Process{PID: p.pid, Start: p.start}) {
			return true
		}
	}
	return false
}

// CloseAt ends the session as of a time that is past: what it has used since is what it is nested in's, or nobody's.
func (s *Session) CloseAt(at time.Time) {
	m := s.meter
	m.lock()
	defer m.mu.Unlock()
	if s.closed {
		return
	}
	s.release()
	var since Energies
	r := &s.record
	for i := len(r.Segments) - 1; i >= 0 && r.Segments[i].End.After(at); i-- {
		before, after := r.Segments[i].cut(at, &s.past)
		since.Add(after.Energy())
		if r.Segments[i] = before; i > 0 && !before.End.After(before.Start) {
			r.Segments = r.Segments[:i]
		}
	}
	for c := range r.Gaps {
		r.Gaps[c].For = min(r.Gaps[c].For, r.Duration()+r.Asleep)
	}
	if s.parent == nil {
		for c := range since {
			m.totals.Runs[c] -= since[c]
			m.totals.Rest[c] += since[c]
		}
	}
	s.closed = true
	m.end(s)
}
