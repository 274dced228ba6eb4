//go:build cgo && linux

package meter

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func fourGPUs() (gpus []*mockGPU) {
	for i := range 4 {
		gpus = append(gpus, newMockGPU(fmt.Sprint("GPU-", i)))
	}
	return gpus
}

// One device that falls off the bus takes nothing from the others, in whatever way it fails.
func TestNVMLOneOfFourIsLost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fail   func(*mockGPU, nvml.Return)
		device string
	}{
		"handle":  {func(g *mockGPU, ret nvml.Return) { g.handleRet = ret }, "device 2"},
		"UUID":    {func(g *mockGPU, ret nvml.Return) { g.uuidRet = ret }, "device 2"},
		"counter": {func(g *mockGPU, ret nvml.Return) { g.counterRet = ret }, "GPU-2"},
	} {
		gpus := fourGPUs()
		m := newMockNVML(gpus...)
		s := m.open(t, everyCall)
		readNVML(t, s, Load{})
		test.fail(gpus[2], nvml.ERROR_GPU_IS_LOST)
		for range 3 {
			m.second(3)
			r := readNVML(t, s, Load{})
			require.Len(t, r, 4, name)
			assert.Contains(t, nvmlSaid(r[test.device]), "GPU_IS_LOST", name)
			for _, device := range []string{"GPU-0", "GPU-1", "GPU-3"} {
				assert.Equal(t, "3 J", nvmlSaid(r[device]), name)
			}
		}
		test.fail(gpus[2], nvml.SUCCESS)
		m.second(3)
		r := readNVML(t, s, Load{})
		assert.Equal(t, errBack.Error(), nvmlSaid(r["GPU-2"]), name)
		assert.Equal(t, "3 J", nvmlSaid(r["GPU-0"]), name)
		m.second(3)
		assert.Equal(t, "3 J", nvmlSaid(readNVML(t, s, Load{})["GPU-2"]), name)
	}
}

// A device that is no longer listed is not silently left out.
func TestNVMLDeviceThatIsNoLongerListed(t *testing.T) {
	t.Parallel()
	gpus := fourGPUs()
	m := newMockNVML(gpus...)
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.gpus = gpus[:3]
	for range 2 {
		m.second(3)
		r := readNVML(t, s, Load{})
		assert.ErrorContains(t, r["GPU-3"].Err, "no longer lists")
		assert.Equal(t, "3 J", nvmlSaid(r["GPU-0"]))
	}
	m.gpus = gpus
	m.second(3)
	assert.Equal(t, errBack.Error(), nvmlSaid(readNVML(t, s, Load{})["GPU-3"]))
}

func TestNVMLOrderOfDevices(t *testing.T) {
	t.Parallel()
	m := newMockNVML(fourGPUs()...)
	s := m.open(t, everyCall)
	for i, g := range m.gpus {
		g.counter = uint64(i) * 1_000_000
	}
	readNVML(t, s, Load{})
	for range 3 {
		slices.Reverse(m.gpus)
		m.gpus = append(m.gpus[1:], m.gpus[0])
		m.second(3)
		for _, r := range readNVML(t, s, Load{}) {
			assert.Equal(t, "3 J", nvmlSaid(r), r.Device)
		}
	}
}

// A driver that was unloaded is looked for again, but not all the time, and nothing of it is called meanwhile.
func TestNVMLDriverThatIsReloaded(t *testing.T) {
	t.Parallel()
	for _, gone := range []nvml.Return{nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED} {
		m := newMockNVML(newMockGPU("GPU-0"))
		s := m.open(t, everyCall)
		readNVML(t, s, Load{})
		m.countRet, m.initRet = gone, nvml.ERROR_DRIVER_NOT_LOADED
		counts := len(m.DeviceGetCountCalls())
		for range 60 {
			m.second(3)
			_, err := s.Read(Load{})
			require.ErrorContains(t, err, "driver went away")
		}
		assert.Equal(t, 1+2, m.inits, "when it was missed, and 30 s later")
		assert.Equal(t, 1, m.shutdowns)
		assert.Equal(t, counts+1, len(m.DeviceGetCountCalls()))

		m.countRet, m.initRet = nvml.SUCCESS, nvml.SUCCESS
		m.gpus[0].counter = 0
		m.gpus = append(m.gpus, newMockGPU("GPU-1"))
		m.now = m.now.Add(nvmlRetry)
		r := readNVML(t, s, Load{})
		assert.Equal(t, errBack.Error(), nvmlSaid(r["GPU-0"]))
		assert.Equal(t, errBack.Error(), nvmlSaid(r["GPU-1"]), "nobody knows whether it was there meanwhile")
		m.second(3)
		assert.Equal(t, "3 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
		s.Close()
		assert.Equal(t, 2, m.shutdowns)
	}
}

// A driver that is back at once has new counters all the same, even where they are higher.
func TestNVMLDriverThatIsReplaced(t *testing.T) {
	t.Parallel()
	m := newMockNVML(newMockGPU("GPU-0"))
	m.InitFunc = func() nvml.Return { m.countRet = nvml.SUCCESS; return nvml.SUCCESS }
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.countRet = nvml.ERROR_UNINITIALIZED
	m.second(3)
	assert.Equal(t, errBack.Error(), nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
	m.second(3)
	assert.Equal(t, "3 J", nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
}

// Any other failure to count the devices loses the interval for all of them.
func TestNVMLCountThatFails(t *testing.T) {
	t.Parallel()
	m := newMockNVML(newMockGPU("GPU-0"))
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	m.countRet = nvml.ERROR_UNKNOWN
	m.second(3)
	_, err := s.Read(Load{})
	require.ErrorContains(t, err, "ERROR_UNKNOWN")
	assert.Zero(t, m.shutdowns)
	m.countRet = nvml.SUCCESS
	m.second(3)
	assert.Equal(t, errBack.Error(), nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
}

// Closing a sensor whose driver is away calls nothing.
func TestNVMLCloseWithoutDriver(t *testing.T) {
	t.Parallel()
	m := newMockNVML(newMockGPU("GPU-0"))
	s := m.open(t, everyCall)
	m.countRet, m.initRet = nvml.ERROR_UNINITIALIZED, nvml.ERROR_LIBRARY_NOT_FOUND
	_, err := s.Read(Load{})
	require.Error(t, err)
	s.Close()
	assert.Equal(t, 1, m.shutdowns)
}

func TestNVMLThatPanics(t *testing.T) {
	t.Parallel()
	m := newMockNVML(newMockGPU("GPU-0"))
	s := m.open(t, everyCall)
	readNVML(t, s, Load{})
	count := m.DeviceGetCountFunc
	m.DeviceGetCountFunc = func() (int, nvml.Return) { panic("undefined symbol") }
	_, err := s.Read(Load{})
	assert.Error(t, err)
	m.DeviceGetCountFunc = count
	m.now = m.now.Add(time.Second)
	assert.Equal(t, errBack.Error(), nvmlSaid(readNVML(t, s, Load{})["GPU-0"]))
	m.InitFunc = func() nvml.Return { panic("undefined symbol") }
	_, err = newNVML(m, everyCall)
	assert.ErrorIs(t, err, ErrNoData)
}

func TestNVMLDetail(t *testing.T) {
	t.Parallel()
	gpus := fourGPUs()
	m := newMockNVML(gpus...)
	gpus[0].name, gpus[2].name = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB"
	gpus[1].name, gpus[1].counterRet = "Tesla P100", nvml.ERROR_NOT_SUPPORTED
	gpus[2].mig = []*mockGPU{nil, newMockMIG("MIG-0", 1)}
	gpus[3].handleRet = nvml.ERROR_GPU_IS_LOST
	assert.Equal(t, "2 x NVIDIA A100-SXM4-40GB (energy counter), 1 x Tesla P100 (power), 1 x device 3 (open it: ERROR_GPU_IS_LOST), 1 MIG instance",
		m.open(t, everyCall).Detail())

	gpus[0].GetNameFunc = nil
	m.gpus = gpus[:1]
	assert.Equal(t, "1 x NVIDIA device (energy counter)", m.open(t, nvmlCalls{energy: true}).Detail(), "a library that knows no names")
}

// Devices that never tell what they use are a reason to do without the sensor; one that is lost may come back.
func TestNVMLWithoutAnythingToRead(t *testing.T) {
	t.Parallel()
	g := newMockGPU("GPU-0")
	m := newMockNVML(g)
	g.counterRet, g.powerRet = nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_NOT_SUPPORTED
	_, err := newNVML(m, everyCall)
	require.ErrorIs(t, err, ErrNoData)
	assert.Contains(t, reason(err), "1 x NVIDIA Mock (neither energy nor power)")
	assert.Equal(t, 1, m.shutdowns)

	g.counterRet = nvml.ERROR_GPU_IS_LOST
	assert.Equal(t, "1 x NVIDIA Mock (ERROR_GPU_IS_LOST)", m.open(t, everyCall).Detail())
}
