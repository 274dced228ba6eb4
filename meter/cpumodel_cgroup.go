package meter

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// modelLimit returns the number of CPUs that this process may use by its cgroup and all those above it, the smallest of
// their limits; 0 for none.
//
// In a cgroup namespace of its own the process sees its cgroup as the root. Without one (docker run --cgroupns=host, a
// service of systemd's) /proc/self/cgroup tells how deep it is (cgroups(7)). Docker without a namespace mounts version
// 1's cgroup as the root all the same: folders that are not there are no limits.
func modelLimit(procfs, sysfs string) float64 {
	root := filepath.Join(sysfs, "fs", "cgroup")
	v2, v1 := modelCgroups(procfs)
	limit := math.Inf(1)
	for _, mount := range []string{"", "unified"} { // the second where both versions are mounted (systemd's hybrid mode)
		for _, dir := range modelUpwards(v2) {
			f := strings.Fields(sysfsText(root, mount, dir, "cpu.max")) // "150000 100000", "max 100000"
			if len(f) == 2 {
				limit = min(limit, modelQuota(f[0], f[1]))
			}
		}
	}
	for _, mount := range []string{"cpu", "cpu,cpuacct"} { // the first is a link to the second, where it is there
		for _, dir := range modelUpwards(v1) {
			limit = min(limit, modelQuota(sysfsText(root, mount, dir, "cpu.cfs_quota_us"), sysfsText(root, mount, dir, "cpu.cfs_period_us")))
		}
	}
	if math.IsInf(limit, 1) {
		return 0
	}
	return limit
}

// modelCgroups returns the paths of this process's cgroups, of version 2 and of version 1's controller of CPU time.
func modelCgroups(procfs string) (v2, v1 string) {
	b, _ := os.ReadFile(filepath.Join(procfs, "self", "cgroup"))
	for line := range strings.Lines(string(b)) { // "0::/path", "4:cpu,cpuacct:/path"
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) < 3:
		case f[0] == "0" && f[1] == "":
			v2 = f[2]
		case slices.Contains(strings.Split(f[1], ","), "cpu"):
			v1 = f[2]
		}
	}
	return v2, v1
}

// modelUpwards lists a cgroup and those above it, the root last. A cgroup outside the namespace ("/../x") is looked for
// from the root: it never leads out of the mount.
func modelUpwards(cgroup string) []string {
	dir := path.Clean("/" + cgroup)
	dirs := []string{dir}
	for dir != "/" {
		dir = path.Dir(dir)
		dirs = append(dirs, dir)
	}
	return dirs
}

// modelQuota returns quota / period, infinity where they are no limit: "max", -1, or nothing that makes sense.
func modelQuota(quota, period string) float64 {
	q, errQ := strconv.ParseUint(quota, 10, 63)
	p, errP := strconv.ParseUint(period, 10, 63)
	if errQ != nil || errP != nil || q == 0 || p == 0 {
		return math.Inf(1)
	}
	return float64(q) / float64(p)
}
