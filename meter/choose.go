package meter

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
)

// chosen are the sensors of a machine.
type chosen struct {
	cpu, ram Sensor
	gpus     []GPUSensor
	wall     WallSensor
	findings []Finding
}

// choose opens the best sensor for each component. Every one that is passed over leaves a finding with its reason, and
// with what would open it where something would.
func choose(procfs, sysfs string, psys bool, line Line) *chosen {
	c := &chosen{}
	if runtime.GOOS == "linux" {
		if !psys || !c.choosePsys(sysfs) {
			c.chooseCPUAndRAM(procfs, sysfs)
		}
		c.chooseGPUs(procfs, sysfs)
		c.chooseWall(sysfs, line)
	} else {
		c.chooseElsewhere(line)
	}
	c.findings = append(c.findings, visible(procfs))
	return c
}

// used notes a sensor that is used.
func (c *chosen) used(of Component, s interface {
	Method() string
	Bounds() Bounds
}) {
	f := Finding{Component: of, Method: s.Method(), Used: true, Bounds: s.Bounds()}
	if d, ok := s.(detailed); ok {
		f.Detail = d.Detail()
	}
	c.findings = append(c.findings, f)
}

// passed notes one that is not, and why.
func (c *chosen) passed(of Component, method string, err error, remedy string) {
	c.findings = append(c.findings, Finding{Component: of, Method: method, Detail: reason(err), Remedy: remedy})
}

// chooseElsewhere models what macOS, Windows and others do not show to everybody.
func (c *chosen) chooseElsewhere(line Line) {
	c.passed(CPU, "rapl", errors.New("this program reads counters on Linux only"), "")
	if model, err := openCPUModel("", ""); err != nil {
		c.passed(CPU, "model", err, "")
	} else {
		c.cpu = model
		c.findings = append(c.findings, model.passedOver...)
		c.used(CPU, model)
	}
	c.ram = newRAMModel()
	c.used(RAM, c.ram)
	c.passed(GPU, "nvml", errors.New("this program reads GPUs on Linux only"), "")
	if line.known() {
		c.wall = wallLine{line}
		c.used(Machine, c.wall)
	}
}

// choosePsys reports whether the platform's zone is there.
func (c *chosen) choosePsys(sysfs string) bool {
	platform, err := openPsys(sysfs)
	if err != nil {
		c.passed(CPU, "rapl:psys", err, raplRemedy(err))
		return false
	}
	c.cpu = platform
	c.used(CPU, platform)
	c.passed(RAM, "rapl", errors.New("inside rapl:psys, which is under cpu"), "")
	return true
}

func (c *chosen) chooseCPUAndRAM(procfs, sysfs string) {
	packages, dram, raplErr := openRAPL(sysfs)
	if packages != nil {
		c.cpu = packages
	} else {
		c.passed(CPU, "rapl", raplErr, raplRemedy(raplErr))
		model, err := openCPUModel(procfs, sysfs)
		if err != nil {
			c.passed(CPU, "model", err, "")
		} else {
			c.cpu = model
			c.findings = append(c.findings, model.passedOver...)
		}
	}
	if c.cpu != nil {
		c.used(CPU, c.cpu)
	}
	if dram != nil {
		c.ram = dram
	} else {
		if raplErr == nil {
			raplErr = errors.New("this CPU counts no DRAM")
		}
		c.passed(RAM, "rapl", raplErr, raplRemedy(raplErr))
		c.ram = newRAMModel()
	}
	c.used(RAM, c.ram)
}

func (c *chosen) chooseGPUs(procfs, sysfs string) {
	nvidia, err := openNVML()
	if err != nil {
		c.passed(GPU, "nvml", err, nvmlRemedy(sysfs))
	} else {
		c.gpus = append(c.gpus, nvidia)
	}
	others, err := openDRM(procfs, sysfs)
	if err != nil {
		c.passed(GPU, "drm", err, drmRemedy(err))
	}
	c.gpus = append(c.gpus, others...)
	for _, g := range c.gpus {
		c.used(GPU, g)
	}
}

// chooseWall prefers the user's own line to the machine's meter.
func (c *chosen) chooseWall(sysfs string, line Line) {
	acpi, err := openACPI(sysfs)
	switch {
	case line.known():
		c.wall = wallLine{line}
	case err != nil:
		c.passed(Machine, "acpi", err, "")
		c.passed(Machine, "line", errors.New("this machine's line is not known"), "mlflow-emissions-proxy doctor --calibrate, with a power meter at the wall")
		return
	default:
		c.wall = acpi
	}
	c.used(Machine, c.wall)
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
		if sysfsText(path) == "0x10de" {
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
