package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a time was for may be known only later: then the energy that was used in it changes its phase, and nothing else.
func TestCarve(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	began := m.now
	for i := range 10 { // 50, 80, 110, ... J
		m.run(100, 100*(i+1))
		m.sleep()
	}
	whole := cpuOf(s)
	at := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	s.Carve(at(2), at(4), Inference)
	assert.InDelta(t, 110+140, cpuIn(s.Record(), Inference), 1e-9)
	s.Carve(at(2), at(4), Inference)
	assert.InDelta(t, 110+140, cpuIn(s.Record(), Inference), 1e-9, "twice is once")
	s.Carve(at(3.5), at(5.5), Inference)
	assert.InDelta(t, 110+140+170+200./2, cpuIn(s.Record(), Inference), 1e-9, "between two samples it is as if used evenly")
	s.Carve(at(-5), at(0.5), Inference)
	s.Carve(at(9.5), at(99), Inference)
	assert.InDelta(t, 110+140+170+200./2+50./2+320./2, cpuIn(s.Record(), Inference), 1e-9)
	assert.InDelta(t, whole, cpuOf(s), 1e-9)
	m.run(100, 100)
	m.sleep()
	r := s.Record()
	assert.InDelta(t, whole+50, cpuOf(s), 1e-9)
	assert.InDelta(t, 110+140+170+200./2+50./2+320./2, cpuIn(r, Inference), 1e-9, "it goes on in the phase that it was in")
	assert.Equal(t, 11*time.Second, r.Duration())
	s.Close()
	s.Carve(at(0), at(20), Inference)
	assert.InDelta(t, whole+50, cpuIn(s.Record(), Inference), 1e-9, "of a run that ended, too")
	m.conserved(s)
}

// The past of a session that goes on for days takes no more memory than that of an hour: what is long ago is known
// coarsely, and all that was used is there still.
func TestThePastIsCoarserTheLongerAgo(t *testing.T) {
	t.Parallel()
	var p past
	at := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	start := at
	const day = 24 * 60 * 60
	for range day {
		p.add(at, at.Add(time.Second), Energies{CPU: 2})
		at = at.Add(time.Second)
	}
	require.Less(t, len(p.moments), 300)
	assert.InDelta(t, 2*day, p.between(start, at)[CPU].Joules(), 1e-6)
	assert.Equal(t, at.Add(-time.Second), p.moments[len(p.moments)-2].end, "of late, each sample")
	longest := time.Duration(0)
	for i := len(p.moments) - 1; i > 0; i-- {
		ago, length := at.Sub(p.moments[i].end), p.moments[i].end.Sub(p.moments[i-1].end)
		longest = max(longest, length)
		assert.LessOrEqual(t, length, time.Second+ago/8)
	}
	assert.Greater(t, longest, time.Minute)
}
