//go:build cgo && linux

package meter

import (
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/stretchr/testify/require"
)

// everyCall is a library of today.
var everyCall = nvmlCalls{energy: true, power: true, compute: true, graphics: true, utilization: true, name: true, memory: true, mig: true}

// mockNVML is a driver whose devices, answers and clock tests set.
type mockNVML struct {
	mock.Interface
	gpus              []*mockGPU
	countRet, initRet nvml.Return
	inits, shutdowns  int
	now               time.Time
}

// mockGPU is a device, or a MIG instance of one.
type mockGPU struct {
	mock.Device
	uuid, name                               string
	handleRet, uuidRet, counterRet, powerRet nvml.Return
	counter                                  uint64 // mJ
	power                                    uint32 // mW
	holders, drawers                         []nvml.ProcessInfo
	samples                                  []nvml.ProcessUtilizationSample // the driver's buffer
	memory                                   uint64                          // bytes
	memoryRet                                nvml.Return
	mig                                      []*mockGPU // by number, nil for none; nil: not in MIG mode
	has                                      nvml.DeviceAttributes
}

func newMockGPU(uuid string) *mockGPU {
	g := &mockGPU{uuid: uuid, name: "NVIDIA Mock", power: 70_000, memory: 40 << 30}
	g.GetUUIDFunc = func() (string, nvml.Return) { return g.uuid, g.uuidRet }
	g.GetNameFunc = func() (string, nvml.Return) { return g.name, nvml.SUCCESS }
	g.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return g.counter, g.counterRet }
	g.GetPowerUsageFunc = func() (uint32, nvml.Return) { return g.power, g.powerRet }
	g.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return g.holders, nvml.SUCCESS }
	g.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		if g.drawers == nil {
			return nil, nvml.ERROR_NOT_SUPPORTED
		}
		return g.drawers, nvml.SUCCESS
	}
	g.GetProcessUtilizationFunc = func(since uint64) ([]nvml.ProcessUtilizationSample, nvml.Return) {
		var newer []nvml.ProcessUtilizationSample
		for _, s := range g.samples {
			if s.TimeStamp > since {
				newer = append(newer, s)
			}
		}
		if newer == nil {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return newer, nvml.SUCCESS
	}
	g.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: g.memory}, g.memoryRet }
	g.GetMigModeFunc = func() (int, int, nvml.Return) {
		if g.mig == nil {
			return nvml.DEVICE_MIG_DISABLE, nvml.DEVICE_MIG_DISABLE, nvml.ERROR_NOT_SUPPORTED
		}
		return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
	}
	g.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	g.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i >= len(g.mig) || g.mig[i] == nil {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return g.mig[i], g.mig[i].handleRet
	}
	g.GetAttributesFunc = func() (nvml.DeviceAttributes, nvml.Return) { return g.has, nvml.SUCCESS }
	return g
}

// newMockMIG is a MIG instance of some slices, of 5 GiB each.
func newMockMIG(uuid string, slices uint32) *mockGPU {
	g := newMockGPU(uuid)
	g.has = nvml.DeviceAttributes{GpuInstanceSliceCount: slices, ComputeInstanceSliceCount: slices, MemorySizeMB: uint64(slices) * 5 << 10}
	// As the real ones: energy is the whole device's, and utilization is not told.
	g.counterRet, g.powerRet = nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_NOT_SUPPORTED
	g.GetProcessUtilizationFunc = nil
	return g
}

func newMockNVML(gpus ...*mockGPU) *mockNVML {
	m := &mockNVML{gpus: gpus, now: time.Unix(1_800_000_000, 0)}
	m.InitFunc = func() nvml.Return { m.inits++; return m.initRet }
	m.ShutdownFunc = func() nvml.Return { m.shutdowns++; return nvml.SUCCESS }
	m.DeviceGetCountFunc = func() (int, nvml.Return) { return len(m.gpus), m.countRet }
	m.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) { return m.gpus[i], m.gpus[i].handleRet }
	return m
}

func (m *mockNVML) open(t require.TestingT, calls nvmlCalls) *nvmlSensor {
	s, err := newNVML(m, calls)
	require.NoError(t, err)
	s.now = func() time.Time { return m.now }
	return s
}

// second lets a second pass, in which each device that counts uses as many joules.
func (m *mockNVML) second(joules uint64) {
	m.now = m.now.Add(time.Second)
	for _, g := range m.gpus {
		g.counter += joules * 1000
	}
}

// at is the time on the driver's clock, some time before now.
func (m *mockNVML) at(before time.Duration) uint64 { return uint64(m.now.Add(-before).UnixMicro()) }

// readNVML returns the readings by device.
func readNVML(t require.TestingT, s *nvmlSensor, load Load) map[string]GPUReading {
	readings, err := s.Read(load)
	require.NoError(t, err)
	by := map[string]GPUReading{}
	for _, r := range readings {
		require.NotContains(t, by, r.Device)
		by[r.Device] = r
	}
	return by
}

// nvmlSaid is what a reading says of the interval, in a word: its joules or its error.
func nvmlSaid(r GPUReading) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return fmt.Sprintf("%g J", r.Energy.Joules())
}
