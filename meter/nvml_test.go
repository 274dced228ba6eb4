//go:build cgo && linux

package meter

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeLibrary is as much of the driver's library as is asked for, each function on a line of its own: one device, whose
// counter rises by 5 J at each call, and which can have one MIG instance.
const fakeLibrary = `
#include <sys/time.h>
#define MIG 0
#define SAMPLES 2
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } info;
typedef struct { unsigned int pid; unsigned long long at; unsigned int sm, mem, enc, dec; } sample;
typedef struct { unsigned int sms, copy, dec, enc, jpeg, ofa, gi, ci; unsigned long long mib; } attributes;
static unsigned long long mj = 1000;
static int instance;
static int text(char *s, const char *u) { do *s++ = *u; while (*u++); return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int r) { return "some error"; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = &mj; return 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned int n) { return text(s, d == &mj ? "GPU-fake" : "MIG-fake"); }
int nvmlDeviceGetName(void *d, char *s, unsigned int n) { return text(s, "NVIDIA Fake"); }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *e) { mj += 5000; *e = mj; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned int *p) { *p = 70000; return 0; }
static int list(unsigned int *n, info *p) { if (*n == 0) { *n = 1; return 7; } *n = 1; p[0].pid = 4242; p[0].used = 1; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned int *n, info *p) { return list(n, p); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned int *n, info *p) { return list(n, p); }
int nvmlDeviceGetComputeRunningProcesses(void *d, unsigned int *n, info *p) { return list(n, p); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned int *n, info *p) { *n = 0; return 0; }
int nvmlDeviceGetGraphicsRunningProcesses_v2(void *d, unsigned int *n, info *p) { *n = 0; return 0; }
int nvmlDeviceGetGraphicsRunningProcesses(void *d, unsigned int *n, info *p) { *n = 0; return 0; }
static void sampled(sample *s, unsigned int pid, unsigned int sm) { struct timeval t; gettimeofday(&t, 0); s->pid = pid; s->sm = sm; s->at = t.tv_sec * 1000000ULL + t.tv_usec; }
int nvmlDeviceGetProcessUtilization(void *d, sample *s, unsigned int *n, unsigned long long since) { if (!s) { *n = SAMPLES; return 7; } if (*n < 2) { *n = 2; return 7; } sampled(s, 4242, 50); sampled(s + 1, 4243, 25); return 0; }
int nvmlDeviceGetMigMode(void *d, unsigned int *now, unsigned int *next) { *now = *next = MIG; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *d, unsigned int *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *d, unsigned int i, void **m) { if (i != 2) return 6; *m = &instance; return 0; }
int nvmlDeviceGetAttributes_v2(void *d, attributes *a) { a->gi = a->ci = 1; a->mib = 1024; return 0; }
int nvmlDeviceGetMemoryInfo(void *d, unsigned long long *b) { b[0] = 4ULL << 30; return 0; }
`

// newerFunctions are those of fakeLibrary that a driver of ten years ago has not.
var newerFunctions = []string{"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetProcessUtilization", "nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount",
	"nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetAttributes_v2"}

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

// readFake reads the fake driver's devices for the first time, and once more.
func readFake(t *testing.T) []GPUReading {
	t.Helper()
	s, err := openNVML()
	require.NoError(t, err)
	defer s.Close()
	first, err := s.Read(Load{})
	require.NoError(t, err)
	for _, r := range first {
		assert.Zero(t, r.Energy)
		assert.NoError(t, r.Err)
	}
	second, err := s.Read(Load{})
	require.NoError(t, err)
	return second
}

// The real loading path.
func TestNVMLLoadsTheDriversLibrary(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), fakeLibrary)
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo")
		return
	}
	assert.Equal(t, []GPUReading{{Device: "GPU-fake", Energy: 5, Processes: []GPUProcess{
		{PID: 4242, Memory: 1, Busy: 0.5},
		{PID: 4243, Busy: 0.25},
	}}}, readFake(t))
	s, err := openNVML()
	require.NoError(t, err)
	defer s.Close()
	assert.Equal(t, "1 x NVIDIA Fake (energy counter)", s.(interface{ Detail() string }).Detail())
}

// go-nvml asks for the number of samples, and then for as many; when there are more by then, it panics.
func TestNVMLSamplesThatGrowInNumber(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), strings.Replace(fakeLibrary, "SAMPLES 2", "SAMPLES 1", 1))
		fakeDriver(t, t.Name(), strings.Replace(fakeLibrary, "SAMPLES 2", "SAMPLES 0", 1))
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetProcessUtilization")
		return
	}
	assert.Equal(t, []GPUReading{{Device: "GPU-fake", Energy: 5, Processes: []GPUProcess{{PID: 4242, Memory: 1}}}}, readFake(t))
}

func TestNVMLInstancesOfTheDriversLibrary(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), strings.Replace(fakeLibrary, "MIG 0", "MIG 1", 1))
		return
	}
	assert.Equal(t, []GPUReading{
		{Device: "MIG-fake", Energy: 1.25, Processes: []GPUProcess{{PID: 4242, Memory: 1}}},
		{Device: "GPU-fake", Energy: 3.75},
	}, readFake(t))
}

// When the driver was unloaded, the library is closed and opened anew: what go-nvml has bound must still be there.
func TestNVMLOfADriverThatIsReloaded(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), strings.NewReplacer(
			"{ *n = 1; return 0; }\nint nvmlDeviceGetHandle", "{ static int calls; *n = 1; return ++calls == 3 ? 1 : 0; }\nint nvmlDeviceGetHandle",
		).Replace(fakeLibrary))
		return
	}
	s, err := openNVML()
	require.NoError(t, err)
	defer s.Close()
	var energies []Energy
	var failures []string
	for range 3 {
		r, err := s.Read(Load{})
		require.NoError(t, err)
		require.Len(t, r, 1)
		energies = append(energies, r[0].Energy)
		failures = append(failures, fmt.Sprint(r[0].Err))
	}
	assert.Equal(t, []Energy{0, 0, 5}, energies)
	assert.Equal(t, []string{"<nil>", errBack.Error(), "<nil>"}, failures)
}

// A library older than the energy counter: to call what it lacks would end the process, beyond any recover.
func TestNVMLOfAnOldDriver(t *testing.T) {
	t.Parallel()
	if os.Getenv("FAKE_NVML") == "" {
		fakeDriver(t, t.Name(), fakeLibrary, "nvmlDeviceGetTotalEnergyConsumption")
		fakeDriver(t, t.Name(), fakeLibrary, newerFunctions...)
		fakeDriver(t, t.Name(), fakeLibrary, append(newerFunctions, "RunningProcesses", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo")...)
		for _, name := range append(newerFunctions, "nvmlDeviceGetMemoryInfo") { // with MIG on, and one function missing
			fakeDriver(t, t.Name(), strings.Replace(fakeLibrary, "MIG 0", "MIG 1", 1), name)
		}
		return
	}
	for _, r := range readFake(t) {
		assert.NoError(t, r.Err)
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
		fakeDriver(t, t.Name(), strings.NewReplacer("*e = mj; return 0;", "return 3;", "*p = 70000; return 0;", "return 3;").Replace(fakeLibrary))
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
