//go:build cgo && linux

package meter

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlSensor reads NVIDIA's devices through the driver's own library, which is loaded when it is first asked for: a
// machine without a driver is the normal case.
type nvmlSensor struct {
	lib     nvml.Interface
	calls   nvmlCalls
	devices map[string]*nvmlDevice // by UUID, those of the reading before
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
func openNVML() (GPUSensor, error) {
	calls, err := nvmlSymbols()
	if err != nil {
		return nil, err
	}
	s, err := newNVML(nvml.New(nvml.WithLibraryPath(nvmlLibrary)), calls)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func newNVML(lib nvml.Interface, calls nvmlCalls) (s *nvmlSensor, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s, err = nil, fmt.Errorf("%w: NVIDIA's library: %v", ErrNoData, fault)
		}
	}()
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: no NVIDIA driver (%s)", ErrNoData, nvml.ErrorString(ret))
	}
	n, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		reason := nvml.ErrorString(ret)
		lib.Shutdown()
		return nil, fmt.Errorf("%w: count NVIDIA's devices: %s", ErrNoData, reason)
	}
	if n == 0 {
		lib.Shutdown()
		return nil, fmt.Errorf("%w: no NVIDIA device", ErrNoData)
	}
	return &nvmlSensor{lib: lib, calls: calls, devices: map[string]*nvmlDevice{}, now: time.Now}, nil
}

func (s *nvmlSensor) Method() string { return "nvml" }
func (s *nvmlSensor) Bounds() Bounds { return nvmlBounds }

// Close is GPUSensor's.
func (s *nvmlSensor) Close() { s.lib.Shutdown() }

// Read is GPUSensor's.
func (s *nvmlSensor) Read(Load) (readings []GPUReading, err error) {
	before := s.devices
	s.devices = map[string]*nvmlDevice{} // one that fails now may come back, and then starts anew
	defer func() {
		if fault := recover(); fault != nil {
			readings, err = nil, fmt.Errorf("NVIDIA's library: %v", fault)
		}
	}()
	n, ret := s.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count the devices: %s", nvml.ErrorString(ret))
	}
	for i := range n {
		r, err := s.readDevice(i, before)
		if err != nil {
			r = GPUReading{Device: fmt.Sprint("device ", i), Err: err}
		}
		readings = append(readings, r)
	}
	return readings, nil
}

func (s *nvmlSensor) readDevice(i int, before map[string]*nvmlDevice) (GPUReading, error) {
	device, ret := s.lib.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return GPUReading{}, errors.New(nvml.ErrorString(ret))
	}
	uuid, ret := device.GetUUID()
	if ret != nvml.SUCCESS {
		return GPUReading{}, errors.New(nvml.ErrorString(ret))
	}
	d := before[uuid]
	if d == nil {
		d = &nvmlDevice{}
	}
	e, ret := d.read(device, s.calls, s.now())
	if ret != nvml.SUCCESS {
		return GPUReading{}, errors.New(nvml.ErrorString(ret))
	}
	s.devices[uuid] = d
	return GPUReading{Device: uuid, Energy: e, Processes: s.holders(device)}, nil
}

// read returns the energy since the read before: by the counter (mJ, Volta and later), else by the power at this moment
// over the time since. A counter that goes back was reset.
func (d *nvmlDevice) read(device nvml.Device, calls nvmlCalls, now time.Time) (Energy, nvml.Return) {
	counter, ret := uint64(0), nvml.ERROR_FUNCTION_NOT_FOUND
	if calls.energy {
		counter, ret = device.GetTotalEnergyConsumption()
	}
	if ret == nvml.SUCCESS {
		last, counted := d.counter, d.counted
		d.counter, d.counted = counter, true
		if !counted || counter < last {
			return 0, nvml.SUCCESS
		}
		return Energy(float64(counter-last) * 1e-3), nvml.SUCCESS
	}
	if !calls.power || ret != nvml.ERROR_NOT_SUPPORTED && ret != nvml.ERROR_FUNCTION_NOT_FOUND {
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

// holders lists the processes that hold memory on a device, each once, by the host's pids. A list that cannot be had
// is empty: the device's energy is known all the same, and is then nobody's.
func (s *nvmlSensor) holders(device nvml.Device) []GPUProcess {
	var holders []GPUProcess
	add := func(processes []nvml.ProcessInfo, ret nvml.Return) {
		if ret != nvml.SUCCESS {
			return
		}
		for _, p := range processes {
			holders = append(holders, GPUProcess{PID: int(p.Pid), Memory: p.UsedGpuMemory})
		}
	}
	if s.calls.compute {
		add(device.GetComputeRunningProcesses())
	}
	if s.calls.graphics {
		add(device.GetGraphicsRunningProcesses())
	}
	slices.SortFunc(holders, func(a, b GPUProcess) int { return cmp.Compare(a.PID, b.PID) })
	return slices.CompactFunc(holders, func(a, b GPUProcess) bool { return a.PID == b.PID })
}
