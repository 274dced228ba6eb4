package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// choose opens the best sensor for each component. Every one that is passed over leaves a finding with its reason; gpu is
// nil where there is none.
func choose(procfs, sysfs string) (cpu, ram Sensor, gpu GPUSensor, findings []Finding) {
	packages, dram, err := openRAPL(sysfs)
	if err == nil {
		cpu = packages
		findings = append(findings, Finding{Component: CPU, Method: "rapl", Used: true, Detail: packages.(*rapl).names(), Bounds: packages.Bounds()})
	} else {
		f := Finding{Component: CPU, Method: "rapl", Detail: reason(err)}
		if errors.Is(err, fs.ErrPermission) {
			f.Remedy = raplRemedy
		}
		findings = append(findings, f)
		if model, err := openCPUModel(procfs, sysfs); err == nil {
			cpu = model
			findings = append(findings, Finding{Component: CPU, Method: model.Method(), Used: true, Detail: model.detail, Bounds: model.Bounds()})
		} else {
			findings = append(findings, Finding{Component: CPU, Method: "model", Detail: reason(err)})
		}
	}

	if dram != nil {
		ram = dram
		findings = append(findings, Finding{Component: RAM, Method: "rapl", Used: true, Detail: dram.(*rapl).names(), Bounds: dram.Bounds()})
	} else {
		ram = ramModel{}
		findings = append(findings,
			Finding{Component: RAM, Method: "rapl", Detail: "no DRAM zone that can be read"},
			Finding{Component: RAM, Method: ram.Method(), Used: true, Detail: fmt.Sprintf("%.3f W per GiB in use", wattsPerGiB), Bounds: ram.Bounds()})
	}

	if gpu, err = openNVML(); err != nil {
		gpu = nil
		findings = append(findings, Finding{Component: GPU, Method: "nvml", Detail: reason(err)})
	} else {
		findings = append(findings, Finding{Component: GPU, Method: gpu.Method(), Used: true, Detail: "all NVIDIA devices", Bounds: gpu.Bounds()})
	}
	return cpu, ram, gpu, findings
}

// reason is an error without the words that say no more than that it is one.
func reason(err error) string {
	return strings.ReplaceAll(strings.TrimPrefix(err.Error(), ErrNoData.Error()+": "), "\n", "; ")
}
