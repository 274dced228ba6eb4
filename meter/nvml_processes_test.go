//go:build cgo && linux

package meter

import (
	"math"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/assert"
)

// A device in exclusive mode has one process, which carries all of it, whatever is known of the process.
func TestNVMLExclusiveDevice(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.holders = []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: math.MaxUint64}}
	s := newMockNVML(g).open(t, everyCall)
	r := readNVML(t, s, Load{})["GPU-0"]
	assert.Equal(t, []GPUProcess{{PID: 7}}, r.Processes, "NVML_VALUE_NOT_AVAILABLE")
	assert.Equal(t, []float64{1}, r.weights())
}

// A process that computes and draws is in both lists; only one of them may know its memory.
func TestNVMLProcessInBothLists(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	g.holders = []nvml.ProcessInfo{{Pid: 7, UsedGpuMemory: math.MaxUint64}, {Pid: 9, UsedGpuMemory: 5}}
	g.drawers = []nvml.ProcessInfo{{Pid: 9, UsedGpuMemory: math.MaxUint64}, {Pid: 7, UsedGpuMemory: 3}, {Pid: 8, UsedGpuMemory: 1}}
	s := newMockNVML(g).open(t, everyCall)
	assert.Equal(t, []GPUProcess{{PID: 7, Memory: 3}, {PID: 8, Memory: 1}, {PID: 9, Memory: 5}}, readNVML(t, s, Load{})["GPU-0"].Processes)
}
