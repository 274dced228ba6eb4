package meter

import (
	"errors"
	"time"
)

// ErrNoData says that a sensor is not there or cannot be read on this machine. It is the normal case for most
// sensors on most machines: the next one in order of preference is tried, and doctor shows the reason.
var ErrNoData = errors.New("no data")

// Load is what the machine did since the reading before, which the models turn into energy.
type Load struct {
	Elapsed    time.Duration // since the reading before
	Busy       time.Duration // CPU time that all processes and the kernel used in Elapsed, summed over the CPUs
	MemoryUsed uint64        // bytes in use now (total less available)
	Gap        bool          // so long without a reading that a power that is read now says nothing of the interval
	Tracked    []int         // processes of the runs that go on
}

// Bounds is a method's known error, as factors on its value: the truth lies between Low x value and High x value.
type Bounds struct{ Low, High float64 }

// Sensor is one way to read one component's energy on this machine. It is used by one goroutine at a time.
type Sensor interface {
	// Method is the name for the tag emissions.method.*: "rapl", "model:arch", "model:tdp", ...
	Method() string
	// Bounds is the method's known error.
	Bounds() Bounds
	// Read returns the energy used since the Read before; the first Read returns 0. An error loses this interval
	// only: the next successful Read starts anew from its own reading.
	Read(Load) (Energy, error)
}

// GPUReading is one device's energy since the reading before, and who used it.
type GPUReading struct {
	Device    string // UUID, or the PCI address where there is none
	Energy    Energy // 0 on the first reading
	Processes []GPUProcess
	Err       error // why the device could not be read this time; it may come back, and then counts from there
}

// GPUProcess is a process that holds memory on a device, or that it worked for since the reading before.
type GPUProcess struct {
	PID    int     // as the sensor's kernel driver numbers it: the host's
	Busy   float64 // share of the interval for which the device's engines worked for it; 0 where that is not known
	Memory uint64  // bytes held on the device; 0 where that is not known
}

// GPUSensor reads all devices of one vendor. It is used by one goroutine at a time.
type GPUSensor interface {
	// Method is the name for the tag emissions.method.gpu: "nvml", "amdgpu", ...
	Method() string
	// Bounds is the method's known error.
	Bounds() Bounds
	// Read returns a reading for each device. Of one that cannot be read only Device and Err are set. The error is for
	// a driver that answers nothing at all.
	Read(Load) ([]GPUReading, error)
	// Close releases the library.
	Close()
}

// WallSensor reads what the whole machine draws, by a meter of its own.
type WallSensor interface {
	// Method is the name for the tag emissions.method.wall: "acpi", "line".
	Method() string
	// Bounds is the method's known error.
	Bounds() Bounds
	// Read returns the machine's energy since the Read before, given what the components' sensors read in the same
	// interval. The first Read of a meter may return 0.
	Read(components Energy, l Load) (Energy, error)
}

// detailed is a sensor that can say what it covers, for doctor.
type detailed interface{ Detail() string }

// Finding is one line of doctor: a sensor, and whether it can be used here.
type Finding struct {
	Component Component
	Method    string // the sensor's method
	Used      bool   // chosen for this component
	Detail    string // what is covered ("2 packages"), or why it cannot be used
	Remedy    string // the exact command or setting that would open it; empty if none
	Bounds    Bounds // zero where unusable
}
