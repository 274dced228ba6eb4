//go:build cgo && linux

package meter

import (
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNVMLCounter(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	at := func(counter uint64) string {
		m.now = m.now.Add(time.Second)
		g.counter = counter
		return nvmlSaid(readNVML(t, s, Load{})["GPU-0"])
	}
	assert.Equal(t, "0 J", at(1000))
	assert.Equal(t, "2.5 J", at(3500))
	assert.Equal(t, "its energy counter went back from 3500 to 100 mJ", at(100), "0 J would pass for measured")
	assert.Equal(t, "0.9 J", at(1000))

	g.counterRet = nvml.ERROR_GPU_IS_LOST
	assert.Contains(t, at(5000), "LOST")
	assert.Contains(t, at(5000), "LOST")
	g.counterRet = nvml.SUCCESS
	assert.Equal(t, errBack.Error(), at(9000))
	assert.Equal(t, "1 J", at(10000))

	g.handleRet = nvml.ERROR_GPU_IS_LOST // not even a handle, and so no UUID
	m.now = m.now.Add(time.Second)
	assert.Contains(t, nvmlSaid(readNVML(t, s, Load{})["device 0"]), "LOST")
	g.handleRet = nvml.SUCCESS
	assert.Equal(t, errBack.Error(), at(20000))
	assert.Equal(t, "1 J", at(21000))
}

// A device that fails before it was ever read is no new device afterwards.
func TestNVMLDeviceThatFailsAtFirst(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*mockGPU, nvml.Return){
		"counter": func(g *mockGPU, ret nvml.Return) { g.counterRet = ret },
		"handle":  func(g *mockGPU, ret nvml.Return) { g.handleRet = ret },
		"UUID":    func(g *mockGPU, ret nvml.Return) { g.uuidRet = ret },
	} {
		g := newMockGPU("GPU-0")
		m := newMockNVML(g)
		s := m.open(t, everyCall)
		fail(g, nvml.ERROR_UNKNOWN)
		for _, r := range readNVML(t, s, Load{}) {
			assert.Error(t, r.Err, name)
		}
		fail(g, nvml.SUCCESS)
		m.second(3)
		assert.Equal(t, errBack.Error(), nvmlSaid(readNVML(t, s, Load{})["GPU-0"]), name)
		m.second(3)
		assert.Equal(t, "3 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]), name)
	}
}

// A device that is plugged in later is new.
func TestNVMLNewDevice(t *testing.T) {
	t.Parallel()
	m := newMockNVML(newMockGPU("GPU-0"))
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.gpus = append(m.gpus, newMockGPU("GPU-1"))
	m.second(3)
	r := readNVML(t, s, Load{})
	assert.Equal(t, "3 J", nvmlSaid(r["GPU-0"]))
	assert.Equal(t, "0 J", nvmlSaid(r["GPU-1"]))
	m.second(4)
	assert.Equal(t, "4 J", nvmlSaid(readNVML(t, s, Load{})["GPU-1"]))
}

// Devices before Volta, and virtual ones, have no counter: that is each device's own matter.
func TestNVMLPower(t *testing.T) {
	t.Parallel()
	old, young := newMockGPU("GPU-old"), newMockGPU("GPU-young")
	old.counterRet = nvml.ERROR_NOT_SUPPORTED
	m := newMockNVML(old, young)
	s := m.open(t, everyCall)
	gap := false
	both := func() string {
		r := readNVML(t, s, Load{Gap: gap})
		return nvmlSaid(r["GPU-old"]) + ", " + nvmlSaid(r["GPU-young"])
	}
	assert.Equal(t, "0 J, 0 J", both())
	m.second(5)
	m.second(5)
	assert.Equal(t, "140 J, 10 J", both())

	gap = true
	m.second(5)
	assert.Equal(t, "its power says nothing of so long a time, and counts from here, 5 J", both())
	gap = false
	m.second(5)
	assert.Equal(t, "70 J, 5 J", both(), "from the reading after the gap on")

	old.powerRet = nvml.ERROR_GPU_IS_LOST
	m.second(5)
	assert.Contains(t, both(), "LOST, 5 J")
	old.powerRet = nvml.SUCCESS
	m.second(5)
	assert.Equal(t, errBack.Error()+", 5 J", both())
	m.second(5)
	assert.Equal(t, "70 J, 5 J", both())
}

// A library without one of the two functions reads by the other, and the one that it lacks is never called.
func TestNVMLWithoutCounterOrPower(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.GetTotalEnergyConsumptionFunc = nil
	m := newMockNVML(g)
	s := m.open(t, nvmlCalls{power: true})
	readNVML(t, s, Load{})
	m.second(0)
	assert.Equal(t, "70 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))

	g = newMockGPU("GPU-0")
	g.GetPowerUsageFunc = nil
	m = newMockNVML(g)
	s = m.open(t, nvmlCalls{energy: true})
	readNVML(t, s, Load{})
	for range 20 {
		m.second(0)
		assert.Equal(t, "0 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
	}
	g.counterRet = nvml.ERROR_NOT_SUPPORTED
	assert.ErrorContains(t, readNVML(t, s, Load{})["GPU-0"].Err, "no energy counter")
}

// Virtual devices may have a counter that never moves. What they used meanwhile goes by their power.
func TestNVMLCounterThatStandsStill(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.counter = 1234
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	sum := 0.0
	for range 20 {
		r := readNVML(t, s, Load{})["GPU-0"]
		require.NoError(t, r.Err)
		sum += r.Energy.Joules()
		m.second(0)
	}
	assert.InDelta(t, 19*70, sum, 1e-9)
}

// The counter ticks every 100 ms, and not at all while a device is switched off.
func TestNVMLCounterThatTicksSlowly(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	sum := 0.0
	for i := range 100 {
		m.now = m.now.Add(10 * time.Millisecond)
		if i%10 == 9 {
			g.counter += 9000
		}
		sum += readNVML(t, s, Load{})["GPU-0"].Energy.Joules()
	}
	assert.InDelta(t, 90, sum, 1e-9, "of which none goes by its power")

	g.power = 0
	for range 20 {
		m.second(0)
		assert.Equal(t, "0 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
	}
	g.power = 70_000
	m.second(60)
	assert.Equal(t, "60 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]), "the counter is still believed")
}

// A counter that is taken away, as when a virtual device moves to another host, is no loss: power goes on from there.
func TestNVMLCounterThatIsTakenAway(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(60)
	assert.Equal(t, "60 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
	g.counterRet = nvml.ERROR_NOT_SUPPORTED
	m.second(0)
	assert.Equal(t, "70 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
	g.counterRet = nvml.SUCCESS
	m.second(60)
	assert.Equal(t, "70 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]), "the two are not mixed")
}
