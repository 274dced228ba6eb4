package meter

import (
	"context"
	"fmt"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/cpu"
)

// cpuModel is a line from idle to full power: W = threads x idle + busy threads x (full - idle). A line fits measured
// machines as well as the curves do that others use, and unlike them it adds up over processes.
type cpuModel struct {
	method     string
	bounds     Bounds
	threads    float64
	idle, full Power // per thread
	detail     string
	passedOver []Finding // the models that would have been better
}

func (m *cpuModel) Method() string { return m.method }
func (m *cpuModel) Bounds() Bounds { return m.bounds }
func (m *cpuModel) Detail() string { return m.detail }

// Read is Sensor's.
func (m *cpuModel) Read(l Load) (Energy, error) {
	return Power(m.threads*m.idle.Watts()).Over(l.Elapsed) + (m.full - m.idle).Over(l.Busy), nil
}

// The models' known errors: an architecture's line is x/÷ 1.5, TDP and a constant x/÷ 2.
var (
	archBounds  = Bounds{Low: 1 / 1.5, High: 1.5}
	roughBounds = Bounds{Low: 0.5, High: 2}
)

// openCPUModel models the CPU by the best that is known of it: the architecture's idle and full power, else its TDP,
// else the median of the architectures (data/cpu_architectures.csv). Errors wrap ErrNoData.
func openCPUModel(procfs, sysfs string) (*cpuModel, error) {
	ctx := context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: procfs, common.HostSysEnvKey: sysfs})
	infos, err := cpu.InfoWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: read the CPU's name: %w", ErrNoData, err)
	}
	if len(infos) == 0 {
		return nil, fmt.Errorf("%w: no CPU in %s/cpuinfo", ErrNoData, procfs)
	}
	threads := modelThreads(procfs, infos)
	size := threads
	if limit := modelLimit(sysfs); limit > 0 && limit < size {
		size = limit // in a container its limit is the size of the machine
	}
	t := modelTables()
	info := infos[0]
	name := modelName(info.ModelName)
	m := &cpuModel{threads: size}

	if arch := t.architecture(info, name); arch != "" {
		line := t.architectures[arch]
		m.method, m.bounds, m.idle, m.full = "model:arch", archBounds, line.idle, line.full
		m.detail = fmt.Sprintf("%s, %.3g threads at %.2f to %.2f W", arch, size, m.idle, m.full)
		return m, nil
	}
	m.passedOver = append(m.passedOver, Finding{Component: CPU, Method: "model:arch",
		Detail: fmt.Sprintf("no measured architecture for %q, family %s, model %s", info.ModelName, info.Family, info.Model)})

	m.bounds = roughBounds
	if tdp, ok := t.tdp[modelKey(name)]; ok {
		m.method, m.full = "model:tdp", Power(tdp/t.threadsOfCPU(infos, threads, tdp))
		m.idle = m.full / 10 // CodeCarbon's assumption, too
		m.detail = fmt.Sprintf("%s, TDP %.0f W, %.3g threads at %.2f to %.2f W", name, tdp, size, m.idle, m.full)
		return m, nil
	}
	m.passedOver = append(m.passedOver, Finding{Component: CPU, Method: "model:tdp", Detail: fmt.Sprintf("no TDP known for %q", name)})

	m.method, m.idle, m.full = "model:constant", t.median.idle, t.median.full
	m.detail = fmt.Sprintf("unknown CPU, %.3g threads at %.2f to %.2f W, the median of the %d measured architectures", size, m.idle, m.full, len(t.architectures))
	return m, nil
}
