//go:build cgo && linux

package meter

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/dl"
)

// nvmlLibrary is the driver's library, by the name under which the loader looks for it.
const nvmlLibrary = "libnvidia-ml.so.1"

// nvmlCalls says which functions this machine's library has, of those that one can do without.
type nvmlCalls struct {
	energy, power     bool // of a device
	compute, graphics bool // who holds memory
	utilization       bool // who keeps it busy
	name, memory, mig bool
}

// nvmlSymbols looks the functions up that nvml.go calls. go-nvml binds them lazily: calling one that the library lacks
// ends the whole process in the dynamic linker ("symbol lookup error", exit status 127), which no recover can catch.
func nvmlSymbols() (nvmlCalls, error) {
	lib := dl.New(nvmlLibrary, dl.RTLD_LAZY)
	if err := lib.Open(); err != nil {
		return nvmlCalls{}, fmt.Errorf("%w: no NVIDIA driver (%w)", ErrNoData, err)
	}
	defer lib.Close()
	// go-nvml takes the newest version of a function that is there.
	has := func(name string, versions ...string) bool {
		for _, v := range append(versions, "") {
			if lib.Lookup(name+v) == nil {
				return true
			}
		}
		return false
	}
	for _, name := range []string{"nvmlInit", "nvmlShutdown", "nvmlErrorString", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"} {
		if !has(name, "_v2") { // those that have one
			return nvmlCalls{}, fmt.Errorf("%w: %s has no %s", ErrNoData, nvmlLibrary, name)
		}
	}
	calls := nvmlCalls{
		energy:   has("nvmlDeviceGetTotalEnergyConsumption"),
		power:    has("nvmlDeviceGetPowerUsage"),
		compute:  has("nvmlDeviceGetComputeRunningProcesses", "_v3", "_v2"),
		graphics: has("nvmlDeviceGetGraphicsRunningProcesses", "_v3", "_v2"),

		utilization: has("nvmlDeviceGetProcessUtilization"),

		name:   has("nvmlDeviceGetName"),
		memory: has("nvmlDeviceGetMemoryInfo"),
		mig: has("nvmlDeviceGetMigMode") && has("nvmlDeviceGetMaxMigDeviceCount") &&
			has("nvmlDeviceGetMigDeviceHandleByIndex") && has("nvmlDeviceGetAttributes", "_v2"),
	}
	if !calls.energy && !calls.power {
		return nvmlCalls{}, fmt.Errorf("%w: %s reads neither energy nor power", ErrNoData, nvmlLibrary)
	}
	return calls, nil
}
