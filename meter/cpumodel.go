package meter

import (
	"bytes"
	"context"
	"embed"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/cpu"
)

//go:embed data/*.csv
var modelData embed.FS

// cpuModel is a line from idle to full power: W = threads x idle + busy threads x (full - idle). A line fits measured
// machines as well as the curves do that others use, and unlike them it adds up over processes.
type cpuModel struct {
	method     string
	bounds     Bounds
	threads    float64
	idle, full Power // per thread
	detail     string
}

func (m *cpuModel) Method() string { return m.method }
func (m *cpuModel) Bounds() Bounds { return m.bounds }

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
// else the middle one of the architectures.
func openCPUModel(procfs, sysfs string) (*cpuModel, error) {
	ctx := context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: procfs, common.HostSysEnvKey: sysfs})
	infos, err := cpu.InfoWithContext(ctx)
	if err != nil || len(infos) == 0 {
		return nil, fmt.Errorf("%w: read the CPU's name: %w", ErrNoData, errors.Join(err))
	}
	threads := threadsOf(procfs, infos)
	size := threads
	if limit := cpuLimit(sysfs); limit > 0 && limit < size {
		size = limit // in a container its limit is the size of the machine
	}
	t := cpuTables()
	info := infos[0]
	name := cleanName(info.ModelName)
	m := &cpuModel{threads: size}
	if arch := t.architecture(info, name); arch != "" {
		line := t.architectures[arch]
		m.method, m.bounds, m.idle, m.full = "model:arch", archBounds, line.idle, line.full
		m.detail = fmt.Sprintf("%s, %.3g threads at %.2f to %.2f W", arch, size, m.idle, m.full)
		return m, nil
	}
	if tdp, ok := t.tdp[name]; ok {
		// TDP is of one socket, whose threads share it; a tenth of it when idle is CodeCarbon's assumption, too.
		perSocket := threads / float64(sockets(infos))
		m.method, m.bounds, m.full = "model:tdp", roughBounds, Power(tdp/perSocket)
		m.idle = m.full / 10
		m.detail = fmt.Sprintf("%s, TDP %.0f W, %.3g threads", name, tdp, size)
		return m, nil
	}
	m.method, m.bounds, m.idle, m.full = "model:constant", roughBounds, t.middle.idle, t.middle.full
	m.detail = fmt.Sprintf("unknown CPU %q, %.3g threads at %.2f to %.2f W, the middle of the known architectures", info.ModelName, size, m.idle, m.full)
	return m, nil
}

// threadsOf counts the threads that are online.
func threadsOf(procfs string, infos []cpu.InfoStat) float64 {
	if b, err := os.ReadFile(filepath.Join(procfs, "stat")); err == nil {
		if n := len(cpuLines.FindAll(b, -1)); n > 0 {
			return float64(n)
		}
	}
	return float64(len(infos))
}

var cpuLines = regexp.MustCompile(`(?m)^cpu\d+ `)

// sockets counts the physical packages.
func sockets(infos []cpu.InfoStat) int {
	ids := map[string]bool{}
	for _, i := range infos {
		ids[i.PhysicalID] = true
	}
	return max(1, len(ids))
}

// cpuLimit returns the number of CPUs that this cgroup may use, 0 for no limit: version 2's cpu.max, else version 1's quota.
func cpuLimit(sysfs string) float64 {
	root := filepath.Join(sysfs, "fs", "cgroup")
	ratio := func(quota, period string) float64 {
		q, errQ := strconv.ParseFloat(quota, 64)
		p, errP := strconv.ParseFloat(period, 64)
		if errQ != nil || errP != nil || q <= 0 || p <= 0 {
			return 0
		}
		return q / p
	}
	if b, err := os.ReadFile(filepath.Join(root, "cpu.max")); err == nil {
		if f := strings.Fields(string(b)); len(f) == 2 {
			return ratio(f[0], f[1])
		}
		return 0
	}
	quota, err := os.ReadFile(filepath.Join(root, "cpu", "cpu.cfs_quota_us"))
	if err != nil {
		return 0
	}
	period, err := os.ReadFile(filepath.Join(root, "cpu", "cpu.cfs_period_us"))
	if err != nil {
		return 0
	}
	return ratio(strings.TrimSpace(string(quota)), strings.TrimSpace(string(period)))
}

// noise is what vendors put around a model's name.
var noise = regexp.MustCompile(`\((R|TM|r|tm)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*$|\bwith Radeon.*$|\d+th Gen |\d+rd Gen `)

// cleanName writes a model's name as the tables do: "Intel Core i7-8650U" for "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz".
func cleanName(name string) string {
	return strings.Join(strings.Fields(noise.ReplaceAllString(name, " ")), " ")
}

// powerLine is a thread's power when idle and when busy.
type powerLine struct{ idle, full Power }

type cpuTable struct {
	architectures map[string]powerLine
	models        map[string]string // architecture by model name, without the vendor
	tdp           map[string]float64
	middle        powerLine // medians over the architectures
}

// cpuTables reads the embedded tables, once.
var cpuTables = sync.OnceValue(func() cpuTable {
	t := cpuTable{architectures: map[string]powerLine{}, models: map[string]string{}, tdp: map[string]float64{}}
	watts := func(s string) float64 {
		v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			panic("meter/data: " + err.Error())
		}
		return v
	}
	var idle, full []float64
	for _, r := range modelRows("cpu_architectures.csv") {
		l := powerLine{Power(watts(r[1])), Power(watts(r[2]))}
		t.architectures[r[0]] = l
		idle, full = append(idle, l.idle.Watts()), append(full, l.full.Watts())
	}
	slices.Sort(idle)
	slices.Sort(full)
	t.middle = powerLine{Power(idle[len(idle)/2]), Power(full[len(full)/2])}
	for _, r := range modelRows("cpu_models.csv") {
		t.models[r[0]] = r[1]
	}
	for _, r := range modelRows("cpu_tdp.csv") {
		// The table has a value that is no number and one that is zero: those CPUs are unknown.
		if w, err := strconv.ParseFloat(r[1], 64); err == nil && w > 0 {
			t.tdp[r[0]] = w
		}
	}
	return t
})

func modelRows(file string) [][]string {
	b, err := modelData.ReadFile("data/" + file)
	if err != nil {
		panic(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		panic("meter/data/" + file + ": " + err.Error())
	}
	return rows[1:]
}

// architecture tells a CPU's architecture by its model name, else by family and model number, which virtual machines
// show even where they hide the name. It is empty where no table knows it.
func (t cpuTable) architecture(info cpu.InfoStat, name string) string {
	short := strings.TrimSpace(strings.NewReplacer("Intel", "", "AMD", "", "Xeon", "").Replace(name))
	for _, candidate := range []string{name, short, "Xeon " + short, strings.TrimSpace(strings.TrimPrefix(name, "AMD")), strings.TrimSpace(strings.TrimPrefix(name, "Intel"))} {
		if arch, ok := t.models[candidate]; ok && t.known(arch) {
			return arch
		}
	}
	if arch := architectureByNumber(info.VendorID, info.Family, info.Model, int(info.Stepping)); t.known(arch) {
		return arch
	}
	return ""
}

func (t cpuTable) known(arch string) bool { _, ok := t.architectures[arch]; return ok }

// architectureByNumber maps CPUID family and model, in decimal as /proc/cpuinfo shows them, to the tables' names, by the
// kernel's intel-family.h and AMD's revision guides. Only server parts are in the tables.
func architectureByNumber(vendor, family, model string, stepping int) string {
	n, err := strconv.Atoi(model)
	if err != nil {
		return ""
	}
	switch vendor + "/" + family {
	case "AuthenticAMD/23": // Zen, Zen 2
		if n < 16 {
			return "EPYC 1st Gen"
		}
		if n >= 48 {
			return "EPYC 2nd Gen"
		}
	case "AuthenticAMD/25": // Zen 3, Zen 4
		if n < 16 {
			return "EPYC 3rd Gen"
		}
		if n < 32 || n >= 160 {
			return "EPYC 4th Gen"
		}
	case "AuthenticAMD/26": // Zen 5
		if n < 32 {
			return "EPYC 5th Gen"
		}
	case "GenuineIntel/6":
		if n == 85 { // Skylake-SP, Cascade Lake, Cooper Lake
			if stepping >= 5 {
				return "Cascade Lake"
			}
			return "Skylake"
		}
		return map[int]string{45: "Sandy Bridge", 62: "Ivy Bridge", 63: "Haswell", 79: "Broadwell", 86: "Broadwell", 94: "Skylake",
			158: "Coffee Lake", 106: "Ice Lake", 108: "Ice Lake", 143: "Sapphire Rapids", 207: "Emerald Rapids", 173: "Granite Rapids"}[n]
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
