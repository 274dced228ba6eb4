package meter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/cpu"
)

// cpuModel is a line from idle to full power: W = threads x idle + busy threads x (full - idle). A line fits measured
// machines as well as the curves do that others use, and unlike them it adds up over processes.
type cpuModel struct {
	method     string
	bounds     Bounds
	threads    float64
	limited    bool  // threads are the limit of this container, and /proc/stat is of the whole machine
	idle, full Power // per thread
	detail     string
	passedOver []Finding // the models that would have been better
}

func (m *cpuModel) Method() string { return m.method }
func (m *cpuModel) Bounds() Bounds { return m.bounds }
func (m *cpuModel) Detail() string { return m.detail }

// Read is Sensor's.
func (m *cpuModel) Read(l Load) (Energy, error) {
	if l.Elapsed <= 0 {
		return 0, nil
	}
	awake := max(m.threads, l.Busy.Seconds()/l.Elapsed.Seconds()) // a run may be in another container, with a larger limit
	return Power(awake*m.idle.Watts()).Over(l.Elapsed) + (m.full - m.idle).Over(l.Busy), nil
}

// within returns how much of the machine's CPU time was used in this container, as far as that can be known: not more
// than its limit allows, and not less than the runs used. Without a limit it is all of it.
func (m *cpuModel) within(busy, runs, elapsed time.Duration) time.Duration {
	if !m.limited {
		return busy
	}
	return max(runs, min(busy, time.Duration(m.threads*float64(elapsed))))
}

// The models' known errors: an architecture's own line is x/÷ 1.5; another's line, TDP and a constant x/÷ 2.
var (
	archBounds  = Bounds{Low: 1 / 1.5, High: 1.5}
	roughBounds = Bounds{Low: 0.5, High: 2}
)

// openCPUModel models the CPU by the best that is known of it: the architecture's idle and full power, else its TDP,
// else the median of the architectures (data/cpu_architectures.csv). Errors wrap ErrNoData.
//
// On other systems than Linux there is no procfs and no sysfs, and gopsutil asks the system.
func openCPUModel(procfs, sysfs string) (*cpuModel, error) {
	// In sysfs gopsutil looks for clocks and the numbers of cores, two files for each thread, which nobody needs here;
	// an empty one makes it panic.
	ctx := context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: procfs, common.HostSysEnvKey: os.DevNull})
	infos, err := cpu.InfoWithContext(ctx)
	threads := modelThreads(ctx, procfs)
	if threads == 0 {
		return nil, errors.Join(fmt.Errorf("%w: no CPU in %s", ErrNoData, procfs), err)
	}
	size := threads
	if limit := modelLimit(procfs, sysfs); limit > 0 && limit < size {
		size = limit // in a container its limit is the size of the machine
	}
	if len(infos) == 0 { // a list that is empty, or garbage: threads without a name
		infos = []cpu.InfoStat{{}}
	}
	m := newCPUModel(infos, threads, size, modelCloud(sysfs))
	m.limited = size < threads
	return m, nil
}

// newCPUModel chooses the model for a CPU of so many threads, of which size may be used; size need not be whole.
func newCPUModel(infos []cpu.InfoStat, threads, size float64, cloud string) *cpuModel {
	t := modelTables()
	info := infos[0]
	name := modelName(info.ModelName)
	m := &cpuModel{}

	if arch := t.architecture(info, name); arch != "" {
		m.use("model:arch", archBounds, size, t.architectures[arch], arch)
		return m
	}
	if core, ok := modelCores[info.Model]; ok && info.VendorID == "ARM" {
		m.use("model:arch", roughBounds, size, t.architectures[core.architectureOn(cloud)], core.describe(cloud))
		return m
	}
	m.passOver("model:arch", "no measured architecture for %q, vendor %q, family %q, model %q", info.ModelName, info.VendorID, info.Family, info.Model)

	if tdp, ok := t.tdp[modelKey(name)]; ok {
		full := Power(tdp / t.threadsOfCPU(infos, threads, tdp))
		// Idle at a tenth of it is CodeCarbon's assumption, too.
		m.use("model:tdp", roughBounds, size, modelLine{full / 10, full}, fmt.Sprintf("%s, TDP %.0f W", name, tdp))
		return m
	}
	m.passOver("model:tdp", "no TDP known for %q", name)

	m.use("model:constant", roughBounds, size, t.median, fmt.Sprintf("unknown CPU, by the median of the %d measured architectures", len(t.architectures)))
	return m
}

func (m *cpuModel) use(method string, b Bounds, threads float64, l modelLine, what string) {
	m.method, m.bounds, m.threads, m.idle, m.full = method, b, threads, l.idle, l.full
	m.detail = fmt.Sprintf("%s, %.3g threads at %.2f to %.2f W", what, threads, l.idle, l.full)
}

func (m *cpuModel) passOver(method, why string, args ...any) {
	m.passedOver = append(m.passedOver, Finding{Component: CPU, Method: method, Detail: fmt.Sprintf(why, args...)})
}
