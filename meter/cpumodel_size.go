package meter

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/shirou/gopsutil/v3/cpu"
)

var modelCPULines = regexp.MustCompile(`(?m)^cpu\d+ `)

// modelThreads counts the threads that are online; 0 where nothing tells.
func modelThreads(ctx context.Context, procfs string) float64 {
	if b, err := os.ReadFile(filepath.Join(procfs, "stat")); err == nil {
		if n := len(modelCPULines.FindAll(b, -1)); n > 0 {
			return float64(n)
		}
	}
	n, _ := cpu.CountsWithContext(ctx, true)
	return float64(n)
}

var modelCoresInName = regexp.MustCompile(`\b(\d+)-Core\b`)

// threadsOfCPU is the number of threads that share one socket's TDP.
//
// On a real machine those are its online threads, hyperthreads included. A virtual machine is a slice of a CPU, often
// with each thread dressed up as a socket of its own: there the name's cores count, two threads each ("16-Core"), else
// so many that one takes no more than the median architecture's does at full power, and never fewer than are seen.
//
// Arm's CPUs show the name of a core only. The two in the table (Cortex-A72 and A76) have the TDP of the Raspberry Pis'
// chips, of four cores each; on a chip of sixteen, such as the first Graviton, each core has as much.
func (t modelTable) threadsOfCPU(infos []cpu.InfoStat, online, tdp float64) float64 {
	if infos[0].VendorID == "ARM" {
		return 4
	}
	if !slices.Contains(infos[0].Flags, "hypervisor") {
		sockets := map[string]bool{}
		for _, i := range infos {
			sockets[i.PhysicalID] = true
		}
		n := len(sockets)
		if infos[0].Cores > 1 { // Windows and macOS list sockets, not threads, and Windows gives all of them one ID
			n = len(infos)
		}
		return online / float64(n)
	}
	if m := modelCoresInName.FindStringSubmatch(infos[0].ModelName); m != nil {
		if cores, err := strconv.Atoi(m[1]); err == nil {
			return max(online, 2*float64(cores))
		}
	}
	return max(online, tdp/t.median.full.Watts())
}
