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

// GPUReading is one device's energy and who holds it.
type GPUReading struct {
	Device string // UUID
	Energy Energy // since the reading before; 0 on the first
	PIDs   []int  // processes that hold memory on the device, in the host's numbering
}

// GPUSensor reads all devices of one vendor. It is used by one goroutine at a time.
type GPUSensor interface {
	Method() string
	Bounds() Bounds
	// Read returns a reading for each device that could be read, and an error that joins what failed on the others.
	// Devices that fail are not in the readings; they may come back.
	Read() ([]GPUReading, error)
	// Close releases the library.
	Close()
}

// Finding is one line of doctor: a sensor, and whether it can be used here.
type Finding struct {
	Component Component
	Method    string // the sensor's method
	Used      bool   // chosen for this component
	Detail    string // what is covered ("2 packages"), or why it cannot be used
	Remedy    string // the exact command or setting that would open it; empty if none
	Bounds    Bounds // zero where unusable
}
