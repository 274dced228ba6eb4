//go:build cgo && linux

package meter

import (
	"errors"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlSensor reads NVIDIA's devices through the driver's own library, which is loaded when it is first asked for: a
// machine without a driver is the normal case.
type nvmlSensor struct {
	lib     nvml.Interface
	devices map[string]*nvmlDevice // by UUID
	now     func() time.Time
}

// nvmlDevice is what is known of a device since the reading before.
type nvmlDevice struct {
	counter uint64 // mJ
	counted bool   // counter is a reading
	powered time.Time
}

// nvmlBounds: NVIDIA says ± 5 W or 5 %; measured against external meters, up to ± 10 %.
var nvmlBounds = Bounds{Low: 0.9, High: 1.1}

// openNVML loads the driver's library. Errors wrap ErrNoData.
func openNVML() (GPUSensor, error) { return newNVML(nvml.New()) }

func newNVML(lib nvml.Interface) (s *nvmlSensor, err error) {
	defer func() { // a function that an old driver's library lacks
		if fault := recover(); fault != nil {
			s, err = nil, fmt.Errorf("%w: NVIDIA's library: %v", ErrNoData, fault)
		}
	}()
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: no NVIDIA driver (%s)", ErrNoData, nvmlText(ret))
	}
	n, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS || n == 0 {
		lib.Shutdown()
		return nil, fmt.Errorf("%w: no NVIDIA device", ErrNoData)
	}
	return &nvmlSensor{lib: lib, devices: map[string]*nvmlDevice{}, now: time.Now}, nil
}

// nvmlText is a result in words; the library's own words cannot be had without it.
func nvmlText(ret nvml.Return) string {
	if ret == nvml.ERROR_LIBRARY_NOT_FOUND {
		return "libnvidia-ml.so.1 not found"
	}
	return nvml.ErrorString(ret)
}

func (s *nvmlSensor) Method() string { return "nvml" }
func (s *nvmlSensor) Bounds() Bounds { return nvmlBounds }

// Close is GPUSensor's.
func (s *nvmlSensor) Close() { s.lib.Shutdown() }

// Read is GPUSensor's.
func (s *nvmlSensor) Read() (readings []GPUReading, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			readings, err = nil, fmt.Errorf("NVIDIA's library: %v", fault)
		}
	}()
	n, ret := s.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count the devices: %s", nvmlText(ret))
	}
	var failed []error
	for i := range n {
		r, err := s.readDevice(i)
		if err != nil {
			failed = append(failed, fmt.Errorf("device %d: %w", i, err))
			continue
		}
		readings = append(readings, r)
	}
	return readings, errors.Join(failed...)
}

func (s *nvmlSensor) readDevice(i int) (GPUReading, error) {
	device, ret := s.lib.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return GPUReading{}, errors.New(nvmlText(ret))
	}
	uuid, ret := device.GetUUID()
	if ret != nvml.SUCCESS {
		return GPUReading{}, errors.New(nvmlText(ret))
	}
	d := s.devices[uuid]
	if d == nil {
		d = &nvmlDevice{}
		s.devices[uuid] = d
	}
	e, ret := d.read(device, s.now())
	if ret != nvml.SUCCESS {
		*d = nvmlDevice{} // it may come back, and then starts anew
		return GPUReading{}, errors.New(nvmlText(ret))
	}
	return GPUReading{Device: uuid, Energy: e, PIDs: nvmlHolders(device)}, nil
}

// read returns the energy since the read before: by the counter (mJ, Volta and later), else by the power at this moment
// over the time since. A counter that goes back was reset.
func (d *nvmlDevice) read(device nvml.Device, now time.Time) (Energy, nvml.Return) {
	counter, ret := device.GetTotalEnergyConsumption()
	if ret == nvml.SUCCESS {
		last, counted := d.counter, d.counted
		d.counter, d.counted = counter, true
		if !counted || counter < last {
			return 0, nvml.SUCCESS
		}
		return Energy(float64(counter-last) * 1e-3), nvml.SUCCESS
	}
	if ret != nvml.ERROR_NOT_SUPPORTED && ret != nvml.ERROR_FUNCTION_NOT_FOUND {
		return 0, ret
	}
	milliwatts, ret := device.GetPowerUsage()
	if ret != nvml.SUCCESS {
		return 0, ret
	}
	last := d.powered
	d.powered = now
	if last.IsZero() {
		return 0, nvml.SUCCESS
	}
	return Power(float64(milliwatts) * 1e-3).Over(now.Sub(last)), nvml.SUCCESS
}

// nvmlHolders lists the processes that hold memory on a device, by the host's pids.
func nvmlHolders(device nvml.Device) []int {
	var pids []int
	compute, _ := device.GetComputeRunningProcesses()
	graphics, _ := device.GetGraphicsRunningProcesses()
	for _, p := range append(compute, graphics...) {
		pids = append(pids, int(p.Pid))
	}
	return pids
}
