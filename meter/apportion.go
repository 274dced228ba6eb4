package meter

import (
	"context"
	"time"
)

// proportionDuty is the largest part of the time that is spent on finding out whose shared pages are: the kernel walks
// all of a process's pages for it.
const proportionDuty = 0.0002

// proportionInterval is how often a process's turn may come: more would be a program woken up for little.
const proportionInterval = 5 * time.Second

// apportionAll goes on with apportion until ctx is done.
func (m *Meter) apportionAll(ctx context.Context) {
	sys := openSystem(m.procfs)
	tick := time.NewTicker(proportionInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.apportion(sys)
		}
	}
}

// apportion finds out which part of a process's resident memory is its own, for the process for which that was done
// the longest time ago. After a fork all pages are resident in both processes, and a data loader's workers would
// otherwise count their parent's data once each. sys is the caller's own, so that nobody waits for this.
func (m *Meter) apportion(sys system) {
	m.mu.Lock()
	now := m.last
	var p *process
	if !now.Before(m.nextProportion) {
		for pid, q := range m.trees.tracked {
			if m.trees.root(pid) != nil && q.memory > 0 && (p == nil || q.apportioned.Before(p.apportioned) || q.apportioned.Equal(p.apportioned) && q.pid < p.pid) {
				p = q
			}
		}
	}
	m.mu.Unlock()
	if p == nil {
		return
	}
	began := time.Now()
	pss, err := sys.proportional(p.pid)
	cost := time.Since(began)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.nextProportion = now.Add(time.Duration(float64(cost) / proportionDuty))
	p.apportioned = now
	if err == nil && p.memory > 0 {
		p.proportion = min(1, float64(pss)/float64(p.memory))
	}
}
