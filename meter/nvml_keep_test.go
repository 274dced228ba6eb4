//go:build cgo && linux

package meter

import (
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/assert"
)

// A device's counter goes on while the program does not run, and the driver's samples of its processes as far as they
// reach back. A power says nothing of a long time; a device of which nothing was kept counts from here.
func TestNVMLGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	for _, down := range []time.Duration{3 * time.Second, time.Hour} {
		counts, powered, failed, lost := newMockGPU("counts"), newMockGPU("powered"), newMockGPU("failed"), newMockGPU("new")
		powered.counterRet = nvml.ERROR_NOT_SUPPORTED
		powered.power = 100_000
		failed.counterRet = nvml.ERROR_GPU_IS_LOST
		m := newMockNVML(counts, powered, failed)
		before := m.open(t, everyCall)
		readNVML(t, before, Load{})
		m.second(3)
		readNVML(t, before, Load{Elapsed: time.Second})
		kept := map[string]uint64{}
		(&hastyGPU{GPUSensor: before}).keep(kept)

		failed.counterRet = nvml.SUCCESS
		m.gpus = append(m.gpus, lost)
		m.now = m.now.Add(down)
		counts.counter += 90_000
		counts.samples = []nvml.ProcessUtilizationSample{{Pid: 7, SmUtil: 40, TimeStamp: m.at(2 * time.Second)}, {Pid: 7, SmUtil: 60, TimeStamp: m.at(time.Second)}}
		after := m.open(t, everyCall)
		readNVML(t, after, Load{})
		(&hastyGPU{GPUSensor: after}).resume(kept, down)
		load := Load{Elapsed: down, Gap: down > time.Minute}
		r := readNVML(t, after, load)
		assert.Equal(t, "90 J", nvmlSaid(r["counts"]))
		assert.Equal(t, []GPUProcess{{PID: 7, Busy: 0.5}}, r["counts"].Processes)
		assert.Equal(t, errBack.Error(), nvmlSaid(r["failed"]), "0 J would pass for measured")
		assert.Equal(t, errBack.Error(), nvmlSaid(r["new"]))
		if load.Gap {
			assert.Contains(t, nvmlSaid(r["powered"]), "says nothing of so long a time")
		} else {
			assert.Equal(t, "300 J", nvmlSaid(r["powered"]))
		}
		m.second(5)
		r = readNVML(t, after, Load{Elapsed: time.Second})
		assert.Equal(t, []string{"5 J", "100 J", "5 J", "5 J"}, []string{nvmlSaid(r["counts"]), nvmlSaid(r["powered"]), nvmlSaid(r["failed"]), nvmlSaid(r["new"])})
	}
}
