package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A session that nobody ended is ended as of when it was last heard of: what the machine used since is nobody's, to the
// joule, and a segment that began since is none.
func TestCloseAtATimeThatIsPast(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s, err := m.meter.Begin("machine", "", ScopeMachine, Process{})
	require.NoError(t, err)
	var at time.Time
	var then Record
	for i := range 8 {
		m.busy += 10 * i
		m.flush()
		m.sleep()
		if i == 3 {
			at, then = m.now, s.Record()
		}
		if i == 5 {
			s.Switch(Inference)
		}
	}
	s.Stop()
	m.sleep()
	s.CloseAt(at)
	r := s.Record()
	require.Len(t, r.Segments, 1)
	assert.Equal(t, at, r.Segments[0].End)
	assert.Equal(t, then.Duration(), r.Duration())
	for c := range components {
		assert.InDelta(t, then.Energy()[c].Joules(), r.Energy()[c].Joules(), 1e-9)
	}
	m.conserved(s)
	assert.InDelta(t, r.Energy()[CPU].Joules(), m.meter.Totals().Runs[CPU].Joules(), 1e-9)
	m.sleep()
	m.conserved(s)
	assert.False(t, s.Alive())

	outer, err := m.meter.Begin("outer", "", ScopeMachine, Process{})
	require.NoError(t, err)
	inner, err := m.meter.Begin("inner", "outer", ScopeMachine, Process{})
	require.NoError(t, err)
	at = m.now
	m.sleep()
	inner.CloseAt(at)
	assert.Zero(t, inner.Record().Energy())
	assert.InDelta(t, 20, cpuOf(outer), 1e-9, "it has what was in it")
	m.conserved(s, outer)
}

// A session that is over is kept with its past, so that a time in it can be given its phase after a restart, too.
func TestOverSessionsAreKept(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("run", "", m.fork(100, 50, "python", "train.py"))
	open := m.begin("open", "run", Process{PID: 100, Start: uint64(m.procs[100].start)})
	began := m.now
	for i := range 4 {
		m.run(100, 10*i)
		m.sleep()
	}
	s.Close()
	kept := m.meter.Keep(s, open)
	require.Len(t, kept.Sessions, 2, "one that is open is not kept twice")
	m.now = m.now.Add(2 * time.Second)
	m.meter = m.open()
	sessions, err := m.meter.Resume(kept)
	require.NoError(t, err)
	again := sessions["run"]
	assert.False(t, again.Alive())
	assert.True(t, sessions["open"].Alive())
	assert.Equal(t, s.Record(), again.Record())
	from := began.Add(2 * time.Second)
	again.Carve(from, from.Add(time.Second), Inference)
	s.Carve(from, from.Add(time.Second), Inference)
	r := again.Record()
	require.Len(t, r.Segments, 3)
	assert.Equal(t, s.Record(), r)
	assert.InDelta(t, 20+30*0.2, r.Segments[1].Energy()[CPU].Joules(), 1e-9)
	m.sleep()
	m.conserved()
}
