//go:build cgo && linux

package meter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlSensor reads NVIDIA's devices through the driver's own library, which is loaded when it is first asked for: a
// machine without a driver is the normal case.
type nvmlSensor struct {
	lib    nvml.Interface
	calls  nvmlCalls
	now    func() time.Time
	detail string

	// By UUID, since their order may change: all that were ever there.
	devices map[string]*nvmlDevice
	round   uint64 // number of this reading
	blind   bool   // in the reading before, there was a device whose UUID was not known

	closed bool      // the driver went away: nothing may be called before Init
	tried  time.Time // when Init was last called again
}

// nvmlBounds: NVIDIA says ± 5 W or 5 %; measured against external meters, up to ± 10 %.
var nvmlBounds = Bounds{Low: 0.9, High: 1.1}

// nvmlRetry is the shortest time between two attempts to get back to a driver that went away: each loads a library.
const nvmlRetry = 30 * time.Second

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
	s = &nvmlSensor{lib: lib, calls: calls, devices: map[string]*nvmlDevice{}, now: time.Now}
	if s.detail, err = s.describe(); err != nil {
		lib.Shutdown()
		return nil, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	return s, nil
}

func (s *nvmlSensor) Method() string { return "nvml" }
func (s *nvmlSensor) Bounds() Bounds { return nvmlBounds }

// Detail says which devices were there when the sensor was opened, and how each is read.
func (s *nvmlSensor) Detail() string { return s.detail }

// Close is GPUSensor's.
func (s *nvmlSensor) Close() {
	if !s.closed {
		s.lib.Shutdown()
	}
}

// Read is GPUSensor's.
func (s *nvmlSensor) Read(load Load) (readings []GPUReading, err error) {
	blind := s.blind
	s.blind = true // until all devices are known
	s.round++
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("NVIDIA's library: %v", fault)
		}
	}()
	n, err := s.count()
	if err != nil {
		return nil, err
	}
	found, nameless := map[string]bool{}, false
	for i := range n {
		device, uuid, err := s.device(i)
		if err != nil {
			nameless = true
			readings = append(readings, GPUReading{Device: nvmlName(i), Err: err})
			continue
		}
		found[uuid] = true
		readings = append(readings, s.readDevice(device, uuid, load, blind)...)
	}
	s.blind = nameless
	if nameless { // those that are missed are presumably those without a name
		return readings, nil
	}
	for _, uuid := range slices.Sorted(maps.Keys(s.devices)) {
		if !found[uuid] {
			readings = append(readings, GPUReading{Device: uuid, Err: errors.New("the driver no longer lists it")})
		}
	}
	return readings, nil
}

// count returns the number of devices. When the driver went away, as it does when it is unloaded or replaced, it is
// looked for again from time to time.
func (s *nvmlSensor) count() (int, error) {
	if !s.closed {
		n, ret := s.lib.DeviceGetCount()
		if ret != nvml.ERROR_UNINITIALIZED && ret != nvml.ERROR_DRIVER_NOT_LOADED {
			return n, nvmlError("count NVIDIA's devices", ret)
		}
		s.lib.Shutdown()
		s.closed = true
	}
	now := s.now()
	if !s.tried.IsZero() && now.Sub(s.tried) < nvmlRetry {
		return 0, fmt.Errorf("the NVIDIA driver went away; it is looked for every %v", nvmlRetry)
	}
	s.tried = now
	if ret := s.lib.Init(); ret != nvml.SUCCESS {
		return 0, nvmlError("the NVIDIA driver went away", ret)
	}
	s.closed = false
	s.round++ // the counters are another driver's now: no device goes on from its reading before
	n, ret := s.lib.DeviceGetCount()
	return n, nvmlError("count NVIDIA's devices", ret)
}

// device returns the device that has an index now, and its UUID, which it keeps.
func (s *nvmlSensor) device(i int) (nvml.Device, string, error) {
	device, ret := s.lib.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return nil, "", nvmlError("open it", ret)
	}
	uuid, ret := device.GetUUID()
	return device, uuid, nvmlError("read its UUID", ret)
}

// nvmlName stands for a device whose UUID cannot be had.
func nvmlName(i int) string { return fmt.Sprint("device ", i) }

// readDevice reads a device, or each of its MIG instances. blind says that a device which was never seen may be one
// that failed, rather than a new one.
func (s *nvmlSensor) readDevice(device nvml.Device, uuid string, load Load, blind bool) []GPUReading {
	d, known := s.devices[uuid]
	back := blind
	switch {
	case !known:
		d = &nvmlDevice{}
	case d.round == s.round-1:
		back = false
	default:
		d, back = &nvmlDevice{seen: d.seen}, true
	}
	s.devices[uuid] = d

	now := s.now()
	e, err := d.energy(device, s.calls, load, now, s.round)
	if d.round != s.round {
		return []GPUReading{{Device: uuid, Err: err}}
	}
	if back && err == nil {
		err = errBack
	}
	mig := s.inMIGMode(device)
	var busy map[int]float64
	if s.calls.utilization && !mig { // after an interval that is lost, too: its samples are not the next one's
		busy = d.utilization(device, now)
	}
	switch {
	case err != nil:
		return []GPUReading{{Device: uuid, Err: err}}
	case mig:
		return s.splitMIG(device, uuid, e)
	}
	return []GPUReading{{Device: uuid, Energy: e, Processes: s.processes(device, busy)}}
}

// nvmlError is what a function of the library says, nil for success.
func nvmlError(doing string, ret nvml.Return) error {
	if ret == nvml.SUCCESS {
		return nil
	}
	return fmt.Errorf("%s: %s", doing, nvml.ErrorString(ret))
}
