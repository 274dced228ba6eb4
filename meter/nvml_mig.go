//go:build cgo && linux

package meter

import (
	"fmt"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlMIG is a MIG device: a compute instance inside a GPU instance, which has memory and engines of its own.
type nvmlMIG struct {
	device nvml.Device
	uuid   string
	has    nvml.DeviceAttributes
}

// inMIGMode says whether a device is divided into MIG instances.
func (s *nvmlSensor) inMIGMode(device nvml.Device) bool {
	if !s.calls.mig {
		return false
	}
	mode, _, ret := device.GetMigMode()
	return ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
}

// instances returns a device's MIG instances that can be read, those that cannot as readings with the reason, and how
// many there could be at most.
func (s *nvmlSensor) instances(device nvml.Device, uuid string) (instances []nvmlMIG, failed []GPUReading, most int) {
	most, ret := device.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return nil, []GPUReading{{Device: uuid + ", MIG instances", Err: nvmlError("count its MIG instances", ret)}}, 0
	}
	for i := range most {
		m, ret := nvmlMIG{}, nvml.SUCCESS
		if m.device, ret = device.GetMigDeviceHandleByIndex(i); ret == nvml.ERROR_NOT_FOUND {
			continue // there is none of this number: instances come and go
		}
		err := nvmlError("open it", ret)
		if err == nil {
			m.uuid, ret = m.device.GetUUID()
			err = nvmlError("read its UUID", ret)
		}
		if err == nil {
			m.has, ret = m.device.GetAttributes()
			err = nvmlError("read its size", ret)
		}
		if err != nil {
			if m.uuid == "" {
				m.uuid = fmt.Sprintf("%s, MIG instance %d", uuid, i)
			}
			failed = append(failed, GPUReading{Device: m.uuid, Err: err})
			continue
		}
		instances = append(instances, m)
	}
	return instances, failed, most
}

// splitMIG divides a device's energy among its MIG instances, by memory: energy is counted for the whole device only, and
// its utilization not at all. What no instance holds is a reading of the device's own, which nobody uses. The readings
// add up to the device's energy exactly, in any order.
func (s *nvmlSensor) splitMIG(device nvml.Device, uuid string, e Energy) []GPUReading {
	instances, readings, most := s.instances(device, uuid)
	memory := 0.0 // MiB
	if s.calls.memory {
		// Without privileges this may be denied for a device that is in MIG mode.
		if info, ret := device.GetMemoryInfo(); ret == nvml.SUCCESS {
			memory = float64(info.Total) / (1 << 20)
		}
	}
	parts, sum := make([]float64, len(instances)), 0.0
	for i, m := range instances {
		parts[i] = m.part(memory, most)
		sum += parts[i]
	}
	rest := e
	for i, m := range instances {
		// Whole 2^-20 J are exact in any sum and difference up to e, and finer than the counter.
		part := Energy(math.Floor(float64(e)*parts[i]/max(sum, 1)*(1<<20)) / (1 << 20))
		part = min(part, rest) // the product was rounded
		rest -= part
		readings = append(readings, GPUReading{Device: m.uuid, Energy: part, Processes: s.processes(m.device, nil)})
	}
	return append(readings, GPUReading{Device: uuid, Energy: rest})
}

// part returns an instance's part of its device. memory is the device's in MiB; where that is not known, its GPU
// instances go by their slices, of which there are as many as the device can have instances. Compute instances inside
// one GPU instance share its memory, and so divide its part by their own slices.
func (m nvmlMIG) part(memory float64, most int) float64 {
	part := float64(m.has.GpuInstanceSliceCount) / float64(most)
	if memory > 0 {
		part = float64(m.has.MemorySizeMB) / memory
	}
	if of := m.has.GpuInstanceSliceCount; m.has.ComputeInstanceSliceCount < of {
		part *= float64(m.has.ComputeInstanceSliceCount) / float64(of)
	}
	return part
}
