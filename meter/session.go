package meter

import (
	"slices"
	"sync/atomic"
	"time"
)

// Scope says whose energy a session is.
type Scope string

// The scopes, named as in the tag emissions.scope.
const (
	ScopeProcess Scope = "process" // the run's process tree
	ScopeMachine Scope = "machine" // what no process tree claims, shared by the sessions of this scope
)

// Phase says what a run's energy was used for.
type Phase string

// The phases, named as in the tag emissions.phase.
const (
	Training  Phase = "training"
	Inference Phase = "inference"
)

// slot is how finely energy is kept over time: the shortest period for which anybody publishes an intensity.
const slot = 5 * time.Minute

// Slice is the energy used in a stretch of time, at most a slot long.
type Slice struct {
	Start, End time.Time
	Energy     Energies
}

// Segment is a stretch of metered time in one phase.
type Segment struct {
	Phase      Phase
	Start, End time.Time
	Slices     []Slice
	Joined     time.Duration // of a segment that stands for many: their time; zero for others, see compact
}

// Energy returns the segment's energy.
func (g Segment) Energy() Energies {
	var e Energies
	for _, s := range g.Slices {
		e.Add(s.Energy)
	}
	return e
}

// Duration returns the segment's metered time.
func (g Segment) Duration() time.Duration {
	if g.Joined > 0 {
		return g.Joined
	}
	return g.End.Sub(g.Start)
}

// Record is a session as plain data: it can be kept, split at the edges of a time series, and added up.
type Record struct {
	Scope    Scope
	Unit     Unit // with ScopeProcess
	Segments []Segment
	Gaps     [components]Gap // time for which a component was not read as it should be
	Asleep   time.Duration   // for which the machine was suspended; it is in the gaps, and not in the segments
	Machine  Energy          // what the whole machine's sensors read meanwhile, of which the segments are a part
}

// Energy returns the energy over all segments.
func (r Record) Energy() Energies {
	var e Energies
	for _, g := range r.Segments {
		e.Add(g.Energy())
	}
	return e
}

// Duration returns the metered time over all segments.
func (r Record) Duration() time.Duration {
	var d time.Duration
	for _, g := range r.Segments {
		d += g.Duration()
	}
	return d
}

// Coverage returns the share of the time, from 0 to 1, for which a component was read.
func (r Record) Coverage(c Component) float64 {
	whole := r.Duration() + r.Asleep
	if whole <= 0 || r.Gaps[c].For <= 0 {
		return 1
	}
	return max(0, 1-r.Gaps[c].For.Seconds()/whole.Seconds())
}

// miss adds an interval's gaps.
func (r *Record) miss(g gaps) {
	for c, gap := range g.of {
		if gap.For > 0 {
			r.Gaps[c].For += gap.For
			r.Gaps[c].Why = gap.Why
		}
	}
	r.Asleep += g.asleep
}

// add puts energy used in [start, end) into the current segment, cut at the edges of the slots: evenly over the interval,
// since no more is known of it.
func (r *Record) add(start, end time.Time, e Energies) {
	g := &r.Segments[len(r.Segments)-1]
	from, until := start.Round(0), end.Round(0) // by the clock on the wall, which slots go by, and which may be set
	for edge := from.Truncate(slot).Add(slot); edge.Before(until); edge = edge.Add(slot) {
		share := Energy(edge.Sub(from).Seconds() / until.Sub(from).Seconds())
		var part Energies
		for c := range e {
			part[c] = e[c] * share
			e[c] -= part[c]
		}
		g.put(Slice{Start: start, End: edge, Energy: part})
		start, from = edge, edge
	}
	g.put(Slice{Start: start, End: end, Energy: e})
	g.End = end
}

// put adds energy used within one slot, the latest that the segment has or a later one.
func (g *Segment) put(s Slice) {
	if n := len(g.Slices); n > 0 && sameSlot(g.Slices[n-1].Start, s.Start) {
		g.Slices[n-1].End = s.End
		g.Slices[n-1].Energy.Add(s.Energy)
		return
	}
	g.Slices = append(g.Slices, s)
}

// clone returns a copy that shares nothing with r.
func (r Record) clone() Record {
	segments := make([]Segment, len(r.Segments))
	for i, g := range r.Segments {
		g.Slices = append([]Slice(nil), g.Slices...)
		segments[i] = g
	}
	r.Segments = segments
	return r
}

// Session meters one run from Begin until Close. Its methods may be called from any goroutine.
type Session struct {
	meter   *Meter
	id      string
	parent  *Session                // the open session that this one is nested in
	nested  bool                    // it is in one, or was
	opener  atomic.Pointer[Process] // whose tree it is: of the process that opened it, or of who took its place; nil with ScopeMachine
	above   []Process               // the opener's ancestors, nearest first, who may stand in for it
	cgroup  string                  // the control group that is the session's; empty for process trees
	record  Record
	held    *Record  // while stopped: what came after the stop, which counts only if the session goes on
	pending Energies // what came after the stop and is counted neither as a run's nor as the rest yet
	closed  bool
	past    past      // what the record was made of
	given   Energies  // in the sample that is being taken
	active  time.Time // when its processes, or a device for them, last did something
}

// current is where energy goes now.
func (s *Session) current() *Record {
	if s.held != nil {
		return s.held
	}
	return &s.record
}

// Scope returns whose energy the session is.
func (s *Session) Scope() Scope { return s.record.Scope }

// Opener returns the process whose tree the session is: the one that opened it, its launcher, or, once that ended, the
// ancestor in its place; the zero Process with ScopeMachine. It waits for no sensor.
func (s *Session) Opener() Process {
	if p := s.opener.Load(); p != nil {
		return *p
	}
	return Process{}
}

// Record returns what the session has metered so far, up to now; after Stop, up to the stop.
func (s *Session) Record() Record {
	s.meter.lock()
	defer s.meter.mu.Unlock()
	return s.record.clone()
}

// Join makes a further process, with all below it, part of the session from now on.
func (s *Session) Join(p Process) {
	s.meter.lock()
	defer s.meter.mu.Unlock()
	if s.closed || s.record.Scope != ScopeProcess {
		return
	}
	s.meter.join(s, p)
}

// Nest puts the session into that of another run, as if it had been begun in it: what it used so far is that one's, too.
// It reports whether it is so now; it is not where the other is not open, one of them is stopped or was in another before,
// or where they would be in each other.
func (s *Session) Nest(parent string) bool {
	m := s.meter
	m.lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.sessions, func(o *Session) bool { return o.id == parent })
	if i < 0 || s.closed || s.nested || s.held != nil {
		return false
	}
	if m.sessions[i].inside(s) {
		return false
	}
	for a := m.sessions[i]; a != nil; a = a.parent {
		if a.held != nil {
			return false
		}
	}
	s.parent, s.nested = m.sessions[i], true
	for a := s.parent; a != nil; a = a.parent {
		a.record.add(m.last, m.last, s.record.Energy())
		a.record.Machine = max(a.record.Machine, s.record.Machine) // of the one that began first
	}
	return true
}

// inside says whether a session is another, or nested in it at any depth.
func (s *Session) inside(o *Session) bool {
	for ; s != nil; s = s.parent {
		if s == o {
			return true
		}
	}
	return false
}

// Switch begins a new segment in the given phase. It returns the moment.
func (s *Session) Switch(p Phase) time.Time {
	s.meter.lock()
	defer s.meter.mu.Unlock()
	r := s.current()
	now := s.meter.last
	r.Segments = append(r.Segments, Segment{Phase: p, Start: now, End: now})
	if s.held == nil {
		r.compact()
	}
	return now
}

// Carve gives a time that is past a phase: what it was for may be known only when it is over. Where it begins or ends at a
// Switch it is cut exactly; elsewhere what was used between two samples is taken as used evenly. It may be called after
// Close.
func (s *Session) Carve(from, to time.Time, p Phase) {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	if s.meter.last.Before(to) { // what was used since the last sample is not in the record yet
		s.meter.sample()
	}
	s.record.carve(from, to, p, &s.past)
	s.record.compact()
	if s.held != nil {
		s.held.carve(from, to, p, &s.past)
	}
}

// Active returns when the session's processes, or a device for them, last did something: used more than a fiftieth of a
// CPU between two samples. It is the zero time before that.
func (s *Session) Active() time.Time {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	return s.active
}

// Stop fixes the record as of now. The session is not over: Close ends it, Continue takes the stop back as if it had
// not been. Stopping a stopped session moves the stop to now.
func (s *Session) Stop() Record {
	s.meter.lock()
	defer s.meter.mu.Unlock()
	if !s.closed {
		s.release()
		now := s.meter.last
		phase := s.record.Segments[len(s.record.Segments)-1].Phase
		s.held = &Record{Scope: s.record.Scope, Segments: []Segment{{Phase: phase, Start: now, End: now}}}
	}
	return s.record.clone()
}

// Continue takes a stop back; nothing of what was used meanwhile is lost.
func (s *Session) Continue() {
	s.meter.mu.Lock()
	defer s.meter.mu.Unlock()
	s.release()
}

// release merges what was held back since a stop.
func (s *Session) release() {
	if s.held == nil {
		return
	}
	held := s.held.Segments
	if last := &s.record.Segments[len(s.record.Segments)-1]; last.Phase == held[0].Phase { // as the stop found the run
		last.Slices = append(last.Slices, held[0].Slices...)
		last.End = held[0].End
		held = held[1:]
	}
	s.record.Segments = append(s.record.Segments, held...)
	s.record.miss(gaps{of: s.held.Gaps, asleep: s.held.Asleep})
	s.record.Machine += s.held.Machine
	s.held = nil
	s.meter.totals.Runs.Add(s.pending)
	s.pending = Energies{}
}

// Close ends the session; what was used since a stop before it is nobody's. Closing twice is closing once.
func (s *Session) Close() {
	s.meter.lock()
	defer s.meter.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.meter.end(s)
}
