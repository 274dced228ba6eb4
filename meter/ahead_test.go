package meter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pass lets time pass and takes a sample.
func (m *machine) pass(d time.Duration) {
	m.now = m.now.Add(d)
	m.meter.Sample()
}

// Ten predictions last milliseconds, in which the machine's CPU time shows 0 or 10 ms, and counters of energy as little or
// as much: the phase's energy is its own CPU time times what a second of it took lately.
func TestAPhaseShorterThanTheSensorsCanTell(t *testing.T) {
	t.Parallel()
	for name, ticksSeen := range map[string]int{"no tick is seen of it": -1, "the tick is seen": 0, "others' ticks are seen with it": 5} {
		m := newMachine(t)
		s := m.begin("a", "", m.fork(100, 50, "python"))
		m.fork(200, 1, "neighbour")
		for range 3 { // 20 W + 30 W for a busy CPU: half of that is the run's
			m.run(100, 50)
			m.run(200, 50)
			m.sleep()
		}
		require.InDelta(t, 3*25, cpuOf(s), 1e-9)
		m.pass(30 * time.Millisecond)
		s.Switch(Inference)
		m.run(100, 1)
		m.busy += ticksSeen
		m.flush()
		m.now = m.now.Add(12 * time.Millisecond)
		s.Switch(Training)
		assert.InDelta(t, 0.01*50, cpuIn(s.Record(), Inference), 1e-9, name)
		m.conserved(s)
		m.busy -= ticksSeen // time goes on, and the reading that comes sees it all
		m.run(100, 49)
		m.run(200, 50)
		m.pass(time.Second - 42*time.Millisecond)
		assert.InDelta(t, 0.01*50, cpuIn(s.Record(), Inference), 1e-9, name)
		assert.InDelta(t, 4*25, cpuOf(s), 1e-9, name)
		m.conserved(s)
		assert.InDelta(t, 4*50, m.meter.Totals().Sensors[CPU].Joules(), 1e-9, name)
	}
}

// What was lent to a run that ended before the next reading is taken off it, and never makes a total fall.
func TestWhatIsLentIsPaidBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.run(100, 100)
	m.sleep()
	m.run(100, 10)
	m.now = m.now.Add(100 * time.Millisecond)
	s.Close()
	assert.InDelta(t, 50+5, cpuOf(s), 1e-9)
	lent := m.meter.Totals()
	m.conserved(s)
	m.cpu.err = ErrNoData // nothing is read of it after all
	m.pass(time.Second)
	m.conserved(s)
	assert.Equal(t, lent.Sensors[CPU], m.meter.Totals().Sensors[CPU])
	m.cpu.err = nil
	m.busy += 100
	m.flush()
	m.pass(time.Second)
	m.conserved(s)
	assert.InDelta(t, 50+50, m.meter.Totals().Sensors[CPU].Joules(), 1e-9)
	assert.InDelta(t, 45, m.meter.Totals().Rest[CPU].Joules(), 1e-9)
}

// Many samples within a fifth of a second, as where many runs begin and end, read the sensors once.
func TestSensorsAreNotReadTooOften(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	s := m.begin("a", "", m.fork(100, 50, "python"))
	m.run(100, 100)
	m.sleep()
	counted := &countingSensor{Sensor: m.cpu}
	m.meter.cpu = counted
	for range 100 {
		m.run(100, 1)
		m.pass(10 * time.Millisecond)
	}
	assert.Equal(t, 5, counted.readings)
	assert.InDelta(t, 100, cpuOf(s), 1e-9)
	m.conserved(s)
}

type countingSensor struct {
	Sensor
	readings int
}

func (c *countingSensor) Read(l Load) (Energy, error) {
	c.readings++
	return c.Sensor.Read(l)
}

func TestActive(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	p := m.fork(100, 50, "python")
	outer, inner := m.begin("outer", "", p), m.begin("inner", "outer", p)
	assert.Zero(t, inner.Active())
	m.run(100, 50)
	m.sleep()
	worked := m.now
	assert.Equal(t, worked, inner.Active())
	assert.Equal(t, worked, outer.Active())
	m.run(100, 1) // a heartbeat
	m.sleep()
	assert.Equal(t, worked, inner.Active())
	m.gpu.readings = []GPUReading{{Device: "0", Energy: 100, Processes: []GPUProcess{{PID: 100, Busy: 0.5}}}}
	m.sleep()
	assert.Equal(t, m.now, inner.Active(), "a device works for it")
}
