package meter

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// finding is the one of a component and method; the test fails where there is none, or more.
func finding(t *testing.T, findings []Finding, c Component, method string) Finding {
	t.Helper()
	var found []Finding
	for _, f := range findings {
		if f.Component == c && f.Method == method {
			found = append(found, f)
		}
	}
	require.Len(t, found, 1, "%s by %s", c, method)
	return found[0]
}

func TestChoose(t *testing.T) {
	t.Parallel()
	epyc := [5]string{"AuthenticAMD", "AMD EPYC", "25", "1", "1"}
	ryzen := [5]string{"AuthenticAMD", "AMD Ryzen 5 3600 6-Core Processor", "23", "113", "0"}
	for name, c := range map[string]struct {
		cpu      [5]string
		zones    map[string]zone
		cpuBy    string
		ramBy    string
		skipped  map[string]Component // by method, those passed over
		mentions string               // in RAPL's finding for the CPU
	}{
		"packages and DRAM": {epyc, map[string]zone{"intel-rapl:0": {"package-0", "100"}, "intel-rapl:1": {"dram", "10"}},
			"rapl", "rapl", nil, "package-0"},
		"packages only": {epyc, map[string]zone{"intel-rapl:0": {"package-0", "100"}},
			"rapl", "model:resident", map[string]Component{"rapl": RAM}, "package-0"},
		"DRAM only": {epyc, map[string]zone{"intel-rapl:0": {"package-0", "garbage"}, "intel-rapl:1": {"dram", "10"}},
			"model:arch", "rapl", map[string]Component{"rapl": CPU}, "garbage"},
		"DRAM that cannot be read": {epyc, map[string]zone{"intel-rapl:0": {"package-0", "1"}, "intel-rapl:1": {"dram", "unreadable"}},
			"rapl", "model:resident", map[string]Component{"rapl": RAM}, "package-0"},
		"an architecture": {epyc, nil, "model:arch", "model:resident", map[string]Component{"rapl": CPU}, "no RAPL"},
		"a TDP":           {ryzen, nil, "model:tdp", "model:resident", map[string]Component{"rapl": CPU, "model:arch": CPU}, "no RAPL"},
		"an unknown CPU": {[5]string{"Nobody", "Unheard Of 9000", "99", "1", "0"}, nil, "model:constant", "model:resident",
			map[string]Component{"rapl": CPU, "model:arch": CPU, "model:tdp": CPU}, "no RAPL"},
	} {
		procfs, _ := cpuTree(t, 4, c.cpu[0], c.cpu[1], c.cpu[2], c.cpu[3], c.cpu[4])
		got := choose(procfs, powercap(t, c.zones), false, Line{})
		cpu, ram, gpus, findings := got.cpu, got.ram, got.gpus, got.findings
		require.NotNil(t, cpu, name)
		assert.Equal(t, c.cpuBy, cpu.Method(), name)
		assert.Equal(t, c.ramBy, ram.Method(), name)
		assert.Contains(t, finding(t, findings, CPU, "rapl").Detail, c.mentions, name)
		for method, component := range c.skipped {
			assert.False(t, finding(t, findings, component, method).Used, "%s: %s", name, method)
		}
		used := map[Component]int{}
		for _, f := range findings {
			assert.NotEmpty(t, f.Detail, "%s: each says why: %+v", name, f)
			assert.Equal(t, f.Used && f.Component != Processes, f.Bounds != Bounds{}, "%s: %+v", name, f)
			if f.Used {
				used[f.Component]++
			}
		}
		assert.Len(t, gpus, used[GPU], name)
		assert.Equal(t, 1, used[CPU], name)
		assert.Equal(t, 1, used[RAM], name)
		for _, g := range gpus {
			g.Close()
		}
	}
}

// Without anything that tells of a CPU there is no sensor, and no crash.
func TestChooseOnNoMachine(t *testing.T) {
	t.Parallel()
	got := choose(t.TempDir(), t.TempDir(), false, Line{})
	assert.Nil(t, got.cpu)
	assert.NotNil(t, got.ram)
	assert.False(t, finding(t, got.findings, CPU, "model").Used)
	for _, g := range got.gpus {
		g.Close()
	}
}

// Tests run as root, whom no mode keeps out: the error that others get is made here.
func TestRemedies(t *testing.T) {
	t.Parallel()
	denied := fmt.Errorf("%w: %w", ErrNoData, &fs.PathError{Op: "open", Path: "/sys/class/powercap/intel-rapl:0/energy_uj", Err: fs.ErrPermission})
	assert.Contains(t, reason(denied), "intel-rapl:0/energy_uj")
	assert.Contains(t, raplRemedy(denied), "chmod a+r")
	assert.Contains(t, raplRemedy(denied), "udev")
	assert.Empty(t, raplRemedy(fmt.Errorf("%w: no RAPL", ErrNoData)))

	sysfs := t.TempDir() // as in Docker: the zones are links to what is masked
	powercap := filepath.Join(sysfs, "class", "powercap")
	require.NoError(t, os.MkdirAll(powercap, 0o755))
	require.NoError(t, os.Symlink("../../devices/virtual/powercap/intel-rapl/intel-rapl:0", filepath.Join(powercap, "intel-rapl:0")))
	_, _, err := openRAPL(sysfs)
	require.ErrorIs(t, err, ErrNoData)
	assert.Contains(t, raplRemedy(err), "systempaths=unconfined")

	assert.Empty(t, nvmlRemedy(sysfs), "nothing to install on a machine without such a device")
	device := filepath.Join(sysfs, "bus", "pci", "devices", "0000:01:00.0")
	require.NoError(t, os.MkdirAll(device, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(device, "vendor"), []byte("0x10de\n"), 0o644))
	assert.Contains(t, nvmlRemedy(sysfs), "driver")
}
