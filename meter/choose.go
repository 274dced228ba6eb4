package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// choose opens the best sensor for each component. Every one that is passed over leaves a finding with its reason, and
// with what would open it where something would; gpu is nil where there is none.
func choose(procfs, sysfs string) (cpu, ram Sensor, gpu GPUSensor, findings []Finding) {
	packages, dram, raplErr := openRAPL(sysfs)
	if packages != nil {
		cpu = packages
		findings = append(findings, Finding{Component: CPU, Method: "rapl", Used: true, Detail: packages.(*raplSum).names(), Bounds: packages.Bounds()})
	} else {
		findings = append(findings, Finding{Component: CPU, Method: "rapl", Detail: reason(raplErr), Remedy: raplRemedy(raplErr)})
		model, err := openCPUModel(procfs, sysfs)
		if err == nil {
			cpu = model
			findings = append(findings, model.passedOver...)
			findings = append(findings, Finding{Component: CPU, Method: model.Method(), Used: true, Detail: model.detail, Bounds: model.Bounds()})
		} else {
			findings = append(findings, Finding{Component: CPU, Method: "model", Detail: reason(err)})
		}
	}

	if dram != nil {
		ram = dram
		findings = append(findings, Finding{Component: RAM, Method: "rapl", Used: true, Detail: dram.(*raplSum).names(), Bounds: dram.Bounds()})
	} else {
		skipped := Finding{Component: RAM, Method: "rapl", Detail: "this CPU counts no DRAM"}
		if raplErr != nil {
			skipped.Detail, skipped.Remedy = reason(raplErr), raplRemedy(raplErr)
		}
		ram = newRAMModel()
		findings = append(findings, skipped,
			Finding{Component: RAM, Method: ram.Method(), Used: true, Detail: fmt.Sprintf("%.3f W per GiB in use", wattsPerGiB), Bounds: ram.Bounds()})
	}

	gpu, err := openNVML()
	if err != nil {
		findings = append(findings, Finding{Component: GPU, Method: "nvml", Detail: reason(err), Remedy: nvmlRemedy(sysfs)})
		return cpu, ram, nil, findings
	}
	findings = append(findings, Finding{Component: GPU, Method: gpu.Method(), Used: true, Detail: "all NVIDIA devices", Bounds: gpu.Bounds()})
	return cpu, ram, gpu, findings
}

// raplRemedy is what opens RAPL's counters; empty where nothing is known to.
func raplRemedy(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission): // they are root's since CVE-2020-8694
		return `sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj /sys/class/powercap/intel-rapl*/*/energy_uj ` +
			`(until the next boot; for good, as a udev rule: SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/sh -c 'chmod a+r /sys%p/energy_uj'")`
	case errors.Is(err, fs.ErrNotExist): // the zones are links into /sys/devices/virtual/powercap, which Docker masks
		return "in a container: docker run --security-opt systempaths=unconfined"
	}
	return ""
}

// nvmlRemedy is what opens NVIDIA's devices; empty on a machine that has none.
func nvmlRemedy(sysfs string) string {
	vendors, _ := filepath.Glob(filepath.Join(sysfs, "bus", "pci", "devices", "*", "vendor"))
	for _, path := range vendors {
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == "0x10de" {
			return "install NVIDIA's driver; in a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility; " +
				"a binary that was built with CGO_ENABLED=0 has no NVML"
		}
	}
	return ""
}

// reason is an error without the words that say no more than that it is one.
func reason(err error) string {
	return strings.ReplaceAll(strings.TrimPrefix(err.Error(), ErrNoData.Error()+": "), "\n", "; ")
}
