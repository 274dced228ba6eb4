//go:build cgo && linux

package meter

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeLibrary is as much of the driver's library as is asked for: one device, whose counter rises by 5 J at each call.
const fakeLibrary = `
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } info;
static unsigned long long mj = 1000;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int r) { return "some error"; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = &mj; return 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned int n) { const char *u = "GPU-fake"; int i = 0; do s[i] = u[i]; while (u[i++]); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *e) { mj += 5000; *e = mj; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned int *p) { *p = 70000; return 0; }
static int list(unsigned int *n, info *p) { if (*n == 0) { *n = 1; return 7; } *n = 1; p[0].pid = 4242; p[0].used = 1; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned int *n, info *p) { return list(n, p); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned int *n, info *p) { return list(n, p); }
int nvmlDeviceGetComputeRunningProcesses(void *d, unsigned int *n, info *p) { return list(n, p); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned int *n, info *p) { *n = 0; return 0; }
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *d, unsigned int *n, info *p) { *n = 0; return 0; }
int nvmlDeviceGetGraphicsRunningProcesses(void *d, unsigned int *n, info *p) { *n = 0; return 0; }
`

// fakeDriver compiles a library from C, without the functions named, and runs a test of this file in a process of its own
// that finds it where the driver's would be.
func fakeDriver(t *testing.T, test, source string, without ...string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler to make a fake libnvidia-ml.so.1 with")
	}
	lines := slices.DeleteFunc(strings.Split(source, "\n"), func(line string) bool {
		return slices.ContainsFunc(without, func(name string) bool { return strings.Contains(line, name) })
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "fake.c")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644))
	out, err := exec.Command(cc, "-shared", "-fPIC", "-w", "-o", filepath.Join(dir, nvmlLibrary), file).CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "FAKE_NVML="+test, "LD_LIBRARY_PATH="+dir)
	out, err = cmd.CombinedOutput()
	require.NoError(t, err, "without %v: %s", without, out)
	assert.Contains(t, string(out), "--- PASS", "without %v", without)
}

// The real loading path.
func TestNVMLLoadsTheDriversLibrary(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), fakeLibrary)
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v", "nvmlDeviceGetPowerUsage")
		return
	}
	s, err := openNVML()
	require.NoError(t, err)
	defer s.Close()
	first, err := s.Read(Load{})
	require.NoError(t, err)
	require.Len(t, first, 1)
	assert.Zero(t, first[0].Energy)
	second, err := s.Read(Load{})
	require.NoError(t, err)
	assert.Equal(t, []GPUReading{{Device: "GPU-fake", Energy: 5, Processes: []GPUProcess{{PID: 4242, Memory: 1}}}}, second)
}

// A library older than the energy counter: to call what it lacks would end the process, beyond any recover.
func TestNVMLOfAnOldDriver(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetTotalEnergyConsumption")
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetTotalEnergyConsumption", "RunningProcesses")
		return
	}
	s, err := openNVML()
	require.NoError(t, err)
	defer s.Close()
	for range 2 {
		r, err := s.Read(Load{})
		require.NoError(t, err)
		require.Len(t, r, 1)
	}
}

// A library that is no use, or whose driver is not loaded (9), is a reason and not the end of the process.
func TestNVMLOfNoUse(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), "int nothing;")
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlInit_v2")
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlErrorString")
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
		fakeDriver(t, t.Name(), strings.Replace(fakeLibrary, "nvmlInit_v2(void) { return 0; }", "nvmlInit_v2(void) { return 9; }", 1))
		fakeDriver(t, t.Name(), strings.Replace(fakeLibrary, "{ *n = 1; return 0; }", "{ *n = 0; return 0; }", 1))
		return
	}
	s, err := openNVML()
	assert.Nil(t, s)
	require.ErrorIs(t, err, ErrNoData)
	assert.NotEqual(t, ErrNoData.Error(), reason(err))
	got := choose(t.TempDir(), t.TempDir(), false, Line{})
	assert.Empty(t, got.gpus)
	assert.NotEmpty(t, finding(t, got.findings, GPU, "nvml").Detail)
}

// A machine without a driver is the normal case.
func TestNoDriver(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/nvidia0"); err == nil {
		t.Skip("this machine has a driver")
	}
	if os.Getenv("FAKE_NVML") != "" {
		t.Skip("runs with a fake driver")
	}
	_, err := openNVML()
	assert.ErrorIs(t, err, ErrNoData)
	assert.ErrorContains(t, err, "no NVIDIA driver")
}

// mockLibrary is one device whose counter, in mJ, and power, in mW, tests set.
type mockLibrary struct {
	mock.Interface
	counter    uint64
	counterRet nvml.Return
	power      uint32
	handleRet  nvml.Return
}

func newMockLibrary() *mockLibrary {
	m := &mockLibrary{}
	device := &mock.Device{
		GetUUIDFunc:                   func() (string, nvml.Return) { return "GPU-0", nvml.SUCCESS },
		GetTotalEnergyConsumptionFunc: func() (uint64, nvml.Return) { return m.counter, m.counterRet },
		GetPowerUsageFunc:             func() (uint32, nvml.Return) { return m.power, nvml.SUCCESS },
		GetComputeRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) {
			return []nvml.ProcessInfo{{Pid: 7}}, nvml.SUCCESS
		},
		GetGraphicsRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED },
	}
	m.InitFunc = func() nvml.Return { return nvml.SUCCESS }
	m.ShutdownFunc = func() nvml.Return { return nvml.SUCCESS }
	m.DeviceGetCountFunc = func() (int, nvml.Return) { return 1, nvml.SUCCESS }
	m.DeviceGetHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return device, m.handleRet }
	return m
}

func pidsOf(r GPUReading) (pids []int) {
	for _, p := range r.Processes {
		pids = append(pids, p.PID)
	}
	return pids
}

// failure reads a sensor of one device and returns why that could not be read.
func failure(s GPUSensor) error {
	r, err := s.Read(Load{})
	if err != nil || len(r) != 1 {
		return err
	}
	return r[0].Err
}

func TestNVMLCounter(t *testing.T) {
	t.Parallel()
	m := newMockLibrary()
	s, err := newNVML(m, nvmlCalls{energy: true, power: true, compute: true, graphics: true})
	require.NoError(t, err)
	read := func(counter uint64) float64 {
		m.counter = counter
		r, err := s.Read(Load{})
		require.NoError(t, err)
		require.Len(t, r, 1)
		assert.Equal(t, []int{7}, pidsOf(r[0]))
		return r[0].Energy.Joules()
	}
	assert.Zero(t, read(1000))
	assert.InDelta(t, 2.5, read(3500), 1e-9)
	assert.Zero(t, read(100), "the counter was reset")
	assert.InDelta(t, 0.9, read(1000), 1e-9)
	m.handleRet = nvml.ERROR_GPU_IS_LOST
	assert.ErrorContains(t, failure(s), "LOST")
	m.handleRet = nvml.SUCCESS
	m.counterRet = nvml.ERROR_GPU_IS_LOST
	assert.Error(t, failure(s))
	m.counterRet = nvml.SUCCESS
	assert.Zero(t, read(9000), "it is back, and counts from here")
	assert.InDelta(t, 1, read(10000), 1e-9)

	m.handleRet = nvml.ERROR_GPU_IS_LOST
	assert.Error(t, failure(s))
	m.handleRet = nvml.SUCCESS
	assert.Zero(t, read(20000), "likewise when not even its handle could be had")
}

// One device that fails takes nothing from the others.
func TestNVMLOneOfTwoFails(t *testing.T) {
	t.Parallel()
	m, lost := newMockLibrary(), newMockLibrary()
	lost.counterRet = nvml.ERROR_GPU_IS_LOST
	good, bad := m.DeviceGetHandleByIndexFunc, lost.DeviceGetHandleByIndexFunc
	m.DeviceGetCountFunc = func() (int, nvml.Return) { return 2, nvml.SUCCESS }
	m.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 0 {
			return bad(i)
		}
		return good(i)
	}
	s, err := newNVML(m, nvmlCalls{energy: true, power: true, compute: true, graphics: true})
	require.NoError(t, err)
	for i := range uint64(3) {
		m.counter = 1000 * i
		r, err := s.Read(Load{})
		require.NoError(t, err)
		require.Len(t, r, 2)
		assert.ErrorContains(t, r[0].Err, "LOST")
		assert.NoError(t, r[1].Err)
		assert.InDelta(t, float64(min(i, 1)), r[1].Energy.Joules(), 1e-9)
	}
}

func TestNVMLPower(t *testing.T) {
	t.Parallel()
	m := newMockLibrary()
	m.counterRet, m.power = nvml.ERROR_NOT_SUPPORTED, 70_000
	s, err := newNVML(m, nvmlCalls{energy: true, power: true, compute: true, graphics: true})
	require.NoError(t, err)
	now := time.Now()
	s.now = func() time.Time { return now }
	_, err = s.Read(Load{})
	require.NoError(t, err)
	now = now.Add(2 * time.Second)
	r, err := s.Read(Load{})
	require.NoError(t, err)
	assert.InDelta(t, 140, r[0].Energy.Joules(), 1e-9, "devices before Volta have no counter")
}

func TestNVMLThatPanics(t *testing.T) {
	t.Parallel()
	m := newMockLibrary()
	s, err := newNVML(m, nvmlCalls{energy: true, power: true, compute: true, graphics: true})
	require.NoError(t, err)
	m.DeviceGetCountFunc = func() (int, nvml.Return) { panic("undefined symbol") }
	assert.Error(t, failure(s))
	m.InitFunc = func() nvml.Return { panic("undefined symbol") }
	_, err = newNVML(m, nvmlCalls{energy: true, power: true, compute: true, graphics: true})
	assert.ErrorIs(t, err, ErrNoData)
}
