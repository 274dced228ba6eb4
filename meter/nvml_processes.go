//go:build cgo && linux

package meter

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlSamplePeriod is the longest time between two samples of a device's processes ("between 1 second and 1/6 second
// depending on the product", man nvidia-smi).
const nvmlSamplePeriod = time.Second

// utilization returns for which share of the time since the utilization before the device's SMs worked for each
// process, by pid, as far as the driver tells.
//
// The driver keeps a buffer of samples, each of one process, with the time at which it was taken, and gives those newer
// than a time: in general one for each process, its mean since then. A process has none for a period in which it did
// nothing (nvml.h, nvmlDeviceGetProcessUtilization), so that where there are several, who has fewer was busy for less of
// the time: what a process's samples add up to is divided by the most samples that any process has.
func (d *nvmlDevice) utilization(device nvml.Device, now time.Time) map[int]float64 {
	latest := uint64(now.Add(nvmlSamplePeriod).UnixMicro()) // the driver's clock is the system's
	since := min(d.seen, latest)                            // once that was set back, nothing would be newer
	d.seen = since
	sum, count, most := map[int]float64{}, map[int]int{}, 0
	for _, sample := range nvmlSamples(device, since) {
		// Some drivers fill the buffer up with garbage: https://github.com/Syllo/nvtop/issues/110
		if sample.SmUtil > 100 || sample.TimeStamp <= since || sample.TimeStamp > latest {
			continue
		}
		pid := int(sample.Pid)
		sum[pid] += float64(sample.SmUtil) / 100
		count[pid]++
		most = max(most, count[pid])
		d.seen = max(d.seen, sample.TimeStamp)
	}
	switch {
	case most > 0:
		for pid := range sum {
			sum[pid] /= float64(most)
		}
		d.busy, d.sampled = sum, now
	case now.Sub(d.sampled) >= nvmlSamplePeriod:
		d.busy = nil // nobody was busy
	} // else there was no time for a new sample: when a run begins, the sensors are read between two
	return d.busy
}

// nvmlSamples returns the samples newer than since; none where the device or the driver has none (ERROR_NOT_FOUND,
// ERROR_NOT_SUPPORTED).
func nvmlSamples(device nvml.Device, since uint64) (samples []nvml.ProcessUtilizationSample) {
	defer func() {
		// go-nvml asks for the number first, and slices beyond its buffer when that has risen in between.
		if recover() != nil {
			samples = nil
		}
	}()
	samples, ret := device.GetProcessUtilization(since)
	if ret != nvml.SUCCESS {
		return nil
	}
	return samples
}

// processes lists who used a device, each once, by the host's pids: those that hold memory on it, and those that were
// busy but have ended. A list that cannot be had is empty: the device's energy is known all the same, and is then nobody's.
func (s *nvmlSensor) processes(device nvml.Device, busy map[int]float64) []GPUProcess {
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
	for pid := range busy {
		if _, holds := memory[pid]; !holds {
			memory[pid] = 0
		}
	}
	var processes []GPUProcess
	for pid, used := range memory {
		processes = append(processes, GPUProcess{PID: pid, Busy: busy[pid], Memory: used})
	}
	slices.SortFunc(processes, func(a, b GPUProcess) int { return cmp.Compare(a.PID, b.PID) })
	return processes
}
