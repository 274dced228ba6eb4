package meter

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v3/cpu"
)

var modelCPULines = regexp.MustCompile(`(?m)^cpu\d+ `)

// modelThreads counts the threads that are online.
func modelThreads(procfs string, infos []cpu.InfoStat) float64 {
	if b, err := os.ReadFile(filepath.Join(procfs, "stat")); err == nil {
		if n := len(modelCPULines.FindAll(b, -1)); n > 0 {
			return float64(n)
		}
	}
	return float64(len(infos))
}

// modelLimit returns the number of CPUs that this cgroup may use, 0 for no limit: version 2's cpu.max, else version 1's
// quota.
func modelLimit(sysfs string) float64 {
	root := filepath.Join(sysfs, "fs", "cgroup")
	ratio := func(quota, period string) float64 {
		q, errQ := strconv.ParseFloat(strings.TrimSpace(quota), 64)
		p, errP := strconv.ParseFloat(strings.TrimSpace(period), 64)
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
	for _, controller := range []string{"cpu", "cpu,cpuacct"} { // the first is a link to the second, where it is there
		quota, errQ := os.ReadFile(filepath.Join(root, controller, "cpu.cfs_quota_us"))
		period, errP := os.ReadFile(filepath.Join(root, controller, "cpu.cfs_period_us"))
		if errQ == nil && errP == nil {
			return ratio(string(quota), string(period))
		}
	}
	return 0
}

var modelCores = regexp.MustCompile(`\b(\d+)-Core\b`)

// threadsOfCPU is the number of threads that share one socket's TDP.
//
// On a real machine those are its online threads, hyperthreads included. A virtual machine is a slice of a CPU, often
// with each thread dressed up as a socket of its own: there the name's cores count, two threads each ("16-Core"), else
// so many that one takes no more than the median architecture's does at full power, and never fewer than are seen.
func (t modelTable) threadsOfCPU(infos []cpu.InfoStat, online, tdp float64) float64 {
	if !slices.Contains(infos[0].Flags, "hypervisor") {
		sockets := map[string]bool{}
		for _, i := range infos {
			sockets[i.PhysicalID] = true
		}
		return online / float64(len(sockets))
	}
	if m := modelCores.FindStringSubmatch(infos[0].ModelName); m != nil {
		if cores, err := strconv.ParseFloat(m[1], 64); err == nil {
			return max(online, 2*cores)
		}
	}
	return max(online, tdp/t.median.full.Watts())
}
