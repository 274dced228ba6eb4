package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cpuTree makes a /proc of a machine with so many threads of a CPU, and an empty /sys.
func cpuTree(t *testing.T, threads int, vendor, name, family, model, stepping string) (procfs, sysfs string) {
	t.Helper()
	procfs, sysfs = t.TempDir(), t.TempDir()
	stat, info := "cpu  1 2 3 4\n", ""
	for i := range threads {
		stat += fmt.Sprintf("cpu%d 1 2 3 4\n", i)
		info += fmt.Sprintf("processor\t: %d\nvendor_id\t: %s\ncpu family\t: %s\nmodel\t\t: %s\nmodel name\t: %s\nstepping\t: %s\ncpu MHz\t\t: 2000.0\nphysical id\t: 0\ncore id\t\t: %d\ncpu cores\t: %d\nflags\t\t: fpu\n\n",
			i, vendor, family, model, name, stepping, i, threads)
	}
	require.NoError(t, os.WriteFile(filepath.Join(procfs, "stat"), []byte(stat), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(procfs, "cpuinfo"), []byte(info), 0o644))
	return procfs, sysfs
}

// The tables' names and numbers; testdata/cpu has whole machines.
func TestCPUModel(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	for _, c := range []struct {
		vendor, name, family, model, stepping string
		method                                string
		idle, full                            float64 // per thread
	}{
		{"AuthenticAMD", "AMD EPYC", "25", "17", "1", "model:arch", 0.7391, 2.2822},
		{"GenuineIntel", "Intel(R) Xeon(R) Processor @ 2.80GHz", "6", "85", "4", "model:arch", 0.613, 4.1042},
		{"GenuineIntel", "Intel(R) Xeon(R) CPU @ 2.60GHz", "6", "143", "8", "model:arch", 1.0363, 4.1605},
		{"GenuineIntel", "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "6", "142", "10", "model:tdp", 15.0 / 4 / 10, 15.0 / 4},
		{"GenuineIntel", "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz", "6", "60", "3", "model:arch", 1.8574, 5.5954},
		{"GenuineIntel", "Intel(R) Xeon(R) Gold 6136 CPU @ 3.00GHz", "6", "0", "0", "model:arch", 0.613, 4.1042},
		{"GenuineIntel", "13th Gen Intel(R) Core(TM) i9-13900K", "6", "183", "1", "model:tdp", 125.0 / 4 / 10, 125.0 / 4},
		{"AuthenticAMD", "AMD Ryzen 7 1700 Eight-Core Processor", "23", "1", "1", "model:tdp", 65.0 / 4 / 10, 65.0 / 4},
		{"AuthenticAMD", "AMD Ryzen 9 7940HS w/ Radeon 780M Graphics", "25", "116", "1", "model:tdp", 54.0 / 4 / 10, 54.0 / 4},
		{"AuthenticAMD", "AMD FX(tm)-8350 Eight-Core Processor", "21", "2", "0", "model:tdp", 125.0 / 4 / 10, 125.0 / 4},
		{"AuthenticAMD", "AMD Opteron(tm) Processor 6140", "16", "9", "1", "model:tdp", 115.0 / 4 / 10, 115.0 / 4},
	} {
		procfs, sysfs := cpuTree(t, 4, c.vendor, c.name, c.family, c.model, c.stepping)
		m, err := openCPUModel(procfs, sysfs)
		require.NoError(t, err, c.name)
		assert.Equal(t, c.method, m.Method(), c.name)
		assert.Equal(t, 4.0, m.threads, c.name)
		assert.InDelta(t, c.idle, m.idle.Watts(), 1e-9, c.name)
		assert.InDelta(t, c.full, m.full.Watts(), 1e-9, c.name)
		assert.Len(t, m.passedOver, map[string]int{"model:arch": 0, "model:tdp": 1}[c.method], c.name)
		assert.Less(t, m.idle, m.full)
		assert.Less(t, m.Bounds().Low, 1.0)
		assert.Greater(t, m.Bounds().High, 1.0)
	}
}

func TestCPUModelIsALine(t *testing.T) {
	t.Parallel()
	m := &cpuModel{threads: 4, idle: 1, full: 3}
	for busy, want := range map[time.Duration]float64{0: 8, time.Second: 10, 8 * time.Second: 24} {
		e, err := m.Read(Load{Elapsed: 2 * time.Second, Busy: busy})
		require.NoError(t, err)
		assert.InDelta(t, want, e.Joules(), 1e-9)
	}
}

func TestNoCPUIsNoData(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	_, err := openCPUModel(t.TempDir(), t.TempDir())
	assert.ErrorIs(t, err, ErrNoData)
}

func TestTables(t *testing.T) {
	t.Parallel()
	tables := modelTables()
	assert.Len(t, tables.architectures, 20)
	assert.Greater(t, len(tables.models), 1000)
	assert.Greater(t, len(tables.tdp), 4890, "4,918 less those that differ only in spelling")
	for name, l := range tables.architectures {
		assert.Positive(t, l.idle.Watts(), name)
		assert.Greater(t, l.full, l.idle, name)
	}
}

// Every TDP in the table is found by the name that its row has, as a CPU would show it.
func TestTDPNames(t *testing.T) {
	t.Parallel()
	tables := modelTables()
	for _, r := range modelRows("cpu_tdp.csv") {
		if w, err := strconv.ParseFloat(r[1], 64); err != nil || w <= 0 {
			continue
		}
		assert.Positive(t, tables.tdp[modelKey(modelName(r[0]))], r[0])
		shown := strings.NewReplacer("Intel ", "Intel(R) ", "Core ", "Core(TM) ", "Xeon ", "Xeon(R) ").Replace(r[0]) + " @ 2.00GHz"
		assert.Positive(t, tables.tdp[modelKey(modelName(shown))], shown)
	}
}

// All architectures that a model or a number leads to have a known power.
func TestArchitecturesOfTables(t *testing.T) {
	t.Parallel()
	tables := modelTables()
	for name, arch := range tables.models {
		assert.True(t, tables.known(arch), "%s: %s", name, arch)
	}
	for _, vendor := range []string{"AuthenticAMD", "GenuineIntel"} {
		for _, family := range []string{"6", "23", "25", "26"} {
			for n := range 256 {
				if arch := modelByNumber(vendor, family, strconv.Itoa(n), 0, ""); arch != "" {
					assert.True(t, tables.known(arch), "%s %s/%d: %s", vendor, family, n, arch)
				}
			}
		}
	}
}

// A virtual machine shows a slice of a CPU, often with a socket for each thread: TDP is not one thread's.
func TestTDPOnAVirtualMachine(t *testing.T) {
	t.Parallel()
	tables := modelTables()
	info := func(name, flag string, sockets int) []cpu.InfoStat {
		var infos []cpu.InfoStat
		for i := range 2 {
			infos = append(infos, cpu.InfoStat{ModelName: name, PhysicalID: strconv.Itoa(i % sockets), Flags: []string{"fpu", flag}})
		}
		return infos
	}
	median := tables.median.full.Watts()
	for name, c := range map[string]struct {
		infos []cpu.InfoStat
		tdp   float64
		want  float64 // threads that share the TDP
	}{
		"real, one socket":             {info("Some CPU", "sse", 1), 60, 2},
		"real, two sockets":            {info("Some CPU", "sse", 2), 60, 1},
		"virtual":                      {info("Some CPU", "hypervisor", 2), 60, 60 / median},
		"virtual, cores in the name":   {info("AMD Some 16-Core Processor", "hypervisor", 2), 60, 32},
		"virtual, a small CPU's whole": {info("Some CPU", "hypervisor", 1), 3, 2},
	} {
		assert.InDelta(t, c.want, tables.threadsOfCPU(c.infos, 2, c.tdp), 1e-9, name)
	}
}

// macOS and Windows have no /proc: gopsutil lists sockets there, without CPUID's numbers on Windows.
func TestCPUModelOfOtherSystems(t *testing.T) {
	t.Parallel()
	xeon := cpu.InfoStat{VendorID: "GenuineIntel", Family: "179", ModelName: "Intel(R) Xeon(R) CPU           X5650  @ 2.67GHz",
		PhysicalID: "BFEBFBFF000206C2", Cores: 12}
	for name, c := range map[string]struct {
		infos      []cpu.InfoStat
		threads    float64
		method     string
		idle, full float64 // W per thread
	}{
		"a Mac with an Apple M1": {[]cpu.InfoStat{{ModelName: "Apple M1", Family: "458787763", Model: "0", Cores: 8}},
			8, "model:tdp", 0.125, 1.25},
		"a Mac whose TDP nobody knows": {[]cpu.InfoStat{{ModelName: "Apple M1 Pro", Family: "458787763", Model: "0", Cores: 10}},
			10, "model:constant", 0.70155, 3.14475},
		"a Mac with an Intel": {[]cpu.InfoStat{{VendorID: "GenuineIntel", Family: "6", Model: "158", Stepping: 10, Cores: 6,
			ModelName: "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", Flags: []string{"fpu"}}}, 12, "model:arch", 1.1384, 5.4218},
		"a PC with Windows": {[]cpu.InfoStat{{VendorID: "AuthenticAMD", Family: "107", ModelName: "AMD Ryzen 5 3600 6-Core Processor              ",
			PhysicalID: "178BFBFF00870F10", Cores: 12}}, 12, "model:tdp", 65.0 / 120, 65.0 / 12},
		"two sockets with Windows": {[]cpu.InfoStat{xeon, xeon}, 24, "model:tdp", 95.0 / 120, 95.0 / 12},
	} {
		m := newCPUModel(c.infos, c.threads, c.threads, " ")
		assert.Equal(t, c.method, m.Method(), name)
		assert.InDelta(t, c.idle, m.idle.Watts(), 1e-9, name)
		assert.InDelta(t, c.full, m.full.Watts(), 1e-9, name)
	}
}

// This machine, whatever its system, has threads and a power.
func TestCPUModelOfThisMachine(t *testing.T) {
	t.Parallel()
	m, err := openCPUModel("/proc", "/sys")
	require.NoError(t, err)
	assert.Positive(t, m.threads)
	assert.Positive(t, m.idle)
	assert.Less(t, m.idle, m.full)
}

// In a container /proc/stat is of the whole machine: what others outside do must not take a part of the idle power of
// the container's own threads, and a run in another container may use more than this one's limit.
func TestALimitedContainerIsAMachineOfItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.meter.cpu = &cpuModel{threads: 2, limited: true, idle: 1, full: 3}
	s := m.begin("a", "", m.fork(100, 50, "python3"))
	m.run(100, 100)
	m.busy += 6000
	m.flush()
	m.sleep()
	assert.InDelta(t, (2*1+2*2)/2.0, cpuOf(s), 1e-9, "one of the container's two threads; the other may have been busy")
	m.conserved(s)
	m.run(100, 400)
	m.sleep()
	assert.InDelta(t, 3+4*1+4*2, cpuOf(s), 1e-9)
	m.conserved(s)
	m.meter.cpu = &cpuModel{threads: 64, idle: 1, full: 3}
	m.run(100, 100)
	m.busy += 3100
	m.flush()
	m.sleep()
	assert.InDelta(t, 15+(64+32*2)/32.0, cpuOf(s), 1e-9, "without a limit all of the machine counts")
	m.conserved(s)
}
