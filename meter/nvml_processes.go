//go:build cgo && linux

package meter

import (
	"cmp"
	"math"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// processes lists who holds memory on a device, each once, by the host's pids. A list that cannot be had is empty: the device's energy is known all the same, and is then nobody's.
func (s *nvmlSensor) processes(device nvml.Device) []GPUProcess {
	memory := map[int]uint64{}
	add := func(holders []nvml.ProcessInfo, ret nvml.Return) {
		if ret != nvml.SUCCESS {
			return
		}
		for _, p := range holders {
			used := p.UsedGpuMemory
			if used == math.MaxUint64 { // NVML_VALUE_NOT_AVAILABLE
				used = 0
			}
			memory[int(p.Pid)] = max(memory[int(p.Pid)], used) // one that computes and draws is in both lists
		}
	}
	if s.calls.compute {
		add(device.GetComputeRunningProcesses())
	}
	if s.calls.graphics {
		add(device.GetGraphicsRunningProcesses())
	}
	var processes []GPUProcess
	for pid, used := range memory {
		processes = append(processes, GPUProcess{PID: pid, Memory: used})
	}
	slices.SortFunc(processes, func(a, b GPUProcess) int { return cmp.Compare(a.PID, b.PID) })
	return processes
}
