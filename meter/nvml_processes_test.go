//go:build cgo && linux

package meter

import (
	"math"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// nvmlSample is what the driver's buffer holds of a process that kept the SMs busy for so many percent.
func nvmlSample(pid uint32, at uint64, percent uint32) nvml.ProcessUtilizationSample {
	return nvml.ProcessUtilizationSample{Pid: pid, TimeStamp: at, SmUtil: percent}
}

func TestNVMLBusyProcesses(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	processes := func() []GPUProcess {
		r := readNVML(t, s, Load{})["GPU-0"]
		require.NoError(t, r.Err)
		return r.Processes
	}
	g.holders = []nvml.ProcessInfo{{Pid: 9, UsedGpuMemory: 900}, {Pid: 7, UsedGpuMemory: 100}}
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 100}, {PID: 9, Memory: 900}}, processes(), "nobody was busy: ERROR_NOT_FOUND")

	m.second(10)
	g.samples = append(g.samples, nvmlSample(8, m.at(300*time.Millisecond), 20), nvmlSample(7, m.at(500*time.Millisecond), 60))
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 100, Busy: 0.6}, {PID: 8, Busy: 0.2}, {PID: 9, Memory: 900}}, processes(),
		"8 has ended, and 9 sleeps")

	m.second(10)
	g.samples = append(g.samples, nvmlSample(9, m.at(100*time.Millisecond), 40))
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 100}, {PID: 9, Memory: 900, Busy: 0.4}}, processes(), "samples count once")

	m.second(10)
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 100}, {PID: 9, Memory: 900}}, processes())
}

// Where the driver gives every sample that it took, one who was busy for half of the time has half of them.
func TestNVMLManySamplesPerProcess(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(10)
	for i := range 6 {
		at := m.at(time.Duration(5-i) * 100 * time.Millisecond)
		g.samples = append(g.samples, nvmlSample(7, at, 40))
		if i >= 3 {
			g.samples = append(g.samples, nvmlSample(8, at, 60))
		}
	}
	r := readNVML(t, s, Load{})["GPU-0"]
	require.Len(t, r.Processes, 2)
	assert.InDelta(t, 0.4, r.Processes[0].Busy, 1e-9)
	assert.InDelta(t, 0.3, r.Processes[1].Busy, 1e-9)
}

// The sensors are read between two samples of the driver when a run begins or ends.
func TestNVMLReadBetweenTwoSamples(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.holders = []nvml.ProcessInfo{{Pid: 7}, {Pid: 9, UsedGpuMemory: 900}}
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(10)
	g.samples = append(g.samples, nvmlSample(7, m.at(0), 80))
	readNVML(t, s, Load{})
	m.now = m.now.Add(50 * time.Millisecond)
	g.counter += 500
	assert.Equal(t, []float64{1, 0}, readNVML(t, s, Load{})["GPU-0"].weights(), "7 is still at work, as far as one knows")
}

// The samples of an interval that is lost are not the next one's.
func TestNVMLSamplesOfALostInterval(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.counter = 5000
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(10)
	g.counter = 0
	g.samples = append(g.samples, nvmlSample(7, m.at(0), 80))
	require.Error(t, readNVML(t, s, Load{})["GPU-0"].Err)
	m.second(10)
	m.second(10)
	assert.Empty(t, readNVML(t, s, Load{})["GPU-0"].Processes)
}

// https://github.com/Syllo/nvtop/issues/110: up to 100 samples, of which most were never written.
func TestNVMLGarbageSamples(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	var asked []uint64
	g.GetProcessUtilizationFunc = func(since uint64) ([]nvml.ProcessUtilizationSample, nvml.Return) {
		asked = append(asked, since)
		return g.samples, nvml.SUCCESS
	}
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(10)
	g.samples = []nvml.ProcessUtilizationSample{
		nvmlSample(7, m.at(0), 50),
		nvmlSample(0, 0, 0),
		nvmlSample(8, m.at(0), 2147483632),      // NVIDIA/DCGM#83
		nvmlSample(9, m.at(-1000*time.Hour), 5), // would hide every sample from now on
		nvmlSample(10, 0, 99),
	}
	assert.Equal(t, []GPUProcess{{PID: 7, Busy: 0.5}}, readNVML(t, s, Load{})["GPU-0"].Processes)
	seen := m.at(0)
	m.second(10)
	m.second(10)
	assert.Empty(t, readNVML(t, s, Load{})["GPU-0"].Processes, "older than what was asked for")
	assert.Equal(t, []uint64{0, 0, seen}, asked, "by the driver's clock")
}

// After the system's clock was set back, samples are older than the one last seen.
func TestNVMLClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(10)
	g.samples = append(g.samples, nvmlSample(7, m.at(0), 50))
	readNVML(t, s, Load{})
	m.now, g.samples = m.now.Add(-time.Hour), nil
	busy := false
	for range 4 {
		m.second(10)
		g.samples = append(g.samples, nvmlSample(8, m.at(0), 50))
		for _, p := range readNVML(t, s, Load{})["GPU-0"].Processes {
			busy = busy || p.PID == 8 && p.Busy > 0
		}
	}
	assert.True(t, busy)
}

// Utilization is not told by MIG devices and some virtual ones: memory is what remains.
func TestNVMLWithoutUtilization(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]nvmlCalls{"not supported": everyCall, "no such function": {energy: true, compute: true, graphics: true}} {
		g := newMockGPU("GPU-0")
		g.holders = []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: 100}, {Pid: 9, UsedGpuMemory: 300}}
		g.GetProcessUtilizationFunc = nil
		if calls.utilization {
			g.GetProcessUtilizationFunc = func(uint64) ([]nvml.ProcessUtilizationSample, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
		}
		s := newMockNVML(g).open(t, calls)
		assert.Equal(t, []float64{0.25, 0.75}, readNVML(t, s, Load{})["GPU-0"].weights(), name)
	}
}

// A device in exclusive mode has one process, which carries all of it, whatever is known of the process.
func TestNVMLExclusiveDevice(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.holders = []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: math.MaxUint64}}
	s := newMockNVML(g).open(t, everyCall)
	r := readNVML(t, s, Load{})["GPU-0"]
	assert.Equal(t, []GPUProcess{{PID: 7}}, r.Processes, "NVML_VALUE_NOT_AVAILABLE")
	assert.Equal(t, []float64{1}, r.weights())
}

// A process that computes and draws is in both lists; only one of them may know its memory.
func TestNVMLProcessInBothLists(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.holders = []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: math.MaxUint64}, {Pid: 9, UsedGpuMemory: 5}}
	g.drawers = []nvml.ProcessInfo{{Pid: 9, UsedGpuMemory: math.MaxUint64}, {Pid: 7, UsedGpuMemory: 3}, {Pid: 8, UsedGpuMemory: 1}}
	s := newMockNVML(g).open(t, everyCall)
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 3}, {PID: 8, Memory: 1}, {PID: 9, Memory: 5}}, readNVML(t, s, Load{})["GPU-0"].Processes)
}

// Whatever the buffer holds, a share is a share.
func TestNVMLAnySamples(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		g := newMockGPU("GPU-0")
		m := newMockNVML(g)
		g.GetProcessUtilizationFunc = func(uint64) ([]nvml.ProcessUtilizationSample, nvml.Return) {
			return g.samples, nvml.SUCCESS
		}
		s := m.open(rt, everyCall)
		any := rapid.Custom(func(rt *rapid.T) nvml.ProcessUtilizationSample {
			at := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(m.at(5*time.Second), m.at(-5*time.Second)))
			percent := rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 100))
			return nvmlSample(rapid.Uint32Range(0, 3).Draw(rt, "pid"), at.Draw(rt, "at"), percent.Draw(rt, "percent"))
		})
		for range 4 {
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(rt, "ms")) * time.Millisecond)
			g.samples = rapid.SliceOfN(any, 0, 20).Draw(rt, "samples")
			r := readNVML(rt, s, Load{})["GPU-0"]
			for _, p := range r.Processes {
				require.GreaterOrEqual(rt, p.Busy, 0.0)
				require.LessOrEqual(rt, p.Busy, 1.0) // and not NaN, which is neither
			}
			sum := 0.0
			for _, w := range r.weights() {
				sum += w
			}
			if len(r.Processes) > 0 {
				require.InDelta(rt, 1, sum, 1e-9)
			}
		}
	})
}
