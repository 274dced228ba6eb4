//go:build cgo && linux

package meter

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// describe lists the devices for doctor, those of a kind together: "2 x NVIDIA A100-SXM4-40GB (energy counter), 3 MIG
// instances". It fails where there is no device, or none that will ever say what it uses.
func (s *nvmlSensor) describe() (string, error) {
	n, ret := s.lib.DeviceGetCount()
	switch {
	case ret != nvml.SUCCESS:
		return "", nvmlError("count NVIDIA's devices", ret)
	case n == 0:
		return "", errors.New("no NVIDIA device")
	}
	kinds, instances, useless := map[string]int{}, 0, 0
	for i := range n {
		device, uuid, err := s.device(i)
		if err != nil {
			kinds[fmt.Sprintf("%s (%v)", nvmlName(i), err)]++
			continue
		}
		name := ""
		if s.calls.name {
			name, _ = device.GetName()
		}
		method, ret := s.method(device)
		if ret == nvml.ERROR_NOT_SUPPORTED {
			useless++
		}
		kinds[fmt.Sprintf("%s (%s)", cmp.Or(name, "NVIDIA device"), method)]++
		if s.inMIGMode(device) {
			found, failed, _ := s.instances(device, uuid)
			instances += len(found) + len(failed)
		}
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, fmt.Sprintf("%d x %s", kinds[kind], kind))
	}
	switch {
	case instances == 1:
		parts = append(parts, "1 MIG instance")
	case instances > 1:
		parts = append(parts, fmt.Sprintf("%d MIG instances", instances))
	}
	detail := strings.Join(parts, ", ")
	if useless == n {
		return "", errors.New(detail)
	}
	return detail, nil
}

// method says how a device's energy is read, or why it is not: ERROR_NOT_SUPPORTED where it never will be.
func (s *nvmlSensor) method(device nvml.Device) (string, nvml.Return) {
	ret := nvml.ERROR_NOT_SUPPORTED
	if s.calls.energy {
		if _, ret = device.GetTotalEnergyConsumption(); ret == nvml.SUCCESS {
			return "energy counter", ret
		}
	}
	if s.calls.power && (ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_FUNCTION_NOT_FOUND) {
		if _, ret = device.GetPowerUsage(); ret == nvml.SUCCESS {
			return "power", ret
		}
	}
	if ret == nvml.ERROR_NOT_SUPPORTED {
		return "neither energy nor power", ret
	}
	return nvml.ErrorString(ret), ret
}
