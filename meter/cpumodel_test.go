package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

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

func TestCPUModel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vendor, name, family, model, stepping string
		method                                string
		idle, full                            float64 // per thread
	}{
		{"AuthenticAMD", "AMD EPYC 7351 16-Core Processor", "23", "1", "2", "model:arch", 0.8468, 2.6042},
		{"AuthenticAMD", "AMD EPYC", "25", "1", "1", "model:arch", 0.4556, 1.9573},
		{"AuthenticAMD", "AMD EPYC", "25", "17", "1", "model:arch", 0.7391, 2.2822},
		{"AuthenticAMD", "AMD EPYC", "26", "2", "1", "model:arch", 0.2141, 1.1687},
		{"GenuineIntel", "Intel(R) Xeon(R) Processor @ 2.80GHz", "6", "85", "7", "model:arch", 0.6903, 4.0632},
		{"GenuineIntel", "Intel(R) Xeon(R) Processor @ 2.80GHz", "6", "85", "4", "model:arch", 0.613, 4.1042},
		{"GenuineIntel", "Intel(R) Xeon(R) CPU @ 2.60GHz", "6", "143", "8", "model:arch", 1.0363, 4.1605},
		{"GenuineIntel", "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "6", "142", "10", "model:tdp", 15.0 / 4 / 10, 15.0 / 4},
		{"NoSuchVendor", "Unheard Of 9000", "99", "1", "0", "model:constant", 0, 0},
	} {
		procfs, sysfs := cpuTree(t, 4, c.vendor, c.name, c.family, c.model, c.stepping)
		m, err := openCPUModel(procfs, sysfs)
		require.NoError(t, err, c.name)
		assert.Equal(t, c.method, m.Method(), c.name)
		assert.Equal(t, 4.0, m.threads, c.name)
		if c.full > 0 {
			assert.InDelta(t, c.idle, m.idle.Watts(), 1e-9, c.name)
			assert.InDelta(t, c.full, m.full.Watts(), 1e-9, c.name)
		}
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

// In a container its limit, not the host, is the size of the machine.
func TestCgroupLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files map[string]string
		want  float64
	}{
		{map[string]string{"cpu.max": "150000 100000\n"}, 1.5},
		{map[string]string{"cpu.max": "max 100000\n"}, 4},
		{map[string]string{"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2},
		{map[string]string{"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4},
		{map[string]string{"cpu.max": "garbage"}, 4},
		{nil, 4},
	} {
		procfs, sysfs := cpuTree(t, 4, "AuthenticAMD", "AMD EPYC", "25", "1", "1")
		for name, content := range c.files {
			path := filepath.Join(sysfs, "fs", "cgroup", name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		}
		m, err := openCPUModel(procfs, sysfs)
		require.NoError(t, err)
		assert.Equal(t, c.want, m.threads, c.files)
	}
}

func TestNoCPUIsNoData(t *testing.T) {
	t.Parallel()
	_, err := openCPUModel(t.TempDir(), t.TempDir())
	assert.ErrorIs(t, err, ErrNoData)
}

// Every architecture that a model or a number leads to is one whose power is known, or falls through to the next method.
func TestTables(t *testing.T) {
	t.Parallel()
	tables := cpuTables()
	assert.Len(t, tables.architectures, 20)
	assert.Greater(t, len(tables.models), 1000)
	assert.Greater(t, len(tables.tdp), 4900)
	for name, l := range tables.architectures {
		assert.Positive(t, l.idle.Watts(), name)
		assert.Greater(t, l.full, l.idle, name)
	}
}

func TestRAMModel(t *testing.T) {
	t.Parallel()
	e, err := newRAM().Read(Load{Elapsed: 10 * time.Second, MemoryUsed: 4 << 30})
	require.NoError(t, err)
	assert.InDelta(t, 4*0.392*10, e.Joules(), 1e-9)
}

func newRAM() Sensor { return ramModel{} }

func TestChoose(t *testing.T) {
	t.Parallel()
	procfs, sysfs := cpuTree(t, 4, "AuthenticAMD", "AMD EPYC", "25", "1", "1")
	cpu, ram, _, findings := choose(procfs, sysfs)
	assert.Equal(t, "model:arch", cpu.Method())
	assert.Equal(t, "model:resident", ram.Method())
	for _, f := range findings {
		assert.NotEmpty(t, f.Detail, "each says why: %+v", f)
	}

	root := powercap(t, map[string]zone{"intel-rapl:0": {"package-0", "100"}, "intel-rapl:1": {"dram", "10"}})
	cpu, ram, _, _ = choose(procfs, root)
	assert.Equal(t, "rapl", cpu.Method())
	assert.Equal(t, "rapl", ram.Method())
}
