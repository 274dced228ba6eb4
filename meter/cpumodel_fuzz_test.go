package meter

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever /proc and /sys show: no panic, and a power that is one.
func FuzzCPUModel(f *testing.F) {
	for _, dir := range []string{"epyc-hidden-zen5", "xeon-hidden-cascade-lake", "ryzen-5-3600-virtual", "graviton3e", "ampere-one", "garbage-cpuinfo"} {
		f.Add([]byte(sysfsText("testdata", "cpu", dir, "proc", "cpuinfo")), []byte(sysfsText("testdata", "cpu", dir, "proc", "stat")),
			[]byte(sysfsText("testdata", "cpu", dir, "sys", "class", "dmi", "id", "product_name")))
	}
	f.Add([]byte("processor: 0\nvendor_id: ARM\nmodel: 0xd40\nmodel name: AMD 0-Core Processor\nflags: hypervisor\n"), []byte("cpu0 \n"), []byte("c7gn.\n"))
	f.Add([]byte("processor: 0\nmodel name: Intel Xeon X5650 99999999999999999999999-Core\nflags: hypervisor\n"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, cpuinfo, stat, product []byte) {
		root := t.TempDir()
		write(t, root, map[string][]byte{"proc/cpuinfo": cpuinfo, "proc/stat": stat,
			"sys/class/dmi/id/sys_vendor": []byte("Amazon EC2\n"), "sys/class/dmi/id/product_name": product})
		m, err := openCPUModel(filepath.Join(root, "proc"), filepath.Join(root, "sys"))
		if err != nil {
			require.ErrorIs(t, err, ErrNoData)
			return
		}
		idle, full := watts(t, m, 0), watts(t, m, m.threads)
		if !(idle > 0 && full > idle) || math.IsInf(full, 0) {
			t.Fatalf("%+v: %v to %v W", m, idle, full)
		}
	})
}

// Whatever the files of a cgroup hold, their limit is a number of CPUs, or none, and nothing outside the mount is read.
func FuzzCgroupLimit(f *testing.F) {
	f.Add([]byte("0::/a/b\n1:cpu:/c\n"), []byte("150000 100000\n"), []byte("200000\n"), []byte("100000\n"))
	f.Add([]byte("0::/../..\n"), []byte("max 100000\n"), []byte("-1\n"), []byte("0\n"))
	f.Add([]byte("0::\n:cpu:\n"), []byte("1e999 NaN\n"), []byte("Inf\n"), []byte("18446744073709551616\n"))
	f.Fuzz(func(t *testing.T, self, limit, quota, period []byte) {
		root := t.TempDir()
		write(t, root, map[string][]byte{"proc/self/cgroup": self, "sys/fs/cgroup/cpu.max": limit,
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota, "sys/fs/cgroup/cpu/cpu.cfs_period_us": period})
		procfs := filepath.Join(root, "proc")
		if l := modelLimit(procfs, filepath.Join(root, "sys")); !(l >= 0) || math.IsInf(l, 0) {
			t.Fatalf("%v CPUs", l)
		}
		v2, v1 := modelCgroups(procfs)
		for _, dir := range append(modelUpwards(v2), modelUpwards(v1)...) {
			if !filepath.IsLocal("." + dir) {
				t.Fatalf("%q leads out of the mount", dir)
			}
		}
	})
}

// write makes files, and the folders around them.
func write(t *testing.T, root string, files map[string][]byte) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o644))
	}
}
