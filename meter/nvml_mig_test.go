//go:build cgo && linux

package meter

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// nvmlEnergies says what each reading is, in a word.
func nvmlEnergies(readings map[string]GPUReading) map[string]string {
	all := map[string]string{}
	for device, r := range readings {
		all[device] = nvmlSaid(r)
	}
	return all
}

// An A100 of 40 GiB with instances of 20 and 5 GiB, which come and go.
func TestNVMLInstances(t *testing.T) {
	t.Parallel()
	g, big, small := newMockGPU("GPU-0"), newMockMIG("MIG-big", 4), newMockMIG("MIG-small", 1)
	big.holders = []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: 1}, {Pid: 8, UsedGpuMemory: 3}}
	g.holders = []nvml.ProcessInfo{{Pid: 7}, {Pid: 8}} // the driver lists them here, too
	g.mig = []*mockGPU{nil, big, nil, small}
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	assert.Equal(t, "1 x NVIDIA Mock (energy counter), 2 MIG instances", s.Detail())
	assert.Equal(t, map[string]string{"MIG-big": "0 J", "MIG-small": "0 J", "GPU-0": "0 J"}, nvmlEnergies(readNVML(t, s, Load{})))

	m.second(80)
	r := readNVML(t, s, Load{})
	assert.Equal(t, map[string]string{"MIG-big": "40 J", "MIG-small": "10 J", "GPU-0": "30 J"}, nvmlEnergies(r))
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 1}, {PID: 8, Memory: 3}}, r["MIG-big"].Processes)
	assert.Empty(t, r["MIG-small"].Processes)
	assert.Empty(t, r["GPU-0"].Processes, "what no instance holds is nobody's")
	assert.Empty(t, g.GetProcessUtilizationCalls(), "not supported in this mode")

	g.mig = []*mockGPU{newMockMIG("MIG-new", 2), nil, nil, small}
	m.second(80)
	assert.Equal(t, map[string]string{"MIG-new": "20 J", "MIG-small": "10 J", "GPU-0": "50 J"}, nvmlEnergies(readNVML(t, s, Load{})))

	g.mig = []*mockGPU{}
	m.second(80)
	assert.Equal(t, map[string]string{"GPU-0": "80 J"}, nvmlEnergies(readNVML(t, s, Load{})), "no instance, and so nobody can use it")

	g.mig = nil
	m.second(80)
	r = readNVML(t, s, Load{})
	assert.Equal(t, map[string]string{"GPU-0": "80 J"}, nvmlEnergies(r), "the mode is off")
	assert.Len(t, r["GPU-0"].Processes, 2)
}

// Without the device's memory, which may be denied, instances go by their slices of seven.
func TestNVMLInstancesWithoutMemory(t *testing.T) {
	t.Parallel()
	without := everyCall
	without.memory = false
	for _, calls := range []nvmlCalls{everyCall, without} {
		g := newMockGPU("GPU-0")
		g.memoryRet = nvml.ERROR_NO_PERMISSION
		g.mig = []*mockGPU{newMockMIG("MIG-0", 4), newMockMIG("MIG-1", 1)}
		if !calls.memory {
			g.GetMemoryInfoFunc = nil
		}
		m := newMockNVML(g)
		s := m.open(t, calls)
		readNVML(t, s, Load{})
		m.second(70)
		r := readNVML(t, s, Load{})
		assert.InDelta(t, 40, r["MIG-0"].Energy.Joules(), 1e-5)
		assert.InDelta(t, 10, r["MIG-1"].Energy.Joules(), 1e-5)
		assert.InDelta(t, 20, r["GPU-0"].Energy.Joules(), 1e-5)
	}
}

// Compute instances inside one GPU instance are devices of their own, each with the memory of all.
func TestNVMLComputeInstances(t *testing.T) {
	t.Parallel()
	g, one, two := newMockGPU("GPU-0"), newMockMIG("MIG-1c.3g", 3), newMockMIG("MIG-2c.3g", 3)
	one.has.ComputeInstanceSliceCount, two.has.ComputeInstanceSliceCount = 1, 2
	g.mig = []*mockGPU{one, two}
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(80)
	assert.Equal(t, map[string]string{"MIG-1c.3g": "10 J", "MIG-2c.3g": "20 J", "GPU-0": "50 J"}, nvmlEnergies(readNVML(t, s, Load{})))
}

// Instances never have more than there is, even if their sizes say so.
func TestNVMLInstancesLargerThanTheirDevice(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.memory = 20 << 30
	g.mig = []*mockGPU{newMockMIG("MIG-0", 4), newMockMIG("MIG-1", 1)}
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(80)
	assert.Equal(t, map[string]string{"MIG-0": "64 J", "MIG-1": "16 J", "GPU-0": "0 J"}, nvmlEnergies(readNVML(t, s, Load{})))
}

// An instance that cannot be read says so; what it used is then nobody's, and still counted.
func TestNVMLInstanceThatFails(t *testing.T) {
	t.Parallel()
	g, good, bad := newMockGPU("GPU-0"), newMockMIG("MIG-good", 4), newMockMIG("MIG-bad", 1)
	bad.handleRet = nvml.ERROR_UNKNOWN
	g.mig = []*mockGPU{good, bad}
	m := newMockNVML(g)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.second(80)
	assert.Equal(t, map[string]string{"MIG-good": "40 J", "GPU-0, MIG instance 1": "open it: ERROR_UNKNOWN", "GPU-0": "40 J"}, nvmlEnergies(readNVML(t, s, Load{})))

	bad.handleRet = nvml.SUCCESS
	bad.GetAttributesFunc = func() (nvml.DeviceAttributes, nvml.Return) { return nvml.DeviceAttributes{}, nvml.ERROR_UNKNOWN }
	m.second(80)
	assert.Equal(t, map[string]string{"MIG-good": "40 J", "MIG-bad": "read its size: ERROR_UNKNOWN", "GPU-0": "40 J"}, nvmlEnergies(readNVML(t, s, Load{})))

	g.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
	m.second(80)
	assert.Equal(t, map[string]string{"GPU-0, MIG instances": "count its MIG instances: ERROR_UNKNOWN", "GPU-0": "80 J"}, nvmlEnergies(readNVML(t, s, Load{})))

	g.counterRet = nvml.ERROR_GPU_IS_LOST
	assert.Equal(t, map[string]string{"GPU-0": "read its energy counter: ERROR_GPU_IS_LOST"}, nvmlEnergies(readNVML(t, s, Load{})))
	g.counterRet = nvml.SUCCESS
	assert.Equal(t, map[string]string{"GPU-0": errBack.Error()}, nvmlEnergies(readNVML(t, s, Load{})))
}

// Whatever the instances' sizes, their energies and the rest are the device's, to the last bit and in any order.
func TestNVMLInstancesAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		g := newMockGPU("GPU-0")
		g.memory = rapid.OneOf(rapid.Uint64Range(0, 80<<30), rapid.Uint64()).Draw(rt, "memory")
		g.mig = []*mockGPU{}
		for i := range rapid.IntRange(0, 7).Draw(rt, "instances") {
			instance := newMockMIG(string(rune('a'+i)), 1)
			instance.has = nvml.DeviceAttributes{
				GpuInstanceSliceCount:     rapid.Uint32Range(0, 8).Draw(rt, "slices"),
				ComputeInstanceSliceCount: rapid.Uint32Range(0, 8).Draw(rt, "compute slices"),
				MemorySizeMB:              rapid.OneOf(rapid.Uint64Range(0, 80<<10), rapid.Uint64()).Draw(rt, "MiB"),
			}
			g.mig = append(g.mig, instance)
		}
		m := newMockNVML(g)
		s := m.open(rt, everyCall)
		_, err := s.Read(Load{})
		require.NoError(rt, err)
		used := rapid.Uint64Range(0, 1<<33).Draw(rt, "mJ")
		g.counter += used
		readings, err := s.Read(Load{})
		require.NoError(rt, err)
		require.Len(rt, readings, len(g.mig)+1)
		sum := Energy(0)
		for _, r := range rapid.Permutation(readings).Draw(rt, "order") {
			require.NoError(rt, r.Err)
			require.GreaterOrEqual(rt, r.Energy, Energy(0))
			sum += r.Energy
		}
		require.Equal(rt, Energy(float64(used)*1e-3), sum)
	})
}
