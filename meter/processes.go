package meter

import (
	"maps"
	"slices"
	"time"
)

// process is a process in the tree of a session, or the one that would stand in for a session's own.
type process struct {
	pid, parent int // parent is who it belongs under: the one that forked it, or that one's parent once it ended
	reaper      int // its parent as the kernel has it: who gets its time when it ends
	start       uint64
	own         time.Duration // CPU time as last read
	children    time.Duration // of children that ended, as last read
	memory      uint64        // resident bytes, as last read
	proportion  float64       // of them that is its own, with shared pages divided among those who share them; see apportion
	apportioned time.Time     // when that was last found out
	zombie      bool          // it ended, and its parent has not waited for it yet
	used        time.Duration // CPU time since the reading before, to be attributed
	debt        time.Duration // see settle
	sessions    []*Session    // whose root this is
	above       []*Session    // of roots above it that ended: it is theirs once it is the root of no other
}

// total is all that the process's parent will be credited with when the process ends.
func (p *process) total() time.Duration { return p.own + p.children }

// processes follows the trees of all sessions. One pass per sample serves them all, and only over the pids in the
// trees: new processes are looked for only when the kernel's fork counter moved, and then only among pids not known.
type processes struct {
	sys       system
	contained bool // they have numbers of a container's own
	tracked   map[int]*process
	known     map[int]listed   // every process at the last listing, by pid
	forks     uint64           // fork counter at the last listing
	fresh     []int            // pids that the last listing found for the first time
	ended     map[int]*process // those that the last refresh found ended, by pid
	leaders   map[int][2]int   // of fresh: the leaders of their group and session
}

// listed is what is known of a process that need not be tracked.
type listed struct {
	parent int // when it was first seen
	start  uint64
}

// reuseAfter is how many forks may pass before pids must be taken as reused: well under the smallest common
// pid_max, 32768.
const reuseAfter = 10_000

// discover lists the processes if any were made since the last listing, and tracks those whose parent is tracked.
// They began inside the tree, so that all they have used is the tree's.
func (t *processes) discover(forks uint64) error {
	t.fresh = t.fresh[:0]
	if t.known != nil && forks == t.forks && forks > 0 { // gVisor says 0 for ever
		return nil
	}
	pids, err := t.sys.pids()
	if err != nil {
		return err
	}
	reused := forks-t.forks > reuseAfter
	known := make(map[int]listed, len(pids))
	t.leaders = map[int][2]int{}
	for _, pid := range pids {
		l, ok := t.known[pid]
		if !ok || reused {
			s, err := t.sys.stat(pid)
			if err != nil {
				continue // ended meanwhile
			}
			if !ok || l.start != s.start {
				t.fresh = append(t.fresh, pid)
				t.leaders[pid] = s.leaders
			}
			l = listed{s.parent, s.start}
		}
		known[pid] = l
	}
	t.known, t.forks = known, forks
	t.adopt()
	// A child's pid may be the smaller one after a wrap, so go on until a pass finds nothing.
	for found := true; found; {
		found = false
		for _, pid := range t.fresh {
			if t.tracked[pid] == nil && t.tracked[known[pid].parent] != nil && t.track(pid, true) != nil {
				found = true
			}
		}
	}
	return nil
}

// adopt tracks orphans whose parents came and went between two listings: they belong under the leader of their process
// group, or of their session, where that one is in a tree, as it is where a run was started as a job of its own. A
// parent that is itself in that group or session began them; who takes orphans over, init or another
// (PR_SET_CHILD_SUBREAPER), is not.
func (t *processes) adopt() {
	for pid, leaders := range t.leaders {
		for i, leader := range leaders {
			if leader == pid || t.tracked[leader] == nil || t.tracked[pid] != nil {
				continue
			}
			if s, err := t.sys.stat(t.known[pid].parent); err == nil && s.leaders[i] == leader {
				continue
			}
			if p := t.track(pid, true); p != nil {
				p.parent = leader
			}
		}
	}
}

// track follows a process from now on; born says that it began inside the tree since the last listing, so that what
// it used before now counts. It returns nil if the process is gone.
func (t *processes) track(pid int, born bool) *process {
	if p := t.tracked[pid]; p != nil {
		return p
	}
	s, err := t.sys.stat(pid)
	if err != nil {
		return nil
	}
	p := &process{pid: pid, parent: s.parent, reaper: s.parent, start: s.start, memory: s.memory, proportion: 1}
	if !born {
		p.own, p.children = s.own, s.children
	}
	t.tracked[pid] = p
	return p
}

// attach makes a process, with all below it, part of a session. It reports whether the process was there.
func (t *processes) attach(s *Session, id Process) bool {
	p := t.track(id.PID, false)
	if p == nil || id.Start != 0 && p.start != id.Start {
		return false
	}
	if !slices.Contains(p.sessions, s) {
		p.sessions = append(p.sessions, s)
	}
	below := map[int]bool{id.PID: true}
	for found := true; found; {
		found = false
		for pid, l := range t.known {
			if below[l.parent] && !below[pid] {
				below[pid], found = true, true
				t.track(pid, false)
			}
		}
	}
	return true
}

// attachCgroup makes those of some processes that are in sessions' control groups part of them; born is track's.
func (t *processes) attachCgroup(sessions []*Session, pids []int, born bool) {
	for _, pid := range pids {
		path := t.sys.cgroup(pid)
		for _, s := range sessions {
			if !inCgroup(path, s.cgroup) {
				continue
			}
			if p := t.track(pid, born); p != nil && !slices.Contains(p.sessions, s) {
				p.sessions = append(p.sessions, s)
			}
		}
	}
}

// used returns the CPU time that is to be attributed.
func (t *processes) used() (d time.Duration) {
	for pid, p := range t.tracked {
		if t.root(pid) != nil {
			d += p.used
		}
	}
	return d
}

// unseen returns the part of a device's energy of which it cannot be told in a container whose it is: drivers number
// processes as the host does, some of them only where they say who worked (HAMi-core issue 112).
func (t *processes) unseen(d GPUReading) (part float64) {
	if !t.contained || d.Energy <= 0 {
		return 0
	}
	for i, weight := range d.weights() {
		if _, seen := t.known[d.Processes[i].PID]; !seen {
			part += weight
		}
	}
	return part
}

// pids lists the tracked processes.
func (t *processes) pids() []int { return slices.Collect(maps.Keys(t.tracked)) }

// detach ends a session's hold on its processes, and forgets those that no session needs any more.
func (t *processes) detach(s *Session) {
	for _, p := range slices.AppendSeq(slices.Collect(maps.Values(t.tracked)), maps.Values(t.ended)) {
		is := func(o *Session) bool { return o == s }
		p.sessions, p.above = slices.DeleteFunc(p.sessions, is), slices.DeleteFunc(p.above, is)
		if len(p.sessions) == 0 {
			p.sessions, p.above = p.above, nil
		}
	}
}

// prune forgets processes outside every tree, except the given ones.
func (t *processes) prune(keep map[int]bool) {
	maps.DeleteFunc(t.tracked, func(pid int, _ *process) bool {
		return t.upwards(pid, func(q *process) bool { return len(q.sessions) > 0 || keep[q.pid] }) == nil
	})
}

// refresh reads every tracked process and leaves in used what it has used since the reading before.
func (t *processes) refresh() {
	ended := map[int]*process{}       // by pid
	reaped := map[int]time.Duration{} // by reaper: time of ended children that was counted as theirs already
	waited := map[int]time.Duration{} // growth of a process's children time
	for pid, p := range t.tracked {
		s, err := t.sys.stat(pid)
		if err != nil && !hasEnded(err) {
			p.used = 0 // until it can be read again
			continue
		}
		if err != nil || s.start != p.start {
			ended[pid] = p
			continue
		}
		p.used = max(0, s.own-p.own)
		if d := s.children - p.children; d > 0 {
			waited[pid] = d
		}
		p.own, p.children = max(s.own, p.own), max(s.children, p.children)
		p.reaper, p.memory, p.zombie = s.parent, s.memory, s.zombie
	}
	for pid := range ended {
		delete(t.tracked, pid)
	}
	for _, p := range ended {
		reaped[p.heir(ended)] += p.total()
	}
	for pid, d := range waited {
		t.tracked[pid].settle(d, reaped[pid])
	}
	t.bequeath(ended)
	t.ended = ended
}

// heir is who got the time of a process that ended: its reaper, or where that ended too, the next that lives.
func (p *process) heir(ended map[int]*process) (pid int) {
	pid = p.reaper
	for i := 0; i < len(ended) && ended[pid] != nil; i++ {
		pid = ended[pid].reaper
	}
	return pid
}

// settle adds the time of children that ended since the last reading, less what was counted while they lived. What
// is left are their last moments, and children that came and went between two readings. Children's time is in whole
// ticks while a process's own may be finer, so the difference can be a little below zero: it is carried as a debt.
func (p *process) settle(waited, counted time.Duration) {
	d := waited - counted - p.debt
	p.debt = 0
	if d < 0 {
		p.debt, d = min(-d, 2*tick), 0
	}
	p.used += d
}

// bequeath hands the places of ended processes to those they leave behind, which the kernel gives to init: they stay
// under whatever they were under.
func (t *processes) bequeath(ended map[int]*process) {
	for _, p := range t.tracked {
		for range ended { // as many generations may have ended
			dead := ended[p.parent]
			if dead == nil {
				break
			}
			p.parent = dead.parent
			if len(p.sessions) == 0 {
				p.sessions, p.above = slices.Clone(dead.sessions), slices.Clone(dead.above)
				continue
			}
			for _, s := range append(slices.Clone(dead.sessions), dead.above...) {
				if !slices.Contains(p.sessions, s) && !slices.Contains(p.above, s) {
					p.above = append(p.above, s)
				}
			}
		}
	}
}

// root returns the nearest process, from pid upwards, that is some session's; nil if there is none.
func (t *processes) root(pid int) *process {
	return t.upwards(pid, func(p *process) bool { return len(p.sessions) > 0 })
}

// user is root, also of a process that ended since the reading before: a device worked for it all the same.
func (t *processes) user(pid int) *process {
	for range t.ended {
		p := t.ended[pid]
		if p == nil || t.tracked[pid] != nil {
			break
		}
		if len(p.sessions) > 0 {
			return p
		}
		pid = p.parent
	}
	return t.root(pid)
}

// upwards returns the first process, from pid towards its ancestors, of which ok holds; nil if there is none. The
// chain ends where a parent that was not tracked ended and its pid is a younger process's. The number of steps is
// limited, since within one tick of the clock that could close the chain to a ring.
func (t *processes) upwards(pid int, ok func(*process) bool) *process {
	p := t.tracked[pid]
	for i := 0; p != nil && i < 1000; i++ {
		if ok(p) {
			return p
		}
		parent := t.tracked[p.parent]
		if parent != nil && parent.start > p.start {
			return nil
		}
		p = parent
	}
	return nil
}
