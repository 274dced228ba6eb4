//go:build linux

package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fixture is a machine whose energy is known to the joule: a RAPL counter that moves only when the test says so, and
// processes, of which each is really there, that use CPU time only then. Nothing else runs on it.
type fixture struct {
	t         *testing.T
	sys, proc string
	mu        sync.Mutex
	counter   uint64 // uJ
	ticks     map[int]int
}

// joulesPerTick is what 10 ms of CPU time take here, whoever uses them.
const joulesPerTick = 10

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, sys: t.TempDir(), proc: t.TempDir(), counter: 1_000_000, ticks: map[int]int{}}
	zone := filepath.Dir(f.counterFile())
	require.NoError(t, os.MkdirAll(zone, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(zone, "name"), []byte("package-0\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(zone, "max_energy_range_uj"), []byte("262143328850\n"), 0o644))
	f.count()
	for _, name := range []string{"cpuinfo", "meminfo", "net", "self", "sys", "uptime"} {
		require.NoError(t, os.Symlink("/proc/"+name, filepath.Join(f.proc, name)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(f.proc, "stat"), []byte("cpu  0 0 0 0 0 0 0 0 0 0\nprocesses 0\n"), 0o644))
	f.add(os.Getpid())
	return f
}

// args make a proxy run on this machine.
func (f *fixture) args(more ...string) []string {
	return append([]string{"--sysfs", f.sys, "--procfs", f.proc, "--log-interval", "0"}, more...)
}

func (f *fixture) counterFile() string {
	return filepath.Join(f.sys, "class", "powercap", "intel-rapl:0", "energy_uj")
}

// count shows the counter. Who has the file open sees one value or the next, never a part.
func (f *fixture) count() {
	file, err := os.OpenFile(f.counterFile(), os.O_WRONLY|os.O_CREATE, 0o644)
	require.NoError(f.t, err)
	defer file.Close()
	_, err = file.WriteAt(fmt.Appendf(nil, "%020d\n", f.counter), 0)
	require.NoError(f.t, err)
}

// add makes a process one of this machine's.
func (f *fixture) add(pid int) {
	dir := filepath.Join(f.proc, strconv.Itoa(pid))
	require.NoError(f.t, os.Mkdir(dir, 0o755))
	for _, name := range []string{"fd", "cmdline", "cgroup", "environ"} {
		require.NoError(f.t, os.Symlink(filepath.Join("/proc", strconv.Itoa(pid), name), filepath.Join(dir, name)))
	}
	f.show(pid)
}

func (f *fixture) show(pid int) {
	path := filepath.Join(f.proc, strconv.Itoa(pid), "stat")
	line := fmt.Sprintf("%d (client) S 1 %d %d 0 -1 0 0 0 0 0 %d 0 0 0 20 0 1 0 100 0 0\n", pid, pid, pid, f.ticks[pid])
	require.NoError(f.t, os.WriteFile(path+".new", []byte(line), 0o644))
	require.NoError(f.t, os.Rename(path+".new", path))
}

// end takes a process off the machine.
func (f *fixture) end(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NoError(f.t, os.RemoveAll(filepath.Join(f.proc, strconv.Itoa(pid))))
	delete(f.ticks, pid)
}

// spend lets a process use energy, in twenties of joules; 0 stands for one that is no run's.
func (f *fixture) spend(pid int, joules float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Whenever the sensors are read in between, the process has used CPU time in the interval that has the energy.
	half := max(1, int(joules/joulesPerTick/2))
	work := func() {
		if pid != 0 {
			f.ticks[pid] += half
			f.show(pid)
		}
	}
	work()
	f.counter += uint64(joules * 1e6)
	f.count()
	work()
}

// used waits until a run has so much energy, to 1 %: a server that is slow gets its figures later.
func used(t *testing.T, id any, joules float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("its figures say %.0f J", joules), func() bool {
		return math.Abs(of(t, id).Metrics["emissions/energy_kwh"].Value*3.6e6/joules-1) < 0.01
	})
	m := of(t, id).Metrics
	assert.InEpsilon(t, joules, m["emissions/energy_kwh"].Value*3.6e6, 0.01, "J, and it stays so")
	assert.InEpsilon(t, m["emissions/energy_kwh"].Value*intensity, m["emissions_g"].Value, 1e-9)
}

// meters waits until the proxy has given runs so much energy.
func (p *proxy) meters(joules float64) {
	p.t.Helper()
	eventually(p.t, "it is metered", func() bool {
		return p.metric(`emissions_energy_joules_total{component="cpu",owner="runs"}`) >= joules*0.999
	})
}

// kill ends the proxy as a crash does.
func (p *proxy) kill() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	select {
	case <-p.exited:
		p.code = 0 // as it should
	case <-time.After(10 * time.Second):
		p.t.Fatal("SIGKILL does not end the proxy")
	}
}

// keeps waits until what is kept in a state folder holds something.
func keeps(t *testing.T, dir, what string) {
	t.Helper()
	eventually(t, what+" is kept", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "runs"))
		return err == nil && strings.Contains(string(b), what)
	})
}

// finish ends a run by the test's own hand, once the sensors were read: what is used in less time than they tell apart
// goes by the power of before, and no machine's is a hundred joules in a moment.
func (p *proxy) finish(id string) {
	p.t.Helper()
	const samples = "emissions_sample_duration_seconds_count"
	before := p.metric(samples)
	eventually(p.t, "the sensors are read", func() bool { return p.metric(samples) >= before+2 })
	code, body := call(p.t, "POST", p.url+"/api/2.0/mlflow/runs/update", finished(id))
	require.Equal(p.t, 200, code, body)
}
